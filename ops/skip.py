"""Skip: let a layer, or the norm in front of it, read an earlier value too.

The earlier value is concatenated to what is read, and the layer's weights for the new channels are zero (the
concatenation morphism of Network Morphism: Wei et al., 2016, arXiv 1603.01670). Where a norm and activations lie
between, as in DenseNet (Huang et al., 2017, arXiv 1608.06993), the concatenation is in front of them and the norm
starts afresh for the new channels. A larger map is averaged to the places of the smaller one. The new weights receive
gradients from the first step. Law: exact in both modes, bit for bit.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from graphs.draft import Draft
from graphs.genome import Genome
from graphs.kinds import KINDS
from graphs.structure import Graph, Node
from ops.axis_maps import lengthened
from ops.matching import add_match, windows
from ops.mixing import is_layer, mixed_axis
from ops.mutation import Build, Mutation, Site, Work
from ops.places import dependent, junctions
from ops.reading import readings
from ops.transfer import Transfer

if TYPE_CHECKING:
    import numpy

__all__ = ["SKIP"]


def _find(genome: Genome) -> Iterable[Site]:
    graph = genome.graph
    position = {id: place for place, id in enumerate(graph.nodes)}
    sources, varying = junctions(graph), dependent(graph)
    for reader in _readers(graph):
        given, axis = reader.inputs[0], _axis(graph, reader)
        if given not in varying:
            continue
        already = {given, *_joined(graph, given)}
        for source in sources:
            if position[source] >= position[reader.id]:
                break
            if source not in already and windows(graph, source, graph.shapes[given], axis) is not None:
                yield Site({"from": source, "to": reader.id}, "exact")


def _readers(graph: Graph) -> list[Node]:
    """Layers, and norms behind which there are only layers and what works on each channel by itself."""
    layers, behind = readings(graph), readings(graph, 0)
    return [
        node
        for node in graph.nodes.values()
        if node.id in (layers if is_layer(node) else behind) and (is_layer(node) or KINDS[node.kind].normalisation)
    ]


def _axis(graph: Graph, reader: Node) -> int:
    """The axis of channels of what a layer or a norm reads."""
    return mixed_axis(graph, reader) if is_layer(reader) else 0


def _joined(graph: Graph, node: str) -> frozenset[str]:
    """What is concatenated at `node`, concatenations within it included."""
    if graph[node].kind != "concat":
        return frozenset()
    return frozenset(graph[node].inputs).union(*(_joined(graph, source) for source in graph[node].inputs))


def _choose(genome: Genome, place: Mapping[str, Any], rng: numpy.random.Generator) -> Mapping[str, Any]:
    return {}


def _build(work: Work) -> Build:
    graph, source, reader = work.graph, work.place["from"], work.graph[work.place["to"]]
    given, axis = reader.inputs[0], _axis(work.graph, reader)
    draft = Draft(graph, work.born)
    order = list(graph.nodes)
    before = order[order.index(reader.id) - 1]
    matched = add_match(draft, graph, source, graph.shapes[given], axis, before)
    joined = draft.add("concat", [given, matched], after=before if matched == source else matched, axis=axis)
    draft.rewire(reader.id, 0, joined)
    width, more = graph.shapes[given][axis], graph.shapes[source][axis]
    return Build(draft.finish(), Transfer(readings(graph, axis)[reader.id].plans(lengthened(width, more, -1))))


SKIP = Mutation(
    name="skip",
    preserves="exact",
    summary="let a layer, or the norm in front of it, read an earlier value, with zero weights at first",
    needs="a layer that mixes all channels with weights of its own, and an earlier value as large or larger",
    find=_find,
    choose=_choose,
    build=_build,
)
