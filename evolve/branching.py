"""A HydraNet made of a network that has learnt: its first units once, what follows them several times.

Which of the things called HydraNet this is, `runners.hydra` says. With `copied` heads the averaged outputs are what the
network gave, and training can go on from there; `fresh` ones have it all to learn, from a body that knows the images.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Literal

from graphs.errors import EvolutionError

if TYPE_CHECKING:
    from evolve.runs import Run
    from graphs import Genome

__all__ = ["NothingToBranch", "hydra"]


class NothingToBranch(EvolutionError, ValueError):
    """There is no network to make a HydraNet of."""


def hydra(
    run_or_genome: Run | Genome | str | os.PathLike[str],
    candidate: int | None = None,
    *,
    heads: int = 4,
    split_point: int | Literal["auto"] = "auto",
    start: Literal["copied", "fresh"] = "copied",
    seed: int = 0,
) -> Genome:
    """One body with several heads, of a network.

    Args:
        run_or_genome: A run, the path of one, or a genome.
        candidate: Which candidate of the run; the best one where None.
        heads: How many.
        split_point: Number of units (`graphs.units`) that make up the body; `auto` leaves at most a quarter of the
            multiply-accumulates to a head.
        start: Heads are `copied` from the network, or begin with `fresh` weights.
        seed: Of fresh weights.

    Returns:
        A network whose outputs are called `head0`, `head1`, …

    Raises:
        NothingToBranch: `candidate` is given with a genome, or the run has no finished candidate.
        GraphError: The network cannot be split there.
        EvolutionError: There is no such run or candidate, or a setting is out of range.
    """
    from evolve.runs import Run, open_run
    from graphs import Genome
    from runners.hydra import Hydra, split

    settings = Hydra(heads=heads, split_point=split_point, start=start, frozen=0)
    if isinstance(run_or_genome, Genome):
        if candidate is not None:
            raise NothingToBranch(f"a genome has no candidates; got {candidate}; leave it out or give the run")
        genome = run_or_genome
    else:
        run = run_or_genome if isinstance(run_or_genome, Run) else open_run(run_or_genome)
        found = run.best() if candidate is None else run.candidate(candidate)
        if found is None:
            raise NothingToBranch(f"{run.path} has no finished candidate to make a HydraNet of")
        genome = found.genome()
    return split(genome, settings.heads, settings.split_point, settings.start, seed)
