"""Numbers, sizes and attributes: what is asked of a tensor without computing with its entries."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from math import prod
from typing import Any

from graphs.importing.calls.values import tensor
from graphs.importing.lowering import Lowering
from graphs.importing.stand_ins import Decline, Held, Numbering, Program, Ref, Size

__all__ = ["NUMBER_CALLS", "attribute", "length", "number"]


def number(low: Lowering, name: str, arguments: Sequence[Any]) -> Any:
    """Arithmetic with numbers and sizes, and picking from lists."""
    if name == "getitem" or not any(isinstance(each, Size) for each in arguments):
        return getattr(operator, name)(*arguments)
    one, other = arguments if len(arguments) == 2 else (arguments[0], None)
    if name == "mul":
        if isinstance(one, Size) and isinstance(other, int):
            return Size(one.factor * other)
        if isinstance(other, Size) and isinstance(one, int):
            return Size(other.factor * one)
    if name == "floordiv" and isinstance(one, Size):
        if isinstance(other, int) and one.factor % other == 0:
            return Size(one.factor // other)
        if isinstance(other, Size) and one.factor % other.factor == 0:
            return one.factor // other.factor
    raise low.error(f"it computes with the batch size ('{name}'), which would bake it in")


def attribute(low: Lowering, value: Any, name: str, *default: Any) -> Any:
    """An attribute of what stands for a value."""
    if isinstance(value, Ref | Held | Program | Numbering):
        if name == "shape":
            return low.sizes(value)
        if name == "ndim":
            return len(low.sizes(value))
        if name in ("device", "requires_grad"):
            return None
        if name in ("T", "mT", "H"):
            return low.call("method.t" if name == "T" else "method.transpose", [value, *([-2, -1] * (name != "T"))], {})
        if isinstance(value, Program) and name in value.seen.names:
            return low.call("operator.getitem", [value, value.seen.names.index(name)], {})
        if name == "dtype":
            return low.type_of(value)
        raise low.error(f"it asks for the attribute '{name}' of a tensor")
    return getattr(value, name, *default)


def length(low: Lowering, value: Any) -> Any:
    """What `len` says of what stands for a value: of a tensor, the size of its first axis."""
    if isinstance(value, Program) and value.seen.several:
        return len(value.seen.values[0])
    if not isinstance(value, Ref | Held | Program | Numbering):
        return len(value)
    sizes = low.sizes(value)
    if not sizes:
        raise low.error("it asks for the length of a tensor that has no axes")
    return sizes[0]


def _size_of(low: Lowering, value: Any, dim: int | None = None) -> Any:
    return low.sizes(value) if dim is None else low.sizes(value)[dim]


def _rank_of(low: Lowering, value: Any) -> int:
    return len(low.sizes(value))


def _entries_of(low: Lowering, value: Any) -> Any:
    sizes = low.sizes(value)
    factors = [each.factor if isinstance(each, Size) else each for each in sizes]
    count = sum(isinstance(each, Size) for each in sizes)
    if count > 1:
        raise low.error("it multiplies the batch size with itself")
    return Size(prod(factors)) if count else prod(factors)


def _same(low: Lowering, value: Any, *rest: Any, **keywords: Any) -> Any:
    if isinstance(value, Ref | Held):
        return value
    raise Decline


def _copied(low: Lowering, value: Any, *rest: Any, **keywords: Any) -> Any:
    """A value of its own: what is done to it in place is not done to what it was copied from."""
    return low.add("identity", [tensor(value)])


def _detached(low: Lowering, value: Any) -> Any:
    return low.add("detach", [tensor(value)])


NUMBER_CALLS: dict[str, Callable[..., Any]] = {
    "alias": _same,
    "contiguous": _same,
    "lift_fresh_copy": _same,
    "sym_size": _size_of,
    "clone": _copied,
    "detach": _detached,
    "size": _size_of,
    "dim": _rank_of,
    "numel": _entries_of,
}
"""Questions about shapes, and what leaves a value as it is."""
