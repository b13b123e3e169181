"""Norms over the last axis that people write themselves, as models of language do: found by what they compute.

A layer of a class of one's own is a `layer_norm` or an `rms_norm` if it gives what these give, for parameters that are
drawn and for inputs so small that its eps shows; it is computed as they are then, equal up to rounding.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import permutations
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["norm_by_hand"]

_EPS = (1e-5, 1e-6, 1e-8, 1e-12)
"""What people write where the layer has no attribute for it."""

_SIZES = (1.0, 1e-1, 1e-2, 1e-3, 1e-4, 1e-5)
"""Of the inputs, row by row."""


def norm_by_hand(layer: Any) -> tuple[str, dict[str, Any], dict[str, str]] | None:
    """Kind, settings, and for each role the name of the parameter; None if the layer is no such norm."""
    import torch

    own = {name: value for name, value in vars(layer)["_parameters"].items() if value is not None}
    shapes = {tuple(value.shape) for value in own.values()}
    (shape,) = shapes if len(shapes) == 1 else ((),)
    if vars(layer)["_modules"] or vars(layer)["_buffers"] or len(own) not in (1, 2) or len(shape) != 1 or shape[0] < 2:
        return None
    generator = torch.Generator().manual_seed(0)
    drawn = {name: torch.randn(shape, generator=generator) for name in own}
    rows = torch.tensor(_SIZES).unsqueeze(1) * (torch.randn(len(_SIZES), *shape, generator=generator) + 0.5)
    given = [rows, rows.view(2, 3, *shape)]
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            # A call would be traced, were the module that has the layer.
            vars(layer)["_parameters"].update(drawn)
            found = [layer.forward(x) for x in given]
    except Exception:
        return None
    finally:
        vars(layer)["_parameters"].update(own)
    if any(not isinstance(y, torch.Tensor) or y.shape != x.shape for x, y in zip(given, found, strict=True)):
        return None
    for kind, settings, roles in _candidates(layer, list(own)):
        if all(_alike(kind, settings, roles, drawn, *pair) for pair in zip(given, found, strict=True)):
            return kind, settings, roles
    return None


def _candidates(layer: Any, names: list[str]) -> Iterator[tuple[str, dict[str, Any], dict[str, str]]]:
    """What the layer could be."""
    told = [value for value in vars(layer).values() if type(value) is float and 0 < value < 1]
    for eps in dict.fromkeys((*told, *_EPS)):
        for weight, *rest in permutations(names):
            roles = {"weight": weight, **dict(zip(("bias",), rest, strict=False))}
            yield "layer_norm", {"axes": 1, "eps": eps, "weight": True, "bias": bool(rest)}, roles
            if not rest:
                yield "rms_norm", {"axes": 1, "eps": eps, "weight": True}, roles


def _alike(
    kind: str, settings: dict[str, Any], roles: dict[str, str], drawn: dict[str, Tensor], x: Tensor, found: Tensor
) -> bool:
    import torch

    from graphs.kinds import KINDS

    tensors = {role: drawn[name] for role, name in roles.items()}
    made = KINDS[kind].compute(settings, [x], tensors, True)  # type: ignore[misc]
    return torch.allclose(found, made, rtol=1e-4, atol=1e-6)
