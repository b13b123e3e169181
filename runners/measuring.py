"""Accuracy and loss of a network on a split, in eval mode and float32."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from graphs.errors import ShapeError
from graphs.genome import Genome
from graphs.modules import to_torch
from graphs.structure import Graph
from runners.feeding import Feed
from runners.task import Split, Task

__all__ = ["BATCH", "built", "check_fit", "evaluate", "logits", "measure", "memory_format"]

BATCH = {"cpu": 128, "cuda": 1024}
"""Examples measured at a time, by type of device: on a processor, what stays in its caches is measured faster."""


def check_fit(graph: Graph, task: Task) -> None:
    """Checks that a network reads the task's images and that each of its heads tells its classes apart.

    Raises:
        ShapeError: It does not.
    """
    found = [tuple(node.settings["shape"]) for node in graph.inputs]
    if found != [task.input_shape]:
        raise ShapeError(
            f"the network reads {' and '.join(map(str, found))}, but an image of {task.name} is {task.input_shape} "
            "(channels, height, width)"
        )
    for head in graph.heads:
        shape = graph.shapes[head.node]
        classes = task.classes_of(head.name)
        if shape != (classes,):
            raise ShapeError(f"head '{head.name}' of the network gives {shape}, but {task.name} has {classes} classes")


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


def measure(module: nn.Module, graph: Graph, feed: Feed, batch: int | None = None) -> tuple[float, float]:
    """(accuracy, mean cross-entropy) of the first head that exists in eval mode; the module stays in eval mode."""
    size = batch or BATCH.get(feed.device.type, 128)
    first = next((head.name for head in graph.heads if not head.training_only), graph.heads[0].name)
    module.eval()
    right = loss = 0.0
    with torch.inference_mode():
        for (images, _), labels in zip(feed.batches(size), torch.split(feed.labels_of(first), size), strict=True):
            output = module(images)
            found = output if isinstance(output, Tensor) else output[first]
            right += (found.argmax(1) == labels).sum().item()
            loss += functional.cross_entropy(found, labels, reduction="sum").item()
    return right / len(feed), loss / len(feed)


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
        `accuracy` (fraction from 0 to 1), `loss` (mean cross-entropy) and `examples`.

    Raises:
        ShapeError: Network and task do not fit.
        UnknownName: There is no such split.
    """
    check_fit(genome.graph, task)
    examples = task.split(split) if isinstance(split, str) else split
    feed = Feed(task, examples, device, memory_format(genome.graph))
    accuracy, loss = measure(built(genome, device), genome.graph, feed, batch)
    return {"accuracy": accuracy, "loss": loss, "examples": len(examples)}
