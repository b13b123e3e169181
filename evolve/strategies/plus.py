"""(µ + λ): parents and children meet, and the best µ of all go on.

H.-P. Schwefel, "Numerical Optimization of Computer Models", 1981; as in github.com/luzai/NetworkCompress with λ = µ,
but that nobody is trained again. A generation is µ candidates with an accuracy. Parents are the best of what was there
when the last whole generation was in, so nobody becomes a parent before it was measured beside its rivals. Which of
them a candidate has is drawn, so that each has one child a generation on average.

A lucky measurement stays for ever here; `aging` forgets it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from evolve.ranking import Scored, rank, sound

if TYPE_CHECKING:
    import numpy

    from evolve.settings import Settings

__all__ = ["Plus"]


class Plus:
    """Any of the best `settings.population` candidates of whole generations; `settings.sample` plays no part."""

    def population(self, settings: Settings, history: Sequence[Scored]) -> list[int]:
        """The survivors, oldest first."""
        found, size = sound(history), settings.population
        whole = found[: 1 + (len(found) - 1) // size * size]
        alive = {one.id for one in sorted(whole, key=rank)[-size:]}
        return [one.id for one in whole if one.id in alive]

    def choose(self, settings: Settings, history: Sequence[Scored], rng: numpy.random.Generator) -> int:
        """Any of them."""
        alive = self.population(settings, history)
        return alive[int(rng.integers(len(alive)))]
