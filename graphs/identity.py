"""Which structures are the same: equal fingerprints for graphs that are equal up to names, for no others.

The fingerprint is the digest of a **canonical form**, the text of the graph with its vertices numbered in an
order that depends on structure alone. A hash that walks up from the inputs will not do: it cannot tell one
node that is read twice from two equal copies. The order is found as graph isomorphism programs find it
(Brendan McKay and Adolfo Piperno, "Practical graph isomorphism, II", 2013, arXiv 1301.1493):

1. *Refine*: `graphs.partition` divides the vertices by what they are and how they are joined.
2. *Individualise*: while a cell has several vertices, one is singled out and the cells are refined again. All
   of the cell's vertices are tried, those that a known symmetry maps onto each other once, and the least
   result wins.

Two symmetric branches are recognised at once: exchanging them is tried as a symmetry, and then only one is
followed. What symmetry of another sort makes too expensive is refused, not guessed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

from graphs.documents import canonical
from graphs.errors import GraphError
from graphs.kinds import kind_of
from graphs.partition import Edges, Partition
from graphs.structure import Graph, Node

__all__ = ["BUDGET", "fingerprint"]

BUDGET = 20_000_000
"""Vertices and edges that `fingerprint` looks at before it gives up: some seconds of work."""

_KEPT = 4
"""Of so many ways to go on, the partition is kept in memory; for others it is made again."""

_NESTED = 100
"""So many choices may depend on each other before the graph counts as too symmetric."""


def fingerprint(graph: Graph, budget: int = BUDGET) -> str:
    """The identity of a structure, 64 hexadecimal digits.

    Counted are kinds, settings, operands and their order (not for sums, products and means), which nodes
    share tensors and in which roles, the inputs' names and channels, the heads' names and whether they exist
    in training only. Not counted are the names of nodes and tensors, weights, the inputs' other sizes, the
    execution order, and where nodes come from.

    Args:
        graph: The structure.
        budget: Vertices and edges to look at before giving up.

    Raises:
        GraphError: The graph is so symmetric that the budget does not suffice.
    """
    labels, edges, names = _vertices(graph)
    search = _Search(labels, edges, budget)
    search.run()
    order = search.best[1]
    place = {vertex: number for number, vertex in enumerate(order)}
    form = [
        [labels[vertex], [[names[label], place[other]] for label, other in _placed(edges[vertex], place)]]
        for vertex in order
    ]
    return hashlib.sha256(canonical(form).encode()).hexdigest()


def _placed(edges: Iterable[tuple[int, int]], place: dict[int, int]) -> list[tuple[int, int]]:
    """Edges in an order that depends on the places of the vertices that they lead to."""
    return sorted(edges, key=lambda edge: (edge[0], place[edge[1]]))


def _vertices(graph: Graph) -> tuple[list[str], Edges, list[str]]:
    """The graph as labelled vertices and edges: a vertex for each node and for each shared tensor.

    Returns:
        What each vertex is; its edges, their labels numbered; what the numbers mean.
    """
    number = {id: place for place, id in enumerate(graph.nodes)}
    labels = [_label(node, graph) for node in graph.nodes.values()]
    found: list[list[tuple[str, int]]] = [[] for _ in labels]

    def join(one: int, other: int, forth: str, back: str) -> None:
        found[one].append((forth, other))
        found[other].append((back, one))

    users: dict[str, list[tuple[str, str]]] = {}
    for node in graph.nodes.values():
        ordered = not kind_of(node.kind).commutative
        for position, source in enumerate(node.inputs):
            slot = str(position) if ordered else "any"
            join(number[node.id], number[source], f"reads {slot}", f"read as {slot}")
        for role, name in node.tensors.items():
            users.setdefault(name, []).append((node.id, role))
    for uses in users.values():
        if len(uses) > 1:
            labels.append("tensor")
            found.append([])
            for id, role in uses:
                join(number[id], len(labels) - 1, f"has as {role}", f"is {role} of")
    names = sorted({label for edges in found for label, _ in edges})
    index = {label: place for place, label in enumerate(names)}
    return labels, [sorted((index[label], other) for label, other in edges) for edges in found], names


def _label(node: Node, graph: Graph) -> str:
    settings = dict(node.settings)
    if node.kind == "input":
        settings["shape"] = settings["shape"][:1]
    heads = sorted((head.name, head.training_only) for head in graph.heads if head.node == node.id)
    return canonical([node.kind, settings, sorted(node.tensors), heads])


Ways = list[tuple[int, Partition | None]]
"""Vertices to single out, and what comes of it where that is kept."""


class _Search:
    """The least canonical form over all ways to single out vertices that could matter.

    Attributes:
        best: The least (trail of traces, form) so far, and the order of the vertices that gives it.
        leaves: For each form, the path and the order that gave it first.
        symmetries: For each vertex, the symmetries that move it: what they map the vertices onto that they move.
    """

    def __init__(self, labels: Sequence[str], edges: Edges, budget: int) -> None:
        self.labels, self.edges, self.budget, self.left = labels, edges, budget, budget
        self.best: tuple[tuple[list[bytes], bytes], list[int]] = (([], b""), [])
        self.leaves: dict[bytes, tuple[list[int], list[int]]] = {}
        self.symmetries: dict[int, list[dict[int, int]]] = {}
        self.nested = 0

    def run(self) -> None:
        """Fills `best`."""
        partition = Partition.by_label(self.labels)
        self._spend(partition.refine(list(partition.size), self.edges)[1])
        self._descend(partition, [], [])

    def _spend(self, seen: int) -> None:
        self.left -= len(self.labels) + seen
        if self.left < 0:
            raise self._defeat()

    def _defeat(self) -> GraphError:
        return GraphError(
            f"this graph of {len(self.labels)} vertices is too symmetric for a fingerprint within a budget "
            f"of {self.budget} steps; remove some of its interchangeable branches"
        )

    def _child(self, partition: Partition, vertex: int) -> tuple[bytes, Partition]:
        child = partition.copy()
        trace, seen = child.single_out(vertex, self.edges)
        self._spend(seen)
        return trace, child

    def _descend(self, partition: Partition, path: list[int], trail: list[bytes]) -> int | None:
        """Searches below a partition.

        Args:
            partition: Refined.
            path: The vertices that were singled out for it.
            trail: The traces of that.

        Returns:
            None, or the length of the path at which a symmetry has made the rest of this part of the search
            superfluous.
        """
        path, trail = list(path), list(trail)
        while True:
            cell = partition.smallest()
            if not cell:
                return self._leaf(partition.order, path, trail)
            least, ways = self._ways(partition, cell, path)
            trail.append(least)
            if self.leaves and trail > self.best[0][0][: len(trail)]:
                return None
            if len(ways) > 1:
                return self._branch(partition, ways, path, trail)
            vertex, only = ways[0]
            partition = only or self._child(partition, vertex)[1]
            path.append(vertex)

    def _ways(self, partition: Partition, cell: Sequence[int], path: Sequence[int]) -> tuple[bytes, Ways]:
        """The least trace that singling out one of a cell's vertices leaves, and those that leave it.

        Of vertices that are known to be images of each other, the first stands for all.
        """
        least = b""
        ways: Ways = []
        covered: set[int] = set()
        last: tuple[bytes, int, Partition] | None = None
        for vertex in cell:
            if vertex in covered:
                continue
            covered |= self._orbit(vertex, path)
            trace, child = self._child(partition, vertex)
            # Neighbours first: exchanges of neighbours that leave the first vertex alone are of use below it.
            others = [last[1:]] if last and last[0] == trace else []
            others += [(other, kept) for other, kept in ways if kept and trace == least]
            last = (trace, vertex, child)
            if any(self._exchanged(kept, child) for _, kept in others):
                continue
            if not ways or trace < least:
                least, ways = trace, [(vertex, child)]
            elif trace == least:
                ways.append((vertex, child if len(ways) < _KEPT else None))
        return least, ways

    def _exchanged(self, one: Partition, other: Partition) -> bool:
        symmetry = one.symmetry(other, self.edges)
        if symmetry is not None:
            self._learn(symmetry)
        return symmetry is not None

    def _learn(self, symmetry: dict[int, int]) -> None:
        for vertex in symmetry:
            self.symmetries.setdefault(vertex, []).append(symmetry)

    def _orbit(self, vertex: int, path: Sequence[int]) -> set[int]:
        """The vertices onto which known symmetries that leave `path` in place map `vertex`, itself included.

        Symmetries form a finite group, so following them forwards alone leads everywhere.
        """
        fixed = set(path)
        orbit, fresh = {vertex}, [vertex]
        while fresh:
            each = fresh.pop()
            for symmetry in self.symmetries.get(each, ()):
                if symmetry[each] not in orbit and symmetry.keys().isdisjoint(fixed):
                    orbit.add(symmetry[each])
                    fresh.append(symmetry[each])
        return orbit

    def _branch(self, partition: Partition, ways: Ways, path: list[int], trail: list[bytes]) -> int | None:
        if self.nested == _NESTED:
            raise self._defeat()
        done: list[int] = []
        for vertex, kept in ways:
            if not self._orbit(vertex, path).isdisjoint(done):
                continue
            self.nested += 1
            jump = self._descend(kept or self._child(partition, vertex)[1], [*path, vertex], trail)
            self.nested -= 1
            if jump is not None and jump < len(path):
                return jump
            done.append(vertex)
        return None

    def _leaf(self, order: list[int], path: list[int], trail: list[bytes]) -> int | None:
        """Compares the form in this order with the best; a form seen before reveals a symmetry."""
        place = {vertex: number for number, vertex in enumerate(order)}
        text = repr(
            [[(label, place[other]) for label, other in _placed(self.edges[vertex], place)] for vertex in order]
        )
        self._spend(len(order))
        form = hashlib.sha256(text.encode()).digest()
        if form in self.leaves:
            seen_path, seen_order = self.leaves[form]
            self._learn({one: other for one, other in zip(seen_order, order, strict=True) if one != other})
            return next(depth for depth, (one, other) in enumerate(zip(seen_path, path, strict=False)) if one != other)
        if not self.leaves or (trail, form) < self.best[0]:
            self.best = ((trail, form), order)
        self.leaves[form] = (path, order)
        return None
