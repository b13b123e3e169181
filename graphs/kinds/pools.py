"""Pooling: each output channel depends on the same input channel alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from graphs.errors import ShapeError
from graphs.kinds.kind import REQUIRED, Kind, Settings, Tensors
from graphs.kinds.values import boolean, optional, pair, sizes
from graphs.kinds.weighted import slide
from graphs.structure import Node, Shape

if TYPE_CHECKING:
    from graphs.solver import Dims, Solver

__all__ = ["POOLS"]


def _pooled_channels(solver: Solver, node: Node, axes: Sequence[Dims], shapes: Sequence[Shape], out: Shape) -> Dims:
    solver.close(axes[0][1:], node)
    return (axes[0][0], *((),) * (len(out) - 1))


def _stride_of_kernel(settings: dict[str, Any]) -> dict[str, Any]:
    if settings["stride"] is None:
        settings["stride"] = settings["kernel"]
    return settings


def _window_shape(settings: Settings, shapes: Sequence[Shape]) -> Shape:
    if len(shapes[0]) != 3:
        raise ShapeError("expected (channels, height, width)")
    if any(2 * padding > kernel for padding, kernel in zip(settings["padding"], settings["kernel"], strict=True)):
        raise ShapeError("padding may be at most half the kernel")
    dilation = settings.get("dilation", (1, 1))
    window = zip(shapes[0][1:], settings["kernel"], settings["stride"], settings["padding"], dilation, strict=True)
    return (shapes[0][0], *(slide(*sizes, ceil=settings["ceil"]) for sizes in window))


def _max_pool(settings: Settings, inputs: Sequence[Any], tensors: Tensors, training: bool) -> Any:
    from torch.nn import functional

    return functional.max_pool2d(
        inputs[0],
        settings["kernel"],
        settings["stride"],
        settings["padding"],
        settings["dilation"],
        ceil_mode=settings["ceil"],
    )


def _average_pool(settings: Settings, inputs: Sequence[Any], tensors: Tensors, training: bool) -> Any:
    from torch.nn import functional

    return functional.avg_pool2d(
        inputs[0], settings["kernel"], settings["stride"], settings["padding"], ceil_mode=settings["ceil"]
    )


def _adaptive_shape(settings: Settings, shapes: Sequence[Shape]) -> Shape:
    if len(shapes[0]) != 3:
        raise ShapeError("expected (channels, height, width)")
    return (shapes[0][0], *settings["size"])


def _adaptive_average(settings: Settings, inputs: Sequence[Any], tensors: Tensors, training: bool) -> Any:
    from torch.nn import functional

    return functional.adaptive_avg_pool2d(inputs[0], settings["size"])


def _adaptive_max(settings: Settings, inputs: Sequence[Any], tensors: Tensors, training: bool) -> Any:
    from torch.nn import functional

    return functional.adaptive_max_pool2d(inputs[0], settings["size"])


_WINDOW: dict[str, tuple[Any, Any]] = {
    "kernel": (sizes, REQUIRED),
    "stride": (optional(sizes), None),
    "padding": (pair, 0),
    "ceil": (boolean, False),
}

POOLS = (
    Kind(
        name="max_pool2d",
        settings={**_WINDOW, "dilation": (sizes, 1)},
        complete=_stride_of_kernel,
        shape=_window_shape,
        compute=_max_pool,
        channels=_pooled_channels,
    ),
    Kind(
        name="avg_pool2d",
        settings=_WINDOW,
        complete=_stride_of_kernel,
        shape=_window_shape,
        compute=_average_pool,
        channels=_pooled_channels,
    ),
    Kind(
        name="adaptive_avg_pool2d",
        settings={"size": (sizes, 1)},
        shape=_adaptive_shape,
        compute=_adaptive_average,
        channels=_pooled_channels,
    ),
    Kind(
        name="adaptive_max_pool2d",
        settings={"size": (sizes, 1)},
        shape=_adaptive_shape,
        compute=_adaptive_max,
        channels=_pooled_channels,
    ),
)
