"""Remove block: let the readers of a block's output read its input instead, and drop what nobody reads any more.

A block is a residual branch (its sum becomes the shortcut), or a layer with its norm and activation that keeps the
shape. Law: exact in both modes where the last layer or norm of what is added has zeros only, bit for bit what
`insert_block` was made from, or `add_skip`; elsewhere none, and the child is repaired by distillation from its parent
(LEMONADE: Elsken, Metzen, Hutter, 2019, arXiv 1804.09081).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from graphs.genome import Genome
from graphs.kinds import KINDS
from graphs.structure import Graph
from ops.bypass import bypass, dropped, no_more_than
from ops.mixing import is_layer
from ops.mutation import Build, Mutation, Site, Work
from ops.places import dependent, residuals
from ops.transfer import New, Transfer

if TYPE_CHECKING:
    import numpy

__all__ = ["REMOVE_BLOCK"]


def _find(genome: Genome) -> Iterable[Site]:
    graph = genome.graph
    varying = dependent(graph)
    layers = {node.id for node in graph.nodes.values() if node.tensors}
    for keep, drop in dict.fromkeys([*residuals(graph), *_layers(graph), *_projections(genome)]):
        if drop in varying and keep not in varying:
            continue
        lost = dropped(graph, bypass(graph, keep, drop))
        # Nothing would be left to learn where all layers go.
        if set() < layers & lost < layers and not any(graph[node].kind == "input" for node in lost):
            zero = _is_zero(genome, _scales(graph, keep, drop))
            yield Site({"keep": keep, "drop": drop}, no_more_than(graph, lost) if zero else "approximate")


def _scales(graph: Graph, keep: str, drop: str) -> list[str]:
    """The tensors which, if they are zero, make what `drop` adds to `keep` zero; none if there are no such tensors."""
    end = graph[drop]
    if end.kind != "add" or len(end.inputs) != 2:
        return []
    last = graph[end.inputs[1] if end.inputs[0] == keep else end.inputs[0]]
    if not KINDS[last.kind].affine:
        return []
    return [name for role, name in last.tensors.items() if role in ("weight", "bias")]


def _is_zero(genome: Genome, names: list[str]) -> bool:
    return bool(names) and not any(bool(genome.weights[name].any()) for name in names)


def _projections(genome: Genome) -> Iterable[tuple[str, str]]:
    """(operand, sum) of sums whose other operand is nothing, as what `add_skip` adds is at first."""
    for node in genome.graph.nodes.values():
        if node.kind == "add" and len(node.inputs) == 2:
            yield from (
                (keep, node.id) for keep in node.inputs if _is_zero(genome, _scales(genome.graph, keep, node.id))
            )


def _layers(graph: Graph) -> Iterable[tuple[str, str]]:
    """(input, end) of each layer that keeps the shape, with the norms and activations that only follow it."""
    for node in graph.nodes.values():
        if not is_layer(node) or graph.shapes[node.id] != graph.shapes[node.inputs[0]]:
            continue
        end = node.id
        while len(graph.consumers[end]) == 1:
            follower = graph[graph.consumers[end][0][0]]
            kind = KINDS[follower.kind]
            if len(follower.inputs) != 1 or not (kind.activation or kind.normalisation):
                break
            end = follower.id
        if end not in {head.node for head in graph.heads}:
            yield node.inputs[0], end


def _choose(genome: Genome, place: Mapping[str, Any], rng: numpy.random.Generator) -> Mapping[str, Any]:
    return {}


def _build(work: Work) -> Build:
    keep, drop = work.place["keep"], work.place["drop"]
    ground = Transfer({name: New(0.0) for name in _scales(work.graph, keep, drop)})
    return Build(bypass(work.graph, keep, drop, work.born).finish(), Transfer(), ground=ground)


REMOVE_BLOCK = Mutation(
    name="remove_block",
    preserves="exact",
    summary="bypass a block and drop it; exact where it adds nothing",
    needs="a residual block, or a layer that keeps the shape, without which each input is still read",
    find=_find,
    choose=_choose,
    build=_build,
    undoes="insert_block",
)
