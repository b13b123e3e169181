"""Every random number of a run, from (run seed, candidate, purpose), never from a stream that is shared.

So the order in which workers finish changes nothing, and a resumed run draws what the uninterrupted one would
have.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy

__all__ = ["PURPOSES", "generator", "seed_of"]

PURPOSES = {"training": 0, "proposal": 1, "certificate": 2, "probe": 3, "start": 4, "control": 5, "heads": 6}
"""What a number is drawn for. The numbers are part of the lineage's meaning: add, never renumber."""


def generator(run_seed: int, candidate: int, purpose: str) -> numpy.random.Generator:
    """The generator of one candidate for one purpose."""
    import numpy

    return numpy.random.default_rng(_sequence(run_seed, candidate, purpose))


def seed_of(run_seed: int, candidate: int, purpose: str = "training") -> int:
    """A seed of 32 bits, for what takes a number.

    >>> seed_of(0, 1) == seed_of(0, 1), seed_of(0, 1) == seed_of(0, 2), seed_of(0, 1) == seed_of(1, 1)
    (True, False, False)
    """
    return int(_sequence(run_seed, candidate, purpose).generate_state(1)[0])


def _sequence(run_seed: int, candidate: int, purpose: str) -> numpy.random.SeedSequence:
    import numpy

    return numpy.random.SeedSequence(run_seed, spawn_key=(candidate, PURPOSES[purpose]))
