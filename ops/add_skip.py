"""Add skip: a residual connection from an earlier value, through a projection that is zero at first.

y = x + P·s with P = 0, a 1×1 convolution, or a linear layer for features (residual connections: He et al., 2016, arXiv
1512.03385; zero at first: ReZero, Bachlechner et al., 2020, arXiv 2003.04887). Where x has fewer places than s, s is
averaged to them first. Where `skip` lets one layer read an earlier value, all that reads x sees it here. P gets
gradients from the first step. Law: exact in both modes, bit for bit.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from graphs.draft import Draft
from graphs.genome import Genome
from graphs.kinds import KINDS
from graphs.structure import Graph
from ops.matching import add_match, windows
from ops.mixing import add_layer, is_layer, layer_for
from ops.mutation import Build, Mutation, Site, Work
from ops.places import junctions
from ops.transfer import New, Transfer

if TYPE_CHECKING:
    import numpy

__all__ = ["ADD_SKIP"]


def _find(genome: Genome) -> Iterable[Site]:
    graph = genome.graph
    places = junctions(graph)
    for number, to in enumerate(places):
        if layer_for(graph, to) is None:
            continue
        shape, axis, already = graph.shapes[to], graph.channel_axes[to], _summed(graph, to)
        for source in places[:number]:
            fits = graph.channel_axes.get(source) == axis and windows(graph, source, shape, axis) is not None
            if fits and source not in already:
                yield Site({"from": source, "to": to}, "exact")


def _summed(graph: Graph, node: str) -> frozenset[str]:
    """What is added up at `node`, as it is, or behind a layer, or behind a pool and a layer."""
    found = set(graph[node].inputs if graph[node].kind == "add" else ())
    for passed in (is_layer, lambda one: KINDS[one.kind].pooling):
        found |= {graph[id].inputs[0] for id in found if passed(graph[id])}
    return frozenset(found)


def _choose(genome: Genome, place: Mapping[str, Any], rng: numpy.random.Generator) -> Mapping[str, Any]:
    return {}


def _build(work: Work) -> Build:
    graph, source, to = work.graph, work.place["from"], work.place["to"]
    draft = Draft(graph, work.born)
    matched = add_match(draft, graph, source, graph.shapes[to], graph.channel_axes[to], to)
    projected = add_layer(draft, graph, to, matched, bias=False, after=to if matched == source else matched)
    total = draft.add("add", [to, projected], after=projected)
    draft.redirect(to, total, [reader for reader, _ in graph.consumers[to]])
    return Build(draft.finish(), Transfer({draft.nodes[projected].tensors["weight"]: New(0.0)}))


ADD_SKIP = Mutation(
    name="add_skip",
    preserves="exact",
    summary="add a projection of an earlier value, zero at first",
    needs="an activation, pooling or sum and an earlier one of the same places, or of some times as many",
    find=_find,
    choose=_choose,
    build=_build,
)
