"""Where values meet or change form: inputs, sums, products, concatenation, flattening, dropout, gates."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import TYPE_CHECKING, Any

from graphs.errors import GraphError, ShapeError
from graphs.kinds.kind import REQUIRED, Kind, Settings, Tensors, TensorSpec
from graphs.kinds.rearranging import merged
from graphs.kinds.values import choice, count, fraction, whole
from graphs.kinds.weighted import PLACES, check_map
from graphs.names import check_argument
from graphs.structure import Node, Shape

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from graphs.solver import Axis, Dims, Solver

__all__ = ["JOINS", "broadcast", "broadcast_channels", "whole_numbers"]


def _input_shape(value: Any) -> Shape:
    if not isinstance(value, list | tuple) or len(value) > 6:
        raise ValueError("expected the sizes of one example, such as (3, 32, 32)")
    return tuple(count(size) for size in value)


def _greatest(value: Any) -> int | tuple[int, ...]:
    return tuple(map(count, value)) if isinstance(value, list | tuple) else count(value)


def _fitting(settings: dict[str, Any]) -> dict[str, Any]:
    most, shape = settings["most"], settings["shape"]
    if isinstance(most, tuple) and len(most) != (shape[-1] if shape else 0):
        raise GraphError(
            f"an input of shape {shape} has {len(most)} ranges; expected one for each entry of its last axis"
        )
    return settings


def whole_numbers(settings: Settings, batch: int, generator: Generator) -> Tensor:
    """Examples (batch, *shape) for an input of whole numbers, of those that it may hold."""
    import torch

    most = torch.as_tensor(settings["most"])
    return torch.randint(0, int(most.max()), (batch, *settings["shape"]), generator=generator) % most


def _declared(settings: Settings, shapes: Sequence[Shape]) -> Shape:
    shape: Shape = settings["shape"]
    return shape


def _input_channels(solver: Solver, node: Node, axes: Sequence[Dims], shapes: Sequence[Shape], out: Shape) -> Dims:
    if len(out) in (0, 2) or node.settings["dtype"] != "float":
        return ((),) * len(out)
    axis = solver.fix(solver.fresh(out[0]), f"its channels are those of the input '{node.settings['name']}'")
    return (axis, *((),) * (len(out) - 1))


INPUT = Kind(
    name="input",
    settings={
        "name": (check_argument, "x"),
        "shape": (_input_shape, REQUIRED),
        "dtype": (choice("float", "integer", "boolean"), "float"),
        "most": (_greatest, 1),
    },
    complete=_fitting,
    operands=(0, 0),
    shape=_declared,
    channels=_input_channels,
)


def _alike(settings: Settings, shapes: Sequence[Shape]) -> Shape:
    if len(set(shapes)) != 1:
        raise ShapeError("expected equal shapes")
    return shapes[0]


def _tied(solver: Solver, node: Node, axes: Sequence[Dims], shapes: Sequence[Shape], out: Shape) -> Dims:
    for dims in axes[1:]:
        for one, other in zip(axes[0], dims, strict=True):
            solver.tie(one, other, node)
    return tuple(one or next((dims[place] for dims in axes if dims[place]), ()) for place, one in enumerate(axes[0]))


def _sum(settings: Settings, inputs: Sequence[Any], tensors: Tensors, training: bool) -> Any:
    total = inputs[0]
    for value in inputs[1:]:
        total = total + value
    return total


def _mean(settings: Settings, inputs: Sequence[Any], tensors: Tensors, training: bool) -> Any:
    return _sum(settings, inputs, tensors, training) / len(inputs)


def broadcast(settings: Settings, shapes: Sequence[Shape]) -> Shape:
    """Shape of what is computed from operands of equal sizes, or of size 1, on each axis."""
    ranks = {len(shape) for shape in shapes}
    if len(ranks) != 1:
        raise ShapeError("expected as many axes in each operand")
    out = tuple(max(sizes) for sizes in zip(*shapes, strict=True))
    if any(size not in (1, whole) for shape in shapes for size, whole in zip(shape, out, strict=True)):
        raise ShapeError("expected equal sizes, or 1, on each axis")
    return out


def broadcast_channels(solver: Solver, node: Node, axes: Sequence[Dims], shapes: Sequence[Shape], out: Shape) -> Dims:
    """An axis of one entry meets all channels of the others; other axes hold the same channels."""
    found: list[Axis] = []
    for place, size in enumerate(out):
        whole = [dims[place] for dims, shape in zip(axes, shapes, strict=True) if shape[place] == size]
        for dims, shape in zip(axes, shapes, strict=True):
            if shape[place] != size:
                solver.close([dims[place]], node, "meets all channels with its one")
        for other in whole[1:]:
            solver.tie(whole[0], other, node)
        found.append(next((axis for axis in whole if axis), ()))
    return tuple(found)


def _product(settings: Settings, inputs: Sequence[Any], tensors: Tensors, training: bool) -> Any:
    product = inputs[0]
    for value in inputs[1:]:
        product = product * value
    return product


def _concatenated(settings: Settings, shapes: Sequence[Shape]) -> Shape:
    axis = settings["axis"]
    if min(map(len, shapes)) <= axis or len({(shape[:axis], shape[axis + 1 :]) for shape in shapes}) != 1:
        raise ShapeError(f"expected equal sizes on all axes but axis {axis}")
    return (*shapes[0][:axis], sum(shape[axis] for shape in shapes), *shapes[0][axis + 1 :])


def _concat(settings: Settings, inputs: Sequence[Any], tensors: Tensors, training: bool) -> Any:
    import torch

    return torch.cat(list(inputs), 1 + settings["axis"])


def _side_by_side(solver: Solver, node: Node, axes: Sequence[Dims], shapes: Sequence[Shape], out: Shape) -> Dims:
    along = node.settings["axis"]
    parts = [dims[along] for dims in axes]
    if any(parts):
        parts = [solver.channels(axis, shape[along], node) for axis, shape in zip(parts, shapes, strict=True)]
    others = _tied(solver, node, [(*dims[:along], (), *dims[along + 1 :]) for dims in axes], shapes, out)
    return (*others[:along], solver.concatenate(parts, node), *others[along + 1 :])


def _flat(settings: Settings, shapes: Sequence[Shape]) -> Shape:
    if not shapes[0]:
        raise ShapeError("expected at least one axis")
    return (prod(shapes[0]),)


def _flatten(settings: Settings, inputs: Sequence[Any], tensors: Tensors, training: bool) -> Any:
    import torch

    return torch.flatten(inputs[0], 1)


def _flat_channels(solver: Solver, node: Node, axes: Sequence[Dims], shapes: Sequence[Shape], out: Shape) -> Dims:
    return (merged(solver, node, axes[0], shapes[0]),)


def _same(settings: Settings, inputs: Sequence[Any], tensors: Tensors, training: bool) -> Any:
    return inputs[0]


def _drops(settings: Settings) -> bool:
    return bool(settings["p"])


def _detach(settings: Settings, inputs: Sequence[Any], tensors: Tensors, training: bool) -> Any:
    return inputs[0].detach()


def _drop(name: str, places: int | None = None) -> Kind:
    """Dropout of each element, or of whole channels of maps over so many axes of places."""

    def compute(settings: Settings, inputs: Sequence[Any], tensors: Tensors, training: bool) -> Any:
        from torch.nn import functional

        return getattr(functional, name)(inputs[0], settings["p"], training)

    def shape(settings: Settings, shapes: Sequence[Shape]) -> Shape:
        if places:
            check_map(shapes[0], places)
        return shapes[0]

    def channels(solver: Solver, node: Node, axes: Sequence[Dims], shapes: Sequence[Shape], out: Shape) -> Dims:
        for axis in filter(None, axes[0] if node.settings["p"] else ()):
            solver.draws(axis, node)
        return tuple(axes[0])

    return Kind(
        name=name,
        settings={"p": (fraction, 0.5)},
        shape=shape,
        compute=compute,
        module=lambda settings, shapes: (name.capitalize(), {"p": settings["p"]}),
        channels=channels,
        random=_drops,
        silent=True,
        even=True,
    )


def _stochastic_depth(settings: Settings, inputs: Sequence[Any], tensors: Tensors, training: bool) -> Any:
    import torch

    if settings["mode"] in _KEPT:
        value, rate = inputs[0], settings["p"] * training
        drawn = torch.rand(value.shape[0], dtype=value.dtype, device=value.device)
        kept = _KEPT[settings["mode"]](drawn, rate).to(value.dtype)
        return ((value / (1 - rate)).transpose(0, -1) * kept).transpose(0, -1)
    if settings["mode"] == "row":
        return torch.feature_dropout(inputs[0].unsqueeze(0), settings["p"], training).squeeze(0)
    return torch.feature_dropout(inputs[0].unsqueeze(0).unsqueeze(0), settings["p"], training).squeeze(0).squeeze(0)


_KEPT: dict[str, Callable[[Any, Any], Any]] = {
    "below": lambda drawn, rate: drawn < 1 - rate,
    "above": lambda drawn, rate: (1 - rate + drawn).floor(),
}
"""Whether an example is kept, by the number from 0 to 1 that is drawn for it, in the two ways of writing it."""


def _gate_roles(settings: Settings) -> tuple[str, ...]:
    return ("gate",)


def _gate_tensors(settings: Settings, shapes: Sequence[Shape]) -> Mapping[str, TensorSpec]:
    return {"gate": TensorSpec((), "zeros")}


def _gate(settings: Settings, inputs: Sequence[Any], tensors: Tensors, training: bool) -> Any:
    return inputs[0] + tensors["gate"] * (inputs[1] - inputs[0])


def _by_mode(settings: Settings, inputs: Sequence[Any], tensors: Tensors, training: bool) -> Any:
    one, other = inputs
    return one if one is other or training else other


JOINS = (
    INPUT,
    Kind(
        name="add",
        operands=(2, None),
        shape=_alike,
        compute=_sum,
        channels=_tied,
        commutative=True,
        elementwise=True,
        spare=True,
    ),
    Kind(
        name="mean", operands=(2, None), shape=_alike, compute=_mean, channels=_tied, commutative=True, elementwise=True
    ),
    Kind(
        name="multiply",
        operands=(2, None),
        shape=broadcast,
        compute=_product,
        channels=broadcast_channels,
        commutative=True,
        elementwise=True,
    ),
    Kind(
        name="concat",
        settings={"axis": (whole, 0)},
        operands=(1, None),
        shape=_concatenated,
        level=True,
        compute=_concat,
        channels=_side_by_side,
        silent=True,
        even=True,
        spare=True,
    ),
    Kind(name="flatten", shape=_flat, compute=_flatten, channels=_flat_channels, silent=True, even=True),
    Kind(name="identity", compute=_same, elementwise=True),
    Kind(name="detach", compute=_detach, elementwise=True, stops=True),
    _drop("dropout"),
    *(_drop(f"dropout{places}d", places) for places in PLACES),
    Kind(  # Huang et al., "Deep Networks with Stochastic Depth", 2016, arXiv 1603.09382
        name="stochastic_depth",
        settings={"p": (fraction, 0.5), "mode": (choice("row", "batch", "below", "above"), "row")},
        compute=_stochastic_depth,
        random=_drops,
        silent=True,
        even=True,
    ),
    Kind(
        name="by_mode",
        operands=(2, 2),
        shape=_alike,
        level=True,
        compute=_by_mode,
        channels=_tied,
        divides=True,
        elementwise=True,
        silent=True,
        even=True,
    ),
    Kind(
        name="gate",
        operands=(2, 2),
        shape=_alike,
        compute=_gate,
        roles=_gate_roles,
        tensors=_gate_tensors,
        channels=_tied,
        elementwise=True,
    ),
)
