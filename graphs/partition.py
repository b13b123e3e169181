"""Dividing the vertices of a graph into cells, finer and finer: the work horse of `graphs.identity`.

A partition is refined until all vertices of a cell are joined alike to each other cell. John Hopcroft's rule,
never to go on with the largest part of a divided cell ("An n log n algorithm for minimizing states in a
finite automaton", 1971), makes that fast on the long chains that networks are. What happens depends on
structure alone, so two vertices that a symmetry of the graph maps onto each other leave the same trace.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterable, Sequence

__all__ = ["Edges", "Partition"]

Edges = Sequence[list[tuple[int, int]]]
"""For each vertex its (label, other vertex), seen from both ends, sorted."""


class Partition:
    """Vertices in an order, divided into cells; a cell is known by where it starts.

    Attributes:
        order: The vertices, cell by cell; within a cell the order means nothing.
        place: Where each vertex stands in it.
        cell: The start of each vertex's cell.
        size: By start, how many vertices a cell has.
    """

    __slots__ = ("cell", "order", "place", "size")

    def __init__(self, order: list[int], place: list[int], cell: list[int], size: dict[int, int]) -> None:
        self.order, self.place, self.cell, self.size = order, place, cell, size

    @classmethod
    def by_label(cls, labels: Sequence[str]) -> Partition:
        """One cell for each label, in the order of the labels."""
        order = sorted(range(len(labels)), key=labels.__getitem__)
        place, cell, size, start = [0] * len(order), [0] * len(order), {0: 0}, 0
        for position, vertex in enumerate(order):
            if labels[vertex] != labels[order[start]]:
                start = position
                size[start] = 0
            place[vertex], cell[vertex] = position, start
            size[start] += 1
        return cls(order, place, cell, size)

    def copy(self) -> Partition:
        """A partition that can be refined without changing this one."""
        return Partition(self.order.copy(), self.place.copy(), self.cell.copy(), self.size.copy())

    def smallest(self) -> list[int]:
        """The vertices of the first of the smallest cells that have several; empty where all stand alone."""
        starts = [(size, start) for start, size in self.size.items() if size > 1]
        if not starts:
            return []
        size, start = min(starts)
        return self.order[start : start + size]

    def single_out(self, vertex: int, edges: Edges) -> tuple[bytes, int]:
        """Gives `vertex` a cell of its own, before the rest of its old one, and refines."""
        start = self.cell[vertex]
        self._split(start, [[other for other in self._members(start) if other != vertex]])
        return self.refine([start], edges)

    def refine(self, starts: Iterable[int], edges: Edges) -> tuple[bytes, int]:
        """Divides cells until all vertices of a cell are joined alike to each other cell.

        Args:
            starts: Cells from which new divisions can follow.
            edges: Of all vertices.

        Returns:
            A trace of what happened, equal for vertices that are images of each other, and how many edges
            were seen.
        """
        waiting = deque(starts)
        queued = set(waiting)
        trace = hashlib.sha256()
        seen = 0
        while waiting:
            start = waiting.popleft()
            queued.discard(start)
            touched: dict[int, list[int]] = {}
            for vertex in self._members(start):
                for label, other in edges[vertex]:
                    touched.setdefault(other, []).append(label)
            cells: dict[int, dict[tuple[int, ...], list[int]]] = {}
            for vertex, labels in touched.items():
                seen += len(labels)
                labels.sort()
                cells.setdefault(self.cell[vertex], {}).setdefault(tuple(labels), []).append(vertex)
            for cell in sorted(cells):
                groups = sorted(cells[cell].items())
                trace.update(repr((start, cell, [(labels, len(group)) for labels, group in groups])).encode())
                parts = self._split(cell, [group for _, group in groups])
                if cell not in queued:
                    # What the largest part would tell follows from the whole and the other parts.
                    parts.remove(max(parts, key=lambda part: (self.size[part], -part)))
                for part in parts:
                    if part not in queued:
                        queued.add(part)
                        waiting.append(part)
        return trace.digest(), seen

    def _members(self, start: int) -> list[int]:
        return self.order[start : start + self.size[start]]

    def _split(self, start: int, groups: Sequence[Sequence[int]]) -> list[int]:
        """Makes groups of a cell's vertices cells of their own, behind the rest; the starts of all parts."""
        order, place = self.order, self.place
        rest = self.size[start] - sum(map(len, groups))
        parts = [start] if rest else []
        if not rest and len(groups) == 1:
            return [start]
        end = start + self.size[start]
        for group in reversed(groups):
            for vertex in group:
                end -= 1
                other, old = order[end], place[vertex]
                order[old], place[other] = other, old
                order[end], place[vertex] = vertex, end
            for vertex in group:
                self.cell[vertex] = end
            self.size[end] = len(group)
            parts.append(end)
        if rest:
            self.size[start] = rest
        return sorted(parts)

    def symmetry(self, other: Partition, edges: Edges) -> dict[int, int] | None:
        """A symmetry of the graph that makes `other` of this like partition, if a simple one does.

        Vertices that are in both of two corresponding cells are mapped onto themselves; a single vertex that is in
        one cell only is mapped onto the single one that is in the other only.

        Returns:
            The image of each vertex that is moved. None if that is no symmetry, which proves nothing.
        """
        image: dict[int, int] = {}
        for start in self.size:
            mine, theirs = self._members(start), other._members(start)
            if mine != theirs:
                gone, come = set(mine).difference(theirs), set(theirs).difference(mine)
                if len(gone) > 1:
                    return None
                image.update(zip(gone, come, strict=True))
        for vertex, onto in image.items():
            if sorted((label, image.get(end, end)) for label, end in edges[vertex]) != edges[onto]:
                return None
        return image
