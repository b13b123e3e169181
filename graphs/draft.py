"""Making a graph: a mutable draft that ends in a checked, frozen `Graph`.

A draft starts empty (the zoo) or from a graph (a mutation, which leaves that graph untouched). A new node gets its
place in the execution order when it is added, and an id that no node of the family line has had.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from graphs.errors import GraphError
from graphs.structure import Graph, Head, Node, Shape

__all__ = ["Draft"]


class Draft:
    """A graph under construction.

    Args:
        graph: What to start from; nothing if None.
        born: Number of the candidate in which nodes that are added here appear.
    """

    def __init__(self, graph: Graph | None = None, born: int = 0) -> None:
        self.nodes: dict[str, Node] = dict(graph.nodes) if graph else {}
        self.heads: list[Head] = list(graph.heads) if graph else []
        self.counter = graph.counter if graph else 0
        self.born = born

    def input(self, shape: Shape, name: str = "x") -> str:
        """Adds a named input for examples of `shape` (no batch axis) and returns its id."""
        return self.add("input", (), name=name, shape=tuple(shape))

    def add(
        self,
        kind: str,
        inputs: str | Iterable[str],
        *,
        path: str | None = None,
        after: str | None = None,
        tensors: Mapping[str, str] | None = None,
        **settings: Any,
    ) -> str:
        """Adds a node and returns its id.

        Args:
            kind: Key of `graphs.kinds.KINDS`.
            inputs: Ids of the nodes that it reads.
            path: Where its tensors live in a module, such as `stage1.0.conv`, so that they are called
                `stage1.0.conv.weight`; also the start of its id. By default a name made from the kind.
            after: Id of the node behind which it runs; at the end if None.
            tensors: Names of its tensors by role, where it shares those of another node.
            **settings: The kind's settings; those left out take their defaults.
        """
        from graphs.kinds import KINDS, kind_of

        kind_of(kind)
        id = f"{path or kind}#{self.counter}"
        self.counter += 1
        filled = KINDS[kind].fill(id, settings)
        roles = KINDS[kind].roles(filled)
        where = path if path is not None else id.replace("#", "_")
        if path is None and roles:
            taken = {name for node in self.nodes.values() for name in node.tensors.values()}
            while any(f"{where}.{role}" in taken for role in roles):
                where += "_"
        names = dict(tensors) if tensors is not None else {role: f"{where}.{role}" for role in roles}
        node = Node(id, kind, filled, (inputs,) if isinstance(inputs, str) else tuple(inputs), names, self.born)
        if after is None:
            self.nodes[id] = node
        else:
            self._place(node, after)
        return id

    def head(self, node: str, name: str = "logits", training_only: bool = False) -> None:
        """Makes the value of `node` a named output."""
        self.heads.append(Head(name, node, training_only))

    def set(self, node: str, **settings: Any) -> None:
        """Changes settings of a node."""
        old = self._get(node)
        self.nodes[node] = replace(old, settings={**old.settings, **settings})

    def name_tensors(self, node: str, tensors: Mapping[str, str]) -> None:
        """Gives a node's tensors other names, by role."""
        self.nodes[node] = replace(self._get(node), tensors=tensors)

    def rewire(self, node: str, position: int, source: str) -> None:
        """Makes operand number `position` of `node` the value of `source`."""
        old = self._get(node)
        inputs = [*old.inputs[:position], source, *old.inputs[position + 1 :]]
        self.nodes[node] = replace(old, inputs=tuple(inputs))

    def redirect(self, old: str, new: str, readers: Iterable[str]) -> None:
        """Makes `readers` read `new` wherever they read `old`."""
        for reader in dict.fromkeys(readers):
            node = self._get(reader)
            self.nodes[reader] = replace(node, inputs=tuple(new if source == old else source for source in node.inputs))

    def move_heads(self, old: str, new: str) -> None:
        """Makes the outputs that are the value of `old` the value of `new`."""
        self.heads = [replace(head, node=new) if head.node == old else head for head in self.heads]

    def remove(self, nodes: Iterable[str]) -> None:
        """Removes nodes; whoever still reads one of them makes `finish` fail."""
        for node in nodes:
            self._get(node)
            del self.nodes[node]

    def prune(self) -> None:
        """Removes the nodes that lead to no output."""
        needed = {head.node for head in self.heads}
        for node in reversed(list(self.nodes.values())):
            if node.id in needed:
                needed.update(node.inputs)
        self.nodes = {id: node for id, node in self.nodes.items() if id in needed}

    def finish(self) -> Graph:
        """The graph, checked.

        Raises:
            GraphError: It is not valid; the message names the node.
        """
        from graphs.check import check

        graph = Graph(self.nodes, tuple(self.heads), self.counter)
        check(graph)
        return graph

    def _get(self, node: str) -> Node:
        try:
            return self.nodes[node]
        except KeyError:
            raise GraphError(f"there is no node '{node}' in this draft of {len(self.nodes)} nodes") from None

    def _place(self, node: Node, after: str) -> None:
        self._get(after)
        placed: dict[str, Node] = {}
        for id, old in self.nodes.items():
            placed[id] = old
            if id == after:
                placed[node.id] = node
        self.nodes = placed
