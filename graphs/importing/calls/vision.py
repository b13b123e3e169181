"""Functions of torchvision that a trace shows as one call, by their full names; torchvision itself is not needed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from graphs.importing.calls.values import cut, first
from graphs.importing.lowering import Lowering
from graphs.importing.stand_ins import Decline, Held, Ref, Training

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
    rows = low.detached("operator.getitem", [table, index])
    rows = low.detached("method.view", [rows, places, places, -1])
    rows = low.detached("method.permute", [rows, 2, 0, 1])
    rows = low.detached("method.contiguous", [rows])
    return low.call("method.unsqueeze", [rows, 0], {})


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
    """Attention within shifted windows, as linear layers around the kind `window_attention`."""
    training = low.mode(training)
    found = first(low, value)
    height, width, channels = low.shape(found)
    down, right = (-height % window_size[0], -width % window_size[1])
    if down or right:
        found = low.add("pad", [found], margins=[(0, down), (0, right), (0, 0)])
    size = (height + down, width + right)
    shift = [0 if window >= whole else step for window, whole, step in zip(window_size, size, shift_size, strict=True)]
    third = len(qkv_weight.tensor) // 3
    names = {"weight": low.use(qkv_weight)}
    no_key_bias = logit_scale is not None and qkv_bias is not None
    if qkv_bias is not None and not no_key_bias:
        names["bias"] = low.use(qkv_bias)
    packed = low.add("linear", [found], names, out=3 * third, bias="bias" in names)
    query, key, values = (cut(low, packed, 2, place * third, (place + 1) * third) for place in range(3))
    if no_key_bias:
        whole = low.ref(qkv_bias, 3)
        query = low.add("pointwise", [query, cut(low, whole, 2, 0, third)], program=_SUM)
        values = low.add("pointwise", [values, cut(low, whole, 2, 2 * third, 3 * third)], program=_SUM)
    operands = [query, key, values, _batch_of_one(low, bias)]
    if logit_scale is not None:
        operands.append(low.ref(logit_scale, 3) if isinstance(logit_scale, Held) else logit_scale)
    mixed = low.add(
        "window_attention",
        operands,
        heads=num_heads,
        size=size,
        window=tuple(window_size),
        shift=tuple(shift),
        scale=1.0 if logit_scale is not None else (channels // num_heads) ** -0.5,
        cosine=logit_scale is not None,
        dropout=float(attention_dropout) if isinstance(training, Training) else 0.0,
    )
    out = {"weight": low.use(proj_weight)} | ({"bias": low.use(proj_bias)} if proj_bias is not None else {})
    mixed = low.add("linear", [mixed], out, out=channels, bias=proj_bias is not None)
    if dropout and isinstance(training, Training):
        mixed = low.add("dropout", [mixed], p=float(dropout))
    return cut(low, cut(low, mixed, 0, 0, height), 1, 0, width)


_SUM = [["operator.add", [{"in": 0}, {"in": 1}], {}]]


def _batch_of_one(low: Lowering, value: Any) -> Ref:
    if not isinstance(value, Ref) or value.bare or low.depends(value):
        raise Decline
    return value


VISION: dict[str, Callable[..., Any]] = {
    "torchvision.ops.stochastic_depth.stochastic_depth": _stochastic_depth,
    "torchvision.models.swin_transformer._patch_merging_pad": _patch_merging,
    "torchvision.models.swin_transformer._get_relative_position_bias": _position_bias,
    "torchvision.models.swin_transformer.shifted_window_attention": _window_attention,
}
