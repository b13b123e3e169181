"""Regularised evolution: the oldest dies, not the worst.

Real, Aggarwal, Huang, Le: Regularized Evolution for Image Classifier Architecture Search, 2019, arXiv
1802.01548. The population is the last P candidates to finish. A tournament of S, drawn from it with
replacement, decides the parent: the best of the S wins. Whoever got lucky in one training run leaves the
population in time, and stays only through its children, who have to do well again.

Differences from the paper: the population grows from one trained network instead of P random ones, children
inherit weights, and failed candidates take no place in the population.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from evolve.ranking import Scored, rank, sound

if TYPE_CHECKING:
    import numpy

    from evolve.settings import Settings

__all__ = ["Aging"]


class Aging:
    """Tournament of `settings.sample` among the last `settings.population` candidates to finish."""

    def population(self, settings: Settings, history: Sequence[Scored]) -> list[int]:
        """The last P sound candidates, oldest first."""
        return [one.id for one in _alive(settings, history)]

    def choose(self, settings: Settings, history: Sequence[Scored], rng: numpy.random.Generator) -> int:
        """The best of S draws with replacement."""
        alive = _alive(settings, history)
        drawn = [alive[int(index)] for index in rng.integers(len(alive), size=settings.sample)]
        return max(drawn, key=rank).id


def _alive(settings: Settings, history: Sequence[Scored]) -> list[Scored]:
    return sound(history)[-settings.population :]
