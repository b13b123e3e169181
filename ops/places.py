"""Places in a graph that several mutations ask for."""

from __future__ import annotations

from collections import Counter

from graphs.kinds import KINDS
from graphs.structure import Graph, Node

__all__ = [
    "channel_axis",
    "dependent",
    "followed",
    "junctions",
    "mixed_axis",
    "norm_near",
    "random_nodes",
    "reads_all_channels",
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
        ends = not kind.wall and (kind.activation or kind.operands[1] is None or "pool" in node.kind)
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
        if len(follower.inputs) != 1 or not (kind.activation or kind.normalisation):
            break
        found.append(follower.id)
    return found


def dependent(graph: Graph) -> frozenset[str]:
    """Nodes whose values depend on the input; the batch axis of all others has one entry."""
    return graph.downstream(node.id for node in graph.inputs)


def channel_axis(graph: Graph, node: str) -> int:
    """The axis of a node's value along which layers mix channels: the first one of images, the last one of others."""
    rank = len(graph.shapes[node])
    return 0 if rank == 3 else rank - 1


def shared_tensors(graph: Graph) -> frozenset[str]:
    """Tensors that more than one node refers to."""
    counts = Counter(name for node in graph.nodes.values() for name in node.tensors.values())
    return frozenset(name for name, count in counts.items() if count > 1)


def shares_statistics(graph: Graph, nodes: frozenset[str]) -> bool:
    """Whether a norm among `nodes` updates running statistics that other nodes update too."""
    rest = {name for node in graph.nodes.values() if node.id not in nodes for name in node.tensors.values()}
    return any(KINDS[graph[id].kind].normalisation and not rest.isdisjoint(graph[id].tensors.values()) for id in nodes)


def reads_all_channels(node: Node) -> bool:
    """Whether each output of a node is a weighted sum over all channels of its one operand."""
    return node.kind == "linear" or (node.kind == "conv2d" and node.settings["groups"] == 1)


def mixed_axis(graph: Graph, layer: Node) -> int:
    """The axis whose channels a layer mixes: the last one for linear layers, the first one for convolutions."""
    return len(graph.shapes[layer.inputs[0]]) - 1 if layer.kind == "linear" else 0


def norm_near(graph: Graph, node: str) -> bool:
    """Whether the network normalises values of the rank of `node`'s by the statistics of batches."""
    rank = len(graph.shapes[node])
    return any(
        KINDS[found.kind].normalisation and len(graph.shapes[found.id]) == rank for found in graph.nodes.values()
    )


def random_nodes(graph: Graph, nodes: frozenset[str]) -> list[str]:
    """Those of `nodes` that draw random numbers in train mode."""
    return [id for id in graph.nodes if id in nodes and KINDS[graph[id].kind].random(graph[id].settings)]
