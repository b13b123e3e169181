"""Attention as people write it: as a layer, as a function, as products of matrices around a softmax."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from graphs.importing.calls.casting import in_precision
from graphs.importing.calls.layers import linear
from graphs.importing.calls.values import axis_of, cut, first, ordered, several
from graphs.importing.lowering import Lowering
from graphs.importing.stand_ins import Decline, Differing, Held, Ref, Unknown

__all__ = ["ATTENTION_CALLS", "apart", "attention_layer", "together"]


def attention_layer(
    low: Lowering,
    path: str,
    layer: Any,
    settings: Mapping[str, Any],
    arguments: Sequence[Any],
    keywords: Mapping[str, Any],
) -> Any:
    """`nn.MultiheadAttention` of a value with itself or others, as linear layers around `attention`.

    Raises:
        GraphError: It is given a mask that is not the same for all examples and heads.
    """
    names = (
        "query",
        "key",
        "value",
        "key_padding_mask",
        "need_weights",
        "attn_mask",
        "average_attn_weights",
        "is_causal",
    )
    import torch

    given = {**dict(zip(names, arguments, strict=False)), **keywords}
    mask = given.get("attn_mask")
    alike = mask is None or (isinstance(mask, Held) and mask.tensor.ndim == 2)
    if given.get("key_padding_mask") is not None or not alike:
        raise low.error(
            f"the attention '{path}' is given a mask that depends on the example; use "
            "functional.scaled_dot_product_attention for that"
        )
    operands = [first(low, given[name]) for name in names[:3]]
    width = layer.embed_dim
    weight = low.hold(layer.in_proj_weight, f"{path}.in_proj_weight")
    bias = None if layer.in_proj_bias is None else low.hold(layer.in_proj_bias, f"{path}.in_proj_bias")
    packed = {operand: linear(low, operand, weight, bias) for operand in dict.fromkeys(operands)}
    parts = [
        apart(low, cut(low, packed[operand], 1, place * width, (place + 1) * width), layer.num_heads)
        for place, operand in enumerate(operands)
    ]
    if mask is not None:
        # What is True in it is left out here, and taken in where a function is given a mask.
        taken = low.call_anew("torch.logical_not", [mask]) if mask.tensor.dtype == torch.bool else mask
        parts.append(low.ref(taken, 3))
    mixed = together(low, low.add("attention", parts, dropout=float(settings["dropout"])))
    out = layer.out_proj
    held = low.hold(out.weight, f"{path}.out_proj.weight")
    out_bias = None if out.bias is None else low.hold(out.bias, f"{path}.out_proj.bias")
    weights = f"the weights of the attention '{path}', which no node computes; use its first output only"
    return (linear(low, mixed, held, out_bias), Unknown(weights))


def apart(low: Lowering, value: Ref, heads: int) -> Ref:
    """A value (…, L, C) as (…, heads, L, C / heads)."""
    *before, places, width = low.shape(value)
    laid = low.add("reshape", [value], shape=(*before, places, heads, width // heads))
    return low.add("permute", [laid], order=_exchanged(len(before) + 3))


def together(low: Lowering, value: Ref) -> Ref:
    """A value (…, heads, L, D) as (…, L, heads · D)."""
    *before, heads, places, width = low.shape(value)
    laid = low.add("permute", [value], order=_exchanged(len(before) + 3))
    return low.add("reshape", [laid], shape=(*before, places, heads * width))


def _exchanged(rank: int) -> tuple[int, ...]:
    return (*range(rank - 3), rank - 2, rank - 3, rank - 1)


def _attention(
    low: Lowering,
    query: Any,
    key: Any,
    value: Any,
    attn_mask: Any = None,
    dropout_p: Any = 0.0,
    is_causal: Any = False,
    scale: float | None = None,
    enable_gqa: Any = False,
) -> Any:
    operands = [first(low, each) for each in (query, key, value)]
    rank = len(low.shape(operands[0]))
    if isinstance(dropout_p, Differing):
        if dropout_p.inference:
            raise Decline
        dropout_p = dropout_p.training
    elif dropout_p:  # it drops in eval mode too
        raise Decline
    if attn_mask is not None:
        mask = low.ref(attn_mask, rank)
        if mask.bare or len(low.shape(mask)) != rank:
            raise Decline
        operands.append(mask)
    if rank < 2 or {len(low.shape(each)) for each in operands} != {rank} or not all(map(low.depends, operands[:3])):
        raise Decline
    heads = [low.shape(each)[:-2] for each in operands[:3]]
    # What is broadcast over heads, all of them share.
    alone = rank == 3 and heads[1] == heads[2] == (1,)
    grouped = (bool(enable_gqa) or alone) and heads[0] != heads[1]
    if not grouped and len(set(heads)) > 1:
        raise Decline
    settings = {"dropout": float(dropout_p), "causal": is_causal, "grouped": grouped}
    return low.add("attention", operands, scale=None if scale is None else float(scale), **settings)


def _matmul(low: Lowering, one: Any, other: Any) -> Any:
    if isinstance(one, Ref) and not one.bare:
        with contextlib.suppress(Decline):
            return linear(low, one, other, across=True)
    ranks = [len(low.shape(each)) for each in (one, other) if isinstance(each, Ref) and not each.bare]
    if not ranks:
        raise Decline
    operands = [low.ref(each, max(ranks)) for each in (one, other)]
    if max(ranks) < 2 or any(each.bare or len(low.shape(each)) != max(ranks) for each in operands):
        raise Decline
    return low.add("matmul", operands)


def _einsum(low: Lowering, equation: Any, *values: Any) -> Any:
    """A product of matrices in its other notation: axes of both, one that is summed over, one of each alone."""
    operands = several(values[0]) if len(values) == 1 else values
    inputs, arrow, out = str(equation).replace(" ", "").partition("->")
    names = inputs.split(",")
    if len(names) != 2 or len(operands) != 2 or not arrow or "." in inputs:
        raise Decline
    one, other = names
    if len(set(one)) != len(one) or len(set(other)) != len(other) or not one[:1] == other[:1] == out[:1] != "":
        raise Decline
    shared = [name for name in out if name in one and name in other]
    summed = [name for name in one if name in other and name not in out]
    rows, columns = ([name for name in own if name not in (*shared, *summed)] for own in names)
    if not len(summed) == len(rows) == len(columns) == 1 or sorted(out) != sorted([*shared, *rows, *columns]):
        raise Decline
    orders = [[*shared, *rows, *summed], [*shared, *summed, *columns]]
    found = low.add("matmul", [_in_order(low, *each) for each in zip(operands, names, orders, strict=True)])
    return _in_order(low, found, "".join([*shared, *rows, *columns]), list(out))


def _in_order(low: Lowering, value: Any, names: str, wanted: list[str]) -> Ref:
    """A value whose axes have these names, the batch first, with its axes in another order."""
    order = [names.index(name) - 1 for name in wanted[1:]]
    if len(order) != len(low.shape(first(low, value))):
        raise Decline
    return ordered(low, value, order)


def _softmax(
    low: Lowering, value: Any, dim: int | None = None, depth: Any = 3, dtype: Any = None, **keywords: Any
) -> Any:
    import torch

    if isinstance(depth, torch.dtype):  # `torch.softmax` has no depth
        dtype = depth
    taken = first(low, value) if dtype is None else in_precision(low, first(low, value), dtype)
    if dim is None or taken is None:
        raise Decline
    return low.add("softmax", [taken], axis=axis_of(low, value, dim))


def _masked_fill(low: Lowering, value: Any, mask: Any, fill: Any, kept: bool = False) -> Any:
    import torch

    found, number = first(low, value), _number(fill)
    shape = low.shape(found)
    if not isinstance(mask, Ref | Held) or not low.types[found.node].is_floating_point:
        raise Decline
    cover = low.ref(mask, len(shape))
    own = low.shape(cover)
    fits = len(own) == len(shape) and all(one in (1, other) for one, other in zip(own, shape, strict=True))
    if cover.bare or not fits or low.types[cover.node] != torch.bool:
        raise Decline
    return low.add("masked_fill", [found, cover], value=number if math.isfinite(number) else str(number), kept=kept)


def _where(low: Lowering, mask: Any, one: Any, other: Any) -> Any:
    if isinstance(one, Ref):
        return _masked_fill(low, one, mask, other, kept=True)
    return _masked_fill(low, other, mask, one)


def _number(value: Any) -> float:
    """A number that is no parameter."""
    if isinstance(value, Held) and value.how == "constant" and value.tensor.ndim == 0:
        value = value.tensor.item()
    if isinstance(value, bool) or not isinstance(value, int | float) or math.isnan(value):
        raise Decline
    return float(value)


def _normalize(low: Lowering, value: Any, p: float = 2.0, dim: int = 1, eps: float = 1e-12) -> Any:
    if p != 2:
        raise Decline
    return low.add("normalize", [first(low, value)], axis=axis_of(low, value, dim), eps=eps)


ATTENTION_CALLS: dict[str, Callable[..., Any]] = {
    "scaled_dot_product_attention": _attention,
    "matmul": _matmul,
    "bmm": _matmul,
    "mm": _matmul,
    "einsum": _einsum,
    "softmax": _softmax,
    "normalize": _normalize,
    "masked_fill": _masked_fill,
    "where": _where,
}
"""Attention, and what it is written with."""
