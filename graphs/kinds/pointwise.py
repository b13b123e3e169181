"""Functions of each element that are no layer of their own: arithmetic with numbers, powers, exponentials, differences.

Written as the one step of an opaque node's program (`graphs.kinds.opaque`), but not a wall: each channel of the result
depends on the same channel of each operand.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from graphs.errors import ShapeError
from graphs.kinds.allowed import ELEMENTWISE
from graphs.kinds.joins import broadcast, broadcast_channels
from graphs.kinds.kind import REQUIRED, Kind, Settings, Tensors
from graphs.kinds.opaque import run_program
from graphs.kinds.program import checked_program, references
from graphs.kinds.values import boolean, number
from graphs.structure import Shape

__all__ = ["MASKED_FILL", "POINTWISE"]


def _elementwise_program(value: Any) -> tuple[Any, ...]:
    program = checked_program(value)
    if len(program) != 1 or program[0][0].partition(".")[2] not in ELEMENTWISE:
        raise ValueError(f"expected one step, a function of each element: {', '.join(sorted(ELEMENTWISE))}")
    return program


def _shape(settings: Settings, shapes: Sequence[Shape]) -> Shape:
    _, arguments, keywords = settings["program"][0]
    found = [each for each in references([*arguments, *keywords.values()]) if each[0] != "batch"]
    if {name for name, _ in found} != {"in"} or {place for _, place in found} != set(range(len(shapes))):
        raise ShapeError(f"the step refers to {found}, expected all of {len(shapes)} operands and nothing else")
    return broadcast(settings, shapes)


POINTWISE = Kind(
    name="pointwise",
    settings={"program": (_elementwise_program, REQUIRED)},
    operands=(1, 2),
    shape=_shape,
    compute=run_program,
    channels=broadcast_channels,
    elementwise=True,
)


def _filling(value: Any) -> float | str:
    """A number, or `inf` or `-inf`, for which JSON has no number."""
    return value if value in ("inf", "-inf") else number(value)


def _masked_shape(settings: Settings, shapes: Sequence[Shape]) -> Shape:
    if broadcast(settings, shapes) != shapes[0]:
        raise ShapeError(f"a mask {shapes[1]} is larger than what it covers")
    return shapes[0]


def _masked(settings: Settings, inputs: Sequence[Any], tensors: Tensors, training: bool) -> Any:
    import torch

    value, mask = inputs
    if settings["kept"]:
        return torch.where(mask, value, float(settings["value"]))
    return value.masked_fill(mask, float(settings["value"]))


MASKED_FILL = Kind(
    name="masked_fill",
    settings={"value": (_filling, 0.0), "kept": (boolean, False)},
    operands=(2, 2),
    shape=_masked_shape,
    compute=_masked,
    channels=broadcast_channels,
)
"""A number in place of entries: those where a mask of truth values is true, or those where it is false (`kept`)."""
