"""Multi-head attention, taken apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from graphs.importing.calls.layers import linear
from graphs.importing.calls.values import cut, first
from graphs.importing.lowering import Lowering


def attention_layer(low: Lowering, path: str, layer: Any, arguments: Sequence[Any], keywords: Mapping[str, Any]) -> Any:
    """`nn.MultiheadAttention` of a value with itself or others, as linear layers around `attention`.

    Raises:
        GraphError: It is given masks.
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
    given = {**dict(zip(names, arguments, strict=False)), **keywords}
    if given.get("key_padding_mask") is not None or given.get("attn_mask") is not None:
        raise low.error(f"the attention '{path}' is given a mask; use functional.scaled_dot_product_attention for that")
    operands = [first(low, given[name]) for name in names[:3]]
    width = layer.embed_dim
    weight = low.hold(layer.in_proj_weight, f"{path}.in_proj_weight")
    bias = None if layer.in_proj_bias is None else low.hold(layer.in_proj_bias, f"{path}.in_proj_bias")
    packed = {operand: linear(low, operand, weight, bias) for operand in dict.fromkeys(operands)}
    projected = [packed[operand] for operand in operands]
    parts = [
        cut(low, each, len(low.shape(each)) - 1, place * width, (place + 1) * width)
        for place, each in enumerate(projected)
    ]
    mixed = low.add("attention", parts, heads=layer.num_heads, dropout=float(layer.dropout))
    out = layer.out_proj
    held = low.hold(out.weight, f"{path}.out_proj.weight")
    out_bias = None if out.bias is None else low.hold(out.bias, f"{path}.out_proj.bias")
    return (linear(low, mixed, held, out_bias), _Unknown(path))


class _Unknown:
    """The attention's weights, which no node computes."""

    def __init__(self, path: str) -> None:
        self.path = path
