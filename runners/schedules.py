"""How the learning rate moves: `SCHEDULES` by name, in cycles where wanted, after a warm-up where wanted.

The rate is set for every step and is a function of the step alone, but for `plateau`, which also looks at the
validation losses so far. A schedule that is run in M cycles of T steps in all has M cycles of ⌊T/M⌋ or ⌈T/M⌉ steps,
each of which goes through the whole schedule in its own length. So each ends where it should, also where M does not
divide T; with ⌈T/M⌉ steps for all, as in the paper, the last cycle may be one step long, or there is none.

G. Huang, Y. Li, G. Pleiss, Z. Liu, J.E. Hopcroft, K.Q. Weinberger, "Snapshot Ensembles: Train 1, Get M for Free", 2017,
arXiv:1704.00109; I. Loshchilov, F. Hutter, "SGDR: Stochastic Gradient Descent with Warm Restarts", 2016,
arXiv:1608.03983; L.N. Smith, N. Topin, "Super-Convergence", 2017, arXiv:1708.07120.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from runners.recipe import Recipe

__all__ = ["SCHEDULES", "cycle", "learning_rate"]

_RISE = 0.3
"""Share of a one-cycle schedule in which the rate rises."""

_LEAST_GAIN = 1e-4
"""A loss is better if it is below the best so far by this share of it."""


def _cosine(recipe: Recipe, progress: float) -> float:
    return 0.5 * (1 + math.cos(math.pi * progress))


def _constant(recipe: Recipe, progress: float) -> float:
    return 1.0


def _multistep(recipe: Recipe, progress: float) -> float:
    return recipe.gamma ** sum(progress >= milestone for milestone in recipe.milestones)


def _one_cycle(recipe: Recipe, progress: float) -> float:
    """From 1/25 up to 1 and down to 0, each half along a cosine."""
    if progress < _RISE:
        return 1 - (1 - 1 / 25) * _cosine(recipe, progress / _RISE)
    return _cosine(recipe, (progress - _RISE) / (1 - _RISE))


SCHEDULES: Mapping[str, Callable[[Recipe, float], float]] = {
    "cosine": _cosine,
    "constant": _constant,
    "multistep": _multistep,
    "one-cycle": _one_cycle,
    "plateau": _constant,
}
"""`recipe.schedule` -> factor of the learning rate after a share of the steps, from 0 to 1.

`plateau` is constant but for what the validation losses say.
"""


def cycle(step: int, steps: int, cycles: int) -> tuple[int, int]:
    """(steps since the cycle began, length of the cycle) of step `step` of `steps`, counted from 0.

    >>> [cycle(step, 10, 4) for step in (0, 1, 2, 9)]
    [(0, 2), (1, 2), (0, 3), (2, 3)]
    """
    number = ((min(step, steps - 1) + 1) * cycles - 1) // steps
    start = number * steps // cycles
    return step - start, (number + 1) * steps // cycles - start


def learning_rate(recipe: Recipe, step: int, steps: int, losses: Sequence[float] = ()) -> float:
    """Learning rate of step `step` of `steps`, counted from 0; at `step == steps` the schedule has ended.

    Args:
        recipe: Schedule and rate.
        step: Number of the step.
        steps: Of the whole training.
        losses: Validation losses of the epochs so far, for `plateau`.

    >>> from runners.recipe import Recipe
    >>> recipe = Recipe(lr=0.4)
    >>> [learning_rate(recipe, step, 2) for step in (0, 1, 2)]
    [0.4, 0.2, 0.0]
    """
    done, length = cycle(step, steps, recipe.cycles)
    factor = SCHEDULES[recipe.schedule](recipe, done / length)
    if recipe.schedule == "plateau":
        factor *= recipe.gamma ** drops(losses, recipe.patience)
    warm = recipe.warmup * steps
    if step + 1 < warm:
        factor *= (step + 1) / warm
    return recipe.lr * factor


def drops(losses: Sequence[float], patience: int) -> int:
    """How often the loss has gone more than `patience` epochs without becoming better, since the last such time.

    >>> drops([3.0, 2.0, 2.0, 2.0, 2.0, 1.0], patience=1)
    1
    """
    best, bad, count = math.inf, 0, 0
    for loss in losses:
        if loss < best - _LEAST_GAIN * abs(best) or not math.isfinite(best):
            best, bad = min(loss, best), 0
            continue
        bad += 1
        if bad > patience:
            bad, count = 0, count + 1
    return count
