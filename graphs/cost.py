"""What a network costs: parameters and multiply-accumulates, from the structure alone."""

from __future__ import annotations

from math import prod

from graphs.errors import UnknownName
from graphs.kinds import KINDS
from graphs.structure import Graph

__all__ = ["macs", "macs_by_node", "parameters"]

CONVENTIONS = ("products", "torchinfo")


def parameters(graph: Graph) -> int:
    """Number of trainable parameters, as `sum(p.numel() for p in module.parameters())` counts them: tied ones once."""
    return sum(prod(spec.shape) for spec in graph.tensors.values() if not spec.buffer)


def macs(graph: Graph, convention: str = "products") -> int:
    """Multiply-accumulates of the eval graph for one example.

    Args:
        graph: The network.
        convention: `products` counts convolutions, linear layers and matrix products without biases and norms;
            `torchinfo` adds an operation for each bias of an output element and for each parameter of a norm.

    Raises:
        UnknownName: There is no such convention.
    """
    living = graph.in_mode(training=False).upstream(head.node for head in graph.heads if not head.training_only)
    return sum(count for node, count in macs_by_node(graph, convention).items() if node in living)


def macs_by_node(graph: Graph, convention: str = "products") -> dict[str, int]:
    """Multiply-accumulates of each node for one example; see `macs`."""
    if convention not in CONVENTIONS:
        raise UnknownName.of("convention", convention, CONVENTIONS)
    found = {}
    for node in graph.nodes.values():
        kind, shapes = KINDS[node.kind], [graph.shapes[source] for source in node.inputs]
        total = products = kind.macs(node.settings, shapes, graph.shapes[node.id])
        if convention == "torchinfo" and products and "bias" in node.tensors:
            total += prod(graph.shapes[node.id])
        if convention == "torchinfo" and not products:
            total += sum(prod(spec.shape) for spec in kind.tensors(node.settings, shapes).values() if not spec.buffer)
        found[node.id] = total
    return found
