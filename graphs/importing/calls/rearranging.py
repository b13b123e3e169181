"""Moving entries about: reshapes, permutations, slices, averages, margins."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any, cast

from graphs.importing.calls.values import axis_of, cut, first, items_of, numbers, ordered, tensor
from graphs.importing.lowering import Lowering
from graphs.importing.stand_ins import Decline, Held, Program, Ref, Size, Training
from graphs.kinds.rearranging import runs
from graphs.structure import Shape

__all__ = ["REARRANGING_CALLS", "getitem", "taken"]


def _reshaped(low: Lowering, value: Any) -> Any:
    """A reshape to the shape that was observed of the result."""
    found = low.ref(value) if isinstance(value, Held) else tensor(value)
    if low.now.batched and not found.bare:
        shape, bare = low.now.shapes[0][1:], False
    elif low.now.constant and not low.depends(found):
        full = low.now.shapes[0]
        shape, bare = (full[1:], False) if full[:1] == (1,) else (full, True)
    else:
        raise Decline
    return _seen_as(low, found, shape, bare)


def _seen_as(low: Lowering, value: Ref, shape: Shape, bare: bool) -> Ref:
    if shape == low.shape(value):
        return Ref(value.node, bare)
    return low.add("reshape", [value], shape=shape, bare=bare)


def _reshape(low: Lowering, value: Any, *sizes: Any, **keywords: Any) -> Any:
    return _reshaped(low, value)


def _squeeze(low: Lowering, value: Any, *sizes: Any, **keywords: Any) -> Any:
    if not sizes and not keywords and any(isinstance(size, Size) for size in low.sizes(value)):
        raise low.error("squeeze() without an axis drops the batch, too, where it is of one example; name the axes")
    return _without_examples(low, value) if isinstance(value, Program) and sizes == (0,) else _reshaped(low, value)


def _without_examples(low: Lowering, value: Program) -> Ref:
    """Stochastic depth, where examples are dropped as the features of one example of which they were made."""
    whole = value.arguments[0] if value.target == "torch.feature_dropout" else None
    if not isinstance(whole, Program) or whole.target != "method.unsqueeze" or whole.arguments[1:] != (0,):
        raise Decline
    given = dict(zip(("input", "p", "train"), value.arguments, strict=False)) | dict(value.keywords)
    training = low.mode(given.get("training", given.get("train")))
    if not isinstance(training, Training):
        raise Decline
    return low.add("stochastic_depth", [first(low, whole.arguments[0])], p=float(given["p"]), mode="row")


def _flatten(low: Lowering, value: Any, start_dim: int = 0, end_dim: int = -1) -> Any:
    found = first(low, value)
    rank = len(low.shape(found)) + 1
    if (start_dim, end_dim % rank) == (1, rank - 1) and rank > 1:
        return low.add("flatten", [found])
    return _reshaped(low, value)


def _permute(low: Lowering, value: Any, *order: Any) -> Any:
    return _ordered(low, value, _permutation(_rank(low, tensor(value)), order))


def _transpose(low: Lowering, value: Any, dim0: int, dim1: int) -> Any:
    return _ordered(low, value, _transposition(_rank(low, tensor(value)), (dim0, dim1)))


def _rank(low: Lowering, value: Any) -> int:
    """Number of axes, the batch counted."""
    return len(value.seen.shapes[0]) if isinstance(value, Program) else len(low.sizes(value))


def _permutation(rank: int, given: Sequence[Any]) -> list[int]:
    return [axis % rank for axis in numbers(given[0] if len(given) == 1 else given)]


def _transposition(rank: int, given: Sequence[Any]) -> list[int]:
    order = list(range(rank))
    order[given[0]], order[given[1]] = order[given[1]], order[given[0]]
    return order


_ORDERS = {"permute": _permutation, "transpose": _transposition, "swapaxes": _transposition, "swapdims": _transposition}
"""For each function that changes the order of axes, what the order is, the batch counted."""


def _ordered(low: Lowering, value: Any, order: list[int]) -> Any:
    found = tensor(value)
    if not found.bare:
        if order[0] != 0:
            raise Decline
        order = [axis - 1 for axis in order[1:]]
    return ordered(low, found, order)


def _movedim(low: Lowering, value: Any, source: int, destination: int) -> Any:
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
    sizes = numbers(sizes)
    ends = [sum(sizes[: place + 1]) for place in range(len(sizes))]
    return tuple(cut(low, found, axis, end - size, end) for size, end in zip(sizes, ends, strict=True))


def _unbind(low: Lowering, value: Any, dim: int = 0) -> Any:
    if not low.now.several:
        raise Decline
    return tuple(_pick(low, value, dim % _rank(low, value), index) for index in range(len(low.now.values[0])))


def _pick(low: Lowering, value: Any, axis: int, index: int) -> Ref:
    """One entry along an axis, the batch counted."""
    if isinstance(value, Program):
        # Of an order with the batch elsewhere, an entry along the axes in front of it.
        name, source = value.target.partition(".")[2], value.arguments[0]
        if name not in _ORDERS or not isinstance(source, Ref) or source.bare or value.keywords:
            raise Decline
        order = _ORDERS[name](_rank(low, source), value.arguments[1:])
        found = _pick(low, source, order[axis], index)
        return cast(Ref, _ordered(low, found, [each - (each > order[axis]) for each in order if each != order[axis]]))
    found, place = tensor(value), axis - (not value.bare)
    if place < 0:
        raise Decline
    index %= low.shape(found)[place]
    return _row(low, found, place, index) or low.add("select", [found], axis=place, index=index)


def _row(low: Lowering, value: Ref, axis: int, index: int) -> Ref | None:
    """One entry along an axis that a reshape has laid out, as a part of the axis that was there before.

    So parts that are different channels, as queries, keys and values are, are told apart before they are laid out.
    """
    node = low.draft.nodes[value.node]
    if node.kind == "permute":
        order = node.settings["order"]
        found = _row(low, Ref(node.inputs[0], value.bare), order[axis], index)
        return found and ordered(low, found, [each - (each > order[axis]) for each in order if each != order[axis]])
    if node.kind != "reshape":
        return None
    source, shape = Ref(node.inputs[0], value.bare), low.shape(value)
    for before, after in runs(low.shape(source), shape):
        if len(before) == 1 and len(after) > 1 and axis == after[0]:
            each = prod(shape[axis + 1 : after[-1] + 1])
            part = cut(low, source, before[0], index * each, (index + 1) * each)
            return _seen_as(low, part, (*shape[:axis], *shape[axis + 1 :]), value.bare)
    return None


def _narrow(low: Lowering, value: Any, dim: int, start: int, length: int) -> Any:
    found = first(low, value)
    return cut(low, found, axis_of(low, found, dim), start, start + length)


def _select(low: Lowering, value: Any, dim: int, index: int) -> Any:
    return _pick(low, value, dim % _rank(low, value), index)


def getitem(low: Lowering, value: Any, what: Any) -> Any:
    """`value[what]`: entries and ranges along its axes, or by numbers that the module holds."""
    if isinstance(what, Ref | Held):
        found = low.ref(value)
        if not found.bare:
            raise Decline
        return taken(low, found, what)
    if isinstance(what, int) and not isinstance(what, bool) and isinstance(value, Ref | Program):
        return _pick(low, value, 0, what)
    found = first(low, value)
    axis, now = 0, found
    for item in items_of(what, len(low.shape(found)) + 1)[1:]:
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
            now = _pick(low, now, axis + 1, item)
        else:
            raise Decline
    return now


def taken(low: Lowering, value: Any, index: Any, axis: int = 0) -> Ref:
    """Entries along an axis, the batch not counted, by numbers that the module holds."""
    found = low.ref(value)
    held = index if isinstance(index, Held) else _laid_out(low, index)
    if held is None or held.how == "parameter" or str(held.tensor.dtype) != "torch.int64":
        raise Decline
    if held.tensor.numel() == 0 or int(held.tensor.min()) < 0:
        raise Decline
    shape = tuple(held.tensor.shape)
    names = {"index": low.use(held)}
    size = low.shape(found)[axis]
    rows = low.add("take", [found], names, axis=axis, size=size, shape=shape, persistent=held.how == "buffer")
    low.types[rows.node] = low.types[found.node]  # and not that of the numbers, which is a node's with other tensors
    if found.node in low.precise:
        low.precise.add(rows.node)
    whole = low.shape(rows)
    return _seen_as(low, rows, (*whole[:axis], *shape, *whole[axis + 1 :]), found.bare)


def _laid_out(low: Lowering, index: Ref) -> Held | None:
    """The constant whose numbers a value is, in their order; None if it is none."""
    node = low.draft.nodes[index.node]
    while node.kind == "reshape":
        node = low.draft.nodes[node.inputs[0]]
    return low.named(node.tensors["value"]) if node.kind == "constant" else None


def _rolled(low: Lowering, value: Any, shifts: Any, dims: Any = None) -> Any:
    if dims is None:
        raise Decline
    found = first(low, value)
    turned = [0] * len(low.shape(found))
    for shift, dim in zip(numbers(shifts), numbers(dims), strict=True):
        turned[axis_of(low, found, dim)] += shift
    return low.add("roll", [found], shifts=tuple(turned)) if any(turned) else found


def _index_select(low: Lowering, value: Any, dim: int, index: Any) -> Any:
    found = low.ref(value) if isinstance(value, Held) else tensor(value)
    if found.bare:
        return taken(low, found, index, dim % len(low.shape(found)))
    return taken(low, found, index, axis_of(low, found, dim))


def _mean(low: Lowering, value: Any, dim: Any = None, keepdim: bool = False, **keywords: Any) -> Any:
    if dim is None or keywords:
        raise Decline
    found = first(low, value)
    axes = tuple(axis_of(low, found, each) for each in numbers(dim))
    return low.add("average", [found], axes=axes, keep=keepdim)


def _pad(low: Lowering, value: Any, pad: Any, mode: str = "constant", fill: Any = 0, **keywords: Any) -> Any:
    found = first(low, value)
    if mode != "constant" or fill not in (0, None) or keywords or any(each < 0 for each in numbers(pad)):
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
    "getitem": getitem,
    "roll": _rolled,
    "index_select": _index_select,
    "mean": _mean,
    "pad": _pad,
}
"""Functions that move entries about."""
