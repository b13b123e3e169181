"""Widen keys: more channels in each head for queries and keys to meet in.

New rows of the keys' weights and biases are zero, those of the queries' are fresh, and the scale of the products stays
what it was: an attention that computes it from the width of its keys has it written down from now on (the attention
expansion of Gesmundo and Maile, "Composable Function-preserving Expansions for Transformer Architectures", 2023, arXiv
2308.06103, which scales the old keys' rows instead). The keys learn from the first step, the queries from the second.
Law: exact in both modes. Only where nothing but linear layers makes queries and keys: not where cosines are compared,
since the new channels would change the norms of the queries.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from graphs.errors import GraphError
from graphs.genome import Genome
from graphs.structure import Graph
from ops.axis_maps import lengthened
from ops.mutation import Build, Mutation, Site, Work
from ops.options import Option, widths
from ops.projections import Projections, attentions, projections
from ops.widen import wider
from ops.width import Resized, change_widths

if TYPE_CHECKING:
    import numpy

__all__ = ["WIDEN_KEYS"]


def _find(genome: Genome) -> Iterable[Site]:
    for found in attentions(genome.graph):
        yield Site({"attention": found.node}, "exact")


def _choose(genome: Genome, place: Mapping[str, Any], rng: numpy.random.Generator) -> Mapping[str, Any]:
    return {"width": wider(_at(genome.graph, place["attention"]).key, rng)}


def _at(graph: Graph, attention: str) -> Projections:
    found = projections(graph, attention)
    if found is None:
        raise GraphError(f"the queries and keys of '{attention}' are not its own; choose one of this operator's sites")
    return found


def _options(genome: Genome, place: Mapping[str, Any]) -> Mapping[str, Option]:
    return {"width": widths(_at(genome.graph, place["attention"]).key)}


def _build(work: Work) -> Build:
    found = _at(work.graph, work.place["attention"])
    width, new = found.key.width, work.choices["width"]
    changes = [
        Resized(found.query, lengthened(width, new - width, -1)),
        Resized(found.key, lengthened(width, new - width, -2)),
    ]
    return change_widths(work.graph, changes, work.born)


WIDEN_KEYS = Mutation(
    name="widen_keys",
    preserves="exact",
    summary="add channels in which an attention compares queries with keys; the new keys are zero",
    needs="an attention whose queries and keys are its own, and which compares no cosines",
    find=_find,
    choose=_choose,
    build=_build,
    options=_options,
)
