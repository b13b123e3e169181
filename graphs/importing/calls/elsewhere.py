"""Layers as functions: within windows of images, where the batch is not the first axis, and without some tensors.

What comes of them goes on as a program until its batch is the first axis again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from graphs.importing.lowering import Lowering
from graphs.importing.stand_ins import TRAINING, Held

__all__ = ["layer_elsewhere"]

_Held = Callable[[str], Held | None]
_Arguments = Callable[[Mapping[str, Any], _Held, tuple[Any, ...]], list[Any]]


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
    if kind == "batch_norm" and settings["momentum"] is None:
        raise low.error(
            "it is a BatchNorm with momentum=None, which comes in with weights and with examples along the first axis "
            "alone; give it a momentum"
        )
    sizes = low.sizes(value) if "axes" in settings else ()
    named = {name: settings[name] for name in _NAMED.get(kind, ())}
    function = f"functional.{kind.removeprefix('frozen_')}"
    return low.call_anew(function, [value, *_FUNCTIONS[kind](settings, held.get, sizes)], **named)


def _plain(*names: str) -> _Arguments:
    return lambda settings, held, sizes: [settings[name] for name in names]


def _convolution(settings: Mapping[str, Any], held: _Held, sizes: tuple[Any, ...]) -> list[Any]:
    window = [settings[name] for name in ("stride", "padding", "dilation", "groups")]
    return [held("weight"), held("bias"), *window]


def _linear(settings: Mapping[str, Any], held: _Held, sizes: tuple[Any, ...]) -> list[Any]:
    return [held("weight"), held("bias")]


def _layer_norm(settings: Mapping[str, Any], held: _Held, sizes: tuple[Any, ...]) -> list[Any]:
    return [sizes[-settings["axes"] :], held("weight"), held("bias"), settings["eps"]]


def _rms_norm(settings: Mapping[str, Any], held: _Held, sizes: tuple[Any, ...]) -> list[Any]:
    return [sizes[-settings["axes"] :], held("weight"), settings["eps"]]


def _group_norm(settings: Mapping[str, Any], held: _Held, sizes: tuple[Any, ...]) -> list[Any]:
    return [settings["groups"], held("weight"), held("bias"), settings["eps"]]


def _instance_norm(settings: Mapping[str, Any], held: _Held, sizes: tuple[Any, ...]) -> list[Any]:
    return [None, None, held("weight"), held("bias"), True, 0.1, settings["eps"]]


def _batch_norm(training: Any) -> _Arguments:
    def arguments(settings: Mapping[str, Any], held: _Held, sizes: tuple[Any, ...]) -> list[Any]:
        tensors = [held(role) for role in ("running_mean", "running_var", "weight", "bias")]
        return [*tensors, training, settings["momentum"], settings["eps"]]

    return arguments


_FUNCTIONS: dict[str, _Arguments] = {
    "linear": _linear,
    "layer_norm": _layer_norm,
    "rms_norm": _rms_norm,
    "group_norm": _group_norm,
    "instance_norm": _instance_norm,
    "batch_norm": _batch_norm(TRAINING),
    "frozen_batch_norm": _batch_norm(False),
    "dropout": lambda settings, held, sizes: [settings["p"], TRAINING],
    "leaky_relu": _plain("negative_slope"),
    **dict.fromkeys(("conv1d", "conv2d", "conv3d"), _convolution),
    **dict.fromkeys(("gelu", "relu", "relu6", "silu", "sigmoid", "tanh", "hardswish", "hardsigmoid"), _plain()),
}
"""For each kind, what its function is given behind the value."""

_NAMED = {"gelu": ("approximate",)}
"""Settings that functions take by name only."""
