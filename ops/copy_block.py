"""Copy block: a copy of a trained block, which keeps the shape, behind it.

A block is a residual sum with its branch, or a layer with its norm and activation; an activation that follows a sum
belongs to it. What has been trained can be a better start than a block that does nothing, though the function is not
kept: so it is with stacks of transformer layers (Du et al., "Stacking Your Transformers", 2024, arXiv 2405.15319), and
with new layers in AutoGrow (Wen et al., 2020, arXiv 1906.02909). Law: none; the child is repaired by distillation from
its parent.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from graphs.draft import Draft
from graphs.genome import Genome
from graphs.structure import Graph
from ops.copying import copy_nodes
from ops.mixing import is_layer
from ops.mutation import Build, Mutation, Site, Work
from ops.places import followed, residuals
from ops.transfer import Transfer

if TYPE_CHECKING:
    import numpy

__all__ = ["COPY_BLOCK"]


def _find(genome: Genome) -> Iterable[Site]:
    graph = genome.graph
    outputs = {head.node for head in graph.heads}
    blocks = ((shortcut, followed(graph, total)[-1]) for shortcut, total in residuals(graph))
    for start, end in dict.fromkeys([*blocks, *_layers(graph)]):
        if end not in outputs and graph.shapes[start] == graph.shapes[end]:
            if any(graph[node].tensors for node in _block(graph, start, end)):
                yield Site({"start": start, "end": end}, "approximate")


def _layers(graph: Graph) -> Iterable[tuple[str, str]]:
    """(input, end) of layers with their norm and activation."""
    for node in graph.nodes.values():
        if is_layer(node):
            yield node.inputs[0], followed(graph, node.id)[-1]


def _block(graph: Graph, start: str, end: str) -> list[str]:
    """What lies between two nodes, the end included, in execution order."""
    between = (graph.downstream([start]) & graph.upstream([end])) - {start}
    return [id for id in graph.nodes if id in between]


def _choose(genome: Genome, place: Mapping[str, Any], rng: numpy.random.Generator) -> Mapping[str, Any]:
    return {}


def _build(work: Work) -> Build:
    start, end = work.place["start"], work.place["end"]
    draft = Draft(work.graph, work.born)
    copies, copied = copy_nodes(draft, work.graph, _block(work.graph, start, end), {start: end}, after=end)
    draft.redirect(end, copies[end], [reader for reader, _ in work.graph.consumers[end]])
    return Build(draft.finish(), Transfer(copied))


COPY_BLOCK = Mutation(
    name="copy_block",
    preserves="approximate",
    summary="copy a trained block behind itself",
    needs="a residual block, or a layer with its norm and activation, that keeps the shape and is no output",
    find=_find,
    choose=_choose,
    build=_build,
)
