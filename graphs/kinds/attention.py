"""Attention and what it is made of: products of matrices, softmax, vectors brought to length 1.

Vaswani et al., "Attention Is All You Need", 2017, arXiv 1706.03762; with cosines: Liu et al., "Swin Transformer V2",
2022, arXiv 2111.09883; with heads that share keys and values: Ainslie et al., "GQA", 2023, arXiv 2305.13245.

Queries, keys and values are made by layers of their own, and what lies in front of the last two axes, heads or windows,
is attended to apart: heads are channels like others. The channels of queries and keys meet each other; those of the
values pass through.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod, sqrt
from typing import TYPE_CHECKING, Any

from graphs.errors import ShapeError
from graphs.kinds.joins import broadcast, broadcast_channels
from graphs.kinds.kind import REQUIRED, Change, Kind, Settings, Tensors
from graphs.kinds.values import boolean, fraction, number, optional, positive, whole
from graphs.structure import Node, Shape

if TYPE_CHECKING:
    from graphs.solver import Dims, Solver

__all__ = ["ATTENTION"]


def _attended(settings: Settings, shapes: Sequence[Shape]) -> Shape:
    query, key, value = shapes[:3]
    if len({len(query), len(key), len(value)}) != 1 or len(query) < 2 or key[:-1] != value[:-1] or query[-1] != key[-1]:
        raise ShapeError("expected queries (…, L, E), keys (…, S, E) and values (…, S, V)")
    if settings["grouped"]:
        if len(query) < 3 or query[:-3] != key[:-3] or query[-3] % key[-3]:
            raise ShapeError("expected a multiple of as many heads of queries as there are of keys and values")
    elif query[:-2] != key[:-2]:
        raise ShapeError("expected equal axes in front of the last two")
    scores = (*query[:-1], key[-2])
    for mask in shapes[3:]:
        if len(mask) != len(scores) or any(size not in (1, each) for size, each in zip(mask, scores, strict=True)):
            raise ShapeError(f"expected a mask {scores}, or with 1 for some of these sizes")
        if settings["causal"]:
            raise ShapeError("expected a mask, or `causal`, but not both")
    return (*query[:-1], value[-1])


def _attention(settings: Settings, inputs: Sequence[Any], tensors: Tensors, training: bool) -> Any:
    from torch.nn import functional

    given: dict[str, Any] = {}
    if len(inputs) > 3:
        given["attn_mask"] = inputs[3]
    if settings["dropout"]:
        given["dropout_p"] = settings["dropout"] * training
    for name, setting in (("is_causal", "causal"), ("scale", "scale"), ("enable_gqa", "grouped")):
        if settings[setting]:
            given[name] = settings[setting]
    return functional.scaled_dot_product_attention(*inputs[:3], **given)


def _attention_channels(solver: Solver, node: Node, axes: Sequence[Dims], shapes: Sequence[Shape], out: Shape) -> Dims:
    query, key, value = axes[:3]
    solver.close([query[-1], key[-1]], node, "compares them, queries with keys")
    solver.close([query[-2], key[-2], value[-2]], node)
    apart = list(query[:-2])
    for place, axis in enumerate(apart):
        shared = shapes[0][place] // shapes[1][place]
        for other in (key[place], value[place]):
            solver.tie(axis, solver.repeat(other, shared), node)
            apart[place] = apart[place] or solver.repeat(other, shared)
    for mask, shape in zip(axes[3:], shapes[3:], strict=True):
        solver.close(mask[-2:], node)
        for place, axis in enumerate(apart):
            if shape[place] > 1:
                solver.tie(axis, mask[place], node)
    if node.settings["dropout"]:
        for axis in filter(None, apart):
            solver.draws(axis, node)
    return (*apart, (), value[-1])


def _keep_scale(settings: Settings, change: Change) -> Settings:
    """What is computed from the width of the keys stays what it was where they become wider."""
    before = change.before[0][-1]
    if settings["scale"] is None and change.after[0][-1] != before:
        return {**settings, "scale": 1 / sqrt(before)}
    return settings


def _drops(settings: Settings) -> bool:
    return bool(settings["dropout"])


def _attention_macs(settings: Settings, shapes: Sequence[Shape], out: Shape) -> int:
    query, key, value = shapes[:3]
    return prod(query[:-1]) * key[-2] * (query[-1] + value[-1])


def _multiplied(settings: Settings, shapes: Sequence[Shape]) -> Shape:
    one, other = shapes
    if min(len(one), len(other)) < 2 or len(one) != len(other) or one[-1] != other[-2]:
        raise ShapeError("expected matrices (…, I, K) and (…, K, J)")
    return (*broadcast(settings, [one[:-2], other[:-2]]), one[-2], other[-1])


def _matmul(settings: Settings, inputs: Sequence[Any], tensors: Tensors, training: bool) -> Any:
    import torch

    return torch.matmul(inputs[0], inputs[1])


def _matmul_channels(solver: Solver, node: Node, axes: Sequence[Dims], shapes: Sequence[Shape], out: Shape) -> Dims:
    one, other = axes
    solver.close([one[-1], other[-2]], node, "sums over the products of pairs of them")
    apart = broadcast_channels(solver, node, [one[:-2], other[:-2]], [each[:-2] for each in shapes], out[:-2])
    return (*apart, one[-2], other[-1])


def _along(settings: Settings, shapes: Sequence[Shape]) -> Shape:
    if settings["axis"] >= len(shapes[0]):
        raise ShapeError(f"expected an axis {settings['axis']}")
    return shapes[0]


def _softmax(settings: Settings, inputs: Sequence[Any], tensors: Tensors, training: bool) -> Any:
    from torch.nn import functional

    return functional.softmax(inputs[0], 1 + settings["axis"])


def _normalize(settings: Settings, inputs: Sequence[Any], tensors: Tensors, training: bool) -> Any:
    from torch.nn import functional

    return functional.normalize(inputs[0], dim=1 + settings["axis"], eps=settings["eps"])


def _across(solver: Solver, node: Node, axes: Sequence[Dims], shapes: Sequence[Shape], out: Shape) -> Dims:
    """All along an axis depends on all of it."""
    axis = node.settings["axis"]
    solver.close([axes[0][axis]], node)
    return axes[0]


ATTENTION = (
    Kind(
        name="attention",
        settings={
            "dropout": (fraction, 0.0),
            "causal": (boolean, False),
            "scale": (optional(number), None),
            "grouped": (boolean, False),
        },
        operands=(3, 4),
        shape=_attended,
        compute=_attention,
        channels=_attention_channels,
        resize=_keep_scale,
        macs=_attention_macs,
        random=_drops,
    ),
    Kind(
        name="matmul",
        operands=(2, 2),
        shape=_multiplied,
        compute=_matmul,
        channels=_matmul_channels,
        macs=lambda settings, shapes, out: prod(out) * shapes[0][-1],
    ),
    Kind(name="softmax", settings={"axis": (whole, REQUIRED)}, shape=_along, compute=_softmax, channels=_across),
    Kind(
        name="normalize",
        settings={"axis": (whole, REQUIRED), "eps": (positive, 1e-12)},
        shape=_along,
        compute=_normalize,
        channels=_across,
    ),
)
