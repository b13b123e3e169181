"""Remove skip: drop one of the values that are concatenated for a layer, with the layer's weights for it.

Only where layers read the concatenation directly, so that nothing else depends on its width. Law: exact in both modes
where all those weights are zero, bit for bit what `skip` was made from; elsewhere none, and the child is repaired by
distillation from its parent (LEMONADE: Elsken, Metzen, Hutter, 2019, arXiv 1804.09081).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from graphs.draft import Draft
from graphs.genome import Genome
from graphs.structure import Graph
from ops.axis_maps import AxisMap
from ops.bypass import bypass, dropped, no_more_than
from ops.mutation import Build, Mutation, Site, Work
from ops.places import mixed_axis, reads_all_channels, shared_tensors
from ops.transfer import Mapped, Plan, Transfer

if TYPE_CHECKING:
    import numpy

    Index = numpy.ndarray[tuple[int], numpy.dtype[numpy.int64]]

__all__ = ["REMOVE_SKIP"]


def _find(genome: Genome) -> Iterable[Site]:
    graph, shared = genome.graph, shared_tensors(genome.graph)
    outputs = {head.node for head in graph.heads}
    for node in graph.nodes.values():
        readers = [graph[reader] for reader, _ in graph.consumers[node.id]]
        direct = all(reads_all_channels(reader) and reader.tensors["weight"] not in shared for reader in readers)
        if node.kind != "concat" or len(node.inputs) < 2 or node.id in outputs or not direct:
            continue
        if any(mixed_axis(graph, reader) != node.settings["axis"] for reader in readers):
            continue
        for operand in range(len(node.inputs)):
            lost = dropped(graph, _without(graph, node.id, operand))
            if any(graph[id].kind == "input" for id in lost):
                continue
            plans = _ground(graph, node.id, operand)
            zero = all(bool((plan.apply(genome.weights) == genome.weights[name]).all()) for name, plan in plans.items())
            place = {"concat": node.id, "operand": operand}
            yield Site(place, no_more_than(graph, lost) if zero else "approximate")


def _without(graph: Graph, concat: str, operand: int, born: int = 0) -> Draft:
    """A draft in which the readers of a concatenation read what remains of it."""
    rest = [source for slot, source in enumerate(graph[concat].inputs) if slot != operand]
    if len(rest) == 1:
        return bypass(graph, rest[0], concat, born)
    draft = Draft(graph, born)
    less = draft.add("concat", rest, after=concat, axis=graph[concat].settings["axis"])
    draft.redirect(concat, less, [reader for reader, _ in graph.consumers[concat]])
    draft.prune()
    return draft


def _columns(graph: Graph, concat: str, operand: int) -> tuple[int, int, int]:
    """Where the operand's channels begin and end among those of the concatenation, and how many there are in all."""
    axis = graph[concat].settings["axis"]
    widths = [graph.shapes[source][axis] for source in graph[concat].inputs]
    return sum(widths[:operand]), sum(widths[: operand + 1]), sum(widths)


def _plans(graph: Graph, concat: str, index: Index) -> dict[str, Mapped]:
    """The readers' weights with these columns."""
    weights = [graph[reader].tensors["weight"] for reader, _ in graph.consumers[concat]]
    return {weight: Mapped(weight, (AxisMap(1, index),)) for weight in weights}


def _ground(graph: Graph, concat: str, operand: int) -> dict[str, Mapped]:
    import numpy

    start, stop, width = _columns(graph, concat, operand)
    index = numpy.arange(width, dtype=numpy.int64)
    index[start:stop] = -1
    return _plans(graph, concat, index)


def _choose(genome: Genome, place: Mapping[str, Any], rng: numpy.random.Generator) -> Mapping[str, Any]:
    return {}


def _build(work: Work) -> Build:
    import numpy

    graph, concat, operand = work.graph, work.place["concat"], work.place["operand"]
    start, stop, width = _columns(graph, concat, operand)
    kept = numpy.concatenate([numpy.arange(start), numpy.arange(stop, width)]).astype(numpy.int64)
    plans: dict[str, Plan] = {**_plans(graph, concat, kept)}
    ground: dict[str, Plan] = {**_ground(graph, concat, operand)}
    return Build(_without(graph, concat, operand, work.born).finish(), Transfer(plans), ground=Transfer(ground))


REMOVE_SKIP = Mutation(
    name="remove_skip",
    preserves="exact",
    summary="drop one of the values that a layer reads; exact where its weights for it are zero",
    needs="a concatenation that is read by layers only, which mix all of its channels and share no weights",
    find=_find,
    choose=_choose,
    build=_build,
    undoes="skip",
)
