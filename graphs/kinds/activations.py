"""Activations: functions of each element, PReLU with its slopes among them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from graphs.errors import ShapeError
from graphs.kinds.kind import Kind, Settings, Tensors, TensorSpec
from graphs.kinds.values import boolean, choice, number
from graphs.structure import Node, Shape

if TYPE_CHECKING:
    from graphs.solver import Dims, Solver

__all__ = ["ACTIVATIONS"]


def _elementwise(
    name: str,
    function: str,
    idempotent: bool = False,
    in_place: bool = False,
    settings: Mapping[str, tuple[Any, Any]] | None = None,
) -> Kind:
    """A kind for `torch.nn.functional.<function>`, whose keyword arguments are the settings.

    `in_place`: its gradient follows from its result alone, so that it may overwrite its operand.
    """

    def compute(given: Settings, inputs: Sequence[Any], tensors: Tensors, training: bool) -> Any:
        from torch.nn import functional

        return getattr(functional, function)(inputs[0], **given)

    def overwrite(given: Settings, inputs: Sequence[Any], tensors: Tensors, training: bool) -> Any:
        from torch.nn import functional

        return getattr(functional, function)(inputs[0], **given, inplace=True)

    return Kind(
        name=name,
        settings=settings or {},
        compute=compute,
        overwrite=overwrite if in_place else None,
        activation=True,
        elementwise=True,
        idempotent=idempotent,
    )


def _prelu_shape(settings: Settings, shapes: Sequence[Shape]) -> Shape:
    if not shapes[0]:
        raise ShapeError("expected (channels, …)")
    return shapes[0]


def _prelu_roles(settings: Settings) -> tuple[str, ...]:
    return ("weight",)


def _prelu_tensors(settings: Settings, shapes: Sequence[Shape]) -> Mapping[str, TensorSpec]:
    return {"weight": TensorSpec((shapes[0][0] if settings["per_channel"] else 1,), "quarter")}


def _prelu_module(settings: Settings, shapes: Sequence[Shape]) -> tuple[str, dict[str, Any]]:
    return "PReLU", {"num_parameters": shapes[0][0] if settings["per_channel"] else 1}


def _prelu(settings: Settings, inputs: Sequence[Any], tensors: Tensors, training: bool) -> Any:
    from torch.nn import functional

    return functional.prelu(inputs[0], tensors["weight"])


def _prelu_channels(solver: Solver, node: Node, axes: Sequence[Dims], shapes: Sequence[Shape], out: Shape) -> Dims:
    if node.settings["per_channel"] and axes[0][0]:
        solver.carry(axes[0][0], node, "weight", 0)
    return tuple(axes[0])


PRELU = Kind(
    name="prelu",
    settings={"per_channel": (boolean, True)},
    shape=_prelu_shape,
    compute=_prelu,
    module=_prelu_module,
    roles=_prelu_roles,
    tensors=_prelu_tensors,
    channels=_prelu_channels,
    activation=True,
    elementwise=True,
)

ACTIVATIONS = (
    _elementwise("relu", "relu", idempotent=True, in_place=True),
    _elementwise("relu6", "relu6", idempotent=True, in_place=True),
    _elementwise("leaky_relu", "leaky_relu", settings={"negative_slope": (number, 0.01)}),
    _elementwise("elu", "elu"),
    _elementwise("gelu", "gelu", settings={"approximate": (choice("none", "tanh"), "none")}),
    _elementwise("silu", "silu"),
    _elementwise("sigmoid", "sigmoid"),
    _elementwise("tanh", "tanh"),
    _elementwise("hardswish", "hardswish"),
    _elementwise("hardsigmoid", "hardsigmoid"),
    PRELU,
)
