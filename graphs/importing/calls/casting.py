"""Casts to another precision, said by a method's name, by its argument, or by a tensor that has it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from graphs.importing.lowering import Lowering
from graphs.importing.stand_ins import Held, OwnType, Program, Ref

if TYPE_CHECKING:
    import torch

__all__ = ["CASTS", "cast"]

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
    found = low.cast(value, kind)
    if found is None and isinstance(kind, OwnType):
        return low.call("method.type_as", [value, low.like(kind)], {})
    return found


def _kind(low: Lowering, target: str, asked: Sequence[Any]) -> torch.dtype | OwnType | None:
    """The type that is asked for; where a tensor is and how it lies, a network does not say."""
    import torch

    if target in _METHODS:
        named: torch.dtype = getattr(torch, _METHODS[target])
        return named
    types = [low.type_of(each) if isinstance(each, Ref | Held | Program) else each for each in asked]
    return next((each for each in types if isinstance(each, torch.dtype | OwnType)), None)
