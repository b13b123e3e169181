"""Pooling over one, two and three axes of places: each output channel depends on the same input channel alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from graphs.errors import ShapeError
from graphs.kinds.kind import REQUIRED, Kind, Settings, Tensors
from graphs.kinds.values import boolean, optional, positives, wholes
from graphs.kinds.weighted import PLACES, check_map, slide
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
    kernel = settings["kernel"]
    check_map(shapes[0], len(kernel))
    if any(2 * padding > size for padding, size in zip(settings["padding"], kernel, strict=True)):
        raise ShapeError("padding may be at most half the kernel")
    dilation = settings.get("dilation", (1,) * len(kernel))
    window = zip(shapes[0][1:], kernel, settings["stride"], settings["padding"], dilation, strict=True)
    return (shapes[0][0], *(slide(*sizes, ceil=settings["ceil"]) for sizes in window))


def _average_shape(settings: Settings, shapes: Sequence[Shape]) -> Shape:
    out = _window_shape(settings, shapes)
    # For volumes only, torch asks for that, whatever the padding.
    if len(out) == 4 and any(size < kernel for size, kernel in zip(shapes[0][1:], settings["kernel"], strict=True)):
        raise ShapeError("expected a volume at least as large as the kernel")
    return out


def _max_pool(settings: Settings, inputs: Sequence[Any], tensors: Tensors, training: bool) -> Any:
    from torch.nn import functional

    return getattr(functional, f"max_pool{len(settings['kernel'])}d")(
        inputs[0],
        settings["kernel"],
        settings["stride"],
        settings["padding"],
        settings["dilation"],
        ceil_mode=settings["ceil"],
    )


def _average_pool(settings: Settings, inputs: Sequence[Any], tensors: Tensors, training: bool) -> Any:
    from torch.nn import functional

    return getattr(functional, f"avg_pool{len(settings['kernel'])}d")(
        inputs[0], settings["kernel"], settings["stride"], settings["padding"], ceil_mode=settings["ceil"]
    )


def _adaptive_shape(settings: Settings, shapes: Sequence[Shape]) -> Shape:
    check_map(shapes[0], len(settings["size"]))
    return (shapes[0][0], *settings["size"])


def _adaptive(what: str, places: int) -> Kind:
    """Pooling to a size that is given, by `avg` or `max`."""
    name = f"adaptive_{what}_pool{places}d"

    def compute(settings: Settings, inputs: Sequence[Any], tensors: Tensors, training: bool) -> Any:
        from torch.nn import functional

        return getattr(functional, name)(inputs[0], settings["size"])

    return Kind(
        name=name,
        settings={"size": (positives(places), 1)},
        shape=_adaptive_shape,
        compute=compute,
        channels=_pooled_channels,
        pooling=True,
        silent=True,
        even=what == "avg",
    )


def _pools(places: int) -> tuple[Kind, ...]:
    from_one = positives(places)
    window: dict[str, tuple[Any, Any]] = {
        "kernel": (from_one, REQUIRED),
        "stride": (optional(from_one), None),
        "padding": (wholes(places), 0),
        "ceil": (boolean, False),
    }
    return (
        Kind(
            name=f"max_pool{places}d",
            settings={**window, "dilation": (from_one, 1)},
            complete=_stride_of_kernel,
            shape=_window_shape,
            compute=_max_pool,
            channels=_pooled_channels,
            pooling=True,
            silent=True,
        ),
        Kind(
            name=f"avg_pool{places}d",
            settings=window,
            complete=_stride_of_kernel,
            shape=_average_shape,
            compute=_average_pool,
            channels=_pooled_channels,
            pooling=True,
            silent=True,
            even=True,
        ),
        _adaptive("avg", places),
        _adaptive("max", places),
    )


POOLS = tuple(kind for places in PLACES for kind in _pools(places))
