"""How large the whole numbers of an input may be: what the example shows, or what the tables allow that they index."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from graphs.kinds.program import references
from graphs.structure import Node

__all__ = ["entries"]


def entries(nodes: Mapping[str, Node], id: str, shown: int, truths: Callable[[str], bool]) -> int:
    """How many different numbers from 0 an input may hold.

    Args:
        nodes: The nodes of a graph.
        id: The input.
        shown: How many there are by the example, which may hold less than all of them.
        truths: Whether the value of a node says no more than what is true.

    Returns:
        The number of rows of the smallest table that the input indexes, if that is all that it is read for.
    """
    ahead, seen, tables = [id], {id}, []
    while ahead:
        value = ahead.pop()
        for node in nodes.values():
            places = [place for place, source in enumerate(node.inputs) if source == value]
            if not places or truths(node.id):
                continue
            if node.kind in _MOVING:
                if node.id not in seen and (node.kind != "expand" or 0 in places):
                    seen.add(node.id)
                    ahead.append(node.id)
                continue
            for rows in _rows(node, places):
                if rows is None:
                    return shown
                tables.append(rows)
    return max(shown, min(tables)) if tables else shown


_MOVING = frozenset({"concat", "detach", "expand", "flatten", "identity", "permute", "reshape", "select", "slice"})
"""Kinds whose value holds the numbers that they are given."""


def _rows(node: Node, places: list[int]) -> Iterator[int | None]:
    """Rows of the tables in which a node looks up what it is given; None where it computes something else."""
    if node.kind == "embedding":
        yield node.settings["entries"]
    elif node.kind != "opaque":
        yield None
    else:
        for target, arguments, keywords in node.settings["program"]:
            if any(name == "in" and at in places for name, at in references([*arguments, *keywords.values()])):
                yield _looked_up(node, target, arguments)


def _looked_up(node: Node, target: str, arguments: Any) -> int | None:
    """Rows of the table, if a step of a program looks its operand up in a tensor of the node."""
    tables = [at for name, at in references(arguments[:2]) if name == "tensor"]
    if target.partition(".")[2] != "embedding" or len(tables) != 1:
        return None
    rows: int = node.settings["held"][tables[0]][0][0]
    return rows
