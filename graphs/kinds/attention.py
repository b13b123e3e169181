"""Attention over all places, and over shifted windows.

Vaswani et al., "Attention Is All You Need", 2017, arXiv 1706.03762; Liu et al., "Swin Transformer", 2021, arXiv
2103.14030; with cosines: Liu et al., "Swin Transformer V2", 2022, arXiv 2111.09883.

Queries, keys and values come from linear layers of their own, so that their widths are channel spaces like others. The
values' channels pass through, head by head; those of queries and keys meet each other.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from math import prod
from typing import TYPE_CHECKING, Any

from graphs.errors import ShapeError
from graphs.kinds.kind import REQUIRED, Kind, Settings, Tensors
from graphs.kinds.values import boolean, count, fraction, number, optional, pair, sizes
from graphs.structure import Node, Shape

if TYPE_CHECKING:
    from graphs.solver import Dims, Solver

__all__ = ["ATTENTION"]


def _attended(settings: Settings, shapes: Sequence[Shape]) -> Shape:
    query, key, value = shapes[:3]
    if min(len(query), len(key), len(value)) < 2 or key[:-1] != value[:-1] or query[:-2] != key[:-2]:
        raise ShapeError("expected queries (…, L, E), keys (…, S, E) and values (…, S, V)")
    if query[-1] != key[-1] or query[-1] % settings["heads"] or value[-1] % settings["heads"]:
        raise ShapeError(f"expected equally wide queries and keys, divisible into {settings['heads']} heads")
    return (*query[:-1], value[-1])


def _attention(settings: Settings, inputs: Sequence[Any], tensors: Tensors, training: bool) -> Any:
    from torch.nn import functional

    query, key, value = (each.unflatten(-1, (settings["heads"], -1)).transpose(-3, -2) for each in inputs)
    drop = settings["dropout"] * training if settings["dropout"] else 0.0
    found = functional.scaled_dot_product_attention(
        query, key, value, dropout_p=drop, is_causal=settings["causal"], scale=settings["scale"]
    )
    return found.transpose(-3, -2).flatten(-2)


def _attention_channels(solver: Solver, node: Node, axes: Sequence[Dims], shapes: Sequence[Shape], out: Shape) -> Dims:
    query, key, value = axes[:3]
    solver.close([query[-1], key[-1]], node, "compares them, queries with keys")
    for dims in axes[:3]:
        solver.close(dims[:-1], node)
    for dims in axes[3:]:
        solver.close(dims, node)
    carried = solver.channels(value[-1], shapes[2][-1], node)
    solver.blocks(carried, node.settings["heads"], node)
    return (*((),) * (len(out) - 1), carried)


def _drops(settings: Settings) -> bool:
    return bool(settings["dropout"])


def _attention_macs(settings: Settings, shapes: Sequence[Shape], out: Shape) -> int:
    query, key, value = shapes[:3]
    return prod(query[:-1]) * key[-2] * (query[-1] + value[-1])


def _windowed(settings: Settings, shapes: Sequence[Shape]) -> Shape:
    query, key, value = shapes[:3]
    if {len(query), len(key), len(value)} != {3} or {query[:2], key[:2], value[:2]} != {settings["size"]}:
        raise ShapeError(f"expected queries, keys and values (height, width, channels) of size {settings['size']}")
    if any(size % window for size, window in zip(query, settings["window"], strict=False)):
        raise ShapeError(f"expected height and width to be multiples of the window {settings['window']}")
    if query[-1] != key[-1] or query[-1] % settings["heads"] or value[-1] % settings["heads"]:
        raise ShapeError(f"expected equally wide queries and keys, divisible into {settings['heads']} heads")
    places = prod(settings["window"])
    if shapes[3] != (settings["heads"], places, places):
        raise ShapeError(f"expected a bias ({settings['heads']}, {places}, {places})")
    if len(shapes) == 5 and shapes[4] != (settings["heads"], 1, 1):
        raise ShapeError(f"expected a scale ({settings['heads']}, 1, 1)")
    if (len(shapes) == 5) != settings["cosine"]:
        raise ShapeError("expected a fifth operand, the scale of the cosines, exactly where cosines are compared")
    return (*query[:2], value[-1])


def _window_attention(settings: Settings, inputs: Sequence[Any], tensors: Tensors, training: bool) -> Any:
    import torch
    from torch.nn import functional

    query, key, value, bias = inputs[:4]
    height, width = settings["size"]
    (rows, columns), shift, heads = settings["window"], settings["shift"], settings["heads"]
    down, right = height // rows, width // columns

    def windows(each: Any) -> Any:
        if any(shift):
            each = torch.roll(each, (-shift[0], -shift[1]), (1, 2))
        each = each.reshape(-1, down, rows, right, columns, heads, each.shape[-1] // heads)
        return each.permute(0, 1, 3, 5, 2, 4, 6).flatten(4, 5)

    query, key, value = windows(query), windows(key), windows(value)
    if settings["cosine"]:
        scale = torch.clamp(inputs[4], max=math.log(100.0)).exp().unsqueeze(1).unsqueeze(1)
        scores = functional.normalize(query, dim=-1) @ functional.normalize(key, dim=-1).transpose(-2, -1)
        scores = scores * scale
    else:
        scores = (query * settings["scale"]) @ key.transpose(-2, -1)
    scores = scores + bias.unsqueeze(1).unsqueeze(1)
    if any(shift):
        down_id = _regions(inputs[0], height, rows, shift[0])
        right_id = _regions(inputs[0], width, columns, shift[1])
        region = (3 * down_id.unsqueeze(1) + right_id.unsqueeze(0)).reshape(down, rows, right, columns)
        region = region.permute(0, 2, 1, 3).flatten(2)
        scores = scores - 100.0 * (region.unsqueeze(-1) != region.unsqueeze(-2)).unsqueeze(2)
    scores = functional.softmax(scores, dim=-1)
    if settings["dropout"]:
        scores = functional.dropout(scores, settings["dropout"], training)
    found = (scores @ value).unflatten(4, (rows, columns)).permute(0, 1, 4, 2, 5, 3, 6).flatten(5)
    found = found.reshape(-1, height, width, found.shape[-1])
    return torch.roll(found, shift, (1, 2)) if any(shift) else found


def _regions(like: Any, size: int, window: int, shift: int) -> Any:
    """For each place along an axis that was rolled, which of the pieces that do not belong together it is from."""
    if not shift:
        return like.new_zeros(size)
    places = like.new_ones(size).cumsum(0)
    return (places > size - window).to(places.dtype) + (places > size - shift).to(places.dtype)


def _window_macs(settings: Settings, shapes: Sequence[Shape], out: Shape) -> int:
    query, value = shapes[0], shapes[2]
    return prod(query[:2]) * prod(settings["window"]) * (query[-1] + value[-1])


ATTENTION = (
    Kind(
        name="attention",
        settings={
            "heads": (count, REQUIRED),
            "dropout": (fraction, 0.0),
            "causal": (boolean, False),
            "scale": (optional(number), None),
        },
        operands=(3, 3),
        shape=_attended,
        compute=_attention,
        channels=_attention_channels,
        macs=_attention_macs,
        random=_drops,
    ),
    Kind(
        name="window_attention",
        settings={
            "heads": (count, REQUIRED),
            "size": (sizes, REQUIRED),
            "window": (sizes, REQUIRED),
            "shift": (pair, 0),
            "scale": (number, 1.0),
            "cosine": (boolean, False),
            "dropout": (fraction, 0.0),
        },
        operands=(4, 5),
        shape=_windowed,
        compute=_window_attention,
        channels=_attention_channels,
        macs=_window_macs,
        random=_drops,
    ),
)
