"""Bypassing: the readers of a node read another one instead, and what leads to no output any more is dropped."""

from __future__ import annotations

from graphs.draft import Draft
from graphs.structure import Graph
from ops.places import shares_statistics

__all__ = ["bypass", "dropped", "no_more_than"]


def bypass(graph: Graph, keep: str, drop: str, born: int = 0) -> Draft:
    """A draft in which whoever read `drop`, an output too, reads `keep`."""
    draft = Draft(graph, born)
    draft.redirect(drop, keep, [reader for reader, _ in graph.consumers[drop]])
    draft.move_heads(drop, keep)
    draft.prune()
    return draft


def dropped(graph: Graph, draft: Draft) -> frozenset[str]:
    """The nodes of a graph that a draft of it has no more."""
    return frozenset(graph.nodes) - frozenset(draft.nodes)


def no_more_than(graph: Graph, lost: frozenset[str]) -> str:
    """What can be promised if the outputs do not depend on the nodes that are lost.

    In train mode they count where they update running statistics that remaining nodes have too.
    """
    return "eval-exact" if shares_statistics(graph, lost) else "exact"
