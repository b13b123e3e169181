"""The next candidate: a parent, a mutation of it that was not tried before, and its certificate."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from evolve.odds import DEPTH, ODDS, depth, widest
from evolve.ranking import Scored
from evolve.seeds import generator, seed_of
from evolve.strategies import STRATEGIES
from evolve.teachers import teaching
from graphs.errors import GraphError

if TYPE_CHECKING:
    import numpy
    from torch import Tensor

    from evolve.lineage import Proposal
    from evolve.settings import Settings
    from graphs import Genome, Graph
    from ops import Certificate, Child
    from ops.table import Odds

__all__ = ["Exhausted", "Offspring", "propose"]


@dataclass(frozen=True, slots=True)
class Offspring:
    """A certified child of the candidate `parent`, with its structure's fingerprint, its cost, and who teaches it."""

    parent: int
    child: Child
    certificate: Certificate
    fingerprint: str
    parameters: int
    macs: int
    teaching: dict[str, Any] | None


@dataclass(frozen=True, slots=True)
class Exhausted:
    """No new structure was found; `message` says why, and what would help."""

    message: str


def propose(
    settings: Settings,
    proposals: Sequence[Proposal],
    history: Sequence[Scored],
    trained: Callable[[int], Genome],
    probe: Tensor,
) -> Offspring | Exhausted:
    """Proposes the candidate that follows `proposals`; a pure function of its arguments.

    A child is refused and drawn again, at most `settings.retries` times, if its structure was tried in this
    run, or if it is over one of the limits of growth, width and depth.

    Args:
        settings: Strategy, odds, limits and seed.
        proposals: The candidates so far; the first is the starting network.
        history: What is known of the finished ones.
        trained: Gives the trained genome of a finished candidate.
        probe: Examples for operators that look at data and for the certificate.
    """
    import ops
    from graphs import fingerprint, macs, parameters

    following = len(proposals)
    strategy = STRATEGIES[settings.strategy]
    rng = generator(settings.seed, following, "proposal")
    tried = {proposal.fingerprint for proposal in proposals}
    refused: Counter[str] = Counter()
    barren: set[int] = set()
    for _ in range(settings.retries):
        parent = strategy.choose(settings, history, rng)
        if parent in barren:
            refused["without a place for any operator"] += 1
            continue
        genome = trained(parent)
        try:
            steps = _steps(settings, rng)
            child = ops.propose(genome, rng, odds=_odds(settings), batch=probe, born=following, steps=steps)
        except ops.NoSite:
            barren.add(parent)
            refused["without a place for any operator"] += 1
            if barren.issuperset(strategy.population(settings, history)):
                break
            continue
        except GraphError as error:  # a fault in an operator must not stop every resumed run at the same place
            warnings.warn(f"an operator failed on candidate {parent}: {error}", RuntimeWarning, stacklevel=2)
            refused["refused by their operator"] += 1
            continue
        graph = child.genome.graph
        size, work = parameters(graph), macs(graph)
        excess = _excess(settings, proposals[0], graph, size, work)
        if excess is not None:
            refused[excess] += 1
            continue
        structure = fingerprint(graph)
        if structure in tried:
            refused["tried before"] += 1
            continue
        certificate = ops.certify(genome, child, probe=probe, seed=seed_of(settings.seed, following, "certificate"))
        taught = teaching(settings, history, parent, child.preserves)
        return Offspring(parent, child, certificate, structure, size, work, taught)
    attempts = sum(refused.values())
    reasons = ", ".join(f"{number} {reason}" for reason, number in refused.most_common())
    return Exhausted(
        f"no new structure for candidate {following} after {attempts} refused ({reasons}); "
        "a new run with larger limits ('growth', 'widest', 'deepest'), other 'odds' or another network would go further"
    )


def _odds(settings: Settings) -> Odds | None:
    """What the settings say, as `ops.propose` takes it."""
    if not isinstance(settings.odds, str):
        return settings.odds
    rule, most = ODDS[settings.odds], settings.deepest or DEPTH
    return lambda graph: rule(graph, most)


def _steps(settings: Settings, rng: numpy.random.Generator) -> int:
    """How many draws make this mutation."""
    if isinstance(settings.steps, int):
        return settings.steps
    least, most = settings.steps
    return int(rng.integers(least, most + 1))


def _excess(settings: Settings, start: Proposal, graph: Graph, size: int, work: int) -> str | None:
    """The limit that a network is over; None where it keeps them all."""
    if size > settings.growth * start.parameters or work > settings.growth * start.macs:
        return f"over {settings.growth:g} times the starting network"
    if settings.widest is not None and widest(graph) > settings.widest:
        return f"wider than {settings.widest} channels"
    if settings.deepest is not None and depth(graph) > settings.deepest:
        return f"deeper than {settings.deepest} layers"
    return None
