"""What converters ask of their arguments."""

from __future__ import annotations

from typing import Any

from graphs.importing.lowering import Lowering
from graphs.importing.stand_ins import Decline, Held, Ref


def tensor(value: Any) -> Ref:
    """A node, where the value is one."""
    if not isinstance(value, Ref):
        raise Decline
    return value


def first(low: Lowering, value: Any) -> Ref:
    """A node in front of whose axes the batch stands."""
    if isinstance(value, Held):
        raise Decline
    found = tensor(value)
    if found.bare:
        raise Decline
    return found


_TURNING = frozenset({"t", "transpose", "adjoint", "swapaxes", "swapdims"})


def matrix(low: Lowering, value: Any) -> tuple[Held, bool]:
    """The parameter that a matrix is, and whether it lies the other way there."""
    if isinstance(value, Held):
        held, turned = value, False
    else:
        node = low.draft.nodes[tensor(value).node]
        (target, given, _), *_ = node.settings.get("program", [("", (), {})])
        named = low.named(node.tensors["0"]) if len(node.tensors) == 1 and node.kind == "opaque" else None
        axes = {axis % 2 for axis in given[1:] if isinstance(axis, int)}
        if named is None or target.partition(".")[2] not in _TURNING or len(given) != 1 + len(axes) or len(axes) == 1:
            raise Decline
        held, turned = named, True
    if held.how != "parameter" or held.tensor.ndim != 2:
        raise Decline
    return held, turned


def several(value: Any) -> tuple[Any, ...] | list[Any]:
    """The parts of a list or a tuple."""
    if not isinstance(value, list | tuple):
        raise Decline
    return value


def numbers(value: Any) -> tuple[int, ...]:
    """Whole numbers that depend neither on the batch nor on the mode; one is taken for a list of one."""
    found = value if isinstance(value, list | tuple) else (value,)
    if not all(isinstance(each, int) for each in found):
        raise Decline
    return tuple(found)


def each_place(value: Any, places: int) -> Any:
    """A setting for each axis of places, where one number may stand for all."""
    found = value if isinstance(value, list | tuple) else (value,)
    if not all(isinstance(each, int | None) for each in found):
        raise Decline
    return tuple(found) * (places if len(found) == 1 else 1)


def items_of(what: Any, rank: int) -> list[Any]:
    """What an index says of one axis after the other, the batch first, with an ellipsis written out.

    Raises:
        Decline: It does not take the whole batch.
    """
    items = list(what) if isinstance(what, tuple) else [what]
    place = next((place for place, item in enumerate(items) if item is Ellipsis), None)
    if place is not None:
        given = sum(item is not None for item in items) - 1
        items[place : place + 1] = [slice(None)] * (rank - given)
    if not items or items[0] != slice(None):
        raise Decline
    return items


def ordered(low: Lowering, value: Ref, order: list[int]) -> Ref:
    """A node's value with its axes in another order, the batch not counted; the node itself for the same order."""
    return value if order == list(range(len(order))) else low.add("permute", [value], order=order)


def cut(low: Lowering, value: Ref, axis: int, start: int, stop: int, step: int = 1) -> Ref:
    """Entries of a node's value along an axis; the node itself for all of them."""
    if (start, stop, step) == (0, low.shape(value)[axis], 1):
        return value
    return low.add("slice", [value], axis=axis, start=start, stop=stop, step=step)


def axis_of(low: Lowering, value: Ref, dim: int) -> int:
    """An axis, counted without the batch."""
    axis = dim % (len(low.shape(value)) + 1) - 1
    if axis < 0:
        raise Decline
    return axis
