"""What a strategy is: a pure decision. The contract stands here; a law test holds every strategy to it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from evolve.ranking import Scored

if TYPE_CHECKING:
    import numpy

    from evolve.settings import Settings

__all__ = ["Strategy"]


class Strategy(Protocol):
    """Decides from (settings, finished candidates, generator), and from nothing else.

    - **Pure.** No clock, no disk, no global random state, nothing remembered between calls: equal arguments
      give an equal answer, in another process and after a crash too. The generator is the caller's and
      belongs to the one candidate that is being proposed; a strategy may draw from it as often as it likes.
    - **History** is in finishing order and holds every finished candidate, the failed ones too. Those have no
      accuracy. Whoever has none, or one that is not finite, is never chosen (`evolve.ranking.sound`).
    - **One entry at least is sound**: a search whose starting network failed asks no strategy.
    """

    def population(self, settings: Settings, history: Sequence[Scored]) -> list[int]:
        """Ids of the candidates that may become parents, oldest first; never empty."""
        ...

    def choose(self, settings: Settings, history: Sequence[Scored], rng: numpy.random.Generator) -> int:
        """Id of the next parent, one of the population."""
        ...
