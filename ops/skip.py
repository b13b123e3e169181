"""Skip: let a layer read an earlier value too.

The earlier value is concatenated to the layer's input, and the layer's weights for the new channels are zero (the
concatenation morphism of Network Morphism: Wei et al., 2016, arXiv 1603.01670). They receive gradients from the first
step. Law: exact in both modes, bit for bit.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from graphs.draft import Draft
from graphs.genome import Genome
from graphs.structure import Graph
from ops.mutation import Build, Mutation, Site, Work
from ops.places import junctions, shared_tensors
from ops.transfer import AxisMap, Mapped, Transfer

if TYPE_CHECKING:
    import numpy

__all__ = ["SKIP"]


def _find(genome: Genome) -> Iterable[Site]:
    graph = genome.graph
    shared, position = shared_tensors(graph), {id: place for place, id in enumerate(graph.nodes)}
    sources = junctions(graph)
    for node in graph.nodes.values():
        reads = node.kind == "linear" or (node.kind == "conv2d" and node.settings["groups"] == 1)
        if not reads or node.tensors["weight"] in shared:
            continue
        given = node.inputs[0]
        already = {given, *_joined(graph, given)}
        for source in sources:
            if (
                position[source] < position[node.id]
                and source not in already
                and graph.shapes[source][1:] == graph.shapes[given][1:]
                and len(graph.shapes[source]) == len(graph.shapes[given])
            ):
                yield Site({"from": source, "to": node.id}, "exact")


def _joined(graph: Graph, node: str) -> frozenset[str]:
    """What is concatenated at `node`, concatenations within it included."""
    if graph[node].kind != "concat":
        return frozenset()
    return frozenset(graph[node].inputs).union(*(_joined(graph, source) for source in graph[node].inputs))


def _choose(genome: Genome, place: Mapping[str, Any], rng: numpy.random.Generator) -> Mapping[str, Any]:
    return {}


def _build(work: Work) -> Build:
    import numpy

    graph, source, reader = work.graph, work.place["from"], work.graph[work.place["to"]]
    given = reader.inputs[0]
    draft = Draft(graph, work.born)
    order = list(graph.nodes)
    joined = draft.add("concat", [given, source], after=order[order.index(reader.id) - 1])
    draft.rewire(reader.id, 0, joined)
    before, more = graph.shapes[given][0], graph.shapes[source][0]
    index = numpy.concatenate([numpy.arange(before), numpy.full(more, -1)]).astype(numpy.int64)
    weight = reader.tensors["weight"]
    return Build(draft.finish(), Transfer({weight: Mapped(weight, (AxisMap(1, index),))}))


SKIP = Mutation(
    name="skip",
    preserves="exact",
    summary="let a layer read an earlier value, with zero weights at first",
    find=_find,
    choose=_choose,
    build=_build,
)
