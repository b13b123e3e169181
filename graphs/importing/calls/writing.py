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
        axis, places = _places(low.shape(found), where)
        return _into(low, found, axis, places, new)
    except Decline:
        raise low.error(
            "it writes into part of a tensor in a way that is not known; put the result together with torch.where, "
            "torch.cat or torch.stack"
        ) from None


def _into(low: Lowering, value: Ref, axis: int, places: int | range, new: Any) -> Any:
    at = [places] if isinstance(places, int) else [places.start, places.stop, places.step]
    if not isinstance(new, Ref):
        part = low.add("select", [value], axis=axis, index=at[0]) if len(at) == 1 else cut(low, value, axis, *at)
        new = low.call_anew("torch.full_like", [part, _number(new)])
    target = "torch.select_scatter" if len(at) == 1 else "torch.slice_scatter"
    return low.call_anew(target, [value, new, axis + 1, *at])


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


def _places(shape: Sequence[int], where: Any) -> tuple[int, int | range]:
    """The only axis along which an index does not take everything, the batch not counted, and what it takes there."""
    items = items_of(where, len(shape) + 1)
    parts = [(axis, item) for axis, item in enumerate(items[1:]) if item != slice(None)]
    if len(parts) != 1 or parts[0][0] >= len(shape):
        raise Decline
    axis, item = parts[0]
    if isinstance(item, int) and not isinstance(item, bool):
        return axis, item % shape[axis]
    if not isinstance(item, slice) or not all(isinstance(each, int | None) for each in (item.start, item.stop)):
        raise Decline
    taken = range(shape[axis])[item]
    if not taken or taken.step < 1:
        raise Decline
    return axis, taken


def _copied(low: Lowering, value: Any, new: Any, non_blocking: bool = False) -> Any:
    """What a value becomes where another one, or a number, is written over all of it."""
    old = tensor(value)
    if isinstance(new, Held) and new.how == "constant" and not new.tensor.ndim:
        new = new.tensor.item()
    if not isinstance(new, Ref):
        return low.call_anew("torch.full_like", [old, _number(new)])
    if low.types[new.node] != low.types[old.node] or new.bare != old.bare:
        raise Decline
    return new if low.shape(new) == low.shape(old) else low.call_anew("method.expand_as", [new, old])


WRITING_CALLS: dict[str, Callable[..., Any]] = {"setitem": written, "copy": _copied, "fill": _copied}
"""Functions that change what they are given."""
