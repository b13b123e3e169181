"""The loss of a candidate: cross-entropy with the labels, and where there is a teacher, agreement with it.

Distillation follows G. Hinton, O. Vinyals, J. Dean, "Distilling the Knowledge in a Neural Network", 2015,
arXiv:1503.02531: the student learns the teacher's probabilities at temperature T, and the factor T² keeps the size of
the gradient while T changes.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from torch.nn import functional

__all__ = ["candidate_loss", "distillation_loss"]


def distillation_loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """T²·KL(softmax(teacher/T) ‖ softmax(student/T)), the mean over the batch.

    It is 0, with gradient 0, where the student's logits equal the teacher's.

    Args:
        student: Logits `(N, classes)`.
        teacher: Logits `(N, classes)`; no gradient flows into them.
        temperature: T.
    """
    wanted = functional.log_softmax(teacher.detach() / temperature, dim=1)
    given = functional.log_softmax(student / temperature, dim=1)
    return temperature**2 * functional.kl_div(given, wanted, reduction="batchmean", log_target=True)


def candidate_loss(
    heads: Sequence[Tensor],
    labels: Tensor,
    teacher: Tensor | None = None,
    *,
    label_smoothing: float = 0.0,
    distill_weight: float = 0.0,
    temperature: float = 1.0,
) -> Tensor:
    """(1-α)·CE(labels) + α·T²·KL(teacher ‖ student), averaged over the heads; plain CE without a teacher.

    Args:
        heads: Logits `(N, classes)` of each head.
        labels: Classes `(N,)`.
        teacher: Its logits `(N, classes)`, or None.
        label_smoothing: Share of the target that is spread over all classes.
        distill_weight: α.
        temperature: T.
    """
    total = labels.new_zeros((), dtype=heads[0].dtype)
    for logits in heads:
        loss = functional.cross_entropy(logits, labels, label_smoothing=label_smoothing)
        if teacher is not None:
            soft = distillation_loss(logits, teacher, temperature)
            loss = (1 - distill_weight) * loss + distill_weight * soft
        total = total + loss
    return total / len(heads)
