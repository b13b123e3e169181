"""Precisions by name, and casts: what a network computes in another precision than its own.

A network that is measured in double precision computes nothing in a lower one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from graphs.kinds.kind import Kind, Settings, Tensors, TensorSpec
from graphs.kinds.values import choice
from graphs.structure import Shape

if TYPE_CHECKING:
    import torch

__all__ = ["CAST", "PRECISIONS", "dtype_named", "in_double", "is_double"]

_LOWER = ("float16", "bfloat16", "float32")

PRECISIONS = (*_LOWER, "float64")
"""What floating-point numbers may be cast to."""

_DOUBLE: ContextVar[bool] = ContextVar("double", default=False)


@contextmanager
def in_double() -> Iterator[None]:
    """Within this, networks compute in double precision where they name a lower one, or none."""
    import torch

    token, before = _DOUBLE.set(True), torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)
        _DOUBLE.reset(token)


def is_double() -> bool:
    """Whether this is within `in_double`."""
    return _DOUBLE.get()


def dtype_named(name: str) -> torch.dtype:
    """The type that a network calls `name`, such as `int64`; within `in_double`, no lower precision."""
    import torch

    found: torch.dtype = torch.float64 if is_double() and name in _LOWER else getattr(torch, name)
    return found


def _roles(settings: Settings) -> tuple[str, ...]:
    return ("like",) if settings["dtype"] == "own" else ()


def _tensors(settings: Settings, shapes: Sequence[Shape]) -> Mapping[str, TensorSpec]:
    return {role: TensorSpec((), "zeros", buffer=True, persistent=False) for role in _roles(settings)}


def _cast(settings: Settings, inputs: Sequence[Any], tensors: Tensors, training: bool) -> Any:
    if "like" in tensors:
        return inputs[0].type_as(tensors["like"])
    return inputs[0].to(dtype_named(settings["dtype"]))


CAST = Kind(
    name="cast",
    settings={"dtype": (choice("own", *PRECISIONS), "own")},
    compute=_cast,
    roles=_roles,
    tensors=_tensors,
    elementwise=True,
    silent=True,
    even=True,
)
"""A value in another precision: one that is named, or the network's own, which goes along when that is cast."""
