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
from graphs.structure import Graph, Node
from ops.axis_maps import AxisMap
from ops.mutation import Build, Mutation, Site, Work
from ops.places import dependent, junctions, mixed_axis, reads_all_channels, shared_tensors
from ops.transfer import Mapped, Transfer

if TYPE_CHECKING:
    import numpy

__all__ = ["SKIP"]


def _find(genome: Genome) -> Iterable[Site]:
    graph = genome.graph
    shared, position = shared_tensors(graph), {id: place for place, id in enumerate(graph.nodes)}
    sources, varying = junctions(graph), dependent(graph)
    for node in graph.nodes.values():
        if not reads_all_channels(node) or node.tensors["weight"] in shared:
            continue
        given = node.inputs[0]
        if given not in varying:
            continue
        already = {given, *_joined(graph, given)}
        for source in sources:
            if position[source] < position[node.id] and source not in already and _fits(graph, source, node):
                yield Site({"from": source, "to": node.id}, "exact")


def _fits(graph: Graph, source: str, reader: Node) -> bool:
    """Whether a value differs from what a layer reads in its channels at most."""
    one, other, axis = graph.shapes[source], graph.shapes[reader.inputs[0]], mixed_axis(graph, reader)
    return len(one) == len(other) and (one[:axis], one[axis + 1 :]) == (other[:axis], other[axis + 1 :])


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
    axis = mixed_axis(graph, reader)
    joined = draft.add("concat", [given, source], after=order[order.index(reader.id) - 1], axis=axis)
    draft.rewire(reader.id, 0, joined)
    before, more = graph.shapes[given][axis], graph.shapes[source][axis]
    index = numpy.concatenate([numpy.arange(before), numpy.full(more, -1)]).astype(numpy.int64)
    weight = reader.tensors["weight"]
    return Build(draft.finish(), Transfer({weight: Mapped(weight, (AxisMap(1, index),))}))


SKIP = Mutation(
    name="skip",
    preserves="exact",
    summary="let a layer read an earlier value, with zero weights at first",
    needs="a layer that mixes all of its channels with weights of its own, and an earlier value of the same size",
    find=_find,
    choose=_choose,
    build=_build,
)
