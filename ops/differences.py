"""Sizes of values and of differences between them: units of outputs, and errors of running statistics."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

from graphs.kinds import KINDS
from graphs.structure import Graph

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["difference", "largest", "measured", "size", "statistics_error", "unit"]

_ROUNDINGS = 64
"""So many units in the last place may lie between what is the same for all examples but for rounding."""


def unit(value: Tensor, constants: bool = False) -> float | None:
    """Root mean square of the elements' deviations over the batch; None if an element hardly varies.

    What is not greater than some roundings of the values is no deviation: a norm over equal numbers gives such. With
    `constants`, elements that are exactly the same for all examples are left out, if there are others.
    """
    import torch

    flat = value.detach().reshape(len(value), -1)
    if constants:
        varying = flat[:, (flat != flat[:1]).any(0)]
        flat = varying if varying.shape[1] else flat
    deviations = flat.std(0, correction=0)
    found = float(deviations.square().mean().sqrt())
    noise = _ROUNDINGS * torch.finfo(flat.dtype).eps * size(flat)
    return found if noise < found < math.inf and float(deviations.min()) >= 0.01 * found else None


def measured(value: Tensor) -> bool:
    """Whether an output holds numbers that can differ a little; all others must be equal."""
    return value.is_floating_point()


def difference(got: Tensor, expected: Tensor) -> float:
    """Largest difference; infinite if the shapes or types differ, or something that can only be equal is not."""
    import torch

    if got.shape != expected.shape or got.dtype != expected.dtype:
        return math.inf
    if measured(expected):
        return largest(got - expected)
    return 0.0 if torch.equal(got, expected) else math.inf


def size(value: Tensor) -> float:
    """Root mean square; infinite if something is not a number."""
    found = float(value.square().mean().sqrt())
    return found if math.isfinite(found) else math.inf


def largest(change: Tensor) -> float:
    """Largest magnitude; infinite if something is not a number."""
    found = float(change.abs().max()) if change.numel() else 0.0
    return found if math.isfinite(found) else math.inf


def statistics_error(
    graph: Graph,
    id: str,
    expected: Mapping[str, Tensor],
    scale: Mapping[str, Tensor],
    found: Mapping[str, Tensor],
) -> float:
    """Largest difference of a norm's buffers: means in deviations of their channel, variances in themselves."""
    node = graph[id]
    if not KINDS[node.kind].normalisation:
        return 0.0
    variance = scale.get(node.tensors["running_var"])
    error = 0.0
    for role, name in node.tensors.items():
        if name not in expected or name not in found:
            continue
        change = (found[name] - expected[name]).abs()
        if not change.is_floating_point():
            error = math.inf if bool(change.any()) else error
        elif variance is not None:
            spread = variance.clamp(min=node.settings["eps"])
            error = max(error, largest(change / (spread.sqrt() if role == "running_mean" else spread)))
    return error
