"""Several predictors of the same classes, snapshots or heads of one body, taken together.

`together` combines what they say, `fitted_weights` finds how much each shall count from validation data alone, and
`report` says what the members are worth: members that always agree are one model that is paid for several times.

    >>> import torch
    >>> one, two = torch.tensor([[0.9, 0.1], [0.2, 0.8]]), torch.tensor([[0.6, 0.4], [0.6, 0.4]])
    >>> found = report([one, two], torch.tensor([0, 1]))
    >>> found["members"], found["accuracy"], found["oracle"], found["disagreement"]
    ([1.0, 0.5], 1.0, 1.0, 0.5)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy
import torch
from torch import Tensor, nn

from graphs.genome import Genome
from graphs.structure import Graph
from runners.feeding import Feed
from runners.measuring import BATCH, agreed, built, check_fit, memory_format
from runners.task import Split, Task

__all__ = ["AVERAGES", "agreed", "by_label_set", "every_head", "fitted_weights", "head_logits", "report", "together"]

AVERAGES = ("probabilities", "logits")
"""What can be averaged. Probabilities are what snapshot ensembles average, logits what HydraNet's heads do."""


def head_logits(
    genome: Genome, task: Task, split: str | Split, *, device: str = "cpu", batch: int | None = None
) -> dict[str, Tensor]:
    """The logits `(N, classes)` of each head that exists in eval mode, by its name, on the processor.

    Raises:
        ShapeError: Network and task do not fit.
        UnknownName: There is no such split.
    """
    check_fit(genome.graph, task)
    feed = Feed(task, task.split(split) if isinstance(split, str) else split, device, memory_format(genome.graph))
    return every_head(built(genome, device), genome.graph, feed, batch)


def by_label_set(
    genome: Genome, task: Task, split: str | Split, *, device: str = "cpu"
) -> dict[str, dict[str, Tensor]]:
    """`head_logits` for each label set whose classes a head tells apart, that of the first head first."""
    found: dict[str, dict[str, Tensor]] = {}
    for head, logits in head_logits(genome, task, split, device=device).items():
        found.setdefault(task.label_set_of(head), {})[head] = logits
    return found


def every_head(module: nn.Module, graph: Graph, feed: Feed, batch: int | None = None) -> dict[str, Tensor]:
    """`head_logits` of a module that was made from `graph`; it stays in eval mode."""
    module.eval()
    names = [head.name for head in graph.lasting_heads]
    parts: dict[str, list[Tensor]] = {name: [] for name in names}
    with torch.inference_mode():
        for images, _ in feed.batches(batch or BATCH.get(feed.device.type, 128)):
            output = module(images)
            found = {names[0]: output} if isinstance(output, Tensor) else output
            for name in names:
                parts[name].append(found[name].float().cpu())
    return {name: torch.cat(each) for name, each in parts.items()}


def together(logits: Sequence[Tensor], weights: Sequence[float] | None = None, of: str = "probabilities") -> Tensor:
    """What the members say together, as probabilities `(N, classes)`.

    Args:
        logits: Of each member `(N, classes)`.
        weights: How much each counts, adding up to 1; equally if None.
        of: What is averaged, one of `AVERAGES`.
    """
    shares = [1 / len(logits)] * len(logits) if weights is None else list(weights)
    values = [each.double() if of == "logits" else each.double().softmax(1) for each in logits]
    mean = torch.stack([share * value for share, value in zip(shares, values, strict=True)]).sum(0)
    return mean.softmax(1) if of == "logits" else mean


def fitted_weights(logits: Sequence[Tensor], labels: Tensor) -> list[float]:
    """Weights, from 0 on and adding up to 1, with which the averaged probabilities have the least cross-entropy.

    Args:
        logits: Of each member on the validation split `(N, classes)`; never on the test split.
        labels: Classes `(N,)`.
    """
    from scipy.optimize import minimize

    rows = torch.arange(len(labels))
    chances = torch.stack([each.double().softmax(1)[rows, labels] for each in logits]).numpy()
    count = len(chances)

    def loss(weights: Any) -> tuple[float, Any]:
        mean = (weights @ chances).clip(1e-12)
        return float(-numpy.log(mean).mean()), -(chances / mean).mean(1)

    found = minimize(
        loss,
        [1 / count] * count,
        jac=True,
        method="SLSQP",
        bounds=[(0, 1)] * count,
        constraints={"type": "eq", "fun": lambda weights: weights.sum() - 1},
    )
    weights = found.x.clip(0)
    return [float(weight) for weight in weights / weights.sum()]


def report(
    members: Sequence[Tensor], labels: Tensor, weights: Sequence[float] | None = None, of: str = "probabilities"
) -> Mapping[str, Any]:
    """What several members are worth, alone and together.

    Args:
        members: Logits of each `(N, classes)`.
        labels: Classes `(N,)`.
        weights: How much each counts; equally if None.
        of: What is averaged.

    Returns:
        `members`, the accuracy of each; `accuracy`, that of all together, and `loss`, its cross-entropy; `oracle`, the
        share of examples that one member at least gets right; `disagreement`, the mean over pairs of the share of
        examples for which they name different classes, and `pairs`, each pair's; `last`, the accuracy of the last 1, 2,
        … members together, equally weighted.
    """
    named = [member.argmax(1) for member in members]
    pairs = {
        (one, other): (named[one] != named[other]).double().mean().item()
        for one, other in combinations(range(len(named)), 2)
    }
    chances = together(members, weights, of)
    right = torch.stack([each == labels for each in named])
    return {
        "members": right.double().mean(1).tolist(),
        "accuracy": _accuracy(chances, labels),
        "loss": -chances[torch.arange(len(labels)), labels].clamp(min=1e-12).log().mean().item(),
        "oracle": right.any(0).double().mean().item(),
        "disagreement": sum(pairs.values()) / len(pairs) if pairs else 0.0,
        "pairs": [[one, other, share] for (one, other), share in pairs.items()],
        "last": [_accuracy(together(members[-count:], None, of), labels) for count in range(1, len(members) + 1)],
    }


def _accuracy(scores: Tensor, labels: Tensor) -> float:
    return (scores.argmax(1) == labels).double().mean().item()
