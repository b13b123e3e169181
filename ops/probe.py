"""The examples on which a certificate is taken, and runs on them, all in float64 on the CPU, and remembered."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from typing import TYPE_CHECKING

from graphs.execution import Run, execute
from graphs.genome import Genome
from graphs.kinds import KINDS
from graphs.structure import Graph

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Probe", "cast_up", "frontier", "moving", "precise", "prefix", "run_parent"]

_REMEMBERED = 2**30
"""Bytes of a run that is remembered, at most."""


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


def run_parent(parent: Genome, probe: Probe, training: bool, wanted: frozenset[str]) -> Run:
    """Values of a parent, those of the nodes `wanted` at least.

    All of them are remembered, for it has many children, unless they are too large for that.
    """
    batch = max(len(value) for value in probe.inputs.values())
    size = sum(prod(shape) for shape in parent.graph.shapes.values()) * batch * 8
    if size <= _REMEMBERED:
        return _run_whole(parent, probe, training)
    return execute(
        parent.graph, cast_up(parent), probe.inputs, training=training, seed=probe.seed, keep=wanted, double=True
    )


@lru_cache(maxsize=2)
def _run_whole(parent: Genome, probe: Probe, training: bool) -> Run:
    return execute(parent.graph, cast_up(parent), probe.inputs, training=training, seed=probe.seed, double=True)


@lru_cache(maxsize=2)
def cast_up(genome: Genome) -> Mapping[str, Tensor]:
    """The tensors of a genome in float64; remembered."""
    return {name: precise(tensor) for name, tensor in genome.weights.items()}


def precise(tensor: Tensor) -> Tensor:
    """The tensor on the CPU, where all of this runs, in float64 if it holds such numbers, and fit for derivatives."""
    found = tensor.detach().cpu()
    found = found.double() if found.is_floating_point() else found
    return found.clone() if found.is_inference() else found


def moving(graph: Graph, nodes: Iterable[str]) -> frozenset[str]:
    """What computes something else where `nodes` do: all that depends on them.

    A norm whose statistics one of them shares is part of it: each use updates them, in turn.
    """
    moved = graph.downstream(nodes)
    while True:
        updated = {name for id in moved for name in _statistics(graph, id)}
        partners = [id for id in graph.nodes if not updated.isdisjoint(_statistics(graph, id))]
        if moved.issuperset(partners):
            return moved
        moved = graph.downstream([*moved, *partners])


def _statistics(graph: Graph, id: str) -> Collection[str]:
    return graph[id].tensors.values() if KINDS[graph[id].kind].normalisation else ()


def frontier(graph: Graph, moved: frozenset[str]) -> frozenset[str]:
    """The nodes outside of `moved` whose values are read in it."""
    return frozenset(source for id in moved for source in graph[id].inputs) - moved


def prefix(graph: Graph, moved: frozenset[str], before: Run) -> Run:
    """What of the parent's run holds for a graph of which the nodes `moved` (see `moving`) compute something else."""
    kept = {id: value for id, value in before.values.items() if id in graph.nodes and id not in moved}
    names = [name for id in kept for name in graph[id].tensors.values()]
    return Run(kept, {name: before.buffers[name] for name in names if name in before.buffers})
