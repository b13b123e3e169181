"""Add heads: attention heads with fresh queries, keys and values, which the layer behind ignores at first.

The columns of the output projection for them are zero (head addition of Gesmundo and Maile, "Composable
Function-preserving Expansions for Transformer Architectures", 2023, arXiv 2308.06103). The projection learns from the
first step, the heads from the second. Law: exact in both modes; in eval mode only where the attention's dropout, or
another node, draws random numbers for each head. Not for attention in windows: its bias for each head is computed by
nodes whose channels cannot change.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from graphs.errors import GraphError
from graphs.genome import Genome
from graphs.spaces import Space
from graphs.structure import Graph
from ops.mutation import Build, Mutation, Site, Work
from ops.projections import attentions, projections
from ops.width import Resized, change_widths

if TYPE_CHECKING:
    import numpy

__all__ = ["ADD_HEADS", "head_spaces", "sites_of_heads"]


def sites_of_heads(graph: Graph) -> Iterable[tuple[str, str]]:
    """The attentions whose number of heads can change, each with the best that such a change can promise."""
    for found in attentions(graph):
        node = graph[found.node]
        if node.kind == "attention" and found.value is not None:
            draws = bool(node.settings["dropout"]) or bool(found.value.draws)
            yield found.node, "eval-exact" if draws else "exact"


def head_spaces(graph: Graph, attention: str) -> tuple[Space, Space, Space]:
    """The spaces of queries, keys and values, each as one block: what is added or dropped is a part of it.

    Raises:
        GraphError: The attention has no spaces of its own.
    """
    found = projections(graph, attention)
    if found is None or found.value is None:
        raise GraphError(f"the heads of '{attention}' are not its own; choose one of this operator's sites")
    return replace(found.query, blocks=1), replace(found.key, blocks=1), replace(found.value, blocks=1)


def _find(genome: Genome) -> Iterable[Site]:
    for attention, promise in sites_of_heads(genome.graph):
        yield Site({"attention": attention}, promise)


def _choose(genome: Genome, place: Mapping[str, Any], rng: numpy.random.Generator) -> Mapping[str, Any]:
    return {"more": 1}


def _build(work: Work) -> Build:
    import numpy

    attention, more = work.place["attention"], work.choices["more"]
    heads = work.graph[attention].settings["heads"]
    changes = []
    for space in head_spaces(work.graph, attention):
        fresh = numpy.full(space.width // heads * more, -1)
        changes.append(Resized(space, numpy.concatenate([numpy.arange(space.width), fresh]).astype(numpy.int64)))
    return change_widths(work.graph, changes, work.born, {attention: {"heads": heads + more}})


ADD_HEADS = Mutation(
    name="add_heads",
    preserves="exact",
    summary="add a head to an attention, which the layer behind ignores at first",
    needs="an attention over all places whose queries, keys and values are its own and no other node's",
    find=_find,
    choose=_choose,
    build=_build,
)
