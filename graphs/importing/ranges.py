"""How large the whole numbers of an input may be: what an example shows, or what the tables allow that they index."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from graphs.kinds.program import references
from graphs.structure import Node

__all__ = ["entries", "limits"]


def entries(
    nodes: Mapping[str, Node], id: str, shown: Sequence[int], truths: Callable[[str], bool]
) -> int | tuple[int, ...]:
    """How many different numbers from 0 an input may hold.

    Args:
        nodes: The nodes of a graph.
        id: The input.
        shown: How many there are by the example, which may hold less than all of them, for each entry of the last axis.
        truths: Whether the value of a node says no more than what is true.

    Returns:
        The number of rows of the smallest table that the input indexes, if that is all that it is read for. One for
        each entry of the last axis, as of columns of a table of data, where the example has more than that.
    """
    tables = _tables(nodes, id, range(len(shown)), truths)
    whole = [rows for each in tables for rows in each]
    if None in whole or not whole:
        return max(shown)
    least = min(rows for rows in whole if rows is not None)
    if least >= max(shown):
        return least
    found = [max(number, min(filter(None, each), default=0)) for number, each in zip(shown, tables, strict=True)]
    return tuple(found) if len(set(found)) > 1 else found[0]


def limits(nodes: Mapping[str, Node], id: str) -> list[int | None]:
    """For each entry of an input's last axis, the rows of the smallest table that it indexes; None where of none."""
    shape = nodes[id].settings["shape"]
    found = _tables(nodes, id, range(shape[-1] if shape else 1), lambda node: False)
    return [min((rows for rows in each if rows is not None), default=None) for each in found]


def _tables(
    nodes: Mapping[str, Node], id: str, entries: Sequence[int], truths: Callable[[str], bool]
) -> list[list[int | None]]:
    """For each entry of the last axis of an input, the rows of the tables that it indexes; None for another use."""
    last = len(nodes[id].settings["shape"]) - 1
    found: list[list[int | None]] = [[] for _ in entries]
    ahead: list[tuple[str, tuple[int, ...]]] = [(id, tuple(entries))]
    seen = set(ahead)
    while ahead:
        value, mine = ahead.pop()
        for node in nodes.values():
            places = [place for place, source in enumerate(node.inputs) if source == value]
            if not places or truths(node.id):
                continue
            if node.kind in _MOVING:
                next_one = (node.id, _taken(node, last, mine) if value == id else mine)
                if next_one not in seen and (node.kind != "expand" or 0 in places):
                    seen.add(next_one)
                    ahead.append(next_one)
                continue
            for rows in _rows(node, places):
                for entry in mine:
                    found[entry].append(rows)
    return found


def _taken(node: Node, last: int, entries: tuple[int, ...]) -> tuple[int, ...]:
    """Which entries of the last axis of an input a node takes that reads it."""
    settings = node.settings
    if settings.get("axis") != last:
        return entries
    if node.kind == "select":
        return (entries[settings["index"]],)
    return entries[settings["start"] : settings["stop"] : settings["step"]] if node.kind == "slice" else entries


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
