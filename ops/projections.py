"""What belongs to the queries and keys of one attention alone: the channels in which they meet.

They meet each other, so neither can change by itself; an operator changes both together, which it may where no other
node looks at them. That is so of attention as one node and of a product of matrices.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from graphs.spaces import Space
from graphs.structure import Graph, Node

__all__ = ["Projections", "attentions", "projections"]

_LAYERS = frozenset({"linear", "product", "slice", "reshape", "permute", "select", "identity"})
"""Kinds that make queries and keys and do nothing else with them: zeros stay zeros."""

_SCALING = frozenset({"mul", "multiply", "div", "divide", "truediv", "true_divide"})

_SUMMED = {"attention": (-1, -1), "matmul": (-1, -2)}
"""For each kind that sums over products of two operands' channels, along which axis of each."""


@dataclass(frozen=True, slots=True)
class Projections:
    """The spaces in which an attention compares.

    Attributes:
        node: Id of the node that sums over products.
        query: Space of its first operand, the queries.
        key: Space of its second one, the keys, which is another one.
    """

    node: str
    query: Space
    key: Space


def attentions(graph: Graph) -> Iterable[Projections]:
    """The comparisons of a graph whose queries and keys are their own, in execution order."""
    for node in graph.nodes.values():
        if node.kind in _SUMMED:
            found = projections(graph, node.id)
            if found is not None:
                yield found


def projections(graph: Graph, attention: str) -> Projections | None:
    """The spaces of an attention; None where its queries or keys are not its own, or the same as each other."""
    node = graph[attention]
    query, key = (_whole(graph, node, slot) for slot in range(2))
    if query is None or key is None or not _is_own(graph, node, query, 0) or not _is_own(graph, node, key, 1):
        return None
    return Projections(attention, query, key)


def _whole(graph: Graph, node: Node, slot: int) -> Space | None:
    """The space that an operand's channels are, all of them."""
    source = node.inputs[slot]
    axis = len(graph.shapes[source]) + _SUMMED[node.kind][slot]
    width = graph.shapes[source][axis]
    for space in graph.spaces:
        places = [value for value in space.values if (value.node, value.axis) == (source, axis)]
        if space.width == width and any(value.offset == 0 and value.inner == 1 for value in places):
            return space
    return None


def _is_own(graph: Graph, node: Node, space: Space, slot: int) -> bool:
    """Whether a space is made by linear layers, and read by this operand of the attention alone."""
    if {use.how for use in space.uses} != {"write"} or space.blocks > 1:
        return False
    outputs = {head.node for head in graph.heads}
    for value in space.values:
        if value.node in outputs or not _is_plain(graph[value.node]):
            return False
        for reader, place in graph.consumers[value.node]:
            if not _is_plain(graph[reader]) and (reader, place) != (node.id, slot):
                return False
    return True


def _is_plain(node: Node) -> bool:
    """Whether a node makes or moves channels, or multiplies them by a number."""
    if node.kind in _LAYERS:
        return bool(node.settings.get("step", 1) == 1)
    if node.kind != "pointwise" or len(node.inputs) != 1:
        return False
    target, arguments, keywords = node.settings["program"][0]
    name: str = target.partition(".")[2]
    numbers = [isinstance(each, int | float) for each in arguments]
    scaled = (numbers == [False, True] and name in _SCALING) or (numbers == [True, False] and "mul" in name)
    return scaled and not keywords
