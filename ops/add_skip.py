"""Add skip: a residual connection from an earlier value, through a projection that is zero at first.

y = x + P·s with P = 0, a 1×1 convolution, or a linear layer for features (residual connections: He et al., 2016, arXiv
1512.03385; zero at first: ReZero, Bachlechner et al., 2020, arXiv 2003.04887). Where `skip` lets one layer read an
earlier value, all that reads x sees it here. P gets gradients from the first step. Law: exact in both modes, bit for
bit.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from graphs.draft import Draft
from graphs.genome import Genome
from graphs.structure import Graph
from ops.mutation import Build, Mutation, Site, Work
from ops.places import junctions
from ops.transfer import New, Transfer

if TYPE_CHECKING:
    import numpy

__all__ = ["ADD_SKIP"]

_PROJECTIONS: dict[int, tuple[str, Mapping[str, Any]]] = {1: ("linear", {}), 3: ("conv2d", {"kernel": 1})}
"""Kind and settings by the number of axes of a value."""


def _find(genome: Genome) -> Iterable[Site]:
    graph = genome.graph
    places = junctions(graph)
    for number, to in enumerate(places):
        shape, already = graph.shapes[to], _summed(graph, to)
        if len(shape) not in _PROJECTIONS:
            continue
        for source in places[:number]:
            fits = len(graph.shapes[source]) == len(shape) and graph.shapes[source][1:] == shape[1:]
            if fits and source not in already:
                yield Site({"from": source, "to": to}, "exact")


def _summed(graph: Graph, node: str) -> frozenset[str]:
    """What is added up at `node`, as it is or behind one layer."""
    operands = graph[node].inputs if graph[node].kind == "add" else ()
    layers = {kind for kind, _ in _PROJECTIONS.values()}
    projected = (graph[id].inputs[0] for id in operands if graph[id].kind in layers)
    return frozenset(operands).union(projected)


def _choose(genome: Genome, place: Mapping[str, Any], rng: numpy.random.Generator) -> Mapping[str, Any]:
    return {}


def _build(work: Work) -> Build:
    source, to = work.place["from"], work.place["to"]
    shape = work.graph.shapes[to]
    kind, settings = _PROJECTIONS[len(shape)]
    draft = Draft(work.graph, work.born)
    projected = draft.add(kind, source, after=to, out=shape[0], bias=False, **settings)
    total = draft.add("add", [to, projected], after=projected)
    draft.redirect(to, total, [reader for reader, _ in work.graph.consumers[to]])
    return Build(draft.finish(), Transfer({draft.nodes[projected].tensors["weight"]: New(0.0)}))


ADD_SKIP = Mutation(
    name="add_skip",
    preserves="exact",
    summary="add a projection of an earlier value, zero at first",
    needs="an activation, pooling or sum and an earlier one of the same height and width",
    find=_find,
    choose=_choose,
    build=_build,
)
