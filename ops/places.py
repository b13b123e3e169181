"""Places in a graph that several mutations ask for."""

from __future__ import annotations

from collections import Counter

from graphs.kinds import KINDS
from graphs.structure import Graph

__all__ = ["junctions", "norm_near", "random_nodes", "shared_tensors"]


def junctions(graph: Graph) -> list[str]:
    """Nodes behind which a new part of a network belongs: activations, poolings, and where values meet.

    Not between a convolution and its norm or activation, and not where the value is an output.
    """
    outputs = {head.node for head in graph.heads}
    found = []
    for node in graph.nodes.values():
        kind = KINDS[node.kind]
        ends = kind.activation or kind.operands[1] is None or "pool" in node.kind
        if ends and node.id not in outputs:
            found.append(node.id)
    return found


def shared_tensors(graph: Graph) -> frozenset[str]:
    """Tensors that more than one node refers to."""
    counts = Counter(name for node in graph.nodes.values() for name in node.tensors.values())
    return frozenset(name for name, count in counts.items() if count > 1)


def norm_near(graph: Graph, node: str) -> bool:
    """Whether the network normalises values of the rank of `node`'s by the statistics of batches."""
    rank = len(graph.shapes[node])
    return any(
        KINDS[found.kind].normalisation and len(graph.shapes[found.id]) == rank for found in graph.nodes.values()
    )


def random_nodes(graph: Graph, nodes: frozenset[str]) -> list[str]:
    """Those of `nodes` that draw random numbers in train mode."""
    return [id for id in graph.nodes if id in nodes and KINDS[graph[id].kind].random]
