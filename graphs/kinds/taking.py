"""Taking entries along an axis: by numbers that are written down or that each example has of its own, or in turn.

Biases by relative position are of the first sort, where a text ends is of the second.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import TYPE_CHECKING, Any

from graphs.errors import ShapeError
from graphs.kinds.kind import REQUIRED, Kind, Settings, Tensors, TensorSpec
from graphs.kinds.rearranging import sizes_of
from graphs.kinds.values import LIMIT, boolean, count, whole
from graphs.structure import Node, Shape

if TYPE_CHECKING:
    from graphs.solver import Dims, Solver

__all__ = ["TAKING"]


def _check_indexed(settings: Settings, shape: Shape) -> None:
    """Numbers that fit an axis need not fit a shorter one."""
    axis, size = settings["axis"], settings["size"]
    if axis >= len(shape) or shape[axis] != size:
        raise ShapeError(f"expected {size} entries along axis {axis}, which are numbered")


def _taken(settings: Settings, shapes: Sequence[Shape]) -> Shape:
    axis = settings["axis"]
    _check_indexed(settings, shapes[0])
    return (*shapes[0][:axis], prod(settings["shape"]), *shapes[0][axis + 1 :])


def _take(settings: Settings, inputs: Sequence[Any], tensors: Tensors, training: bool) -> Any:
    index = tensors["index"] if len(settings["shape"]) == 1 else tensors["index"].reshape(-1)
    return inputs[0].index_select(1 + settings["axis"], index)


def _index(settings: Settings, shapes: Sequence[Shape]) -> Mapping[str, TensorSpec]:
    shape: Shape = settings["shape"]
    return {"index": TensorSpec(shape, "zeros", True, True, settings["persistent"])}


def _take_channels(solver: Solver, node: Node, axes: Sequence[Dims], shapes: Sequence[Shape], out: Shape) -> Dims:
    axis = node.settings["axis"]
    solver.close([axes[0][axis]], node, "takes some of them")
    return (*axes[0][:axis], (), *axes[0][axis + 1 :])


def _picked(settings: Settings, shapes: Sequence[Shape]) -> Shape:
    axis = settings["axis"]
    _check_indexed(settings, shapes[0])
    if len(shapes[1]) != settings["rank"]:
        raise ShapeError(f"expected numbers along {settings['rank']} axes")
    return (*shapes[1], *shapes[0][:axis], *shapes[0][axis + 1 :])


def _pick(settings: Settings, inputs: Sequence[Any], tensors: Tensors, training: bool) -> Any:
    import torch

    value, numbers = inputs
    examples = torch.arange(value.shape[0], device=value.device)
    if settings["rank"]:
        examples = examples.reshape(-1, *[1] * settings["rank"])
    return value[(examples, *[slice(None)] * settings["axis"], numbers)]


def _pick_channels(solver: Solver, node: Node, axes: Sequence[Dims], shapes: Sequence[Shape], out: Shape) -> Dims:
    axis = node.settings["axis"]
    solver.close([axes[0][axis], *axes[1]], node, "takes some of them")
    return (*[()] * len(shapes[1]), *axes[0][:axis], *axes[0][axis + 1 :])


def _shifts(value: Any) -> tuple[int, ...]:
    if not isinstance(value, list | tuple) or not all(type(shift) is int and abs(shift) <= LIMIT for shift in value):
        raise ValueError("expected by how many entries each axis is turned")
    return tuple(value)


def _turned(settings: Settings, shapes: Sequence[Shape]) -> Shape:
    if len(settings["shifts"]) != len(shapes[0]):
        raise ShapeError(f"expected {len(settings['shifts'])} axes")
    return shapes[0]


def _roll(settings: Settings, inputs: Sequence[Any], tensors: Tensors, training: bool) -> Any:
    import torch

    turned = {1 + axis: shift for axis, shift in enumerate(settings["shifts"]) if shift}
    return torch.roll(inputs[0], tuple(turned.values()), tuple(turned)) if turned else inputs[0]


def _roll_channels(solver: Solver, node: Node, axes: Sequence[Dims], shapes: Sequence[Shape], out: Shape) -> Dims:
    turned = [axis for axis, shift in zip(axes[0], node.settings["shifts"], strict=True) if shift]
    solver.close(turned, node, "changes their order")
    return axes[0]


TAKING = (
    Kind(
        name="take",
        settings={
            "axis": (whole, 0),
            "size": (count, REQUIRED),
            "shape": (sizes_of, REQUIRED),
            "persistent": (boolean, True),
        },
        shape=_taken,
        compute=_take,
        roles=lambda settings: ("index",),
        tensors=_index,
        channels=_take_channels,
        silent=True,
        even=True,
    ),
    Kind(
        name="pick",
        settings={"axis": (whole, 0), "size": (count, REQUIRED), "rank": (whole, 0)},
        operands=(2, 2),
        shape=_picked,
        compute=_pick,
        channels=_pick_channels,
        level=True,
        silent=True,
        even=True,
    ),
    Kind(
        name="roll",
        settings={"shifts": (_shifts, REQUIRED)},
        shape=_turned,
        compute=_roll,
        channels=_roll_channels,
        silent=True,
        even=True,
    ),
)
