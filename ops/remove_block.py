"""Remove block: let the readers of a block's output read its input instead, and drop what nobody reads any more.

A block is a residual branch (its sum becomes the shortcut), a gated branch (one side remains), or a layer with its norm
and activation that keeps the shape. Law: none, except that a block whose output is its input is removed exactly; the
child is repaired by distillation from its parent (LEMONADE: Elsken, Metzen, Hutter, 2019, arXiv 1804.09081).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from graphs.draft import Draft
from graphs.genome import Genome
from graphs.kinds import KINDS
from graphs.structure import Graph
from ops.mutation import Build, Mutation, Site, Work
from ops.transfer import Transfer

if TYPE_CHECKING:
    import numpy

__all__ = ["REMOVE_BLOCK"]


def _find(genome: Genome) -> Iterable[Site]:
    graph = genome.graph
    for keep, drop in [*_branches(graph), *_layers(graph)]:
        dropped = [graph[node] for node in _dropped(graph, keep, drop)]
        if any(node.tensors for node in dropped) and not any(node.kind == "input" for node in dropped):
            yield Site({"keep": keep, "drop": drop}, "approximate")


def _branches(graph: Graph) -> Iterable[tuple[str, str]]:
    """(shortcut, sum) of residual blocks, and (side, gate) of both sides of gated branches."""
    for node in graph.nodes.values():
        if node.kind == "gate":
            yield from ((side, node.id) for side in dict.fromkeys(node.inputs))
        elif node.kind == "add" and len(node.inputs) == 2:
            one, other = node.inputs
            for shortcut, branch in ((one, other), (other, one)):
                if shortcut != branch and shortcut in graph.upstream([branch]):
                    yield shortcut, node.id


def _layers(graph: Graph) -> Iterable[tuple[str, str]]:
    """(input, end) of each layer that keeps the shape, with the norms and activations that only follow it."""
    for node in graph.nodes.values():
        if node.kind not in ("conv2d", "linear") or graph.shapes[node.id] != graph.shapes[node.inputs[0]]:
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


def _dropped(graph: Graph, keep: str, drop: str) -> frozenset[str]:
    """What leads to no output once the readers of `drop` read `keep`."""
    draft = _rewired(graph, keep, drop, 0)
    return frozenset(graph.nodes) - frozenset(draft.nodes)


def _rewired(graph: Graph, keep: str, drop: str, born: int) -> Draft:
    draft = Draft(graph, born)
    draft.redirect(drop, keep, [reader for reader, _ in graph.consumers[drop]])
    draft.move_heads(drop, keep)
    draft.prune()
    return draft


def _choose(genome: Genome, place: Mapping[str, Any], rng: numpy.random.Generator) -> Mapping[str, Any]:
    return {}


def _build(work: Work) -> Build:
    return Build(_rewired(work.graph, work.place["keep"], work.place["drop"], work.born).finish(), Transfer())


REMOVE_BLOCK = Mutation(
    name="remove_block",
    preserves="approximate",
    summary="bypass a block and drop it",
    find=_find,
    choose=_choose,
    build=_build,
)
