"""Drop heads: an attention without one of its heads.

Law: exact in both modes where the weights with which the layer behind reads the head are zero, bit for bit what
`add_heads` was made from; in eval mode only where random numbers are drawn for each head. Elsewhere none, and the child
is repaired by distillation from its parent: many heads can go at little cost (Michel, Levy, Neubig, "Are Sixteen Heads
Really Better than One?", 2019, arXiv 1905.10650).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from graphs.genome import Genome
from graphs.spaces import Space
from graphs.structure import Graph
from ops.add_heads import head_spaces
from ops.mutation import Build, Mutation, Site, Work
from ops.transfer import Transfer
from ops.width import Resized, change_width, readers_map, space_at

if TYPE_CHECKING:
    import numpy

__all__ = ["DROP_HEADS"]


def _find(genome: Genome) -> Iterable[Site]:
    graph = genome.graph
    for space in head_spaces(graph):
        for head in range(space.width if space.width > 1 else 0):
            ignored = _ground(graph, space, head).keeps(genome.weights, graph)
            promise = "eval-exact" if space.draws else "exact"
            yield Site({"space": space.name, "head": head}, promise if ignored else "approximate")


def _ground(graph: Graph, space: Space, head: int) -> Transfer:
    """The weights with which the layer behind reads the head are zero."""
    import numpy

    within = numpy.arange(space.width, dtype=numpy.int64)
    within[head] = -2
    return Transfer(readers_map(graph, Resized(space, within)))


def _choose(genome: Genome, place: Mapping[str, Any], rng: numpy.random.Generator) -> Mapping[str, Any]:
    return {}


def _build(work: Work) -> Build:
    import numpy

    space, head = space_at(work.graph, work.place["space"]), work.place["head"]
    kept = numpy.delete(numpy.arange(space.width, dtype=numpy.int64), head)
    built = change_width(work.graph, space, kept, None, work.born)
    return replace(built, ground=_ground(work.graph, space, head))


DROP_HEADS = Mutation(
    name="drop_heads",
    preserves="exact",
    summary="drop a head of an attention; exact where the layer behind ignores it",
    needs="an attention over all places, of more than one head, whose queries, keys and values are its own",
    find=_find,
    choose=_choose,
    build=_build,
    undoes="add_heads",
)
