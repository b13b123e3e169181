"""Casts to another precision, said by a method's name, by its argument, or by a tensor that has it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from graphs.importing.lowering import Lowering
from graphs.importing.stand_ins import Held, OwnType, Program, Ref
from graphs.kinds.precision import PRECISIONS

if TYPE_CHECKING:
    import torch

__all__ = ["CASTS", "cast", "in_precision"]

_METHODS = {"method.half": "float16", "method.bfloat16": "bfloat16", "method.float": "float32"}
_METHODS["method.double"] = "float64"

CASTS = frozenset({"method.to", "method.type", "method.type_as", *_METHODS})
"""Methods that give a value in another type."""


def cast(low: Lowering, target: str, arguments: Sequence[Any], keywords: Mapping[str, Any]) -> Any:
    """A value in another type; None where nothing is said of a type, or nothing that a node could follow."""
    value, *asked = arguments
    kind = _kind(low, target, [*asked, *keywords.values()])
    if kind is None:
        return None
    found = in_precision(low, value, kind)
    if found is None and isinstance(kind, OwnType):
        return low.call("method.type_as", [value, _like(low, kind)], {})
    return found


def in_precision(low: Lowering, value: Any, kind: torch.dtype | OwnType) -> Ref | None:
    """A node for a value in another precision; None where value or type is none of floating-point numbers."""
    dtype = kind.dtype if isinstance(kind, OwnType) else kind
    name = str(dtype).removeprefix("torch.")
    if not isinstance(value, Ref) or not low.types[value.node].is_floating_point or name not in PRECISIONS:
        return None
    tensors = {"like": low.use(_like(low, kind))} if isinstance(kind, OwnType) else {}
    found = low.add("cast", [value], tensors, dtype="own" if tensors else name)
    low.types[found.node] = dtype
    if not tensors:
        low.precise.add(found.node)
    return found


def _like(low: Lowering, kind: OwnType) -> Held:
    """A constant of the network's type, which goes along when the network is cast."""
    import torch

    return low.hold(torch.zeros((), dtype=kind.dtype), f"constant_{len(low.held)}")


def _kind(low: Lowering, target: str, asked: Sequence[Any]) -> torch.dtype | OwnType | None:
    """The type that is asked for; where a tensor is and how it lies, a network does not say."""
    import torch

    if target in _METHODS:
        named: torch.dtype = getattr(torch, _METHODS[target])
        return named
    types = [low.type_of(each) if isinstance(each, Ref | Held | Program) else each for each in asked]
    return next((each for each in types if isinstance(each, torch.dtype | OwnType)), None)
