"""What belongs to one attention alone: the channel spaces of its queries, its keys and its values.

Queries and keys meet each other, so neither space can change by itself; an operator that works on heads changes them
together, which it may where no other node looks at them. Heads are blocks of all three spaces.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from graphs.spaces import Space
from graphs.structure import Graph, Node

__all__ = ["Projections", "attentions", "projections"]

_LAYERS = frozenset({"linear", "slice"})
"""Kinds that make queries, keys and values and do nothing else with them."""

_BEHIND = _LAYERS | {"dropout", "identity"}
"""Kinds that may follow behind the heads."""


@dataclass(frozen=True, slots=True)
class Projections:
    """The spaces of an attention, each in as many blocks as there are heads.

    Attributes:
        node: Id of the attention.
        heads: Number of heads.
        query: Space of the queries.
        key: Space of the keys, which is another one.
        value: Space of the values, which pass through to the layer behind; None where something else depends on how it
            falls into heads.
    """

    node: str
    heads: int
    query: Space
    key: Space
    value: Space | None


def attentions(graph: Graph) -> Iterable[Projections]:
    """The attentions of a graph whose queries and keys are their own, in execution order."""
    for node in graph.nodes.values():
        if node.kind in ("attention", "window_attention"):
            found = projections(graph, node.id)
            if found is not None:
                yield found


def projections(graph: Graph, attention: str) -> Projections | None:
    """The spaces of an attention; None where its queries or keys are not its own, or the same as each other."""
    node = graph[attention]
    heads = node.settings["heads"]
    query, key, value = (_whole(graph, node, slot) for slot in range(3))
    if query is None or key is None or not _is_own(graph, node, query, 0) or not _is_own(graph, node, key, 1):
        return None
    if value is None or not _is_own_value(graph, node, value):
        value = None
    return Projections(attention, heads, replace(query, blocks=heads), replace(key, blocks=heads), value)


def _whole(graph: Graph, node: Node, slot: int) -> Space | None:
    """The space that an operand's channels are, all of them."""
    source = node.inputs[slot]
    axis = len(graph.shapes[source]) - 1
    width = graph.shapes[source][axis]
    for space in graph.spaces:
        places = [value for value in space.values if (value.node, value.axis) == (source, axis)]
        if space.width == width and any(value.offset == 0 and value.inner == 1 for value in places):
            return space
    return None


def _is_own(graph: Graph, node: Node, space: Space, slot: int) -> bool:
    """Whether a space is made by linear layers, and read by this operand of the attention alone."""
    return _passes(graph, space, _LAYERS, node.id, slot) and {use.how for use in space.uses} == {"write"}


def _is_own_value(graph: Graph, node: Node, space: Space) -> bool:
    """Whether nothing but the attention divides a space into blocks, and linear layers make and read it."""
    if space.reason is not None or space.balanced or space.blocks != node.settings["heads"]:
        return False
    return _passes(graph, space, _BEHIND, node.id, 2) and {use.how for use in space.uses} == {"write", "read"}


def _passes(graph: Graph, space: Space, kinds: frozenset[str], attention: str, slot: int) -> bool:
    """Whether a space stands in values of these kinds only, which nothing else reads but this operand."""
    outputs = {head.node for head in graph.heads}
    for value in space.values:
        if value.node in outputs or value.inner != 1:
            return False
        if graph[value.node].kind not in kinds and (value.node, slot) != (attention, 2):
            return False
        for reader, place in graph.consumers[value.node]:
            if graph[reader].kind not in kinds and (reader, place) != (attention, slot):
                return False
            if graph[reader].settings.get("step", 1) != 1:
                return False
    return True
