"""The examples on which a certificate is taken, and runs on them, all in float64 on the CPU, and remembered."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from graphs.execution import Run, execute
from graphs.genome import Genome
from graphs.structure import Graph

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Probe", "cast_up", "precise", "prefix", "run_parent"]


@dataclass(frozen=True, slots=True, eq=False)
class Probe:
    """Examples in float64 by argument name, and a seed. Equal if all of that is, so that runs on it are remembered."""

    inputs: Mapping[str, Tensor]
    seed: int

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Probe) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def _key(self) -> tuple[object, ...]:
        digests = (
            (name, hashlib.sha256(value.numpy().tobytes()).digest()) for name, value in sorted(self.inputs.items())
        )
        return (self.seed, *digests)


@lru_cache(maxsize=2)
def run_parent(parent: Genome, probe: Probe, training: bool) -> Run:
    """All values of a parent; remembered, for it has many children."""
    return execute(parent.graph, cast_up(parent), probe.inputs, training=training, seed=probe.seed)


@lru_cache(maxsize=2)
def cast_up(genome: Genome) -> Mapping[str, Tensor]:
    """The tensors of a genome in float64; remembered."""
    return {name: precise(tensor) for name, tensor in genome.weights.items()}


def precise(tensor: Tensor) -> Tensor:
    """The tensor on the CPU, where all of this runs, in float64 if it holds such numbers, and fit for derivatives."""
    found = tensor.detach().cpu()
    found = found.double() if found.is_floating_point() else found
    return found.clone() if found.is_inference() else found


def prefix(graph: Graph, moved: frozenset[str], before: Run) -> Run:
    """What of the parent's run holds for a graph of which the nodes `moved` compute something else.

    A norm whose statistics a moved node shares is not part of it: each use updates them, in turn.
    """
    while True:
        updated = {name for id in moved for name in graph[id].tensors.values() if name in before.buffers}
        partners = [node.id for node in graph.nodes.values() if updated.intersection(node.tensors.values())]
        if moved.issuperset(partners):
            break
        moved = graph.downstream([*moved, *partners])
    kept = {id: before.values[id] for id in graph.nodes if id not in moved}
    names = [name for id in kept for name in graph[id].tensors.values()]
    return Run(kept, {name: before.buffers[name] for name in names if name in before.buffers})
