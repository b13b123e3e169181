"""Places in a graph that several mutations ask for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from graphs.kinds import KINDS
from graphs.structure import Graph

__all__ = [
    "dependent",
    "followed",
    "junctions",
    "kept_by_copies",
    "random_nodes",
    "residuals",
    "shared_tensors",
    "shares_statistics",
]


def junctions(graph: Graph) -> list[str]:
    """Nodes behind which a new part of a network belongs: activations, poolings, and where values meet.

    Not between a convolution and its norm or activation, and not where the value is an output, or the same for all
    examples.
    """
    outputs = {head.node for head in graph.heads}
    varying = dependent(graph)
    found = []
    for node in graph.nodes.values():
        kind = KINDS[node.kind]
        ends = not kind.wall and (kind.activation or kind.operands[1] is None or kind.pooling)
        if ends and node.id not in outputs and node.id in varying:
            found.append(node.id)
    return found


def followed(graph: Graph, layer: str) -> list[str]:
    """A layer and the norms and activations that follow it and that nothing reads but the next of them."""
    outputs = {head.node for head in graph.heads}
    found = [layer]
    while found[-1] not in outputs and len(graph.consumers[found[-1]]) == 1:
        follower = graph[graph.consumers[found[-1]][0][0]]
        kind = KINDS[follower.kind]
        norm = kind.affine and kind.window is None
        if len(follower.inputs) != 1 or not (kind.activation or norm):
            break
        found.append(follower.id)
    return found


def residuals(graph: Graph) -> Iterator[tuple[str, str]]:
    """(shortcut, sum) of residual blocks."""
    for node in graph.nodes.values():
        if node.kind == "add" and len(node.inputs) == 2:
            one, other = node.inputs
            for shortcut, branch in ((one, other), (other, one)):
                if shortcut != branch and shortcut in graph.upstream([branch]):
                    yield shortcut, node.id


def dependent(graph: Graph) -> frozenset[str]:
    """Nodes whose values depend on the input; the batch axis of all others has one entry."""
    return graph.downstream(node.id for node in graph.inputs)


def shared_tensors(graph: Graph) -> frozenset[str]:
    """Tensors that more than one node refers to."""
    counts = Counter(name for node in graph.nodes.values() for name in node.tensors.values())
    return frozenset(name for name, count in counts.items() if count > 1)


def shares_statistics(graph: Graph, nodes: frozenset[str]) -> bool:
    """Whether a norm among `nodes` updates running statistics that other nodes update too."""
    rest = {name for node in graph.nodes.values() if node.id not in nodes for name in node.tensors.values()}
    return any(KINDS[graph[id].kind].normalisation and not rest.isdisjoint(graph[id].tensors.values()) for id in nodes)


def kept_by_copies(graph: Graph, nodes: frozenset[str]) -> str:
    """What copies of `nodes` whose values are averaged promise.

    Each copy draws numbers of its own, and of statistics that are shared each use updates them. Layers draw in train
    mode only; what a program does in eval mode is not known.
    """
    drawing = random_nodes(graph, nodes)
    if any(KINDS[graph[id].kind].wall for id in drawing):
        return "approximate"
    return "eval-exact" if drawing or shares_statistics(graph, nodes) else "exact"


def random_nodes(graph: Graph, nodes: frozenset[str]) -> list[str]:
    """Those of `nodes` that draw random numbers in train mode."""
    return [id for id in graph.nodes if id in nodes and KINDS[graph[id].kind].random(graph[id].settings)]
