"""Accuracy and loss of a network on a split, in eval mode and float32."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from graphs.errors import ShapeError
from graphs.genome import Genome
from graphs.importing.ranges import limits
from graphs.modules import to_torch
from graphs.structure import Graph
from runners.feeding import Feed
from runners.objectives import Objective
from runners.task import SPLITS, Split, Task

__all__ = ["BATCH", "agreed", "built", "check_fit", "evaluate", "logits", "measure", "memory_format"]

BATCH = {"cpu": 128, "cuda": 1024}
"""Examples measured at a time, by type of device: on a processor, what stays in its caches is measured faster."""


def check_fit(graph: Graph, task: Task) -> None:
    """Checks that a network reads the task's inputs and that each of its heads tells its classes apart.

    Whole numbers that index a table, such as words, have to be the numbers of its rows.

    Raises:
        ShapeError: It does not.
    """
    found = [tuple(node.settings["shape"]) for node in graph.inputs]
    if found != [task.input_shape]:
        what, axes = ("an image", " (channels, height, width)") if task.normalisation else ("an input", "")
        raise ShapeError(
            f"the network reads {' and '.join(map(str, found))}, but {what} of {task.name} is {task.input_shape}{axes}"
            + (
                ", one number; add an axis to the inputs with unsqueeze(1)"
                if found == [(1,)] and not task.input_shape
                else ""
            )
        )
    kind = "integer" if task.train.images.dtype == torch.int64 else "float"
    if graph.inputs[0].settings["dtype"] != kind:
        raise ShapeError(
            f"the network reads {graph.inputs[0].settings['dtype']} numbers, but inputs of {task.name} are {kind}"
        )
    if kind == "integer":
        _check_range(graph, task)
    for head in graph.heads:
        shape = graph.shapes[head.node]
        classes = task.classes_of(head.name)
        if shape != (classes,):
            raise ShapeError(
                f"head '{head.name}' of the network gives {shape}, but {task.name} has {classes} "
                f"{'classes' if task.objective.classes else 'outputs'}"
            )


def _check_range(graph: Graph, task: Task) -> None:
    """Raises `ShapeError` where a split has whole numbers that a table of the network has no row for."""
    rows = limits(graph.nodes, graph.inputs[0].id)
    if not any(rows):
        return
    for split in SPLITS:
        inputs = task.split(split).images
        columns = inputs.flatten(0, -2) if inputs.ndim > 1 else inputs[:, None]
        ends = zip(rows, columns.amin(0).tolist(), columns.amax(0).tolist(), strict=True)
        for place, (limit, lowest, highest) in enumerate(ends):
            if limit is not None and not 0 <= lowest <= highest < limit:
                where = f" at place {place} of the last axis" if len(set(rows)) > 1 else ""
                raise ShapeError(
                    f"the network looks inputs up in a table and reads whole numbers from 0 to {limit - 1}{where}, but "
                    f"the split {split} of {task.name} has {lowest if lowest < 0 else highest}; number them from 0, or "
                    "take a network with a larger table"
                )


def memory_format(graph: Graph) -> torch.memory_format:
    """The layout in memory in which the network is fastest: channels last where it convolves."""
    images = any(len(spec.shape) == 4 for spec in graph.tensors.values())
    return torch.channels_last if images else torch.contiguous_format


def built(genome: Genome, device: str) -> nn.Module:
    """The network as a module on `device`, its tensors in the layout that `memory_format` says."""
    module: Any = to_torch(genome).to(device)  # torch's own types know no `memory_format` in some versions
    laid_out: nn.Module = module.to(memory_format=memory_format(genome.graph))
    return laid_out


def logits(output: Tensor | dict[str, Tensor]) -> list[Tensor]:
    """What a network's heads gave, one tensor `(N, classes)` of float32 for each."""
    heads = [output] if isinstance(output, Tensor) else list(output.values())
    return [head.float() for head in heads]


def agreed(logits: Sequence[Tensor]) -> Tensor:
    """Logits whose softmax is the mean of the members' probabilities; those of a single member as they are."""
    if len(logits) == 1:
        return logits[0]
    return torch.stack([each.log_softmax(1) for each in logits]).logsumexp(0)


def measure(
    module: nn.Module, graph: Graph, feed: Feed, objective: Objective, batch: int | None = None
) -> dict[str, float]:
    """Measures what a network says in eval mode, in which the module stays.

    It is what its first head gives or, where there are classes and more heads for the same labels, the average of their
    probabilities.

    Returns:
        `accuracy`, the score of the objective's metric, which is the accuracy where there are classes; `loss`, the mean
        over the examples; and the metric's own value under its own name.
    """
    size = batch or BATCH.get(feed.device.type, 128)
    names = [head.name for head in graph.lasting_heads]
    wanted = feed.labels_of(names[0])
    alike = [name for name in names if feed.labels_of(name) is wanted] if objective.classes else names[:1]
    module.eval()
    outputs, loss = [], 0.0
    with torch.inference_mode():
        for (images, _), labels in zip(feed.batches(size), torch.split(wanted, size), strict=True):
            output = module(images)
            outputs.append(output if isinstance(output, Tensor) else agreed([output[name] for name in alike]))
            loss += objective.losses(outputs[-1], labels, 0.0).sum().item()
        score, value = objective.metric.of(torch.cat(outputs), wanted)
    return {objective.metric.name: value, "accuracy": score, "loss": loss / len(feed)}


def evaluate(
    genome: Genome, task: Task, split: str | Split, *, device: str = "cpu", batch: int | None = None
) -> dict[str, float | int]:
    """Measures a network on one split of a task.

    Args:
        genome: The network.
        task: Whose images it is measured on, normalised as the task says.
        split: `train`, `validation` or `test`, or examples.
        device: Where to compute.
        batch: Examples at a time, by default as in `BATCH`; results differ between batch sizes by rounding alone.

    Returns:
        `accuracy` (fraction from 0 to 1), `loss` (mean over the examples) and `examples`. Where the task's metric is
        another one, `accuracy` is its score, and its own value stands under its own name.

    Raises:
        ShapeError: Network and task do not fit.
        UnknownName: There is no such split.
    """
    check_fit(genome.graph, task)
    examples = task.split(split) if isinstance(split, str) else split
    feed = Feed(task, examples, device, memory_format(genome.graph))
    found = measure(built(genome, device), genome.graph, feed, task.objective, batch)
    return {**found, "examples": len(examples)}
