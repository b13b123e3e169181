"""Add heads: attention heads with fresh queries, keys and values, which the layer behind ignores at first.

The columns of the output projection for them are zero (head addition of Gesmundo and Maile, "Composable
Function-preserving Expansions for Transformer Architectures", 2023, arXiv 2308.06103). The projection learns from the
first step, the heads from the second. Heads are the channels in front of the last two axes of an attention, so what
each of them has of its own, a bias for relative positions or a temperature, comes with it; duplicated heads are what
`widen` makes of the same channels. Law: exact in both modes; in eval mode only where the attention's dropout, or
another node, draws random numbers for each head.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from graphs.genome import Genome
from graphs.spaces import Space
from graphs.structure import Graph
from ops.axis_maps import lengthened
from ops.mutation import Build, Mutation, Site, Work
from ops.options import Option, Whole
from ops.width import change_width, changeable, space_at

if TYPE_CHECKING:
    import numpy

__all__ = ["ADD_HEADS", "ATTENDING", "head_spaces"]

ATTENDING = ("attention", "softmax")
"""Kinds that work on the last two axes of a value, places and places, or places and channels."""


def head_spaces(graph: Graph) -> Iterable[Space]:
    """The spaces whose channels are heads, and whose number can change."""
    attending = {node.id: len(graph.shapes[node.id]) - 2 for node in graph.nodes.values() if node.kind in ATTENDING}
    for space in changeable(graph):
        heads = any(value.axis < attending.get(value.node, 0) for value in space.values)
        if heads and not space.balanced and space.blocks == 1:
            yield space


def _find(genome: Genome) -> Iterable[Site]:
    for space in head_spaces(genome.graph):
        yield Site({"space": space.name}, "eval-exact" if space.draws else "exact")


def _choose(genome: Genome, place: Mapping[str, Any], rng: numpy.random.Generator) -> Mapping[str, Any]:
    return {"more": 1}


def _options(genome: Genome, place: Mapping[str, Any]) -> Mapping[str, Option]:
    return {"more": Whole(1)}


def _build(work: Work) -> Build:
    space = space_at(work.graph, work.place["space"])
    heads = lengthened(space.width, work.choices["more"], -1)
    return change_width(work.graph, space, heads, None, work.born)


ADD_HEADS = Mutation(
    name="add_heads",
    preserves="exact",
    summary="add a head to an attention, which the layer behind ignores at first",
    needs="an attention over all places whose queries, keys and values are its own and no other node's",
    find=_find,
    choose=_choose,
    build=_build,
    options=_options,
)
