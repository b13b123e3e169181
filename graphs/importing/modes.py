"""Bringing the traces of both modes together where one output is computed in another way in train mode.

Both modes have been walked into one draft, in which equal calls are one node already. What only one of them computes is
followed back from the output: as long as both make the same call, of operands that differ, it is one node, and where
they make different ones, a node of kind `by_mode` takes the one or the other.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from graphs.structure import Node

if TYPE_CHECKING:
    from graphs.importing.lowering import Lowering

__all__ = ["Joint"]

Pair = tuple[str, str]
"""A node of train mode, and one of eval mode."""

_SAME, _MERGE, _CHOOSE, _APART = "same", "merge", "choose", "apart"


@dataclass
class Joint:
    """What becomes of pairs of nodes, one of train mode and one of eval mode.

    Attributes:
        low: In whose draft they are.
        merging: Whether calls that both modes make become one.
        ways: For pairs, what can become of them.
        joined: For pairs, the node that they have become.
        instead: For nodes of eval mode, the node of train mode that stands for both.
        standing: The same the other way round.
    """

    low: Lowering
    merging: bool = True
    ways: dict[Pair, str] = field(default_factory=dict)
    joined: dict[Pair, str] = field(default_factory=dict)
    instead: dict[str, str] = field(default_factory=dict)
    standing: dict[str, str] = field(default_factory=dict)

    def possible(self, one: str, other: str) -> bool:
        """Whether a node of train mode and one of eval mode can be one value."""
        return self._way(one, other) != _APART

    def join(self, one: str, other: str) -> str:
        """The node that is the value of `one` in train mode and that of `other` in eval mode; see `finish`."""
        return _settled(
            (one, other),
            self.joined,
            lambda pair: self._operands(pair) if self._merges(pair) else [],
            lambda pair, operands: self._made(pair, [self.joined[each] for each in operands]),
        )

    def finish(self) -> bool:
        """Makes all read what stands for both, and brings the nodes into an order in which they can run.

        Nodes stay in the order in which their mode has made them, as far as what they read allows; what eval mode alone
        computes comes as early as it can, so that train mode, which has what is random, waits for none of it. False,
        and nothing is changed, where there is no such order, because the modes do the same things one after the other
        in turn.
        """
        import networkx

        from graphs.kinds import KINDS

        draft = self.low.draft
        nodes = {
            id: replace(node, inputs=tuple(self.instead.get(source, source) for source in node.inputs))
            for id, node in draft.nodes.items()
            if id not in self.instead
        }
        place = {id: float(number) for number, id in enumerate(draft.nodes)}
        for id in self.low.made_in[False] - self.low.made_in[True]:
            if id in nodes and not KINDS[nodes[id].kind].random(nodes[id].settings):
                place[id] -= len(place)
        for id in self.joined.values():
            if nodes[id].kind == "by_mode":
                place[id] = place[nodes[id].inputs[0]] + 0.5
        reading: networkx.DiGraph[str] = networkx.DiGraph()
        reading.add_nodes_from(nodes)
        reading.add_edges_from((source, id) for id, node in nodes.items() for source in node.inputs)
        try:
            order = list(networkx.lexicographical_topological_sort(reading, place.__getitem__))
        except networkx.NetworkXUnfeasible:
            return False
        draft.nodes = {id: nodes[id] for id in order}
        return True

    def _way(self, one: str, other: str) -> str:
        """What becomes of a pair; found from its operands, so for them first."""
        return _settled(
            (one, other), self.ways, lambda pair: self._operands(pair) if self._same_call(pair) else [], self._found
        )

    def _found(self, pair: Pair, operands: list[Pair]) -> str:
        one, other = pair
        if one == other:
            return _SAME
        if operands and all(self.ways[each] != _APART for each in operands):
            return _MERGE
        low = self.low
        alike = low.shapes[one] == low.shapes[other] and low.types[one] == low.types[other]
        return _CHOOSE if alike and (one in low.varying) == (other in low.varying) else _APART

    def _operands(self, pair: Pair) -> list[Pair]:
        one, other = (self.low.draft.nodes[id] for id in pair)
        return list(zip(one.inputs, other.inputs, strict=True))

    def _same_call(self, pair: Pair) -> bool:
        """Whether each mode makes this call, and the other one does not make it of the same operands."""
        one, other = (self.low.draft.nodes[id] for id in pair)
        training, inference = self.low.made_in[True], self.low.made_in[False]
        return (
            one.id in training - inference
            and other.id in inference - training
            and self._call(one) == self._call(other)
            and bool(one.inputs)
        )

    def _call(self, node: Node) -> tuple[object, ...]:
        return node.kind, node.settings, node.tensors, [self.low.shapes[source] for source in node.inputs]

    def _merges(self, pair: Pair) -> bool:
        """Whether a pair of different nodes becomes one; not where one of the two already stands for another pair."""
        one, other = pair
        free = self.instead.get(other, one) == one and self.standing.get(one, other) == other
        return free and self.merging and self._way(*pair) == _MERGE

    def _made(self, pair: Pair, operands: list[str]) -> str:
        one, other = pair
        draft = self.low.draft
        if one == other:
            return one
        if operands:
            self.instead[other], self.standing[one] = one, other
            draft.nodes[one] = replace(draft.nodes[one], inputs=tuple(operands))
            return one
        return self.low.choose(*self._nearer(one, other))

    def _nearer(self, one: str, other: str) -> Pair:
        """A pair of which one is chosen, once what it is made of is one node where both modes make it.

        A mode may do more to a value than the other: then what the other gives is a node that this one works on.
        """
        for mine in self._before(one):
            if self._merges((mine, other)):
                return one, self.join(mine, other)
        for theirs in self._before(other):
            if self._merges((one, theirs)):
                return self.join(one, theirs), other
        return one, other

    def _before(self, node: str) -> list[str]:
        """What a node is made of, the latest first."""
        nodes = self.low.draft.nodes
        found, ahead = set[str](), list(nodes[node].inputs)
        while ahead:
            id = ahead.pop()
            if id not in found:
                found.add(id)
                ahead.extend(nodes[id].inputs)
        return [id for id in reversed(list(nodes)) if id in found]


def _settled(
    pair: Pair,
    known: dict[Pair, str],
    operands_of: Callable[[Pair], list[Pair]],
    settle: Callable[[Pair, list[Pair]], str],
) -> str:
    """What is `known` of a pair once it is settled, after the pairs of its operands; without recursion, for depth."""
    ahead = [pair]
    while ahead:
        now = ahead[-1]
        operands = [] if now in known else operands_of(now)
        missing = [each for each in operands if each not in known]
        ahead += missing
        if not missing:
            ahead.pop()
            if now not in known:
                known[now] = settle(now, operands)
    return known[pair]
