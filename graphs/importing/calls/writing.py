"""Writing into a part of a value, `x[:, 2:4] = y`, as the value that comes of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from graphs.importing.calls.values import cut, first, items_of, tensor
from graphs.importing.lowering import Lowering
from graphs.importing.stand_ins import Decline, Held, Program, Ref

__all__ = ["WRITING_CALLS", "written"]


def written(low: Lowering, value: Any, where: Any, new: Any) -> Any:
    """What `value` becomes by `value[where] = new`.

    Raises:
        GraphError: There is no function that does it.
    """
    try:
        found = first(low, value)
        if isinstance(where, Ref | Program):
            return low.call_anew("torch.masked_fill", [found, _truths(low, found, where), _number(new)])
        return _into(low, found, _places(low.shape(found), where), new)
    except Decline:
        raise low.error(
            "it writes into part of a tensor in a way that is not known; put the result together with torch.where, "
            "torch.cat or torch.stack"
        ) from None


def _into(low: Lowering, value: Any, places: Sequence[tuple[int, int | range]], new: Any) -> Any:
    """What `value` becomes where `new` is written to places along some axes: each takes a part of what the last took.

    The part is written into, and written back.
    """
    (axis, taken), *rest = places
    if isinstance(taken, int):
        part = low.add("select", [value], axis=axis, index=taken)
        scatter, at, gone = "torch.select_scatter", [taken], 1
    else:
        scatter, at, gone = "torch.slice_scatter", [taken.start, taken.stop, taken.step], 0
        part = cut(low, value, axis, *at)
    if rest:
        new = _into(low, part, [(each - gone, taken) for each, taken in rest], new)
    elif isinstance(new, Ref | Held | Program):
        new = _spread(low, new, part)
    else:
        new = low.call_anew("torch.full_like", [part, _number(new)])
    return low.call_anew(scatter, [value, new, axis + 1, *at])


def _spread(low: Lowering, new: Any, part: Ref) -> Any:
    """A value in the shape of the part that it is written to: it may lack axes, or have more of one entry in front."""
    wanted = low.sizes(part)
    while len(low.sizes(new)) > len(wanted):
        if low.sizes(new)[0] != 1:
            raise Decline
        new = low.call_anew("torch.squeeze", [new, 0])
    return new if low.sizes(new) == wanted else low.call_anew("method.expand_as", [new, part])


def _number(value: Any) -> int | float:
    if not isinstance(value, int | float):
        raise Decline
    return value


def _truths(low: Lowering, value: Ref, where: Any) -> Ref:
    """A value of truths, one for each entry."""
    found = tensor(where)
    if found.bare or str(low.types[found.node]) != "torch.bool" or low.shape(found) != low.shape(value):
        raise Decline
    return found


def _places(shape: Sequence[int], where: Any) -> list[tuple[int, int | range]]:
    """The axes along which an index does not take everything, the batch not counted, and what it takes there."""
    items = items_of(where, len(shape) + 1)
    parts = [(axis, item) for axis, item in enumerate(items[1:]) if item != slice(None)]
    if not parts or len(items) > len(shape) + 1:
        raise Decline
    return [(axis, _taken(shape[axis], item)) for axis, item in parts]


def _taken(size: int, item: Any) -> int | range:
    """What an index takes of an axis: an entry, or some."""
    if isinstance(item, int) and not isinstance(item, bool):
        return item % size
    if not isinstance(item, slice) or not all(isinstance(each, int | None) for each in (item.start, item.stop)):
        raise Decline
    taken = range(size)[item]
    if not taken or taken.step < 1:
        raise Decline
    return taken


def _copied(low: Lowering, value: Any, new: Any, non_blocking: bool = False) -> Any:
    """What a value becomes where another one, or a number, is written over all of it."""
    old = tensor(value)
    if isinstance(new, Held) and new.how == "constant" and not new.tensor.ndim:
        new = new.tensor.item()
    if not isinstance(new, Ref | Held):
        return low.call_anew("torch.full_like", [old, _number(new)])
    if isinstance(new, Ref) and new.bare != old.bare:
        raise Decline
    kind = new.tensor.dtype if isinstance(new, Held) else low.types[new.node]
    return _spread(low, new if kind == low.types[old.node] else low.call_anew("method.type_as", [new, old]), old)


WRITING_CALLS: dict[str, Callable[..., Any]] = {"setitem": written, "copy": _copied, "fill": _copied}
"""Functions that change what they are given."""
