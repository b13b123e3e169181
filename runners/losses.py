"""The loss of a candidate: cross-entropy with the labels, and where there is a teacher, agreement with it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from runners.objectives import OBJECTIVES, Objective

__all__ = ["TEACHINGS", "Targets", "candidate_loss", "example_losses", "soft_loss"]


@dataclass(frozen=True, slots=True)
class Targets:
    """What the logits of a batch shall become.

    Attributes:
        labels: Classes `(N,)`; `UNLABELLED` where there is none.
        others: Classes of the images that are mixed into these `(N,)`; None where none are.
        share: Share of an image that is its own.
        objective: What they are.
    """

    labels: Tensor
    others: Tensor | None = None
    share: float = 1.0
    objective: Objective = OBJECTIVES["classification"]

    def losses(self, logits: Tensor, smoothing: float = 0.0) -> Tensor:
        """The objective's loss of each example, `(N,)`: cross-entropy, with `smoothing` of the target spread evenly.

        It is 0 where there is no label.
        """

        def one(labels: Tensor) -> Tensor:
            return self.objective.losses(logits, labels, smoothing)

        if self.others is None:
            return one(self.labels)
        return self.share * one(self.labels) + (1 - self.share) * one(self.others)


def soft_loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """T²·KL(softmax(teacher/T) ‖ softmax(student/T)) of each example, `(N,)`.

    It is 0, with gradient 0, where the student's logits equal the teacher's; T² keeps the size of the gradient while T
    changes (G. Hinton, O. Vinyals, J. Dean, "Distilling the Knowledge in a Neural Network", 2015, arXiv:1503.02531).

    Args:
        student: Logits `(N, classes)`.
        teacher: Logits `(N, classes)`.
        temperature: T.
    """
    wanted = functional.log_softmax(teacher / temperature, dim=1)
    given = functional.log_softmax(student / temperature, dim=1)
    return temperature**2 * functional.kl_div(given, wanted, reduction="none", log_target=True).sum(1)


TEACHINGS: Mapping[str, Callable[[Tensor, Tensor, float], Tensor]] = {
    "soft": soft_loss,
    "logits": lambda student, teacher, temperature: (student - teacher).square().mean(1),
    "hard": lambda student, teacher, temperature: functional.cross_entropy(
        student, teacher.argmax(1), reduction="none"
    ),
}
"""`recipe.distill.how` -> loss of each example towards the teacher's logits: (student, teacher, temperature)."""


def example_losses(
    logits: Tensor,
    targets: Targets,
    teacher: Tensor | None = None,
    *,
    smoothing: float = 0.0,
    how: str = "soft",
    weight: float = 0.0,
    temperature: float = 1.0,
) -> Tensor:
    """(1-α)·(loss by the labels) + α·(loss by the teacher) of each example, `(N,)`; α is 0 without a teacher.

    Of an example without a label the first part is 0.

    Args:
        logits: Of the student `(N, classes)`.
        targets: What the labels say.
        teacher: Logits of the teacher `(N, classes)`, or None; no gradient flows into them.
        smoothing: See `Targets.losses`.
        how: Key of `TEACHINGS`.
        weight: α.
        temperature: T.
    """
    found = targets.losses(logits, smoothing)
    if teacher is None or not weight:
        return found
    return (1 - weight) * found + weight * TEACHINGS[how](logits, teacher.detach(), temperature)


def candidate_loss(losses: Sequence[Tensor], weights: Sequence[Tensor] = (), sets: Sequence[str] = ()) -> Tensor:
    """The loss of a network from the losses of each example at each head.

    Heads that learn the same share one loss, their mean; what is learned apart is added up.

    Args:
        losses: For each head `(N,)`, of which its mean is taken.
        weights: For each head the weight of each example `(N,)`, with which it is taken.
        sets: For each head the name of what it learns; without, all learn the same.
    """
    if weights:
        means = [(weight * each).sum() / weight.sum() for each, weight in zip(losses, weights, strict=True)]
    else:
        means = [each.mean() for each in losses]
    shared: dict[str, list[Tensor]] = {}
    for name, mean in zip(sets or [""] * len(means), means, strict=True):
        shared.setdefault(name, []).append(mean)
    parts = [torch.stack(each).mean() if len(each) > 1 else each[0] for each in shared.values()]
    return torch.stack(parts).sum() if len(parts) > 1 else parts[0]
