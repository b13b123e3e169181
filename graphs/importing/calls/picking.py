"""Picking places that each example has of its own, as in `h[torch.arange(len(h)), places]`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from graphs.importing.calls.rearranging import getitem, taken
from graphs.importing.calls.values import first, items_of, tensor
from graphs.importing.lowering import Lowering
from graphs.importing.stand_ins import Decline, Held, Numbering, Program, Ref, Size, Unknown

__all__ = ["ALONE", "PICKING_CALLS", "picked"]

ALONE = (
    "it numbers the examples in a way that is not known; known are places that each example has of its own, "
    "h[torch.arange(len(h)), places], for h of examples along the first axis"
)
"""Why what is done with the numbers of the examples is refused."""

_LAYING_OUT = frozenset("contiguous clone cpu cuda int long reshape to unsqueeze view".split())
"""Functions that leave the numbers of the examples what they are."""


def picked(low: Lowering, name: str, arguments: Sequence[Any]) -> Any:
    """What stands for the result of a call in which the numbers of the examples take part.

    Where it does more than to index, or to lay them out for that, the result is refused where it is used.
    """
    try:
        value, *rest = arguments or [None]
        if not isinstance(value, Numbering):
            if name != "getitem":
                raise Decline
            return _at(low, value, *rest)
        if name not in _LAYING_OUT and not (name == "getitem" and _is_whole(*rest)):
            raise Decline
        return _numbering(low)
    except Decline:
        return Unknown(ALONE, low.line)


def _numbering(low: Lowering) -> Numbering:
    """The numbers of the examples as they are seen now."""
    seen = low.now
    whole = str(seen.dtype) in ("torch.int64", "torch.int32")
    if not seen.batched or not whole or any(size != 1 for size in seen.shapes[0][1:]):
        raise Decline
    return Numbering(seen)


def _is_whole(what: Any) -> bool:
    """Whether an index takes everything, with new axes maybe."""
    items = what if isinstance(what, tuple) else (what,)
    return all(item is None or item is Ellipsis or item == slice(None) for item in items)


def _at(low: Lowering, value: Any, where: Any) -> Ref:
    """`value[where]`, where the numbers of the examples come first: an entry, or some, of each example's own."""
    numbering, *rest = where if isinstance(where, tuple) else (where,)
    found = first(low, value)
    if not isinstance(numbering, Numbering) or not low.depends(found):
        raise Decline
    axes = len(numbering.seen.shapes[0]) - 1
    plain: list[Any] = []
    places: list[tuple[int, Ref | Held]] = []
    axis = 0
    for item in items_of((slice(None), *rest), len(low.shape(found)) + 1)[1:]:
        if isinstance(item, Numbering | Program):
            raise Decline
        if isinstance(item, Ref | Held):
            places.append((axis, item))
            item = slice(None)
        plain.append(item)
        axis += not isinstance(item, int)
    now: Ref = getitem(low, found, (slice(None), *plain))
    if len(places) > 1 and axes:
        raise Decline
    for axis, item in reversed(places):
        now = _entries(low, now, axis, item, axes)
    if axes and not places:
        now = low.add("reshape", [now], shape=(*[1] * axes, *low.shape(now)))
    return now


def _entries(low: Lowering, value: Ref, axis: int, places: Ref | Held, axes: int) -> Ref:
    """Entries along an axis, the batch not counted; the axes of the places come first."""
    if isinstance(places, Held) or not low.depends(places):
        return _everywhere(low, value, axis, places, axes)
    if places.bare or not _are_numbers(low, places) or len(low.shape(places)) != axes:
        raise Decline
    made = low.add("pick", [value, places], axis=axis, size=low.shape(value)[axis], rank=axes)
    low.types[made.node] = low.types[value.node]
    return made


def _are_numbers(low: Lowering, places: Ref) -> bool:
    return str(low.types[places.node]) in ("torch.int64", "torch.int32")


def _everywhere(low: Lowering, value: Ref, axis: int, places: Ref | Held, axes: int) -> Ref:
    """As `_entries`, for places that are the same in all examples; an axis of one entry in front stands for those."""
    sizes = low.sizes(places)
    own = sizes[len(sizes) > axes :]
    if len(own) > axes or (len(own) < len(sizes) and sizes[0] != 1):
        raise Decline
    if isinstance(places, Held):
        now = taken(low, value, places, axis)
    elif _are_numbers(low, places):
        seen = low.add("reshape", [places], shape=sizes) if sizes != low.shape(places) else places
        whole = slice(None)
        now = tensor(low.call_anew("operator.getitem", [value, (*[whole] * (axis + 1), Ref(seen.node, bare=True))]))
    else:
        raise Decline
    order = [*range(axis, axis + len(sizes)), *range(axis), *range(axis + len(sizes), len(low.shape(now)))]
    if order != sorted(order):
        now = low.add("permute", [now], order=order)
    shape = (*[1] * (axes - len(own)), *own, *low.shape(now)[len(sizes) :])
    return low.add("reshape", [now], shape=shape) if shape != low.shape(now) else now


def _range(low: Lowering, *given: Any, **keywords: Any) -> Numbering:
    """The numbers of the examples; other ranges are constants."""
    names = ("end",) if len(given) == 1 else ("start", "end", "step")
    bounds = dict(zip(names, given, strict=False)) | keywords
    if not any(isinstance(each, Size) for each in bounds.values()):
        raise Decline
    if bounds.get("start", 0) != 0 or bounds.get("end") != Size(1) or bounds.get("step", 1) != 1:
        raise low.error("it counts with the batch size, by torch.arange, which would bake it in")
    try:
        return _numbering(low)
    except Decline:
        raise low.error(ALONE) from None


PICKING_CALLS: dict[str, Callable[..., Any]] = {"arange": _range}
"""Functions that number the examples."""
