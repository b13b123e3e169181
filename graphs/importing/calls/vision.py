"""Functions of torchvision that a trace shows as one call, by their full names; torchvision itself is not needed."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from math import prod
from typing import Any

from graphs.importing.calls.attention import apart, together
from graphs.importing.calls.rearranging import taken
from graphs.importing.calls.values import cut, first
from graphs.importing.lowering import Lowering
from graphs.importing.stand_ins import Decline, Training

__all__ = ["VISION"]


def _stochastic_depth(low: Lowering, value: Any, p: float, mode: str, training: Any = True) -> Any:
    training = low.mode(training)
    if training is False or p == 0:
        return value
    if not isinstance(training, Training):
        raise Decline
    return low.add("stochastic_depth", [first(low, value)], p=float(p), mode=mode)


def _patch_merging(low: Lowering, value: Any) -> Any:
    """Four patches side by side: even and odd rows and columns (Swin: Liu et al., 2021, arXiv 2103.14030)."""
    found = first(low, value)
    height, width, _ = low.shape(found)
    if height % 2 or width % 2:
        found = low.add("pad", [found], margins=[(0, height % 2), (0, width % 2), (0, 0)])
        height, width, _ = low.shape(found)
    patches = []
    for column in (0, 1):
        for row in (0, 1):
            rows = cut(low, found, 0, row, height, 2)
            patches.append(cut(low, rows, 1, column, width, 2))
    return low.add("concat", patches, axis=2)


def _position_bias(low: Lowering, table: Any, index: Any, window: Any) -> Any:
    """The bias (1, heads, places, places) of a window, looked up in a table of relative positions."""
    places = window[0] * window[1]
    rows = low.add("reshape", [taken(low, table, index)], shape=(places, places, low.shape(low.ref(table))[-1]))
    return low.add("permute", [rows], order=(2, 0, 1), bare=False)


def _window_attention(
    low: Lowering,
    value: Any,
    qkv_weight: Any,
    proj_weight: Any,
    bias: Any,
    window_size: Any,
    num_heads: int,
    shift_size: Any,
    attention_dropout: float = 0.0,
    dropout: float = 0.0,
    qkv_bias: Any = None,
    proj_bias: Any = None,
    logit_scale: Any = None,
    training: Any = True,
) -> Any:
    """Attention within shifted windows, written out."""
    training = low.mode(training)
    found = first(low, value)
    height, width, channels = low.shape(found)
    down, right = (-height % window_size[0], -width % window_size[1])
    if down or right:
        found = low.add("pad", [found], margins=[(0, down), (0, right), (0, 0)])
    size = (height + down, width + right)
    shift = [0 if window >= whole else step for window, whole, step in zip(window_size, size, shift_size, strict=True)]
    grid = [whole // window for whole, window in zip(size, window_size, strict=True)]
    if any(shift):
        found = low.add("roll", [found], shifts=(-shift[0], -shift[1], 0))
    laid = low.add("reshape", [found], shape=(grid[0], window_size[0], grid[1], window_size[1], channels))
    laid = low.add("permute", [laid], order=(0, 2, 1, 3, 4))
    windows = low.add("reshape", [laid], shape=(prod(grid), prod(window_size), channels))

    third = len(qkv_weight.tensor) // 3
    names = {"weight": low.use(qkv_weight)}
    no_key_bias = logit_scale is not None and qkv_bias is not None
    if qkv_bias is not None and not no_key_bias:
        names["bias"] = low.use(qkv_bias)
    packed = low.add("linear", [windows], names, out=3 * third, bias="bias" in names)
    parts = [cut(low, packed, 2, place * third, (place + 1) * third) for place in range(3)]
    if no_key_bias:
        whole = low.ref(qkv_bias, 3)
        for place in (0, 2):
            part = cut(low, whole, 2, place * third, (place + 1) * third)
            parts[place] = low.add("pointwise", [parts[place], part], program=_arithmetic("add", {"in": 1}))
    query, key, values = (apart(low, part, num_heads) for part in parts)
    if logit_scale is None:
        query = low.add("pointwise", [query], program=_arithmetic("mul", (channels // num_heads) ** -0.5))
    else:
        query, key = (low.add("normalize", [each], axis=3) for each in (query, key))
    scores = low.add("matmul", [query, low.add("permute", [key], order=(0, 1, 3, 2))])
    if logit_scale is not None:
        factor = low.add("pointwise", [low.ref(logit_scale, 4)], program=_clamped(math.log(100.0)))
        factor = low.add("pointwise", [factor], program=[["method.exp", [{"in": 0}], {}]])
        scores = low.add("multiply", [scores, factor])
    masks = [low.ref(bias, 4)]
    if any(shift):
        pieces = _pieces(size, window_size, shift).to(qkv_weight.tensor.dtype)
        masks.append(low.ref(low.hold(pieces, f"constant_{len(low.held)}"), 4))
    for mask in masks:
        scores = low.add("pointwise", [scores, mask], program=_arithmetic("add", {"in": 1}))
    scores = low.add("softmax", [scores], axis=3)
    if attention_dropout and isinstance(training, Training):
        scores = low.add("dropout", [scores], p=float(attention_dropout))
    mixed = together(low, low.add("matmul", [scores, values]))
    out = {"weight": low.use(proj_weight)} | ({"bias": low.use(proj_bias)} if proj_bias is not None else {})
    mixed = low.add("linear", [mixed], out, out=channels, bias=proj_bias is not None)
    if dropout and isinstance(training, Training):
        mixed = low.add("dropout", [mixed], p=float(dropout))

    laid = low.add("reshape", [mixed], shape=(*grid, *window_size, channels))
    laid = low.add("permute", [laid], order=(0, 2, 1, 3, 4))
    found = low.add("reshape", [laid], shape=(*size, channels))
    if any(shift):
        found = low.add("roll", [found], shifts=(*shift, 0))
    return cut(low, cut(low, found, 0, 0, height), 1, 0, width)


def _arithmetic(name: str, other: Any) -> list[Any]:
    return [[f"operator.{name}", [{"in": 0}, other], {}]]


def _clamped(most: float) -> list[Any]:
    return [["torch.clamp", [{"in": 0}], {"max": most}]]


def _pieces(size: Sequence[int], window: Sequence[int], shift: Sequence[int]) -> Any:
    """For each window (windows, 1, places, places), −100 where two places did not belong together before the roll."""
    import torch

    region = torch.zeros(())
    for whole, each, step in zip(size, window, shift, strict=True):
        places = torch.arange(whole)
        along = (places >= whole - each).long() + (places >= whole - step).long() if step else torch.zeros(whole)
        region = 3 * region.unsqueeze(-1) + along
    laid = region.reshape(size[0] // window[0], window[0], size[1] // window[1], window[1])
    flat = laid.permute(0, 2, 1, 3).reshape(-1, prod(window))
    return -100.0 * (flat.unsqueeze(1) != flat.unsqueeze(2)).unsqueeze(1)


VISION: dict[str, Callable[..., Any]] = {
    "torchvision.ops.stochastic_depth.stochastic_depth": _stochastic_depth,
    "torchvision.models.swin_transformer._patch_merging_pad": _patch_merging,
    "torchvision.models.swin_transformer._get_relative_position_bias": _position_bias,
    "torchvision.models.swin_transformer.shifted_window_attention": _window_attention,
}
