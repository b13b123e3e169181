"""Tensors that a forward pass uses directly: parameters, such as position embeddings, buffers and constants.

Every value has a batch axis in front; that of these has one entry, which is the same for all examples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from graphs.errors import ShapeError
from graphs.kinds.kind import REQUIRED, Change, Kind, Settings, Tensors, TensorSpec
from graphs.kinds.values import boolean, choice, count
from graphs.structure import Node, Shape

if TYPE_CHECKING:
    from graphs.solver import Axis, Dims, Solver

__all__ = ["PARAMETERS"]

_MOST_AXES = 8


def _sizes(value: Any) -> Shape:
    if not isinstance(value, list | tuple) or len(value) > _MOST_AXES:
        raise ValueError(f"expected a list of at most {_MOST_AXES} sizes")
    return tuple(count(size) for size in value)


def _viewed(settings: Settings, shapes: Sequence[Shape]) -> Shape:
    view: Shape = settings["view"]
    if [size for size in view if size > 1] != [size for size in settings["shape"] if size > 1]:
        raise ShapeError(f"a tensor {settings['shape']} cannot be seen as {view}")
    return view


def _value(settings: Settings, inputs: Sequence[Any], tensors: Tensors, training: bool) -> Any:
    seen = (1, *settings["view"])
    return tensors["value"] if settings["shape"] == seen else tensors["value"].reshape(seen)


def _parameter(settings: Settings, shapes: Sequence[Shape]) -> Mapping[str, TensorSpec]:
    return {"value": TensorSpec(settings["shape"], "fan_in")}


def _constant(settings: Settings, shapes: Sequence[Shape]) -> Mapping[str, TensorSpec]:
    integer = settings["dtype"] != "float"
    return {"value": TensorSpec(settings["shape"], "zeros", True, integer, settings["persistent"])}


def _parameter_channels(solver: Solver, node: Node, axes: Sequence[Dims], shapes: Sequence[Shape], out: Shape) -> Dims:
    dims: list[Axis] = []
    long = [place for place, size in enumerate(node.settings["shape"]) if size > 1]
    for size in out:
        axis: Axis = ()
        if size > 1:
            axis = solver.fresh(size)
            solver.carry(axis, node, "value", long[sum(1 for done in dims if done)])
        dims.append(axis)
    return tuple(dims)


def _parameter_resize(settings: Settings, change: Change) -> Settings:
    # An axis that is long may become 1, so the old sizes say which ones correspond.
    sizes = iter(size for old, size in zip(settings["view"], change.out, strict=True) if old > 1)
    shape = tuple(next(sizes) if size > 1 else 1 for size in settings["shape"])
    return {**settings, "shape": shape, "view": change.out}


def _fixed_channels(solver: Solver, node: Node, axes: Sequence[Dims], shapes: Sequence[Shape], out: Shape) -> Dims:
    return tuple(solver.fix(solver.fresh(size), f"'{node.id}' is a constant") if size > 1 else () for size in out)


def _roles(settings: Settings) -> tuple[str, ...]:
    return ("value",)


_SHAPES: dict[str, tuple[Any, Any]] = {"shape": (_sizes, REQUIRED), "view": (_sizes, REQUIRED)}

PARAMETERS = (
    Kind(
        name="parameter",
        settings=_SHAPES,
        operands=(0, 0),
        shape=_viewed,
        compute=_value,
        roles=_roles,
        tensors=_parameter,
        channels=_parameter_channels,
        resize=_parameter_resize,
    ),
    Kind(
        name="constant",
        settings={**_SHAPES, "dtype": (choice("float", "integer"), "float"), "persistent": (boolean, True)},
        operands=(0, 0),
        shape=_viewed,
        compute=_value,
        roles=_roles,
        tensors=_constant,
        channels=_fixed_channels,
    ),
)
