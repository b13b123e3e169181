"""Insert pool: halve a map behind an activation along each axis, by its maximum or mean over two places.

All that reads the map sees a smaller one, which the network must be able to read with the tensors that it has: no
linear layer behind a flattening, and no sum with a map that stays as it was. Pooling is one of the changes of
Large-Scale Evolution (Real et al., "Large-Scale Evolution of Image Classifiers", 2017, arXiv 1703.01041: its stride
mutation). Only maps whose channels come first, for no pool works on others. Law: none; the child is repaired by
distillation from its parent.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from graphs.draft import Draft
from graphs.errors import ShapeError
from graphs.genome import Genome
from graphs.kinds import KINDS
from graphs.structure import Graph, Node, Shape
from ops.mixing import layer_for
from ops.mutation import Build, Mutation, Site, Work
from ops.options import OneOf, Option
from ops.transfer import Transfer

if TYPE_CHECKING:
    import numpy

__all__ = ["INSERT_POOL"]

_POOLS = ("max", "avg")
_WINDOW = 2


def _find(genome: Genome) -> Iterable[Site]:
    graph = genome.graph
    outputs = {head.node for head in graph.heads}
    for node in graph.nodes.values():
        shape, layer = graph.shapes[node.id], layer_for(graph, node.id)
        maps = KINDS[node.kind].activation and layer and layer.window and min(shape[1:]) >= _WINDOW
        if maps and node.id not in outputs and _works(graph, node.id, (shape[0], *(n // _WINDOW for n in shape[1:]))):
            yield Site({"after": node.id}, "approximate")


def _works(graph: Graph, source: str, smaller: Shape) -> bool:
    """Whether the network computes outputs of the shapes that it had, with its tensors, where `source` is smaller."""
    changed = {source: smaller}
    for node in graph.nodes.values():
        if node.id == source or changed.keys().isdisjoint(node.inputs):
            continue
        shapes = [changed.get(id, graph.shapes[id]) for id in node.inputs]
        try:
            out = KINDS[node.kind].infer(node, shapes)
        except ShapeError:
            return False
        if not _same_tensors(node, shapes, [graph.shapes[id] for id in node.inputs]):
            return False
        if out != graph.shapes[node.id]:
            changed[node.id] = out
    return changed.keys().isdisjoint(head.node for head in graph.heads)


def _same_tensors(node: Node, new: list[Shape], old: list[Shape]) -> bool:
    """Whether a node needs the same tensors for operands of other shapes."""
    specs = KINDS[node.kind].tensors
    return specs(node.settings, new) == specs(node.settings, old)


def _pools(graph: Graph, after: str) -> list[str]:
    """The poolings of a map."""
    return [f"{pool}_pool{len(graph.shapes[after]) - 1}d" for pool in _POOLS]


def _choose(genome: Genome, place: Mapping[str, Any], rng: numpy.random.Generator) -> Mapping[str, Any]:
    pools = _pools(genome.graph, place["after"])
    return {"pool": pools[int(rng.integers(len(pools)))]}


def _options(genome: Genome, place: Mapping[str, Any]) -> Mapping[str, Option]:
    return {"pool": OneOf(_pools(genome.graph, place["after"]))}


def _build(work: Work) -> Build:
    after = work.place["after"]
    draft = Draft(work.graph, work.born)
    pooled = draft.add(work.choices["pool"], after, after=after, kernel=_WINDOW)
    draft.redirect(after, pooled, [reader for reader, _ in work.graph.consumers[after]])
    return Build(draft.finish(), Transfer())


INSERT_POOL = Mutation(
    name="insert_pool",
    preserves="approximate",
    summary="halve a map behind an activation, where all that follows can read it",
    needs="an activation on a map of which all that follows can also read one half as large",
    find=_find,
    choose=_choose,
    build=_build,
    options=_options,
)
