"""Where tensors meet: sums, products, concatenations, and what is made equal for all examples of a batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from graphs.importing.calls.values import several
from graphs.importing.lowering import Lowering
from graphs.importing.stand_ins import Decline, Held, Program, Ref, Size

Converter = Callable[..., Any]

__all__ = ["JOINING_CALLS"]


def _joining(kind: str) -> Converter:
    def make(low: Lowering, one: Any, other: Any, alpha: Any = 1, **keywords: Any) -> Any:
        if alpha != 1 or keywords:
            raise Decline
        refs = [each for each in (one, other) if isinstance(each, Ref)]
        if not refs or not all(isinstance(each, Ref | Held) for each in (one, other)) or any(ref.bare for ref in refs):
            raise Decline
        rank = max(len(low.shape(ref)) for ref in refs)
        if any(isinstance(each, Held) and each.tensor.ndim > rank + 1 for each in (one, other)):
            raise Decline
        if any(isinstance(each, Held) and not each.tensor.is_floating_point() for each in (one, other)):
            raise Decline
        operands = [low.ref(each, rank) for each in (one, other)]
        shapes = [low.shape(each) for each in operands]
        if len(shapes[0]) != len(shapes[1]) or (kind == "add" and shapes[0] != shapes[1]):
            raise Decline
        return low.add(kind, operands)

    return make


def _concat(low: Lowering, values: Any, dim: int = 0, **keywords: Any) -> Any:
    refs = [each for each in several(values) if isinstance(each, Ref)]
    if not refs or any(ref.bare for ref in refs):
        raise Decline
    rank = len(low.shape(refs[0]))
    axis = dim - 1 if dim >= 0 else dim + rank
    operands = [low.ref(each, rank) for each in values]
    if axis < 0 or not any(low.depends(ref) for ref in operands):
        raise Decline
    operands = [ref if low.depends(ref) else _spread(low, ref) for ref in operands]
    return low.add("concat", operands, axis=axis) if len(operands) > 1 else operands[0]


def _spread(low: Lowering, value: Ref) -> Ref:
    """The value for each example. How many there are an input says, which no mutation removes."""
    like = Ref(next(iter(low.inputs.values())))
    made = low.add("expand", [value, like], rank=len(low.shape(value)))
    low.types[made.node] = low.types[value.node]
    return made


def _expand(low: Lowering, value: Any, *sizes: Any) -> Any:
    wanted = sizes[0] if len(sizes) == 1 and isinstance(sizes[0], list | tuple) else sizes
    own = low.sizes(value)
    same = len(wanted) == len(own) and all(size in (-1, have) for size, have in zip(wanted, own, strict=True))
    if same and isinstance(value, Ref) and low.depends(value):
        return value
    if isinstance(value, Program) or len(wanted) != len(own) or own[0] != 1 or wanted[0] != Size(1):
        raise Decline
    if any(size not in (-1, have) for size, have in zip(wanted[1:], own[1:], strict=True)):
        raise Decline
    return _spread(low, low.ref(value, len(own) - 1))


JOINING_CALLS: dict[str, Callable[..., Any]] = {
    "add": _joining("add"),
    "mul": _joining("multiply"),
    "multiply": _joining("multiply"),
    "cat": _concat,
    "concat": _concat,
    "concatenate": _concat,
    "expand": _expand,
}
"""Functions of several tensors."""
