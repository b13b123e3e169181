"""Which traced values share their memory, so that a change of one in place shows in the others.

Whether a call gives a view, a copy or its very operand depends on types, strides, modes and sizes, so no table knows
it: the traced calls are run, in each mode and for a batch of two and of one, and what they give is looked at. That is
done only where a value is changed in place and another, which may share its memory, is read later.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from graphs.importing.copying import copied
from graphs.importing.observing import quiet
from graphs.importing.tracing import Trace, batches

if TYPE_CHECKING:
    from torch import Tensor, fx

__all__ = ["Memory"]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a tensor lies in memory.

    Attributes:
        storage: The memory that it is in.
        entries: Where its entries are within.
        object: The Python object.
    """

    storage: int
    entries: tuple[Any, ...]
    object: int


Places = Mapping[int, tuple[Place, ...]]
"""Where the tensors lie that a pass gives, by the number of the call."""


class Memory:
    """Which values of a trace share their memory.

    Args:
        traces: The mode that is walked through, and the other one if its graph has the same nodes in the same order.
        given: The example by argument.
    """

    def __init__(self, traces: Sequence[Trace], given: Mapping[str, Tensor]) -> None:
        self.traces, self.given = traces, given
        self.number = {node: number for number, node in enumerate(traces[0].graph.nodes)}
        self.family: dict[fx.Node, set[fx.Node]] = {}

    def note(self, node: fx.Node, own: bool) -> None:
        """Takes a value down; `own` if it is in memory of its own for sure, else it may be in that of an operand."""
        whole = {node}.union(*(self.family[each] for each in node.all_input_nodes if not own and each in self.family))
        self.family.update(dict.fromkeys(whole, whole))

    def sharing(self, changed: fx.Node, by: fx.Node) -> dict[fx.Node, bool]:
        """The values that a change in place of one of them changes too, of those that are read after it.

        Returns:
            For each whether it is the very same tensor, not just in the same memory.
        """
        relatives = self.family.get(changed, set()) - {changed, by}
        read = [node for node in relatives if node.op == "get_attr" or self._is_read_after(node, by)]
        return {
            node: all(same)
            for node in sorted(read, key=self.number.__getitem__)
            if any(self._meet(node, changed)) and (same := self._same(node, changed))
        }

    def alike(self, one: fx.Node, other: fx.Node) -> bool:
        """Whether two values have the same entries of the same memory in each pass."""
        pairs = self._pairs(one, other)
        return bool(pairs) and all([a.entries for a in mine] == [b.entries for b in theirs] for mine, theirs in pairs)

    def _is_read_after(self, node: fx.Node, by: fx.Node) -> bool:
        return any(self.number[user] > self.number[by] for user in node.users)

    def _meet(self, one: fx.Node, other: fx.Node) -> list[bool]:
        """For each pass whether two values share memory; where none came so far, they may."""
        pairs = self._pairs(one, other)
        found = [not {a.storage for a in mine}.isdisjoint(b.storage for b in theirs) for mine, theirs in pairs]
        return found or [True]

    def _same(self, one: fx.Node, other: fx.Node) -> list[bool]:
        """For each pass whether two values are one tensor; where none came so far, they may be two."""
        pairs = self._pairs(one, other)
        found = [len(mine) == 1 and [a.object for a in mine] == [b.object for b in theirs] for mine, theirs in pairs]
        return found or [False]

    def _pairs(self, one: fx.Node, other: fx.Node) -> list[tuple[tuple[Place, ...], tuple[Place, ...]]]:
        """Where two values lie, in each pass that came to both."""
        numbers = self.number[one], self.number[other]
        return [
            (places[numbers[0]], places[numbers[1]])
            for places in self._passes
            if all(number in places for number in numbers)
        ]

    @cached_property
    def _passes(self) -> list[Places]:
        return [_places(trace, inputs) for trace in self.traces for inputs in batches(self.given)]


def _places(trace: Trace, inputs: Mapping[str, Tensor]) -> Places:
    """Where in memory the values of a pass lie, as far as the pass comes."""
    import torch
    from torch import Tensor, fx

    # Layers learn from what they are given, so they are copies; all other tensors are copied one by one.
    root = copied(trace.root).train(trace.training) if trace.modes else trace.root
    own: dict[int, Tensor] = {}

    class Pass(fx.Interpreter):
        def placeholder(self, target: Any, args: Any, kwargs: Any) -> Any:
            return inputs.get(str(target))

        def get_attr(self, target: Any, args: Any, kwargs: Any) -> Any:
            found = self.fetch_attr(target)
            if isinstance(found, Tensor) and id(found) not in own:
                own[id(found)] = found.detach().clone()
            return own.get(id(found), found)

        def call_function(self, target: Any, args: Any, kwargs: Any) -> Any:
            # Arguments that the example leaves out are compared with their defaults.
            unasked = getattr(target, "__name__", "").startswith("_assert")
            return None if unasked else super().call_function(target, args, kwargs)

    run = Pass(root, garbage_collect_values=False, graph=trace.graph)
    found: dict[int, tuple[Place, ...]] = {}
    with quiet(), torch.no_grad(), torch.random.fork_rng(devices=[]), contextlib.suppress(Exception):
        for number, node in enumerate(trace.graph.nodes):
            if node.op != "output":
                run.env[node] = value = run.run_node(node)
                found[number] = tuple(map(_place, _tensors(value)))
    return found


def _place(tensor: Tensor) -> Place:
    entries = (tensor.storage_offset(), tuple(tensor.shape), tensor.stride(), tensor.dtype)
    return Place(tensor.untyped_storage()._cdata, entries, id(tensor))


def _tensors(value: Any) -> list[Tensor]:
    from torch import Tensor

    if isinstance(value, Tensor):
        return [value]
    parts: Collection[Any] = ()
    if isinstance(value, Mapping):
        parts = value.values()
    elif isinstance(value, list | tuple):
        parts = value
    return [tensor for part in parts for tensor in _tensors(part)]
