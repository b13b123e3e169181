"""Mutations by hand, one on another, each with its certificate: what `evolve mutate` does.

for made in mutate(genome, [("widen", 3), ("deepen", None)], seed=1):
    print(made.child.record.operator, made.certificate.eval.verdict)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from graphs.errors import EvolutionError, UnknownName
from ops.errors import BrokenPromise, NoSite

if TYPE_CHECKING:
    import numpy

    from graphs import Genome
    from ops import Certificate, Child, Mutation

__all__ = ["Mutated", "Step", "Unproven", "mutate", "operator"]

Step = tuple[str, int | None]
"""Name of an operator, and which of its sites: a number from 0 on, or None for one that is drawn."""


class Unproven(EvolutionError, ArithmeticError):
    """On this network no measurement can show whether a mutation keeps its promise."""


@dataclass(frozen=True, slots=True)
class Mutated:
    """A certified child beside its parent."""

    parent: Genome
    child: Child
    certificate: Certificate

    def to_json(self) -> dict[str, Any]:
        """Record, certificate and cost as plain JSON types."""
        return {
            "record": self.child.record.to_json(),
            "certificate": self.certificate.to_json(),
            "before": _cost(self.parent),
            "after": _cost(self.child.genome),
        }


def operator(name: str) -> Mutation:
    """The operator of that name.

    Raises:
        UnknownName: There is none.
    """
    from ops import MUTATIONS

    if name not in MUTATIONS:
        raise UnknownName.of("operator", name, MUTATIONS)
    return MUTATIONS[name]


def mutate(genome: Genome, steps: Sequence[Step], seed: int = 0) -> list[Mutated]:
    """Applies the steps, each to what the one before it made, and certifies each child.

    Args:
        genome: What to start from; left as it is.
        steps: What to apply, at least one. A site is counted in the network that the step is applied to.
        seed: Of sites that are drawn, of the operators' choices and of the certificates.

    Returns:
        What each step made; the last one's child is the result.

    Raises:
        UnknownName: There is no such operator.
        NoSite: An operator has no site, or none of that number.
        BrokenPromise: A child does not compute what its operator promised.
        Unproven: No certificate can be taken on this network.
    """
    import numpy

    from ops import certify

    for name, _ in steps:
        operator(name)
    _check_finite(genome)
    made = []
    for parent, child in _children(genome, steps, numpy.random.default_rng(seed)):
        found = Mutated(parent, child, certify(parent, child, seed=seed))
        _require(found)
        made.append(found)
    return made


def _children(genome: Genome, steps: Sequence[Step], rng: numpy.random.Generator) -> Iterator[tuple[Genome, Child]]:
    """Parent and child of each step."""
    for name, number in steps:
        found = operator(name)
        sites = found.sites(genome)
        if not sites:
            raise NoSite(f"{found.refusal(genome)}; 'evolve mutate MODEL' shows which operators have one")
        if number is not None and number >= len(sites):
            raise NoSite(
                f"'{name}' has no site {number} in the network that it is applied to: there are {len(sites)}, "
                f"numbered from 0; 'evolve mutate MODEL --op {name}' lists those of a network"
            )
        site = sites[int(rng.integers(len(sites))) if number is None else number]
        child = found.apply(genome, site, rng)
        yield genome, child
        genome = child.genome


def _check_finite(genome: Genome) -> None:
    for name, tensor in genome.weights.items():
        if not bool(tensor.isfinite().all()):
            raise Unproven(
                f"tensor '{name}' of the network holds a value that is not finite, so nothing can be proven about a "
                "change of it; use weights from before the training diverged"
            )


def _require(made: Mutated) -> None:
    try:
        made.certificate.require()
    except BrokenPromise as error:
        record = made.child.record
        place = f"'{record.operator}' at {record.to_json()['site']}, seed {record.seed}"
        if made.certificate.broken:
            raise BrokenPromise(
                f"{place}: {error}; a fault of this program, please report it with the network"
            ) from None
        raise Unproven(f"{place}: {error}; the outputs of this network hardly depend on what it would change") from None


def _cost(genome: Genome) -> dict[str, int]:
    from graphs import macs, parameters

    return {"parameters": parameters(genome.graph), "macs": macs(genome.graph)}
