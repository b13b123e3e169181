"""The functions and methods that become nodes of a kind.

A converter is called with the lowering and the traced call's arguments, in which nodes stand for tensors. It gives what
stands for the result, or raises `Decline`: then the call becomes a function of each element, or an opaque node.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from graphs.importing.lowering import Decline, Held, Lowering, Program, Ref, Size, Training

__all__ = ["attention_layer", "convert", "cut", "first"]

Converter = Callable[..., Any]


def convert(low: Lowering, target: str, arguments: Sequence[Any], keywords: Mapping[str, Any]) -> Any:
    """What stands for the result of a traced call."""
    from graphs.importing.vision import VISION

    prefix, _, name = target.partition(".")
    if target == "python.getattr":
        return _attribute(low, *arguments)
    if prefix == "operator" and not any(isinstance(each, Ref | Held | Program) for each in arguments):
        return _number(low, name, arguments)
    converter = VISION.get(target) or (
        _CALLS.get(name) if prefix in ("torch", "functional", "method", "operator") else None
    )
    if converter is not None:
        try:
            return converter(low, *arguments, **keywords)
        except (Decline, TypeError):
            pass
    return low.call(target, arguments, keywords)


def _number(low: Lowering, name: str, arguments: Sequence[Any]) -> Any:
    """Arithmetic with numbers and sizes, and picking from lists."""
    if name == "getitem" or not any(isinstance(each, Size) for each in arguments):
        return getattr(operator, name)(*arguments)
    one, other = arguments if len(arguments) == 2 else (arguments[0], None)
    if name == "mul":
        if isinstance(one, Size) and isinstance(other, int):
            return Size(one.factor * other)
        if isinstance(other, Size) and isinstance(one, int):
            return Size(other.factor * one)
    if name == "floordiv" and isinstance(one, Size):
        if isinstance(other, int) and one.factor % other == 0:
            return Size(one.factor // other)
        if isinstance(other, Size) and one.factor % other.factor == 0:
            return one.factor // other.factor
    raise low.error(f"it computes with the batch size ('{name}'), which would bake it in")


def _attribute(low: Lowering, value: Any, name: str, *default: Any) -> Any:
    if isinstance(value, Ref | Held | Program):
        if name == "shape":
            return low.sizes(value)
        if name == "ndim":
            return len(low.sizes(value))
        if name in ("device", "requires_grad"):
            return None
        if name in ("T", "mT", "H"):
            return low.call("method.t" if name == "T" else "method.transpose", [value, *([-2, -1] * (name != "T"))], {})
        if isinstance(value, Program) and name in value.seen.names:
            return low.call("operator.getitem", [value, value.seen.names.index(name)], {})
        if name == "dtype" and isinstance(value, Held):
            return value.tensor.dtype
        raise low.error(f"it asks for the attribute '{name}' of a tensor")
    return getattr(value, name, *default)


def _size(low: Lowering, value: Any, dim: int | None = None) -> Any:
    return low.sizes(value) if dim is None else low.sizes(value)[dim]


def _rank(low: Lowering, value: Any) -> int:
    return len(low.sizes(value))


def _same(low: Lowering, value: Any, *rest: Any, **keywords: Any) -> Any:
    if isinstance(value, Ref | Held):
        return value
    raise Decline


def _tensor(value: Any) -> Ref:
    """A node, where the value is one."""
    if not isinstance(value, Ref):
        raise Decline
    return value


def first(low: Lowering, value: Any) -> Ref:
    """A node in front of whose axes the batch stands."""
    if isinstance(value, Held):
        raise Decline
    found = _tensor(value)
    if found.bare:
        raise Decline
    return found


# Layers as functions ------------------------------------------------------------------------------------------------


def _activation(kind: str, **defaults: Any) -> Converter:
    """An activation; arguments by position are its settings in their order."""

    def make(low: Lowering, value: Any, *given: Any, inplace: Any = False, **keywords: Any) -> Any:
        names = list(defaults)
        settings = {**defaults, **dict(zip(names, given, strict=False)), **keywords}
        if not settings.keys() <= defaults.keys() or (given[len(names) :] not in ((), (False,), (True,))):
            raise Decline
        return low.add(kind, [_tensor(value)], **settings)

    return make


def _linear(low: Lowering, value: Any, weight: Any, bias: Any = None) -> Any:
    if not isinstance(weight, Held) or not isinstance(bias, Held | None) or weight.how != "parameter":
        raise Decline
    names = {"weight": low.use(weight)} | ({"bias": low.use(bias)} if bias else {})
    return low.add("linear", [first(low, value)], names, out=weight.tensor.shape[0], bias=bias is not None)


def _convolution(places: int) -> Converter:
    def make(
        low: Lowering,
        value: Any,
        weight: Any,
        bias: Any = None,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
    ) -> Any:
        if not isinstance(weight, Held) or not isinstance(bias, Held | None) or isinstance(padding, str):
            raise Decline
        if weight.how != "parameter" or len(low.sizes(value)) != places + 2:
            raise Decline
        names = {"weight": low.use(weight)} | ({"bias": low.use(bias)} if bias else {})
        settings = {
            "out": weight.tensor.shape[0],
            "kernel": tuple(weight.tensor.shape[2:]),
            "stride": _all(stride, places),
        }
        settings |= {"padding": _all(padding, places), "dilation": _all(dilation, places), "groups": groups}
        return low.add(f"conv{places}d", [first(low, value)], names, bias=bias is not None, **settings)

    return make


def _all(value: Any, places: int) -> Any:
    return (value,) * places if isinstance(value, int) else tuple(value) * (places if len(value) == 1 else 1)


def _layer_norm(low: Lowering, value: Any, shape: Any, weight: Any = None, bias: Any = None, eps: float = 1e-5) -> Any:
    if not isinstance(weight, Held) or not isinstance(bias, Held) or "parameter" not in (weight.how, bias.how):
        raise Decline
    names = {"weight": low.use(weight), "bias": low.use(bias)}
    return low.add("layer_norm", [first(low, value)], names, axes=len(shape), eps=eps)


def _rms_norm(low: Lowering, value: Any, shape: Any, weight: Any = None, eps: float | None = None) -> Any:
    if not isinstance(weight, Held) or weight.how != "parameter":
        raise Decline
    return low.add("rms_norm", [first(low, value)], {"weight": low.use(weight)}, axes=len(shape), eps=eps)


def _group_norm(low: Lowering, value: Any, groups: int, weight: Any = None, bias: Any = None, eps: float = 1e-5) -> Any:
    if not isinstance(weight, Held) or not isinstance(bias, Held) or "parameter" not in (weight.how, bias.how):
        raise Decline
    names = {"weight": low.use(weight), "bias": low.use(bias)}
    return low.add("group_norm", [first(low, value)], names, groups=groups, eps=eps)


def _batch_norm(low: Lowering, *given: Any, **keywords: Any) -> Any:
    raise low.error("it calls batch_norm as a function, which changes statistics in place; use a BatchNorm layer")


def _embedding(low: Lowering, value: Any, weight: Any) -> Any:
    if not isinstance(weight, Held) or weight.how != "parameter":
        raise Decline
    entries, out = weight.tensor.shape
    return low.add("embedding", [first(low, value)], {"weight": low.use(weight)}, entries=entries, out=out)


def _dropout(kind: str) -> Converter:
    def make(low: Lowering, value: Any, p: float = 0.5, training: Any = True, inplace: Any = False) -> Any:
        training = low.mode(training)
        if training is False or p == 0:
            return _tensor(value)
        if not isinstance(training, Training):
            raise Decline
        if kind == "dropout2d" and len(low.shape(first(low, value))) != 3:
            raise Decline
        return low.add(kind, [first(low, value)], p=float(p))

    return make


def _max_pool(
    low: Lowering,
    value: Any,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    if return_indices or len(low.shape(first(low, value))) != 3:
        raise Decline
    settings = {"kernel": _all(kernel_size, 2), "stride": _all(stride or kernel_size, 2), "padding": _all(padding, 2)}
    return low.add("max_pool2d", [value], dilation=_all(dilation, 2), ceil=ceil_mode, **settings)


def _avg_pool(
    low: Lowering,
    value: Any,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: Any = None,
) -> Any:
    if not count_include_pad or divisor_override is not None or len(low.shape(first(low, value))) != 3:
        raise Decline
    settings = {"kernel": _all(kernel_size, 2), "stride": _all(stride or kernel_size, 2), "padding": _all(padding, 2)}
    return low.add("avg_pool2d", [value], ceil=ceil_mode, **settings)


def _adaptive(kind: str) -> Converter:
    def make(low: Lowering, value: Any, output_size: Any, return_indices: bool = False) -> Any:
        size = _all(output_size, 2)
        if return_indices or None in size or len(low.shape(first(low, value))) != 3:
            raise Decline
        return low.add(kind, [value], size=size)

    return make


# Joining ------------------------------------------------------------------------------------------------------------


def _joining(kind: str) -> Converter:
    def make(low: Lowering, one: Any, other: Any, alpha: Any = 1, **keywords: Any) -> Any:
        if alpha != 1 or keywords:
            raise Decline
        refs = [each for each in (one, other) if isinstance(each, Ref)]
        if not refs or not all(isinstance(each, Ref | Held) for each in (one, other)) or any(ref.bare for ref in refs):
            raise Decline
        rank = max(len(low.shape(ref)) for ref in refs)
        if any(isinstance(each, Held) and each.tensor.ndim > rank + 1 for each in (one, other)):
            raise Decline
        if any(isinstance(each, Held) and not each.tensor.is_floating_point() for each in (one, other)):
            raise Decline
        operands = [low.ref(each, rank) for each in (one, other)]
        shapes = [low.shape(each) for each in operands]
        if len(shapes[0]) != len(shapes[1]) or (kind == "add" and shapes[0] != shapes[1]):
            raise Decline
        return low.add(kind, operands)

    return make


def _concat(low: Lowering, values: Any, dim: int = 0, **keywords: Any) -> Any:
    refs = [each for each in values if isinstance(each, Ref)]
    if not refs or any(ref.bare for ref in refs):
        raise Decline
    rank = len(low.shape(refs[0]))
    axis = dim - 1 if dim >= 0 else dim + rank
    operands = [low.ref(each, rank) for each in values]
    batched = [ref for ref in operands if low.depends(ref)]
    if axis < 0 or not batched:
        raise Decline
    operands = [ref if low.depends(ref) else _spread(low, ref, batched[0]) for ref in operands]
    return low.add("concat", operands, axis=axis) if len(operands) > 1 else operands[0]


def _spread(low: Lowering, value: Ref, like: Ref) -> Ref:
    return low.add("expand", [value, like], rank=len(low.shape(value)))


def _expand(low: Lowering, value: Any, *sizes: Any) -> Any:
    wanted = sizes[0] if len(sizes) == 1 and isinstance(sizes[0], list | tuple) else sizes
    own = low.sizes(value)
    if isinstance(value, Program) or len(wanted) != len(own) or own[0] != 1 or wanted[0] != Size(1):
        raise Decline
    if any(size not in (-1, have) for size, have in zip(wanted[1:], own[1:], strict=True)):
        raise Decline
    like = Ref(next(iter(low.inputs.values())))
    return _spread(low, low.ref(value, len(own) - 1), like)


# Rearranging --------------------------------------------------------------------------------------------------------


def _reshaped(low: Lowering, value: Any) -> Any:
    """A reshape to the shape that was observed of the result."""
    found = _tensor(value)
    if low.now.batched and not found.bare:
        shape, bare = low.now.shapes[0][1:], False
    elif low.now.constant and not low.depends(found):
        full = low.now.shapes[0]
        shape, bare = (full[1:], False) if full[:1] == (1,) else (full, True)
    else:
        raise Decline
    if shape == low.shape(found):
        return Ref(found.node, bare)
    return low.add("reshape", [found], shape=shape, bare=bare)


def _reshape(low: Lowering, value: Any, *sizes: Any, **keywords: Any) -> Any:
    return _reshaped(low, value)


def _flatten(low: Lowering, value: Any, start_dim: int = 0, end_dim: int = -1) -> Any:
    found = first(low, value)
    rank = len(low.shape(found)) + 1
    if (start_dim, end_dim % rank) == (1, rank - 1) and rank > 1:
        return low.add("flatten", [found])
    return _reshaped(low, value)


def _permute(low: Lowering, value: Any, *order: Any) -> Any:
    wanted = order[0] if len(order) == 1 and isinstance(order[0], list | tuple) else order
    return _ordered(low, value, list(wanted))


def _ordered(low: Lowering, value: Any, order: list[int]) -> Any:
    found = _tensor(value)
    rank = len(low.shape(found)) + (not found.bare)
    order = [axis % rank for axis in order]
    if not found.bare:
        if order[0] != 0:
            raise Decline
        order = [axis - 1 for axis in order[1:]]
    if order == list(range(len(order))):
        return found
    return low.add("permute", [found], order=order)


def _transpose(low: Lowering, value: Any, dim0: int, dim1: int) -> Any:
    rank = len(low.shape(_tensor(value))) + (not value.bare)
    order = list(range(rank))
    order[dim0], order[dim1] = order[dim1], order[dim0]
    return _ordered(low, value, order)


def _movedim(low: Lowering, value: Any, source: Any, destination: Any) -> Any:
    if not isinstance(source, int) or not isinstance(destination, int):
        raise Decline
    rank = len(low.shape(_tensor(value))) + (not value.bare)
    order = [axis for axis in range(rank) if axis != source % rank]
    order.insert(destination % rank, source % rank)
    return _ordered(low, value, order)


def _axis(low: Lowering, value: Ref, dim: int) -> int:
    """An axis, counted without the batch."""
    axis = dim % (len(low.shape(value)) + 1) - 1
    if axis < 0:
        raise Decline
    return axis


def cut(low: Lowering, value: Ref, axis: int, start: int, stop: int, step: int = 1) -> Ref:
    """Entries of a node's value along an axis; the node itself for all of them."""
    if (start, stop, step) == (0, low.shape(value)[axis], 1):
        return value
    return low.add("slice", [value], axis=axis, start=start, stop=stop, step=step)


def _chunk(low: Lowering, value: Any, chunks: int, dim: int = 0) -> Any:
    found = first(low, value)
    axis = _axis(low, found, dim)
    size = low.shape(found)[axis]
    return _pieces(low, found, axis, -(-size // chunks))


def _pieces(low: Lowering, value: Ref, axis: int, each: int) -> Any:
    size = low.shape(value)[axis]
    return tuple(cut(low, value, axis, start, min(start + each, size)) for start in range(0, size, each))


def _split(low: Lowering, value: Any, sizes: Any, dim: int = 0) -> Any:
    found = first(low, value)
    axis = _axis(low, found, dim)
    if isinstance(sizes, int):
        return _pieces(low, found, axis, sizes)
    ends = [sum(sizes[: place + 1]) for place in range(len(sizes))]
    return tuple(cut(low, found, axis, end - size, end) for size, end in zip(sizes, ends, strict=True))


def _unbind(low: Lowering, value: Any, dim: int = 0) -> Any:
    found = first(low, value)
    axis = _axis(low, found, dim)
    return tuple(low.add("select", [found], axis=axis, index=index) for index in range(low.shape(found)[axis]))


def _narrow(low: Lowering, value: Any, dim: int, start: int, length: int) -> Any:
    found = first(low, value)
    return cut(low, found, _axis(low, found, dim), start, start + length)


def _select(low: Lowering, value: Any, dim: int, index: int) -> Any:
    found = first(low, value)
    axis = _axis(low, found, dim)
    return low.add("select", [found], axis=axis, index=index % low.shape(found)[axis])


def _getitem(low: Lowering, value: Any, what: Any) -> Any:
    found = first(low, value)
    items = list(what) if isinstance(what, tuple) else [what]
    given = len([item for item in items if item is not None and item is not Ellipsis])
    rank = len(low.shape(found)) + 1
    if Ellipsis in [item for item in items if not isinstance(item, Ref | Held | Program)]:
        place = next(place for place, item in enumerate(items) if item is Ellipsis)
        items[place : place + 1] = [slice(None)] * (rank - given)
    if not items or items[0] != slice(None):
        raise Decline
    axis, now = 0, found
    for item in items[1:]:
        if item is None:
            shape = low.shape(now)
            now = low.add("reshape", [now], shape=(*shape[:axis], 1, *shape[axis:]))
            axis += 1
        elif isinstance(item, slice):
            if not all(isinstance(each, int | None) for each in (item.start, item.stop, item.step)):
                raise Decline
            start, stop, step = item.indices(low.shape(now)[axis])
            if step < 1 or start >= stop:
                raise Decline
            now = cut(low, now, axis, start, stop, step)
            axis += 1
        elif isinstance(item, int) and not isinstance(item, bool):
            now = low.add("select", [now], axis=axis, index=item % low.shape(now)[axis])
        else:
            raise Decline
    return now


def _mean(low: Lowering, value: Any, dim: Any = None, keepdim: bool = False, **keywords: Any) -> Any:
    if dim is None or keywords:
        raise Decline
    found = first(low, value)
    axes = tuple(_axis(low, found, each) for each in ([dim] if isinstance(dim, int) else dim))
    return low.add("average", [found], axes=axes, keep=keepdim)


def _pad(low: Lowering, value: Any, pad: Any, mode: str = "constant", fill: Any = 0, **keywords: Any) -> Any:
    found = first(low, value)
    if mode != "constant" or fill not in (0, None) or keywords or any(each < 0 for each in pad):
        raise Decline
    rank = len(low.shape(found))
    margins = [(0, 0)] * rank
    for place in range(len(pad) // 2):
        if place >= rank:
            raise Decline
        margins[rank - 1 - place] = (pad[2 * place], pad[2 * place + 1])
    return low.add("pad", [found], margins=margins) if any(map(any, margins)) else found


# Attention ----------------------------------------------------------------------------------------------------------


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
    packed = {operand: _linear(low, operand, weight, bias) for operand in dict.fromkeys(operands)}
    projected = [packed[operand] for operand in operands]
    parts = [
        cut(low, each, len(low.shape(each)) - 1, place * width, (place + 1) * width)
        for place, each in enumerate(projected)
    ]
    mixed = low.add("attention", parts, heads=layer.num_heads, dropout=float(layer.dropout))
    out = layer.out_proj
    held = low.hold(out.weight, f"{path}.out_proj.weight")
    out_bias = None if out.bias is None else low.hold(out.bias, f"{path}.out_proj.bias")
    return (_linear(low, mixed, held, out_bias), _Unknown(path))


class _Unknown:
    """The attention's weights, which no node computes."""

    def __init__(self, path: str) -> None:
        self.path = path


_CALLS: dict[str, Converter] = {
    "relu": _activation("relu"),
    "relu6": _activation("relu6"),
    "leaky_relu": _activation("leaky_relu", negative_slope=0.01),
    "gelu": _activation("gelu", approximate="none"),
    "silu": _activation("silu"),
    "sigmoid": _activation("sigmoid"),
    "tanh": _activation("tanh"),
    "hardswish": _activation("hardswish"),
    "hardsigmoid": _activation("hardsigmoid"),
    "elu": _activation("elu"),
    "linear": _linear,
    "conv1d": _convolution(1),
    "conv2d": _convolution(2),
    "conv3d": _convolution(3),
    "layer_norm": _layer_norm,
    "rms_norm": _rms_norm,
    "group_norm": _group_norm,
    "batch_norm": _batch_norm,
    "embedding": _embedding,
    "dropout": _dropout("dropout"),
    "dropout2d": _dropout("dropout2d"),
    "max_pool2d": _max_pool,
    "avg_pool2d": _avg_pool,
    "adaptive_avg_pool2d": _adaptive("adaptive_avg_pool2d"),
    "adaptive_max_pool2d": _adaptive("adaptive_max_pool2d"),
    "add": _joining("add"),
    "mul": _joining("multiply"),
    "multiply": _joining("multiply"),
    "cat": _concat,
    "concat": _concat,
    "concatenate": _concat,
    "expand": _expand,
    "view": _reshape,
    "reshape": _reshape,
    "unsqueeze": _reshape,
    "squeeze": _reshape,
    "unflatten": _reshape,
    "flatten": _flatten,
    "permute": _permute,
    "transpose": _transpose,
    "swapaxes": _transpose,
    "swapdims": _transpose,
    "movedim": _movedim,
    "moveaxis": _movedim,
    "chunk": _chunk,
    "split": _split,
    "unbind": _unbind,
    "narrow": _narrow,
    "select": _select,
    "getitem": _getitem,
    "mean": _mean,
    "pad": _pad,
    "contiguous": _same,
    "clone": _same,
    "size": _size,
    "dim": _rank,
}
