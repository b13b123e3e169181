"""Layers as functions: within windows of images, where the batch is not the first axis, and without some tensors.

What comes of them goes on as a program until its batch is the first axis again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from graphs.importing.lowering import Lowering
from graphs.importing.stand_ins import TRAINING, Held

__all__ = ["layer_elsewhere"]

_Arguments = Callable[[Mapping[str, Any], Callable[[str], Held | None]], list[Any]]


def layer_elsewhere(low: Lowering, kind: str, value: Any, settings: Mapping[str, Any], held: Mapping[str, Held]) -> Any:
    """What a layer gives.

    Args:
        low: Where nodes are added.
        kind: The layer's kind.
        value: What it is given.
        settings: Its settings.
        held: Its tensors by role.

    Raises:
        GraphError: There is no function for this layer.
    """
    if kind == "identity":
        return value
    if kind not in _FUNCTIONS:
        raise low.error("its batch is not the first axis; keep examples along the first axis")
    named = {name: settings[name] for name in _NAMED.get(kind, ())}
    function = f"functional.{kind.removeprefix('frozen_')}"
    return low.call_anew(function, [value, *_FUNCTIONS[kind](settings, held.get)], **named)


def _plain(*names: str) -> _Arguments:
    return lambda settings, held: [settings[name] for name in names]


def _convolution(settings: Mapping[str, Any], held: Callable[[str], Held | None]) -> list[Any]:
    window = [settings[name] for name in ("stride", "padding", "dilation", "groups")]
    return [held("weight"), held("bias"), *window]


def _linear(settings: Mapping[str, Any], held: Callable[[str], Held | None]) -> list[Any]:
    return [held("weight"), held("bias")]


def _layer_norm(settings: Mapping[str, Any], held: Callable[[str], Held | None]) -> list[Any]:
    weight = held("weight")
    return [tuple(weight.tensor.shape) if weight else (), weight, held("bias"), settings["eps"]]


def _batch_norm(training: Any) -> _Arguments:
    def arguments(settings: Mapping[str, Any], held: Callable[[str], Held | None]) -> list[Any]:
        tensors = [held(role) for role in ("running_mean", "running_var", "weight", "bias")]
        return [*tensors, training, settings["momentum"], settings["eps"]]

    return arguments


_FUNCTIONS: dict[str, _Arguments] = {
    "linear": _linear,
    "layer_norm": _layer_norm,
    "batch_norm": _batch_norm(TRAINING),
    "frozen_batch_norm": _batch_norm(False),
    "dropout": lambda settings, held: [settings["p"], TRAINING],
    "leaky_relu": _plain("negative_slope"),
    **dict.fromkeys(("conv1d", "conv2d", "conv3d"), _convolution),
    **dict.fromkeys(("gelu", "relu", "relu6", "silu", "sigmoid", "tanh", "hardswish", "hardsigmoid"), _plain()),
}
"""For each kind, what its function is given behind the value."""

_NAMED = {"gelu": ("approximate",)}
"""Settings that functions take by name only."""
