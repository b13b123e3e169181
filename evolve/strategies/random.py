"""Random search over mutations: the control that any selection has to beat.

Li, Talwalkar: Random Search and Reproducibility for Neural Architecture Search, 2019, arXiv 1902.07638, show
how strong it is. Here each finished candidate is as likely a parent as any other, so that structures spread
out from the starting network without regard to accuracy.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from evolve.ranking import Scored, sound

if TYPE_CHECKING:
    import numpy

    from evolve.settings import Settings

__all__ = ["Random"]


class Random:
    """A uniform draw among all sound candidates; `settings.population` and `settings.sample` play no part."""

    def population(self, settings: Settings, history: Sequence[Scored]) -> list[int]:
        """All sound candidates, oldest first."""
        return [one.id for one in sound(history)]

    def choose(self, settings: Settings, history: Sequence[Scored], rng: numpy.random.Generator) -> int:
        """Any of them."""
        alive = sound(history)
        return alive[int(rng.integers(len(alive)))].id
