"""Shape inference: the shape of each node's value, from the inputs' shapes and the kinds' rules."""

from __future__ import annotations

from graphs.kinds import kind_of
from graphs.structure import Graph, Shape

__all__ = ["infer"]


def infer(graph: Graph) -> dict[str, Shape]:
    """Shapes of all nodes for one example (no batch axis), in execution order.

    Raises:
        ShapeError: The inputs of a node do not fit it; the message names the node.
    """
    shapes: dict[str, Shape] = {}
    for node in graph.nodes.values():
        shapes[node.id] = kind_of(node.kind).infer(node, [shapes[source] for source in node.inputs])
    return shapes
