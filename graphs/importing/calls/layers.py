"""Layers that are called as functions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from graphs.importing.calls.elsewhere import layer_elsewhere
from graphs.importing.calls.values import each_place, first, matrix, several, tensor
from graphs.importing.lowering import Lowering
from graphs.importing.padding import padding_of
from graphs.importing.stand_ins import Decline, Held, Program, Ref, Training
from graphs.kinds.weighted import PLACES

Converter = Callable[..., Any]

__all__ = ["LAYER_CALLS", "linear"]


def _activation(kind: str, **defaults: Any) -> Converter:
    """An activation; arguments by position are its settings in their order."""

    def make(low: Lowering, value: Any, *given: Any, inplace: Any = False, **keywords: Any) -> Any:
        names = list(defaults)
        settings = {**defaults, **dict(zip(names, given, strict=False)), **keywords}
        if not settings.keys() <= defaults.keys() or (given[len(names) :] not in ((), (False,), (True,))):
            raise Decline
        if not all(isinstance(each, int | float | str) for each in settings.values()):
            raise Decline
        return low.add(kind, [tensor(value)], **settings)

    return make


def linear(low: Lowering, value: Any, weight: Any, bias: Any = None, across: bool = False) -> Any:
    """A linear layer with tensors of the module; `across` if the weight is given as (in, out)."""
    if not isinstance(bias, Held | None):
        raise Decline
    held, turned = matrix(low, weight)
    names = {"weight": low.use(held)} | ({"bias": low.use(bias)} if bias else {})
    kind, out = ("linear", held.tensor.shape[0]) if turned == across else ("product", held.tensor.shape[1])
    return low.add(kind, [first(low, value)], names, out=out, bias=bias is not None)


def _addmm(low: Lowering, bias: Any, value: Any, weight: Any, *, beta: Any = 1, alpha: Any = 1) -> Any:
    if not isinstance(bias, Held) or bias.how != "parameter" or bias.tensor.ndim != 1 or (beta, alpha) != (1, 1):
        raise Decline
    return linear(low, value, weight, bias, across=True)


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
        if not isinstance(weight, Held) or not isinstance(bias, Held | None):
            raise Decline
        if weight.how != "parameter" or len(low.sizes(value)) != places + 2:
            raise Decline
        names = {"weight": low.use(weight)} | ({"bias": low.use(bias)} if bias else {})
        settings = {
            "out": weight.tensor.shape[0],
            "kernel": tuple(weight.tensor.shape[2:]),
            "stride": each_place(stride, places),
        }
        settings |= {"dilation": each_place(dilation, places), "groups": groups}
        settings["padding"] = each_place(padding_of(padding, settings["kernel"], settings["dilation"]), places)
        return low.add(f"conv{places}d", [first(low, value)], names, bias=bias is not None, **settings)

    return make


def _layer_norm(
    low: Lowering, value: Any, shape: Any, weight: Any = None, bias: Any = None, eps: float = 1e-5, *fast: Any
) -> Any:
    if weight is None and bias is not None:
        raise Decline
    found, names = _over(low, value, shape), _tensors(low, weight=weight, bias=bias)
    settings: dict[str, Any] = {"axes": len(shape), "eps": eps, "weight": "weight" in names, "bias": "bias" in names}
    return low.add("layer_norm", [found], names, **settings)


def _rms_norm(low: Lowering, value: Any, shape: Any, weight: Any = None, eps: float | None = None) -> Any:
    found, names = _over(low, value, shape), _tensors(low, weight=weight)
    return low.add("rms_norm", [found], names, axes=len(shape), eps=eps, weight=bool(names))


def _group_norm(
    low: Lowering, value: Any, groups: int, weight: Any = None, bias: Any = None, eps: float = 1e-5, *fast: Any
) -> Any:
    if (weight is None) != (bias is None) or len(low.sizes(value)) < 2:
        raise Decline
    found, names = first(low, value), _tensors(low, weight=weight, bias=bias)
    return low.add("group_norm", [found], names, groups=groups, eps=eps, affine=bool(names))


def _instance_norm(
    low: Lowering,
    value: Any,
    running_mean: Any = None,
    running_var: Any = None,
    weight: Any = None,
    bias: Any = None,
    use_input_stats: Any = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
    *fast: Any,
) -> Any:
    if running_mean is not None or use_input_stats is not True or (weight is None) != (bias is None):
        raise Decline
    if not 3 <= len(low.sizes(value)) <= 5:
        raise Decline
    found, names = first(low, value), _tensors(low, weight=weight, bias=bias)
    return low.add("instance_norm", [found], names, eps=eps, affine=bool(names))


def _over(low: Lowering, value: Any, shape: Any) -> Ref:
    """A node whose value has more axes, the batch counted, than those that are normalised over."""
    found = first(low, value)
    if not 1 <= len(several(shape)) <= len(low.shape(found)):
        raise Decline
    return found


def _tensors(low: Lowering, **given: Any) -> dict[str, str]:
    """The names of a norm's tensors, of which the module holds those that there are."""
    held = {role: each for role, each in given.items() if each is not None}
    hows = {each.how for each in held.values() if isinstance(each, Held)}
    if not all(isinstance(each, Held) for each in held.values()) or (held and "parameter" not in hows):
        raise Decline
    return {role: low.use(each) for role, each in held.items()}


def _batch_norm(low: Lowering, value: Any, *given: Any, **keywords: Any) -> Any:
    """The call of a layer, of which its tensors are; by itself it would change statistics in place."""
    recorded = len(given) == 8
    function = dict(zip(_RECORDED if recorded else _FUNCTION, given, strict=False)) | keywords
    training, eps = function.get("training", False), function.get("eps", 1e-5)
    held = {role: function[role] for role in _FUNCTION[:4] if function.get(role) is not None}
    if recorded and held.keys() <= {"weight", "bias"}:  # it keeps no statistics
        tensors = [function[role] for role in _FUNCTION[:4]]
        return low.call("functional.batch_norm", [value, *tensors, True, function["momentum"], eps], {})
    training = low.mode(training)
    path = getattr(held.get("running_mean"), "name", "").rpartition(".")[0]
    counts = low.named(f"{path}.num_batches_tracked")
    learns = isinstance(training, Training)
    if counts is None or not all(isinstance(each, Held) for each in held.values()) or not (learns or training is False):
        raise low.error(
            "it calls batch_norm as a function, which changes statistics in place; use a BatchNorm layer, as "
            "torch.nn has it"
        )
    kind = "batch_norm" if learns else "frozen_batch_norm"
    settings = {"momentum": function.get("momentum", 0.1), "eps": eps} if learns else {"eps": eps}
    if len(held) < 4 or isinstance(value, Program):
        return layer_elsewhere(low, kind, value, {"momentum": 0.0, **settings}, held)
    names = {role: low.use(each) for role, each in (held | {"num_batches_tracked": counts}).items()}
    return low.add(kind, [first(low, value)], names, path=path if learns else None, **settings)


_FUNCTION = ("running_mean", "running_var", "weight", "bias", "training", "momentum", "eps")
_RECORDED = ("weight", "bias", "running_mean", "running_var", "training", "momentum", "eps", "cudnn_enabled")
"""The arguments of batch_norm behind the value, as people call it and as it is recorded."""


def _embedding(low: Lowering, value: Any, weight: Any) -> Any:
    if isinstance(value, Held) and isinstance(weight, Ref):  # as aten has it
        value, weight = weight, value
    if not isinstance(weight, Held) or weight.how != "parameter":
        raise Decline
    entries, out = weight.tensor.shape
    return low.add("embedding", [first(low, value)], {"weight": low.use(weight)}, entries=entries, out=out)


def _dropout(places: int | None = None) -> Converter:
    """Dropout of each element, or of whole channels of maps over so many axes of places."""

    def make(low: Lowering, value: Any, p: float = 0.5, training: Any = True, inplace: Any = False) -> Any:
        training = low.mode(training)
        if training is False or p == 0:
            return tensor(value)
        if not isinstance(training, Training):
            raise Decline
        found = _map(low, value, places) if places else first(low, value)
        return low.add(f"dropout{places}d" if places else "dropout", [found], p=float(p))

    return make


def _map(low: Lowering, value: Any, places: int) -> Ref:
    """A node whose value has channels and so many axes of places."""
    if len(low.shape(first(low, value))) != 1 + places:
        raise Decline
    return first(low, value)


def _max_pool(places: int) -> Converter:
    def make(
        low: Lowering,
        value: Any,
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        dilation: Any = 1,
        ceil_mode: bool = False,
        return_indices: bool = False,
    ) -> Any:
        if return_indices:
            raise Decline
        window = {"kernel": kernel_size, "stride": stride or kernel_size, "padding": padding, "dilation": dilation}
        settings = {name: each_place(size, places) for name, size in window.items()}
        return low.add(f"max_pool{places}d", [_map(low, value, places)], ceil=ceil_mode, **settings)

    return make


def _avg_pool(places: int) -> Converter:
    def make(
        low: Lowering,
        value: Any,
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        divisor_override: Any = None,
    ) -> Any:
        if not count_include_pad or divisor_override is not None:
            raise Decline
        window = {"kernel": kernel_size, "stride": stride or kernel_size, "padding": padding}
        settings = {name: each_place(size, places) for name, size in window.items()}
        return low.add(f"avg_pool{places}d", [_map(low, value, places)], ceil=ceil_mode, **settings)

    return make


def _adaptive(what: str, places: int) -> Converter:
    def make(low: Lowering, value: Any, output_size: Any, return_indices: bool = False) -> Any:
        size = each_place(output_size, places)
        if return_indices or None in size:
            raise Decline
        return low.add(f"adaptive_{what}_pool{places}d", [_map(low, value, places)], size=size)

    return make


LAYER_CALLS: dict[str, Callable[..., Any]] = {
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
    "linear": linear,
    "addmm": _addmm,
    "layer_norm": _layer_norm,
    "rms_norm": _rms_norm,
    "group_norm": _group_norm,
    "instance_norm": _instance_norm,
    "batch_norm": _batch_norm,
    "embedding": _embedding,
    "dropout": _dropout(),
    **{f"conv{places}d": _convolution(places) for places in PLACES},
    **{f"dropout{places}d": _dropout(places) for places in PLACES},
    **{f"max_pool{places}d": _max_pool(places) for places in PLACES},
    **{f"avg_pool{places}d": _avg_pool(places) for places in PLACES},
    **{f"adaptive_{what}_pool{places}d": _adaptive(what, places) for what in ("avg", "max") for places in PLACES},
}
"""Layers by the names of their functions."""
