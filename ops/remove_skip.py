"""Remove skip: drop one of the values that are concatenated for a layer, with the layer's weights for it.

Only where layers read the concatenation, directly or behind norms and activations of each channel, so that nothing else
depends on its width. Law: exact in both modes where all those weights are zero, bit for bit what `skip` was made from;
elsewhere none, and the child is repaired by distillation from its parent (LEMONADE: Elsken, Metzen, Hutter, 2019, arXiv
1804.09081).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from graphs.draft import Draft
from graphs.genome import Genome
from graphs.structure import Graph, Node
from ops.bypass import bypass, dropped, no_more_than
from ops.mutation import Build, Mutation, Site, Work
from ops.reading import Reading, reading_behind, readings
from ops.transfer import Transfer

if TYPE_CHECKING:
    import numpy

__all__ = ["REMOVE_SKIP"]


def _find(genome: Genome) -> Iterable[Site]:
    graph = genome.graph
    concats = [node for node in graph.nodes.values() if node.kind == "concat" and len(node.inputs) > 1]
    found = {axis: readings(graph, axis) for axis in {node.settings["axis"] for node in concats}}
    for node in concats:
        reading = reading_behind(graph, node.id, found[node.settings["axis"]])
        if reading is None:
            continue
        for operand in range(len(node.inputs)):
            lost = dropped(graph, _without(graph, node.id, operand))
            if any(graph[id].kind == "input" for id in lost):
                continue
            zero = _ground(graph, node, operand, reading).keeps(genome.weights, graph)
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


def _ground(graph: Graph, concat: Node, operand: int, reading: Reading) -> Transfer:
    """The layers' weights with zeros for the operand."""
    import numpy

    start, stop, width = _columns(graph, concat.id, operand)
    index = numpy.arange(width, dtype=numpy.int64)
    index[start:stop] = -1
    return Transfer(reading.column_plans(index))


def _choose(genome: Genome, place: Mapping[str, Any], rng: numpy.random.Generator) -> Mapping[str, Any]:
    return {}


def _build(work: Work) -> Build:
    import numpy

    graph, concat, operand = work.graph, work.graph[work.place["concat"]], work.place["operand"]
    start, stop, width = _columns(graph, concat.id, operand)
    kept = numpy.concatenate([numpy.arange(start), numpy.arange(stop, width)]).astype(numpy.int64)
    reading = reading_behind(graph, concat.id, readings(graph, concat.settings["axis"])) or Reading()
    ground = _ground(graph, concat, operand, reading)
    less = _without(graph, concat.id, operand, work.born).finish()
    return Build(less, Transfer(reading.plans(kept)), ground=ground)


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
