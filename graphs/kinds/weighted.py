"""Layers that mix channels: convolution and linear."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import TYPE_CHECKING, Any

from graphs.errors import ShapeError
from graphs.kinds.kind import REQUIRED, Kind, Settings, Tensors, TensorSpec
from graphs.kinds.values import boolean, count, optional, pair, sizes
from graphs.structure import Node, Shape

if TYPE_CHECKING:
    from graphs.solver import Axis, Solver

__all__ = ["CONV2D", "LINEAR", "slide"]


def slide(size: int, kernel: int, stride: int, padding: int, dilation: int, ceil: bool = False) -> int:
    """Number of places at which a window fits along one axis, as `torch` counts them."""
    room = size + 2 * padding - dilation * (kernel - 1) - 1
    if room < 0:
        return 0
    places = (room + (stride - 1 if ceil else 0)) // stride + 1
    # A window that ceil mode adds must start inside the input or its left padding.
    return places - 1 if ceil and (places - 1) * stride >= size + padding else places


def _same_padding(settings: dict[str, Any]) -> dict[str, Any]:
    if settings["padding"] is None:
        kernel, dilation = settings["kernel"], settings["dilation"]
        settings["padding"] = tuple(d * (k - 1) // 2 for k, d in zip(kernel, dilation, strict=True))
    return settings


def _weight_and_bias(settings: Settings) -> tuple[str, ...]:
    return ("weight", "bias") if settings["bias"] else ("weight",)


def _conv_shape(settings: Settings, shapes: Sequence[Shape]) -> Shape:
    shape = shapes[0]
    if len(shape) != 3:
        raise ShapeError("expected (channels, height, width)")
    groups, out = settings["groups"], settings["out"]
    if shape[0] % groups or out % groups:
        raise ShapeError(f"{shape[0]} input and {out} output channels cannot be divided into {groups} groups")
    rest = zip(
        shape[1:],
        settings["kernel"],
        settings["stride"],
        settings["padding"],
        settings["dilation"],
        strict=True,
    )
    return (out, *(slide(*sizes) for sizes in rest))


def _conv_tensors(settings: Settings, shapes: Sequence[Shape]) -> Mapping[str, TensorSpec]:
    out = settings["out"]
    weight = TensorSpec((out, shapes[0][0] // settings["groups"], *settings["kernel"]), "kaiming")
    return {"weight": weight, "bias": TensorSpec((out,), "zeros")} if settings["bias"] else {"weight": weight}


def _conv_module(settings: Settings, shapes: Sequence[Shape]) -> tuple[str, dict[str, Any]]:
    arguments: dict[str, Any] = {
        "in_channels": shapes[0][0],
        "out_channels": settings["out"],
        "kernel_size": settings["kernel"],
        "stride": settings["stride"],
        "padding": settings["padding"],
    }
    if settings["dilation"] != (1, 1):
        arguments["dilation"] = settings["dilation"]
    if settings["groups"] != 1:
        arguments["groups"] = settings["groups"]
    if not settings["bias"]:
        arguments["bias"] = False
    return "Conv2d", arguments


def _conv(settings: Settings, inputs: Sequence[Any], tensors: Tensors, training: bool) -> Any:
    from torch.nn import functional

    return functional.conv2d(
        inputs[0],
        tensors["weight"],
        tensors.get("bias"),
        settings["stride"],
        settings["padding"],
        settings["dilation"],
        settings["groups"],
    )


def _conv_channels(solver: Solver, node: Node, axes: Sequence[Axis], shapes: Sequence[Shape], out: Shape) -> Axis:
    groups, channels = node.settings["groups"], shapes[0][0]
    if groups == channels and groups > 1:
        axis = solver.repeat(axes[0], out[0] // channels)
        solver.carry(axis, node, "weight", 0)
        solver.carry(axis, node, "bias", 0)
        # Whoever shares the filters has to keep to one input channel for each.
        one = solver.fix(solver.fresh(1), f"it has filters of one channel, shared with '{node.id}'")
        solver.read(one, node, 0, "weight", 1)
        return axis
    solver.read(axes[0], node, 0, "weight", 1, groups)
    axis = solver.fresh(out[0])
    if groups > 1:
        solver.blocks(axes[0], groups, node)
        solver.blocks(axis, groups, node)
    solver.write(axis, node, "weight", 0)
    solver.write(axis, node, "bias", 0)
    return axis


def _conv_resize(settings: Settings, before: int, after: int, out: int) -> Settings:
    depthwise = settings["groups"] == before and before > 1
    return {**settings, "out": out, "groups": after if depthwise else settings["groups"]}


def _conv_macs(settings: Settings, shapes: Sequence[Shape], out: Shape) -> int:
    products: int = prod(out) * (shapes[0][0] // settings["groups"]) * prod(settings["kernel"])
    return products


CONV2D = Kind(
    name="conv2d",
    settings={
        "out": (count, REQUIRED),
        "kernel": (sizes, 3),
        "stride": (sizes, 1),
        "padding": (optional(pair), None),
        "dilation": (sizes, 1),
        "groups": (count, 1),
        "bias": (boolean, True),
    },
    complete=_same_padding,
    shape=_conv_shape,
    compute=_conv,
    module=_conv_module,
    roles=_weight_and_bias,
    tensors=_conv_tensors,
    channels=_conv_channels,
    resize=_conv_resize,
    macs=_conv_macs,
)


def _linear_shape(settings: Settings, shapes: Sequence[Shape]) -> Shape:
    if len(shapes[0]) != 1:
        raise ShapeError("expected (features,); flatten first")
    return (settings["out"],)


def _linear_tensors(settings: Settings, shapes: Sequence[Shape]) -> Mapping[str, TensorSpec]:
    weight = TensorSpec((settings["out"], shapes[0][0]), "fan_in")
    return (
        {"weight": weight, "bias": TensorSpec((settings["out"],), "zeros")} if settings["bias"] else {"weight": weight}
    )


def _linear_module(settings: Settings, shapes: Sequence[Shape]) -> tuple[str, dict[str, Any]]:
    arguments: dict[str, Any] = {"in_features": shapes[0][0], "out_features": settings["out"]}
    return "Linear", arguments if settings["bias"] else {**arguments, "bias": False}


def _linear(settings: Settings, inputs: Sequence[Any], tensors: Tensors, training: bool) -> Any:
    from torch.nn import functional

    return functional.linear(inputs[0], tensors["weight"], tensors.get("bias"))


def _linear_channels(solver: Solver, node: Node, axes: Sequence[Axis], shapes: Sequence[Shape], out: Shape) -> Axis:
    solver.read(axes[0], node, 0, "weight", 1)
    axis = solver.fresh(out[0])
    solver.write(axis, node, "weight", 0)
    solver.write(axis, node, "bias", 0)
    return axis


def _linear_resize(settings: Settings, before: int, after: int, out: int) -> Settings:
    return {**settings, "out": out}


def _linear_macs(settings: Settings, shapes: Sequence[Shape], out: Shape) -> int:
    return prod(shapes[0]) * prod(out)


LINEAR = Kind(
    name="linear",
    settings={"out": (count, REQUIRED), "bias": (boolean, True)},
    shape=_linear_shape,
    compute=_linear,
    module=_linear_module,
    roles=_weight_and_bias,
    tensors=_linear_tensors,
    channels=_linear_channels,
    resize=_linear_resize,
    macs=_linear_macs,
)
