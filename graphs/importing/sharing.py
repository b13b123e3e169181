"""One node for a call whose value several read, though it is no node as it stands: so that it is made once.

The batch may be another axis than the first, or there may be several values, as a recurrent layer gives them. The node
then has the examples in front and, of several values of one type, all that are read, one behind the other; a reader
takes its part and brings the axes back into their order, which costs no computation.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from math import prod
from typing import TYPE_CHECKING, Any

from graphs.importing.calls.values import cut
from graphs.importing.lowering import Lowering
from graphs.importing.observing import BATCHES, Seen
from graphs.importing.stand_ins import Program, Ref, Size, any_of

if TYPE_CHECKING:
    from torch import fx

__all__ = ["shared"]

_FREE = frozenset(
    """
    broadcast_tensors chunk contiguous expand expand_as flatten getitem meshgrid movedim moveaxis narrow new_full
    new_ones new_zeros permute reshape select split squeeze swapaxes swapdims t tensor_split transpose unbind unflatten
    unsqueeze view
    """.split()
)
"""Functions that compute nothing: whoever reads what they give may call them anew."""


def shared(low: Lowering, value: Any, node: fx.Node) -> Any:
    """A value as those read it that a traced node has: made by one node where several do, if there can be one."""
    # Those of several values that nothing reads are not taken.
    readers = [each for each in node.users if each.users or each.target is not operator.getitem]
    if not isinstance(value, Program) or len(readers) < 2 or not _computes(value):
        return value
    if not value.seen.several:
        return _one(low, value) or value
    read = [each.args[1] for each in readers if each.target is operator.getitem]
    numbers = {place % len(value.seen.values[0]) for place in read if isinstance(place, int)}
    return (len(read) == len(readers) and _several(low, value, sorted(numbers))) or value


def _computes(value: Any) -> bool:
    """Whether a program does more than to move entries about."""
    if not isinstance(value, Program):
        return False
    given = [*value.arguments, *value.keywords.values()]
    return value.target.partition(".")[2] not in _FREE or any_of(_computes, given)


def _one(low: Lowering, value: Program) -> Program | None:
    axis = _batch(value.seen)
    return _back(low.call_anew("method.movedim", [value, axis, 0]), axis, value.seen) if axis else None


def _several(low: Lowering, value: Program, places: Sequence[int]) -> tuple[Any, ...] | None:
    """Parts of what gives several values, those at some places; None for the others, which nothing reads."""
    from torch import Tensor

    if not all(isinstance(values[place], Tensor) for values in value.seen.values for place in places):
        return None
    seen = {place: Seen(tuple(values[place] for values in value.seen.values)) for place in places}
    axes = {place: _batch(each) for place, each in seen.items()}
    if None in axes.values() or len({each.dtype for each in seen.values()}) > 1:
        return None
    rows: list[Any] = []
    for place in places:
        part = low.later("operator.getitem", [value, place])
        moved = low.later("method.movedim", [part, axes[place], 0]) if axes[place] else part
        rows.append(low.later("method.reshape", [moved, Size(1), -1]))
    whole = low.call_anew("torch.cat", [rows, 1])
    parts: list[Any] = [None] * len(value.seen.values[0])
    start = 0
    for place in places:
        axis = axes[place] or 0
        sizes = list(seen[place].shapes[0])
        del sizes[axis]
        laid = low.add("reshape", [cut(low, whole, 0, start, start + prod(sizes))], shape=tuple(sizes))
        parts[place] = _back(laid, axis, seen[place]) if axis else laid
        start += prod(sizes)
    return tuple(parts)


def _back(made: Ref, axis: int, seen: Seen) -> Program:
    """A value with the batch in front, with the batch at an axis."""
    order = [*range(1, axis + 1), 0, *range(axis + 1, len(seen.shapes[0]))]
    return Program("method.permute", (made, *order), {}, seen)


def _batch(seen: Seen) -> int | None:
    """The axis that is the batch; None if there is none, or not one alone."""
    sizes = list(zip(*seen.shapes, strict=True)) if seen.shapes else []
    axes = [axis for axis, (one, other) in enumerate(sizes) if one != other]
    return axes[0] if len(axes) == 1 and sizes[axes[0]] == BATCHES else None
