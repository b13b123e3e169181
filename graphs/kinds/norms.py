"""Normalisations: batch, layer, root-mean-square, group and instance norm."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import TYPE_CHECKING, Any

from graphs.errors import ShapeError
from graphs.kinds.kind import REQUIRED, Kind, Settings, Tensors, TensorSpec
from graphs.kinds.values import boolean, count, fraction, optional, positive
from graphs.structure import Node, Shape

if TYPE_CHECKING:
    from graphs.solver import Dims, Solver

__all__ = ["BATCH_NORM", "FROZEN_BATCH_NORM", "GROUP_NORM", "INSTANCE_NORM", "LAYER_NORM", "RMS_NORM"]


def _batch_norm_shape(settings: Settings, shapes: Sequence[Shape]) -> Shape:
    if not 1 <= len(shapes[0]) <= 4:
        raise ShapeError("expected (channels, height, width), (features,), or channels before one or three axes")
    return shapes[0]


def _batch_norm_roles(settings: Settings) -> tuple[str, ...]:
    return ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


def _batch_norm_tensors(settings: Settings, shapes: Sequence[Shape]) -> Mapping[str, TensorSpec]:
    channels = shapes[0][:1]
    return {
        "weight": TensorSpec(channels, "ones"),
        "bias": TensorSpec(channels, "zeros"),
        "running_mean": TensorSpec(channels, "zeros", buffer=True),
        "running_var": TensorSpec(channels, "ones", buffer=True),
        "num_batches_tracked": TensorSpec((), "zeros", buffer=True, integer=True),
    }


def _batch_norm_module(settings: Settings, shapes: Sequence[Shape]) -> tuple[str, dict[str, Any]]:
    name = f"BatchNorm{max(1, len(shapes[0]) - 1)}d"
    return name, {"num_features": shapes[0][0], "eps": settings["eps"], "momentum": settings["momentum"]}


def _batch_norm(settings: Settings, inputs: Sequence[Any], tensors: Tensors, training: bool) -> Any:
    from torch.nn import functional

    momentum = settings["momentum"]
    if training:
        batches = tensors["num_batches_tracked"].add_(1)
        momentum = 1.0 / float(batches) if momentum is None else momentum
    return functional.batch_norm(
        inputs[0],
        tensors["running_mean"],
        tensors["running_var"],
        tensors["weight"],
        tensors["bias"],
        training,
        momentum or 0.0,
        settings["eps"],
    )


def _batch_norm_channels(solver: Solver, node: Node, axes: Sequence[Dims], shapes: Sequence[Shape], out: Shape) -> Dims:
    for role in ("weight", "bias", "running_mean", "running_var"):
        if axes[0][0]:
            solver.carry(axes[0][0], node, role, 0)
    solver.close(axes[0][1:], node)
    return tuple(axes[0])


BATCH_NORM = Kind(
    name="batch_norm",
    settings={"eps": (positive, 1e-5), "momentum": (optional(fraction), 0.1)},
    shape=_batch_norm_shape,
    compute=_batch_norm,
    module=_batch_norm_module,
    roles=_batch_norm_roles,
    tensors=_batch_norm_tensors,
    channels=_batch_norm_channels,
    affine=True,
    silent=True,
    normalisation=True,
    spare=True,
)
"""Running statistics move by `momentum` with each batch; without one, they are the mean over all batches."""


def _frozen_batch_norm(settings: Settings, inputs: Sequence[Any], tensors: Tensors, training: bool) -> Any:
    from torch.nn import functional

    mean, variance, weight, bias = (tensors[role] for role in ("running_mean", "running_var", "weight", "bias"))
    return functional.batch_norm(inputs[0], mean, variance, weight, bias, False, 0.0, settings["eps"])


FROZEN_BATCH_NORM = Kind(
    name="frozen_batch_norm",
    settings=BATCH_NORM.settings,
    shape=_batch_norm_shape,
    compute=_frozen_batch_norm,
    roles=_batch_norm_roles,
    tensors=_batch_norm_tensors,
    channels=_batch_norm_channels,
    affine=True,
    silent=True,
    spare=True,
)
"""A batch norm that a module keeps in eval mode: its statistics are constants, in train mode too."""


def _no_lone_bias(settings: dict[str, Any]) -> dict[str, Any]:
    return settings if settings["weight"] else {**settings, "bias": False}


def _affine_roles(settings: Settings) -> tuple[str, ...]:
    return tuple(role for role in ("weight", "bias") if settings.get(role))


def _layer_norm_shape(settings: Settings, shapes: Sequence[Shape]) -> Shape:
    if settings["axes"] > len(shapes[0]):
        raise ShapeError(f"expected at least {settings['axes']} axes")
    return shapes[0]


def _layer_norm_tensors(settings: Settings, shapes: Sequence[Shape]) -> Mapping[str, TensorSpec]:
    normalised, starts = shapes[0][-settings["axes"] :], {"weight": "ones", "bias": "zeros"}
    return {role: TensorSpec(normalised, starts[role]) for role in _affine_roles(settings)}


def _layer_norm_module(settings: Settings, shapes: Sequence[Shape]) -> tuple[str, dict[str, Any]]:
    arguments = {"normalized_shape": shapes[0][-settings["axes"] :], "eps": settings["eps"]}
    if not settings["weight"]:
        return "LayerNorm", arguments | {"elementwise_affine": False}
    return "LayerNorm", arguments if settings["bias"] else arguments | {"bias": False}


def _layer_norm(settings: Settings, inputs: Sequence[Any], tensors: Tensors, training: bool) -> Any:
    from torch.nn import functional

    shape = inputs[0].shape[-settings["axes"] :]
    return functional.layer_norm(inputs[0], shape, tensors.get("weight"), tensors.get("bias"), settings["eps"])


def _layer_norm_channels(solver: Solver, node: Node, axes: Sequence[Dims], shapes: Sequence[Shape], out: Shape) -> Dims:
    for place, axis in enumerate(axes[0][-node.settings["axes"] :]):
        if axis:
            solver.balance(axis, 1, node)
            for role in node.tensors:
                solver.carry(axis, node, role, place)
    return tuple(axes[0])


LAYER_NORM = Kind(
    name="layer_norm",
    settings={
        "axes": (count, REQUIRED),
        "eps": (positive, 1e-5),
        "weight": (boolean, True),
        "bias": (boolean, True),
    },
    complete=_no_lone_bias,
    shape=_layer_norm_shape,
    compute=_layer_norm,
    module=_layer_norm_module,
    roles=_affine_roles,
    tensors=_layer_norm_tensors,
    channels=_layer_norm_channels,
    affine=True,
    neutral="mean",
)


def _rms_norm_module(settings: Settings, shapes: Sequence[Shape]) -> tuple[str, dict[str, Any]]:
    arguments = {"normalized_shape": shapes[0][-settings["axes"] :], "eps": settings["eps"]}
    return "RMSNorm", arguments if settings["weight"] else arguments | {"elementwise_affine": False}


def _rms_norm(settings: Settings, inputs: Sequence[Any], tensors: Tensors, training: bool) -> Any:
    from torch.nn import functional

    shape = inputs[0].shape[-settings["axes"] :]
    return functional.rms_norm(inputs[0], shape, tensors.get("weight"), settings["eps"])


RMS_NORM = Kind(
    name="rms_norm",
    settings={"axes": (count, REQUIRED), "eps": (optional(positive), None), "weight": (boolean, True)},
    shape=_layer_norm_shape,
    compute=_rms_norm,
    module=_rms_norm_module,
    roles=_affine_roles,
    tensors=_layer_norm_tensors,
    channels=_layer_norm_channels,
    affine=True,
    silent=True,
    neutral="zeros",
)
"""Zhang and Sennrich, "Root Mean Square Layer Normalization", 2019, arXiv 1910.07467. Without `eps`, the least number
that makes a difference to 1 in the type that is computed in."""


def _group_norm_shape(settings: Settings, shapes: Sequence[Shape]) -> Shape:
    if not shapes[0]:
        raise ShapeError("expected (channels, …)")
    if shapes[0][0] % settings["groups"]:
        raise ShapeError(f"{shapes[0][0]} channels cannot be divided into {settings['groups']} groups")
    return shapes[0]


def _group_norm_roles(settings: Settings) -> tuple[str, ...]:
    return ("weight", "bias") if settings["affine"] else ()


def _group_norm_tensors(settings: Settings, shapes: Sequence[Shape]) -> Mapping[str, TensorSpec]:
    if not settings["affine"]:
        return {}
    return {"weight": TensorSpec(shapes[0][:1], "ones"), "bias": TensorSpec(shapes[0][:1], "zeros")}


def _group_norm_module(settings: Settings, shapes: Sequence[Shape]) -> tuple[str, dict[str, Any]]:
    arguments = {"num_groups": settings["groups"], "num_channels": shapes[0][0], "eps": settings["eps"]}
    return "GroupNorm", arguments if settings["affine"] else arguments | {"affine": False}


def _group_norm(settings: Settings, inputs: Sequence[Any], tensors: Tensors, training: bool) -> Any:
    from torch.nn import functional

    weight, bias = tensors.get("weight"), tensors.get("bias")
    return functional.group_norm(inputs[0], settings["groups"], weight, bias, settings["eps"])


def _instance_norm_channels(
    solver: Solver, node: Node, axes: Sequence[Dims], shapes: Sequence[Shape], out: Shape
) -> Dims:
    if axes[0][0]:
        solver.carry(axes[0][0], node, "weight", 0)
        solver.carry(axes[0][0], node, "bias", 0)
    solver.close(axes[0][1:], node)
    return tuple(axes[0])


def _group_norm_channels(solver: Solver, node: Node, axes: Sequence[Dims], shapes: Sequence[Shape], out: Shape) -> Dims:
    if axes[0][0]:
        solver.balance(axes[0][0], node.settings["groups"], node)
    return _instance_norm_channels(solver, node, axes, shapes, out)


GROUP_NORM = Kind(
    name="group_norm",
    settings={"groups": (count, REQUIRED), "eps": (positive, 1e-5), "affine": (boolean, True)},
    shape=_group_norm_shape,
    compute=_group_norm,
    module=_group_norm_module,
    roles=_group_norm_roles,
    tensors=_group_norm_tensors,
    channels=_group_norm_channels,
    affine=True,
)


def _instance_norm_shape(settings: Settings, shapes: Sequence[Shape]) -> Shape:
    if not 2 <= len(shapes[0]) <= 4 or prod(shapes[0][1:]) == 1:
        raise ShapeError("expected channels before one to three axes of several places")
    return shapes[0]


def _instance_norm_module(settings: Settings, shapes: Sequence[Shape]) -> tuple[str, dict[str, Any]]:
    arguments = {"num_features": shapes[0][0], "eps": settings["eps"], "affine": settings["affine"]}
    return f"InstanceNorm{len(shapes[0]) - 1}d", arguments


def _instance_norm(settings: Settings, inputs: Sequence[Any], tensors: Tensors, training: bool) -> Any:
    from torch.nn import functional

    weight, bias = tensors.get("weight"), tensors.get("bias")
    return functional.instance_norm(inputs[0], weight=weight, bias=bias, eps=settings["eps"])


INSTANCE_NORM = Kind(
    name="instance_norm",
    settings={"eps": (positive, 1e-5), "affine": (boolean, True)},
    shape=_instance_norm_shape,
    compute=_instance_norm,
    module=_instance_norm_module,
    roles=_group_norm_roles,
    tensors=_group_norm_tensors,
    channels=_instance_norm_channels,
    affine=True,
    silent=True,
)
"""Each channel of each example by itself: Ulyanov, Vedaldi and Lempitsky, "Instance Normalization", 2016, arXiv
1607.08022. Without running statistics, as is usual."""
