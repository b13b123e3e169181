"""The structure of a network as a value: `Node`, `Head`, `Graph`.

A graph is frozen. A change makes a new one with `graphs.draft.Draft` and leaves the old one as it was. The nodes stand
in **execution order**, the order of the forward pass, which `to_torch` emits again: a topological sort alone is not
enough, because random layers draw in order. The `networkx` graph is held, not inherited.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from graphs.errors import GraphError

if TYPE_CHECKING:
    import networkx

    from graphs.kinds import TensorSpec
    from graphs.spaces import Space

__all__ = ["Graph", "Head", "Node", "Shape", "frozen"]

Shape = tuple[int, ...]
"""Sizes of one example's axes, without the batch: (C, H, W) for images, (F,) for features."""


def frozen(value: Any) -> Any:
    """`value` of JSON types with lists as tuples and dictionaries as read-only mappings."""
    if type(value) in _ATOMS:
        return value
    if isinstance(value, list | tuple):
        # Most are long rows of numbers.
        return tuple(value) if _ATOMS.issuperset(map(type, value)) else tuple(map(frozen, value))
    if isinstance(value, Mapping):
        return MappingProxyType({str(key): frozen(item) for key, item in value.items()})
    return value


_ATOMS = frozenset((bool, int, float, str, type(None)))


@dataclass(frozen=True, slots=True)
class Node:
    """One operation of a network.

    Attributes:
        id: Name of the node, never used again within a family line.
        kind: Key of `graphs.kinds.KINDS`.
        settings: The kind's settings, of JSON types (tuples for lists), all of them present.
        inputs: Ids of the nodes it reads, in the order of its operands.
        tensors: For each role that the kind names (`weight`, `bias`, …), the name of the tensor that plays it. Two
            nodes that name the same tensor share it (tying).
        born: Number of the candidate in which the node appeared.
    """

    id: str
    kind: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    inputs: tuple[str, ...] = ()
    tensors: Mapping[str, str] = field(default_factory=dict)
    born: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "settings", frozen(self.settings))
        object.__setattr__(self, "inputs", tuple(self.inputs))
        object.__setattr__(self, "tensors", frozen(self.tensors))

    def __hash__(self) -> int:
        return hash((self.id, self.kind, self.inputs))


@dataclass(frozen=True, slots=True)
class Head:
    """A named output of a network: the value of a node. `training_only` heads do not exist in eval mode."""

    name: str
    node: str
    training_only: bool = False


@dataclass(frozen=True, eq=False)
class Graph:
    """Nodes in execution order, named heads, and the number that the next new node bears.

    Attributes:
        nodes: By id, in execution order. Nodes of kind `input` are the named inputs.
        heads: The outputs; at least one.
        counter: No node made so far in this family line has this number or a higher one in its id.

    Two graphs are equal if all of that is, execution order included. `fingerprint` compares structure alone.
    """

    nodes: Mapping[str, Node]
    heads: tuple[Head, ...]
    counter: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "nodes", MappingProxyType(dict(self.nodes)))
        object.__setattr__(self, "heads", tuple(self.heads))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Graph):
            return NotImplemented
        return (list(self.nodes.items()), self.heads, self.counter) == (
            list(other.nodes.items()),
            other.heads,
            other.counter,
        )

    def __hash__(self) -> int:
        return hash((tuple(self.nodes), self.heads, self.counter))

    def __getitem__(self, node: str) -> Node:
        try:
            return self.nodes[node]
        except KeyError:
            raise GraphError(f"there is no node '{node}' in this graph of {len(self.nodes)} nodes") from None

    @cached_property
    def lasting_heads(self) -> tuple[Head, ...]:
        """The outputs that exist in eval mode, too."""
        return tuple(head for head in self.heads if not head.training_only)

    @cached_property
    def inputs(self) -> tuple[Node, ...]:
        """The nodes of kind `input`, in execution order."""
        return tuple(node for node in self.nodes.values() if node.kind == "input")

    @cached_property
    def consumers(self) -> Mapping[str, tuple[tuple[str, int], ...]]:
        """For each node, who reads it: (id of the reader, position among the reader's operands), in execution order."""
        readers: dict[str, list[tuple[str, int]]] = {node: [] for node in self.nodes}
        for node in self.nodes.values():
            for position, source in enumerate(node.inputs):
                readers[source].append((node.id, position))
        return MappingProxyType({node: tuple(found) for node, found in readers.items()})

    @cached_property
    def dag(self) -> networkx.DiGraph[str]:
        """The nodes and edges for `networkx` algorithms; parallel edges are one. Treat as read-only."""
        import networkx

        dag: networkx.DiGraph[str] = networkx.DiGraph()
        dag.add_nodes_from(self.nodes)
        dag.add_edges_from((source, node.id) for node in self.nodes.values() for source in node.inputs)
        networkx.freeze(dag)
        return dag

    @cached_property
    def shapes(self) -> Mapping[str, Shape]:
        """Shape of each node's value for one example (no batch axis).

        Raises:
            ShapeError: Shapes do not fit at a node, which the message names.
        """
        from graphs.shapes import infer

        return MappingProxyType(infer(self))

    @cached_property
    def tensors(self) -> Mapping[str, TensorSpec]:
        """What each tensor that the nodes refer to must look like, by name, in execution order.

        Raises:
            GraphError: Two nodes that share a tensor expect different shapes of it.
        """
        from graphs.kinds import tensors

        return MappingProxyType(tensors(self))

    @cached_property
    def spaces(self) -> tuple[Space, ...]:
        """The channel spaces, in the order of their first appearance."""
        from graphs.spaces import find_spaces

        return find_spaces(self)

    @cached_property
    def channel_axes(self) -> Mapping[str, int]:
        """For each node whose value has channels, the axis along which they lie; see `graphs.spaces`."""
        from graphs.spaces import find_channel_axes

        return MappingProxyType(find_channel_axes(self))

    @cached_property
    def fingerprint(self) -> str:
        """`graphs.fingerprint` of this graph, remembered."""
        from graphs.identity import fingerprint

        return fingerprint(self)

    @cached_property
    def taught(self) -> frozenset[str]:
        """The nodes whose values gradients reach in training: some way to an output does not stop them."""
        from graphs.kinds import KINDS

        graph = self.in_mode(training=True)
        found = {head.node for head in graph.heads}
        for node in reversed(list(graph.nodes.values())):
            if node.id in found and not KINDS[node.kind].stops:
                found.update(node.inputs)
        return frozenset(found)

    def in_mode(self, training: bool, still: Collection[str] = ()) -> Graph:
        """The graph of one mode: where each reads another value, this one's, without what that leaves unread.

        Itself where nothing does so. Heads that exist in training only are left. The nodes `still` read in train mode
        what they read in eval mode.
        """
        if training and any(node.id in still for node in self._dividing):
            return self._with({each.id: _reading(each, each.id not in still) for each in self._dividing})
        return self._modes[training]

    @cached_property
    def _modes(self) -> tuple[Graph, Graph]:
        if not self._dividing:
            return self, self
        chosen = [{node.id: _reading(node, training) for node in self._dividing} for training in (False, True)]
        return self._with(chosen[0]), self._with(chosen[1])

    @cached_property
    def _dividing(self) -> tuple[Node, ...]:
        """The nodes that read another value in each mode."""
        from graphs.kinds import KINDS

        return tuple(node for node in self.nodes.values() if KINDS[node.kind].divides)

    def _with(self, others: Mapping[str, Node]) -> Graph:
        """With other nodes in the place of some, and without what then leads to no output."""
        if all(self.nodes[id] == node for id, node in others.items()):
            return self
        whole = Graph({**self.nodes, **others}, self.heads, self.counter)
        living = whole.upstream(head.node for head in self.heads)
        return Graph({id: node for id, node in whole.nodes.items() if id in living}, self.heads, self.counter)

    def downstream(self, nodes: Iterable[str]) -> frozenset[str]:
        """`nodes` and all that depend on them."""
        found: set[str] = set(nodes)
        for node in self.nodes.values():
            if node.id not in found and any(source in found for source in node.inputs):
                found.add(node.id)
        return frozenset(found)

    def upstream(self, nodes: Iterable[str]) -> frozenset[str]:
        """`nodes` and all that they depend on."""
        found: set[str] = set(nodes)
        for node in reversed(list(self.nodes.values())):
            if node.id in found:
                found.update(node.inputs)
        return frozenset(found)


def _reading(node: Node, training: bool) -> Node:
    """A node that reads another value in each mode, as it is in one of them."""
    return replace(node, inputs=(node.inputs[0 if training else 1],) * 2)
