"""Moving entries about: reshapes, permutations, slices, averages, margins."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from graphs.importing.calls.values import axis_of, cut, first, tensor
from graphs.importing.lowering import Lowering
from graphs.importing.stand_ins import Decline, Held, Program, Ref, Size

__all__ = ["REARRANGING_CALLS"]


def _reshaped(low: Lowering, value: Any) -> Any:
    """A reshape to the shape that was observed of the result."""
    found = tensor(value)
    if low.now.batched and not found.bare:
        shape, bare = low.now.shapes[0][1:], False
    elif low.now.constant and not low.depends(found):
        full = low.now.shapes[0]
        shape, bare = (full[1:], False) if full[:1] == (1,) else (full, True)
    else:
        raise Decline
    if shape == low.shape(found):
        return Ref(found.node, bare)
    return low.add("reshape", [found], shape=shape, bare=bare)


def _reshape(low: Lowering, value: Any, *sizes: Any, **keywords: Any) -> Any:
    return _reshaped(low, value)


def _squeeze(low: Lowering, value: Any, *sizes: Any, **keywords: Any) -> Any:
    if not sizes and not keywords and any(isinstance(size, Size) for size in low.sizes(value)):
        raise low.error("squeeze() without an axis drops the batch, too, where it is of one example; name the axes")
    return _reshaped(low, value)


def _flatten(low: Lowering, value: Any, start_dim: int = 0, end_dim: int = -1) -> Any:
    found = first(low, value)
    rank = len(low.shape(found)) + 1
    if (start_dim, end_dim % rank) == (1, rank - 1) and rank > 1:
        return low.add("flatten", [found])
    return _reshaped(low, value)


def _permute(low: Lowering, value: Any, *order: Any) -> Any:
    wanted = order[0] if len(order) == 1 and isinstance(order[0], list | tuple) else order
    return _ordered(low, value, list(wanted))


def _ordered(low: Lowering, value: Any, order: list[int]) -> Any:
    found = tensor(value)
    rank = len(low.shape(found)) + (not found.bare)
    order = [axis % rank for axis in order]
    if not found.bare:
        if order[0] != 0:
            raise Decline
        order = [axis - 1 for axis in order[1:]]
    if order == list(range(len(order))):
        return found
    return low.add("permute", [found], order=order)


def _transpose(low: Lowering, value: Any, dim0: int, dim1: int) -> Any:
    rank = len(low.shape(tensor(value))) + (not value.bare)
    order = list(range(rank))
    order[dim0], order[dim1] = order[dim1], order[dim0]
    return _ordered(low, value, order)


def _movedim(low: Lowering, value: Any, source: Any, destination: Any) -> Any:
    if not isinstance(source, int) or not isinstance(destination, int):
        raise Decline
    rank = len(low.shape(tensor(value))) + (not value.bare)
    order = [axis for axis in range(rank) if axis != source % rank]
    order.insert(destination % rank, source % rank)
    return _ordered(low, value, order)


def _chunk(low: Lowering, value: Any, chunks: int, dim: int = 0) -> Any:
    found = first(low, value)
    axis = axis_of(low, found, dim)
    size = low.shape(found)[axis]
    return _pieces(low, found, axis, -(-size // chunks))


def _pieces(low: Lowering, value: Ref, axis: int, each: int) -> Any:
    size = low.shape(value)[axis]
    return tuple(cut(low, value, axis, start, min(start + each, size)) for start in range(0, size, each))


def _split(low: Lowering, value: Any, sizes: Any, dim: int = 0) -> Any:
    found = first(low, value)
    axis = axis_of(low, found, dim)
    if isinstance(sizes, int):
        return _pieces(low, found, axis, sizes)
    ends = [sum(sizes[: place + 1]) for place in range(len(sizes))]
    return tuple(cut(low, found, axis, end - size, end) for size, end in zip(sizes, ends, strict=True))


def _unbind(low: Lowering, value: Any, dim: int = 0) -> Any:
    found = first(low, value)
    axis = axis_of(low, found, dim)
    return tuple(low.add("select", [found], axis=axis, index=index) for index in range(low.shape(found)[axis]))


def _narrow(low: Lowering, value: Any, dim: int, start: int, length: int) -> Any:
    found = first(low, value)
    return cut(low, found, axis_of(low, found, dim), start, start + length)


def _select(low: Lowering, value: Any, dim: int, index: int) -> Any:
    found = first(low, value)
    axis = axis_of(low, found, dim)
    return low.add("select", [found], axis=axis, index=index % low.shape(found)[axis])


def _getitem(low: Lowering, value: Any, what: Any) -> Any:
    found = first(low, value)
    items = list(what) if isinstance(what, tuple) else [what]
    given = len([item for item in items if item is not None and item is not Ellipsis])
    rank = len(low.shape(found)) + 1
    if Ellipsis in [item for item in items if not isinstance(item, Ref | Held | Program)]:
        place = next(place for place, item in enumerate(items) if item is Ellipsis)
        items[place : place + 1] = [slice(None)] * (rank - given)
    if not items or items[0] != slice(None):
        raise Decline
    axis, now = 0, found
    for item in items[1:]:
        if item is None:
            shape = low.shape(now)
            now = low.add("reshape", [now], shape=(*shape[:axis], 1, *shape[axis:]))
            axis += 1
        elif isinstance(item, slice):
            if not all(isinstance(each, int | None) for each in (item.start, item.stop, item.step)):
                raise Decline
            start, stop, step = item.indices(low.shape(now)[axis])
            if step < 1 or start >= stop:
                raise Decline
            now = cut(low, now, axis, start, stop, step)
            axis += 1
        elif isinstance(item, int) and not isinstance(item, bool):
            now = low.add("select", [now], axis=axis, index=item % low.shape(now)[axis])
        else:
            raise Decline
    return now


def _sliced(low: Lowering, value: Any, dim: int = 0, start: Any = None, end: Any = None, step: int = 1) -> Any:
    items = [slice(None)] * (dim % len(low.sizes(value))) + [slice(start, end, step)]
    return _getitem(low, value, tuple(items))


def _mean(low: Lowering, value: Any, dim: Any = None, keepdim: bool = False, **keywords: Any) -> Any:
    if dim is None or keywords:
        raise Decline
    found = first(low, value)
    axes = tuple(axis_of(low, found, each) for each in ([dim] if isinstance(dim, int) else dim))
    return low.add("average", [found], axes=axes, keep=keepdim)


def _pad(low: Lowering, value: Any, pad: Any, mode: str = "constant", fill: Any = 0, **keywords: Any) -> Any:
    found = first(low, value)
    if mode != "constant" or fill not in (0, None) or keywords or any(each < 0 for each in pad):
        raise Decline
    rank = len(low.shape(found))
    margins = [(0, 0)] * rank
    for place in range(len(pad) // 2):
        if place >= rank:
            raise Decline
        margins[rank - 1 - place] = (pad[2 * place], pad[2 * place + 1])
    return low.add("pad", [found], margins=margins) if any(map(any, margins)) else found


REARRANGING_CALLS: dict[str, Callable[..., Any]] = {
    "view": _reshape,
    "reshape": _reshape,
    "unsqueeze": _reshape,
    "squeeze": _squeeze,
    "unflatten": _reshape,
    "flatten": _flatten,
    "permute": _permute,
    "transpose": _transpose,
    "swapaxes": _transpose,
    "swapdims": _transpose,
    "movedim": _movedim,
    "moveaxis": _movedim,
    "chunk": _chunk,
    "split": _split,
    "unbind": _unbind,
    "narrow": _narrow,
    "select": _select,
    "getitem": _getitem,
    "mean": _mean,
    "pad": _pad,
    "slice": _sliced,
}
"""Functions that move entries about."""
