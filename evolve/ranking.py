"""Which candidates count, and which is better: higher accuracy, then fewer parameters, then the lower id.

One rule for the tournament, for the best of a run and for the report. A candidate without a finite accuracy
has no rank at all: a NaN compares false with everything, so it must never reach a comparison.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

__all__ = ["Scored", "best", "rank", "sound"]


@dataclass(frozen=True, slots=True)
class Scored:
    """What a decision may know of a finished candidate.

    Attributes:
        id: The candidate.
        val_accuracy: Fraction of the validation split, from 0 to 1; None for a failed candidate.
        parameters: Number of its parameters.
    """

    id: int
    val_accuracy: float | None
    parameters: int


def sound(history: Iterable[Scored]) -> list[Scored]:
    """Those of `history`, in its order, that have a finite accuracy."""
    return [one for one in history if one.val_accuracy is not None and math.isfinite(one.val_accuracy)]


def rank(one: Scored) -> tuple[float, int, int]:
    """Sort key of a sound candidate, the largest being the best.

    >>> max([Scored(1, 0.5, 10), Scored(2, 0.5, 9), Scored(3, 0.5, 9)], key=rank).id
    2
    """
    if one.val_accuracy is None or not math.isfinite(one.val_accuracy):
        raise ValueError(f"candidate {one.id} has no finite accuracy and so no rank; take it through 'sound' first")
    return (one.val_accuracy, -one.parameters, -one.id)


def best(history: Iterable[Scored]) -> Scored | None:
    """The best of `history`; None where no candidate is sound."""
    return max(sound(history), key=rank, default=None)
