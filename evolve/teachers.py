"""Who teaches a candidate: decided when it is proposed, and written down with it, so that a resumed run asks the same.

A decision knows (settings, finished candidates, parent, promise) and nothing else. A teacher that the settings name as
a file or as `RUN:ID` was copied into the run at its start, and teaches every candidate.

    >>> from evolve.settings import Settings
    >>> history = [Scored(0, 0.5, 10), Scored(1, 0.8, 10), Scored(2, 0.7, 10)]
    >>> teaching(Settings(teacher="best"), history, parent=2, preserves="exact")
    {'teachers': [1], 'reason': None}
    >>> teaching(Settings(teacher="best"), history, parent=1, preserves="exact")["teachers"]
    []
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from evolve.naming import FILE, candidate_named
from evolve.ranking import Scored, rank, sound

if TYPE_CHECKING:
    from evolve.settings import Settings

__all__ = ["TEACHERS", "is_network", "teaching"]

Choice = Callable[["Settings", Sequence[Scored], int], Sequence[int]]


def _best(settings: Settings, history: Sequence[Scored], parent: int) -> Sequence[int]:
    return [max(sound(history), key=rank).id]


def _ensemble(settings: Settings, history: Sequence[Scored], parent: int) -> Sequence[int]:
    from evolve.strategies import STRATEGIES

    alive = set(STRATEGIES[settings.strategy].population(settings, history))
    ranked = sorted((one for one in sound(history) if one.id in alive), key=rank, reverse=True)
    return [one.id for one in ranked[: settings.ensemble]]


TEACHERS: Mapping[str, Choice] = MappingProxyType(
    {
        "none": lambda settings, history, parent: [],
        "parent": lambda settings, history, parent: [parent],
        "best": _best,
        "ensemble": _ensemble,
    }
)
"""`settings.teacher` -> ids of the candidates that teach the child of `parent`: (settings, history, parent)."""


def is_network(teacher: str) -> bool:
    """Whether `settings.teacher` names a network of its own, a file or `RUN:ID`, and no key of `TEACHERS`."""
    return teacher.endswith(FILE) or candidate_named(teacher) is not None


def teaching(
    settings: Settings, history: Sequence[Scored], parent: int | None, preserves: str | None
) -> dict[str, Any] | None:
    """Who teaches a candidate; a pure function of its arguments.

    A child whose mutation keeps the function starts with its parent's outputs: towards them the loss of distillation is
    least and its gradient zero, so a parent that would be the only teacher is not asked.

    Args:
        settings: `teacher`, `ensemble`, and the recipe's weight of distillation.
        history: The finished candidates that the proposal may know.
        parent: Of the candidate; None for the starting network.
        preserves: What its mutation promises.

    Returns:
        `teachers`, ids, or the name of the settings' own network; and `reason`, why there are none although the
        settings ask for some. None where nobody is asked to teach.
    """
    if not settings.recipe.distill.weight:
        return None
    if is_network(settings.teacher):
        return {"teachers": [settings.teacher], "reason": None}
    found = [] if parent is None else list(TEACHERS[settings.teacher](settings, history, parent))
    if found == [parent] and preserves != "approximate":
        reason = (
            f"its mutation is {preserves}: it starts with the outputs of its only teacher, candidate {parent}, so the "
            "gradient of distillation is zero"
        )
        return {"teachers": [], "reason": reason}
    return {"teachers": found, "reason": None} if found else None
