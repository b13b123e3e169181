"""Tensors that a forward pass makes, filled with a number or drawn, whose size depends on the batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from graphs.importing.calls.values import several
from graphs.importing.lowering import Lowering
from graphs.importing.stand_ins import Decline, Ref, Size

__all__ = ["MAKING_CALLS"]

Converter = Callable[..., Any]


def _filled(method: str) -> Converter:
    """A new tensor whose size depends on the batch, of the device of an input."""

    def make(low: Lowering, *sizes: Any, dtype: Any = None, **keywords: Any) -> Any:
        return _new(low, method, _listed(sizes), (), dtype)

    return make


def _full(low: Lowering, size: Any, fill_value: Any, *, dtype: Any = None, **keywords: Any) -> Any:
    return _new(low, "new_full", several(size), (fill_value,), dtype)


def _new(low: Lowering, method: str, sizes: Sequence[Any], given: Sequence[Any], dtype: Any) -> Any:
    import torch

    if not any(isinstance(size, Size) for size in sizes):
        raise Decline
    like = Ref(next(iter(low.inputs.values())))
    wanted = dtype or (torch.get_default_dtype() if method != "new_full" else _type_of(given[0]))
    # A type that is the input's own is not written down, so that it follows the network to another precision.
    named = {} if wanted == low.types[like.node] else {"dtype": wanted}
    return low.call_anew(f"method.{method}", [like, tuple(sizes), *given], **named)


def _type_of(fill: Any) -> Any:
    """The type of what is filled with a number."""
    import torch

    return torch.tensor(fill).dtype if isinstance(fill, bool | int | float) else None


def _drawn(function: str) -> Converter:
    """Random numbers, so many for each example."""

    def make(low: Lowering, *sizes: Any, dtype: Any = None, device: Any = None, **keywords: Any) -> Any:
        if keywords.keys() - {"pin_memory", "layout"}:
            raise Decline
        return low.call_anew(f"torch.{function}", [_new(low, "new_zeros", _listed(sizes), (), dtype)])

    return make


def _unwritten_like(low: Lowering, like: Any, *, dtype: Any = None, **keywords: Any) -> Any:
    """What nobody has written into yet holds any numbers, so zeros will do."""
    return low.call_anew("torch.zeros_like", [like], **({} if dtype is None else {"dtype": dtype}))


def _unwritten(low: Lowering, like: Any, *sizes: Any, dtype: Any = None, **keywords: Any) -> Any:
    return low.call_anew("method.new_zeros", [like, _listed(sizes)], **({} if dtype is None else {"dtype": dtype}))


def _listed(sizes: Sequence[Any]) -> tuple[Any, ...]:
    return tuple(sizes[0] if len(sizes) == 1 and isinstance(sizes[0], list | tuple) else sizes)


def _normal(low: Lowering, tensor: Any, mean: float = 0.0, std: float = 1.0) -> Any:
    """What `Tensor.normal_` leaves in a tensor, up to rounding."""
    return _moved(low, low.call_anew("torch.randn_like", [tensor]), mean, std)


def _uniform(low: Lowering, tensor: Any, least: float = 0.0, most: float = 1.0) -> Any:
    """What `Tensor.uniform_` leaves in a tensor, up to rounding."""
    return _moved(low, low.call_anew("torch.rand_like", [tensor]), least, most - least)


def _bernoulli(low: Lowering, tensor: Any, p: float = 0.5) -> Any:
    """What `Tensor.bernoulli_` leaves in a tensor, whatever was in it."""
    return low.call_anew("torch.bernoulli", [tensor, float(p)])


def _moved(low: Lowering, drawn: Any, by: float, times: float) -> Any:
    drawn = drawn if times == 1 else low.call_anew("torch.mul", [drawn, times])
    return drawn if by == 0 else low.call_anew("torch.add", [drawn, by])


def _normal_anew(low: Lowering, mean: float, std: float, size: Any, *, dtype: Any = None, **keywords: Any) -> Any:
    """What `torch.normal` gives for two numbers and a size, up to rounding."""
    if "generator" in keywords:
        raise Decline
    return _normal(low, _new(low, "new_zeros", several(size), (), dtype), mean, std)


def _whole(low: Lowering, *given: Any, dtype: Any = None, **keywords: Any) -> Any:
    """Whole numbers below an end, or from one end to below another."""
    import torch

    named = [keywords[name] for name in ("low", "high", "size") if name in keywords]
    *ends, size = *given, *named
    if "generator" in keywords or not all(isinstance(end, int) for end in ends):
        raise Decline
    return low.call_anew("torch.randint_like", [_new(low, "new_zeros", several(size), (), dtype or torch.int64), *ends])


MAKING_CALLS: dict[str, Callable[..., Any]] = {
    "zeros": _filled("new_zeros"),
    "ones": _filled("new_ones"),
    "full": _full,
    "rand": _drawn("rand_like"),
    "randn": _drawn("randn_like"),
    "randint": _whole,
    "torch.normal": _normal_anew,
    "torch.empty": _filled("new_zeros"),
    "torch.empty_like": _unwritten_like,
    "method.new_empty": _unwritten,
    "method.new": _unwritten,
    "method.normal": _normal,
    "method.uniform": _uniform,
    "method.bernoulli_": _bernoulli,
    "aten.uniform": _uniform,
    "aten.normal_functional": _normal,
}
"""What makes tensors, or fills them anew; some by the whole name, because others are called alike."""
