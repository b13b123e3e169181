"""What a network is trained for and what it is measured by: a loss of each example, and a metric of a whole split.

Everything that ranks networks reads one number, called accuracy, of which one rule holds everywhere: it is a fraction
from 0 to 1, and higher is better. A metric that is not one itself says how it becomes one (`Metric.score`), without
changing which of two networks is better; its own value stands beside it under its own name.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor
from torch.nn import functional

from graphs.errors import EvolutionError, UnknownName
from runners.likeness import likeness

__all__ = ["METRICS", "OBJECTIVES", "UNLABELLED", "Metric", "Objective", "ObjectiveError", "objective"]


UNLABELLED = -1
"""Stands for the class of an example that has none; its cross-entropy is 0."""


class ObjectiveError(EvolutionError, ValueError):
    """A loss or a metric gives something else than it should, or does not fit its targets."""


@dataclass(frozen=True, slots=True)
class Metric:
    """How good outputs are.

    Attributes:
        name: What it is called in curves and results; one of the user's own is not called as what stands there anyway.
        measure: (outputs `(N, D)`, targets) -> its own value, of a whole split.
        score: Its own value -> a fraction from 0 to 1 that is higher for what is better; by default the value itself.

    >>> METRICS["mae"].score(0.25)
    0.8
    """

    name: str
    measure: Callable[[Tensor, Tensor], float]
    score: Callable[[float], float] = float

    def of(self, outputs: Tensor, targets: Tensor) -> tuple[float, float]:
        """(score, its own value).

        Raises:
            ObjectiveError: The score is no fraction from 0 to 1.
        """
        value = float(self.measure(outputs, targets))
        score = float(self.score(value))
        if score < 0 or score > 1:
            raise ObjectiveError(
                f"metric '{self.name}' has the score {score}, expected a fraction from 0 to 1, higher for what is "
                "better; give Metric(name, measure, score) a score that makes it one"
            )
        return score, value


def _accuracy(outputs: Tensor, targets: Tensor) -> float:
    return (outputs.argmax(1) == targets).sum().item() / len(targets)


def _right(outputs: Tensor, targets: Tensor) -> float:
    return ((outputs > 0) == (targets > 0.5)).double().mean().item()


def _exact(outputs: Tensor, targets: Tensor) -> float:
    return ((outputs > 0) == (targets > 0.5)).all(1).double().mean().item()


def _f1(outputs: Tensor, targets: Tensor) -> float:
    named, true = outputs > 0, targets > 0.5
    both = 2 * (named & true).sum().item()
    either = (named.sum() + true.sum()).item()
    return both / either if either else 1.0


def _r2(outputs: Tensor, targets: Tensor) -> float:
    targets = targets.double()
    left = (outputs.double() - targets).square().mean(0)
    whole = (targets - targets.mean(0)).square().mean(0)
    found = torch.where(whole > 0, 1 - left / whole.clamp(min=1e-300), torch.where(left > 0, -torch.inf, 1.0))
    return found.mean().item()


def _mae(outputs: Tensor, targets: Tensor) -> float:
    return (outputs.double() - targets.double()).abs().mean().item()


def _of_cost(value: float) -> float:
    """1 for a cost of 0, 1/2 for a cost of 1, towards 0 for what is worse."""
    return 1 / (1 + value)


METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric("accuracy", _accuracy),
        Metric("labels", _right),
        Metric("exact", _exact),
        Metric("f1", _f1),
        Metric("r2", _r2, lambda value: 1 / (2 - value)),
        Metric("mae", _mae, _of_cost),
    )
}
"""`accuracy`: the share of examples whose class is named. Of labels that each may hold or not: `labels`, the share of
those that are right, `exact`, the share of examples with all of them right, `f1` over all of them together; their
score is their value. Of numbers: `r2`, 1 - (mean squared error)/(variance), averaged over the outputs, whose score
1/(2 - r2) is variance/(variance + error): 1/2 for who names the mean, 1 for who errs nowhere; `mae`, the mean absolute
error, whose score is 1/(1 + mae)."""


TAKEN = ("accuracy", "loss", "examples")
"""What results have under these names whatever the metric is; a value under one of them would be lost."""


@dataclass(frozen=True, slots=True)
class Objective:
    """What a network is trained for.

    Attributes:
        name: Key of `OBJECTIVES`, or what a loss of the user's own is called.
        losses: (outputs `(N, D)`, targets, smoothing) -> the loss of each example `(N,)`.
        metric: By which it is measured.
        classes: Every example has one class, a whole number; else targets are `(N, D)` of float32. What averages
            probabilities of classes, such as ensembles, is for classes alone.
        within: Between which numbers targets lie, where they are no classes.
        own: `runners.likeness` of the loss and of the metric, by these words, where they are the user's own, as they
            are when the objective is made.
    """

    name: str
    losses: Callable[[Tensor, Tensor, float], Tensor]
    metric: Metric
    classes: bool = False
    within: tuple[float, float] = (-math.inf, math.inf)
    own: Mapping[str, str] = field(default_factory=dict, hash=False)

    @property
    def text(self) -> str:
        """What it is called, and what tells loss and metric of the user's own from others that are called so."""
        return " ".join([self.name, self.metric.name, *itertools.chain.from_iterable(sorted(self.own.items()))])


def _cross_entropy(outputs: Tensor, targets: Tensor, smoothing: float) -> Tensor:
    return functional.cross_entropy(
        outputs, targets, label_smoothing=smoothing, reduction="none", ignore_index=UNLABELLED
    )


def _squared(outputs: Tensor, targets: Tensor, smoothing: float) -> Tensor:
    return (outputs - targets).square().mean(1)


def _binary(outputs: Tensor, targets: Tensor, smoothing: float) -> Tensor:
    return functional.binary_cross_entropy_with_logits(outputs, targets, reduction="none").mean(1)


OBJECTIVES: dict[str, Objective] = {
    each.name: each
    for each in (
        Objective("classification", _cross_entropy, METRICS["accuracy"], classes=True),
        Objective("regression", _squared, METRICS["r2"]),
        Objective("multilabel", _binary, METRICS["f1"], within=(0.0, 1.0)),
    )
}
"""Cross-entropy; mean squared error; binary cross-entropy of each label, averaged. Smoothing is for classes alone."""


def objective(
    loss: str | Callable[[Tensor, Tensor], Tensor], metric: str | Metric | None, classes: bool = False
) -> Objective:
    """The objective that a person names.

    Losses and metrics of the user's own are told apart by what they are made of (`runners.likeness`), not only by their
    names; those that differ in nothing that can be looked at pass for the same.

    Args:
        loss: Key of `OBJECTIVES`, or (outputs, targets) -> the loss of each example `(N,)`.
        metric: Key of `METRICS`, or one of the user's own; None for the objective's.
        classes: For a loss of the user's own: whether targets are classes.

    Raises:
        UnknownName: There is no such objective or metric.
        ObjectiveError: A loss of the user's own comes without a metric, or a metric of the user's own has a name that
            is taken.
    """
    if isinstance(metric, str):
        if metric not in METRICS:
            raise UnknownName.of("metric", metric, METRICS)
        metric = METRICS[metric]
    if metric is not None and metric.name in TAKEN and metric is not METRICS.get(metric.name):
        raise ObjectiveError(
            f"a metric of your own is called '{metric.name}', a name under which results hold something else, as "
            f"under each of {', '.join(TAKEN)}; call it otherwise"
        )
    own = {}
    if metric is not None and metric is not METRICS.get(metric.name):
        own["metric"] = likeness((metric.measure, metric.score))
    if isinstance(loss, str):
        if loss not in OBJECTIVES:
            raise UnknownName.of("loss", loss, OBJECTIVES)
        known = OBJECTIVES[loss]
        return replace(known, metric=metric or known.metric, own=own)
    if metric is None:
        raise ObjectiveError(f"a loss of your own needs a metric beside it: one of {', '.join(METRICS)}, or a Metric")

    def losses(outputs: Tensor, targets: Tensor, smoothing: float) -> Tensor:
        found = loss(outputs, targets)
        if not isinstance(found, Tensor):
            raise ObjectiveError(
                f"the loss gave a {type(found).__name__}, expected a tensor, a number for each example"
            )
        if found.shape != (len(outputs),):
            raise ObjectiveError(
                f"the loss gave a tensor of shape {tuple(found.shape)} for {len(outputs)} examples, expected one "
                "number for each; take the mean over outputs only (reduction='none')"
            )
        return found

    own["loss"] = likeness(loss)
    return Objective(getattr(loss, "__name__", type(loss).__name__), losses, metric, classes, own=own)
