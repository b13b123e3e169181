"""Bringing an earlier value to the places of a later one, which strides and pools have made fewer: by averaging."""

from __future__ import annotations

from graphs.draft import Draft
from graphs.kinds.weighted import PLACES, slide
from graphs.structure import Graph, Shape

__all__ = ["add_match", "windows"]

_LARGEST = 4
"""Along each axis, at most so many places become one."""


def windows(graph: Graph, source: str, shape: Shape, axis: int) -> tuple[int, ...] | None:
    """How many places along each axis of a node's value become one so that it differs from `shape` in channels at most.

    Args:
        graph: The graph.
        source: The node.
        shape: What is to be matched.
        axis: The axis of channels.

    Returns:
        A number for each axis of places, all of them 1 where nothing has to be done; None where nothing helps. Only
        maps whose channels come first are made smaller.
    """
    found = graph.shapes[source]
    if len(found) != len(shape):
        return None
    places = [(have, want) for place, (have, want) in enumerate(zip(found, shape, strict=True)) if place != axis]
    sizes = tuple(-(-have // want) for have, want in places)
    if all(have == want for have, want in places):
        return sizes
    if axis or len(places) not in PLACES or max(sizes) > _LARGEST:
        return None
    fits = (slide(have, size, size, 0, 1, ceil=True) == want for (have, want), size in zip(places, sizes, strict=True))
    return sizes if all(fits) else None


def add_match(draft: Draft, graph: Graph, source: str, shape: Shape, axis: int, after: str) -> str:
    """Adds what `windows` asks for behind the node `after`, and returns the node that has the places of `shape`."""
    sizes = windows(graph, source, shape, axis)
    if sizes is None or set(sizes) <= {1}:
        return source
    return draft.add(f"avg_pool{len(sizes)}d", source, after=after, kernel=sizes, ceil=True)
