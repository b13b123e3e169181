"""Layers that mix channels: convolutions, linear layers and embeddings."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from math import prod
from typing import TYPE_CHECKING, Any

from graphs.errors import ShapeError
from graphs.kinds.kind import REQUIRED, Change, Kind, Settings, Tensors, TensorSpec
from graphs.kinds.values import boolean, count, optional, pair, positives, sizes, wholes
from graphs.structure import Node, Shape

if TYPE_CHECKING:
    from graphs.solver import Dims, Solver

__all__ = ["CONVOLUTIONS", "EMBEDDING", "LINEAR", "PLACES", "PRODUCT", "check_map", "slide"]


def slide(size: int, kernel: int, stride: int, padding: int, dilation: int, ceil: bool = False) -> int:
    """Number of places at which a window fits along one axis, as `torch` counts them."""
    room = size + 2 * padding - dilation * (kernel - 1) - 1
    if room < 0:
        return 0
    places = (room + (stride - 1 if ceil else 0)) // stride + 1
    # A window that ceil mode adds must start inside the input or its left padding.
    return places - 1 if ceil and (places - 1) * stride >= size + padding else places


def check_map(shape: Shape, places: int) -> None:
    """Checks that a shape is that of channels and so many axes of places.

    Raises:
        ShapeError: It is not.
    """
    if len(shape) != 1 + places:
        raise ShapeError(f"expected (channels, {', '.join(PLACES[places])})")


def _same_padding(settings: dict[str, Any]) -> dict[str, Any]:
    if settings["padding"] is None:
        kernel, dilation = settings["kernel"], settings["dilation"]
        settings["padding"] = tuple(d * (k - 1) // 2 for k, d in zip(kernel, dilation, strict=True))
    return settings


def _weight_and_bias(settings: Settings) -> tuple[str, ...]:
    return ("weight", "bias") if settings["bias"] else ("weight",)


def _conv_shape(settings: Settings, shapes: Sequence[Shape]) -> Shape:
    shape = shapes[0]
    check_map(shape, len(settings["kernel"]))
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
    if any(step != 1 for step in settings["dilation"]):
        arguments["dilation"] = settings["dilation"]
    if settings["groups"] != 1:
        arguments["groups"] = settings["groups"]
    if not settings["bias"]:
        arguments["bias"] = False
    return f"Conv{len(settings['kernel'])}d", arguments


def _conv(settings: Settings, inputs: Sequence[Any], tensors: Tensors, training: bool) -> Any:
    from torch.nn import functional

    return getattr(functional, f"conv{len(settings['kernel'])}d")(
        inputs[0],
        tensors["weight"],
        tensors.get("bias"),
        settings["stride"],
        settings["padding"],
        settings["dilation"],
        settings["groups"],
    )


def _conv_channels(solver: Solver, node: Node, axes: Sequence[Dims], shapes: Sequence[Shape], out: Shape) -> Dims:
    groups, channels = node.settings["groups"], shapes[0][0]
    solver.close(axes[0][1:], node)
    places: Dims = ((),) * (len(out) - 1)
    if groups == channels and groups > 1:
        axis = solver.repeat(axes[0][0], out[0] // channels)
        solver.carry(axis, node, "weight", 0)
        solver.carry(axis, node, "bias", 0)
        # Whoever shares the filters has to keep to one input channel for each.
        one = solver.fix(solver.fresh(1), f"it has filters of one channel, shared with '{node.id}'")
        solver.read(one, node, 0, "weight", 1)
        return (axis, *places)
    read = solver.channels(axes[0][0], channels, node)
    solver.read(read, node, 0, "weight", 1, groups)
    axis = solver.fresh(out[0])
    if groups > 1:
        solver.blocks(read, groups, node)
        solver.blocks(axis, groups, node)
    solver.write(axis, node, "weight", 0)
    solver.write(axis, node, "bias", 0)
    return (axis, *places)


def _conv_resize(settings: Settings, change: Change) -> Settings:
    before, after = change.before[0][0], change.after[0][0]
    depthwise = settings["groups"] == before and before > 1
    return {**settings, "out": change.out[0], "groups": after if depthwise else settings["groups"]}


def _conv_macs(settings: Settings, shapes: Sequence[Shape], out: Shape) -> int:
    products: int = prod(out) * (shapes[0][0] // settings["groups"]) * prod(settings["kernel"])
    return products


PLACES = {1: ("length",), 2: ("height", "width"), 3: ("depth", "height", "width")}
"""The axes of places behind the channels of a map, by their number."""


def _convolution(places: int) -> Kind:
    from_one = sizes if places == 2 else positives(places)
    from_zero = pair if places == 2 else wholes(places)
    return Kind(
        name=f"conv{places}d",
        settings={
            "out": (count, REQUIRED),
            "kernel": (from_one, 3),
            "stride": (from_one, 1),
            "padding": (optional(from_zero), None),
            "dilation": (from_one, 1),
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
        window=places,
        silent=True,
        affine=True,
        spare=True,
    )


CONVOLUTIONS = tuple(_convolution(places) for places in PLACES)
"""Convolutions over one, two and three axes of places."""


def _linear_shape(settings: Settings, shapes: Sequence[Shape]) -> Shape:
    if not shapes[0]:
        raise ShapeError("expected (…, features)")
    return (*shapes[0][:-1], settings["out"])


def _linear_tensors(settings: Settings, shapes: Sequence[Shape]) -> Mapping[str, TensorSpec]:
    weight = TensorSpec((settings["out"], shapes[0][-1]), "fan_in")
    return (
        {"weight": weight, "bias": TensorSpec((settings["out"],), "zeros")} if settings["bias"] else {"weight": weight}
    )


def _linear_module(settings: Settings, shapes: Sequence[Shape]) -> tuple[str, dict[str, Any]]:
    arguments: dict[str, Any] = {"in_features": shapes[0][-1], "out_features": settings["out"]}
    return "Linear", arguments if settings["bias"] else {**arguments, "bias": False}


def _linear(settings: Settings, inputs: Sequence[Any], tensors: Tensors, training: bool) -> Any:
    from torch.nn import functional

    return functional.linear(inputs[0], tensors["weight"], tensors.get("bias"))


def _linear_channels(out_axis: int) -> Callable[[Solver, Node, Sequence[Dims], Sequence[Shape], Shape], Dims]:
    """What a weight is read and written along, the channels that it makes along `out_axis`."""

    def channels(solver: Solver, node: Node, axes: Sequence[Dims], shapes: Sequence[Shape], out: Shape) -> Dims:
        solver.read(solver.channels(axes[0][-1], shapes[0][-1], node), node, 0, "weight", 1 - out_axis)
        axis = solver.fresh(out[-1])
        solver.write(axis, node, "weight", out_axis)
        solver.write(axis, node, "bias", 0)
        return (*axes[0][:-1], axis)

    return channels


def _linear_resize(settings: Settings, change: Change) -> Settings:
    return {**settings, "out": change.out[-1]}


def _linear_macs(settings: Settings, shapes: Sequence[Shape], out: Shape) -> int:
    return prod(shapes[0]) * out[-1]


LINEAR = Kind(
    name="linear",
    settings={"out": (count, REQUIRED), "bias": (boolean, True)},
    shape=_linear_shape,
    compute=_linear,
    module=_linear_module,
    roles=_weight_and_bias,
    tensors=_linear_tensors,
    channels=_linear_channels(0),
    resize=_linear_resize,
    macs=_linear_macs,
    window=0,
    affine=True,
)


def _product_tensors(settings: Settings, shapes: Sequence[Shape]) -> Mapping[str, TensorSpec]:
    weight = TensorSpec((shapes[0][-1], settings["out"]), "fan_in", turned=True)
    return {**_linear_tensors(settings, shapes), "weight": weight}


def _product(settings: Settings, inputs: Sequence[Any], tensors: Tensors, training: bool) -> Any:
    from torch.nn import functional

    return functional.linear(inputs[0], tensors["weight"].t(), tensors.get("bias"))


PRODUCT = replace(
    LINEAR,
    name="product",
    compute=_product,
    module=None,
    tensors=_product_tensors,
    channels=_linear_channels(1),
    window=None,
    affine=False,
)
"""A linear layer whose weight lies the other way, (in, out), as in `x @ weight + bias`."""


def _embedding_tensors(settings: Settings, shapes: Sequence[Shape]) -> Mapping[str, TensorSpec]:
    return {"weight": TensorSpec((settings["entries"], settings["out"]), "fan_in")}


def _embedding_channels(solver: Solver, node: Node, axes: Sequence[Dims], shapes: Sequence[Shape], out: Shape) -> Dims:
    axis = solver.fresh(out[-1])
    solver.write(axis, node, "weight", 1)
    return (*(() for _ in axes[0]), axis)


def _embedding(settings: Settings, inputs: Sequence[Any], tensors: Tensors, training: bool) -> Any:
    from torch.nn import functional

    return functional.embedding(inputs[0], tensors["weight"])


EMBEDDING = Kind(
    name="embedding",
    settings={"entries": (count, REQUIRED), "out": (count, REQUIRED)},
    shape=lambda settings, shapes: (*shapes[0], settings["out"]),
    compute=_embedding,
    module=lambda settings, shapes: (
        "Embedding",
        {"num_embeddings": settings["entries"], "embedding_dim": settings["out"]},
    ),
    affine=True,
    roles=lambda settings: ("weight",),
    tensors=_embedding_tensors,
    channels=_embedding_channels,
    resize=_linear_resize,
)
