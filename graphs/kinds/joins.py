"""Where values meet or change form: inputs, sums, products, concatenation, flattening, dropout, gates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import TYPE_CHECKING, Any

from graphs.errors import ShapeError
from graphs.kinds.kind import REQUIRED, Kind, Settings, Tensors, TensorSpec
from graphs.kinds.values import count, fraction, text
from graphs.structure import Node, Shape

if TYPE_CHECKING:
    from graphs.solver import Axis, Solver

__all__ = ["JOINS"]


def _input_shape(value: Any) -> Shape:
    if not isinstance(value, list | tuple) or not 1 <= len(value) <= 4:
        raise ValueError("expected the sizes of one example, such as (3, 32, 32)")
    return tuple(count(size) for size in value)


def _declared(settings: Settings, shapes: Sequence[Shape]) -> Shape:
    shape: Shape = settings["shape"]
    return shape


def _input_channels(solver: Solver, node: Node, axes: Sequence[Axis], shapes: Sequence[Shape], out: Shape) -> Axis:
    return solver.fix(solver.fresh(out[0]), f"its channels are those of the input '{node.settings['name']}'")


INPUT = Kind(
    name="input",
    settings={"name": (text, "x"), "shape": (_input_shape, REQUIRED)},
    operands=(0, 0),
    shape=_declared,
    channels=_input_channels,
)


def _alike(settings: Settings, shapes: Sequence[Shape]) -> Shape:
    if len(set(shapes)) != 1:
        raise ShapeError("expected equal shapes")
    return shapes[0]


def _tied(solver: Solver, node: Node, axes: Sequence[Axis], shapes: Sequence[Shape], out: Shape) -> Axis:
    for axis in axes[1:]:
        solver.tie(axes[0], axis, node)
    return axes[0]


def _sum(settings: Settings, inputs: Sequence[Any], tensors: Tensors, training: bool) -> Any:
    total = inputs[0]
    for value in inputs[1:]:
        total = total + value
    return total


def _mean(settings: Settings, inputs: Sequence[Any], tensors: Tensors, training: bool) -> Any:
    return _sum(settings, inputs, tensors, training) / len(inputs)


def _broadcast(settings: Settings, shapes: Sequence[Shape]) -> Shape:
    ranks = {len(shape) for shape in shapes}
    if len(ranks) != 1:
        raise ShapeError("expected as many axes in each operand")
    out = tuple(max(sizes) for sizes in zip(*shapes, strict=True))
    if any(size not in (1, whole) for shape in shapes for size, whole in zip(shape, out, strict=True)):
        raise ShapeError("expected equal sizes, or 1, on each axis")
    return out


def _product_channels(solver: Solver, node: Node, axes: Sequence[Axis], shapes: Sequence[Shape], out: Shape) -> Axis:
    whole = [axis for axis, shape in zip(axes, shapes, strict=True) if shape[0] == out[0]]
    for axis, shape in zip(axes, shapes, strict=True):
        if shape[0] != out[0]:
            solver.fix(axis, f"its one channel scales all channels at '{node.id}'")
    return _tied(solver, node, whole, shapes, out)


def _product(settings: Settings, inputs: Sequence[Any], tensors: Tensors, training: bool) -> Any:
    product = inputs[0]
    for value in inputs[1:]:
        product = product * value
    return product


def _concatenated(settings: Settings, shapes: Sequence[Shape]) -> Shape:
    if len({shape[1:] for shape in shapes}) != 1:
        raise ShapeError("expected equal sizes on all axes but the channels")
    return (sum(shape[0] for shape in shapes), *shapes[0][1:])


def _concat(settings: Settings, inputs: Sequence[Any], tensors: Tensors, training: bool) -> Any:
    import torch

    return torch.cat(list(inputs), 1)


def _side_by_side(solver: Solver, node: Node, axes: Sequence[Axis], shapes: Sequence[Shape], out: Shape) -> Axis:
    return solver.join(axes)


def _flat(settings: Settings, shapes: Sequence[Shape]) -> Shape:
    return (prod(shapes[0]),)


def _flatten(settings: Settings, inputs: Sequence[Any], tensors: Tensors, training: bool) -> Any:
    import torch

    return torch.flatten(inputs[0], 1)


def _flat_channels(solver: Solver, node: Node, axes: Sequence[Axis], shapes: Sequence[Shape], out: Shape) -> Axis:
    return solver.repeat(axes[0], prod(shapes[0][1:]))


def _same(settings: Settings, inputs: Sequence[Any], tensors: Tensors, training: bool) -> Any:
    return inputs[0]


def _drop(name: str, module: str) -> Kind:
    def compute(settings: Settings, inputs: Sequence[Any], tensors: Tensors, training: bool) -> Any:
        from torch.nn import functional

        return getattr(functional, name)(inputs[0], settings["p"], training)

    def shape(settings: Settings, shapes: Sequence[Shape]) -> Shape:
        if name == "dropout2d" and len(shapes[0]) != 3:
            raise ShapeError("expected (channels, height, width)")
        return shapes[0]

    def channels(solver: Solver, node: Node, axes: Sequence[Axis], shapes: Sequence[Shape], out: Shape) -> Axis:
        solver.draws(axes[0], node)
        return axes[0]

    return Kind(
        name=name,
        settings={"p": (fraction, 0.5)},
        shape=shape,
        compute=compute,
        module=lambda settings, shapes: (module, {"p": settings["p"]}),
        channels=channels,
        random=True,
    )


def _gate_roles(settings: Settings) -> tuple[str, ...]:
    return ("gate",)


def _gate_tensors(settings: Settings, shapes: Sequence[Shape]) -> Mapping[str, TensorSpec]:
    return {"gate": TensorSpec((), "zeros")}


def _gate(settings: Settings, inputs: Sequence[Any], tensors: Tensors, training: bool) -> Any:
    return inputs[0] + tensors["gate"] * (inputs[1] - inputs[0])


JOINS = (
    INPUT,
    Kind(name="add", operands=(2, None), shape=_alike, compute=_sum, channels=_tied, commutative=True),
    Kind(name="mean", operands=(2, None), shape=_alike, compute=_mean, channels=_tied, commutative=True),
    Kind(
        name="multiply",
        operands=(2, None),
        shape=_broadcast,
        compute=_product,
        channels=_product_channels,
        commutative=True,
    ),
    Kind(name="concat", operands=(1, None), shape=_concatenated, compute=_concat, channels=_side_by_side),
    Kind(name="flatten", shape=_flat, compute=_flatten, channels=_flat_channels),
    Kind(name="identity", compute=_same),
    _drop("dropout", "Dropout"),
    _drop("dropout2d", "Dropout2d"),
    Kind(
        name="gate",
        operands=(2, 2),
        shape=_alike,
        compute=_gate,
        roles=_gate_roles,
        tensors=_gate_tensors,
        channels=_tied,
    ),
)
