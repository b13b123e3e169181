"""The layers of `torch.nn` that have a kind of their own.

For each class, how one of its instances becomes `(kind, settings, names of its tensors by role)`; None where this
instance does something that the kind does not, and its forward pass is traced through instead.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from graphs.importing.norms_by_hand import norm_by_hand
from graphs.importing.padding import padding_of
from graphs.importing.stand_ins import Decline
from graphs.kinds.weighted import PLACES

__all__ = ["Layer", "in_mode", "layer_of"]

Layer = tuple[str, dict[str, Any], dict[str, str]]


def _convolution(layer: Any) -> Layer | None:
    if layer.padding_mode != "zeros":
        return None
    kernel, stride, dilation = (tuple(getattr(layer, name)) for name in ("kernel_size", "stride", "dilation"))
    try:
        padding = tuple(padding_of(layer.padding, kernel, dilation))
    except Decline:
        return None
    settings = {"out": layer.out_channels, "kernel": kernel, "stride": stride, "padding": padding}
    own = _own(layer)
    settings |= {"dilation": dilation, "groups": layer.groups, "bias": "bias" in own}
    return f"conv{len(kernel)}d", settings, own


def _linear(layer: Any) -> Layer | None:
    own = _own(layer)
    return "linear", {"out": layer.out_features, "bias": "bias" in own}, own


def _embedding(layer: Any) -> Layer | None:
    if layer.max_norm is not None or layer.scale_grad_by_freq or layer.sparse or layer.padding_idx is not None:
        return None
    return "embedding", {"entries": layer.num_embeddings, "out": layer.embedding_dim}, _own(layer)


def _batch_norm(layer: Any) -> Layer | None:
    if not layer.track_running_stats:
        return None
    return "batch_norm", {"eps": layer.eps, "momentum": layer.momentum}, _own(layer)


def _layer_norm(layer: Any) -> Layer | None:
    own = _own(layer)
    settings = {"axes": len(layer.normalized_shape), "eps": layer.eps, "weight": "weight" in own, "bias": "bias" in own}
    return "layer_norm", settings, own


def _rms_norm(layer: Any) -> Layer | None:
    own = _own(layer)
    return "rms_norm", {"axes": len(layer.normalized_shape), "eps": layer.eps, "weight": "weight" in own}, own


def _group_norm(layer: Any) -> Layer | None:
    own = _own(layer)
    if len(own) == 1:
        return None
    return "group_norm", {"groups": layer.num_groups, "eps": layer.eps, "affine": bool(own)}, own


def _instance_norm(layer: Any) -> Layer | None:
    own = _own(layer)
    if layer.track_running_stats or len(own) == 1:
        return None
    return "instance_norm", {"eps": layer.eps, "affine": bool(own)}, own


def _own(layer: Any) -> dict[str, str]:
    """The names of a layer's tensors, none of which is asked for: a trace would note that."""
    if layer._modules:
        return {name: name for name, _ in [*layer.named_parameters(), *layer.named_buffers()]}
    held = [*layer._parameters.items(), *layer._buffers.items()]
    return {name: name for name, tensor in held if tensor is not None}


def _dropout(layer: Any) -> Layer | None:
    return type(layer).__name__.lower(), {"p": layer.p}, {}


def _plain(kind: str, **names: str) -> Callable[[Any], Layer | None]:
    """A layer without tensors; for each setting, the layer's attribute."""
    return lambda layer: (kind, {setting: getattr(layer, name) for setting, name in names.items()}, {})


def _elu(layer: Any) -> Layer | None:
    return ("elu", {}, {}) if layer.alpha == 1 else None


def _prelu(layer: Any) -> Layer | None:
    return "prelu", {"per_channel": layer.num_parameters > 1}, _own(layer)


def _flatten(layer: Any) -> Layer | None:
    return ("flatten", {}, {}) if (layer.start_dim, layer.end_dim) == (1, -1) else None


def _each(value: Any, places: int) -> tuple[int, ...]:
    return (value,) * places if isinstance(value, int) else tuple(value)


def _max_pool(places: int) -> Callable[[Any], Layer | None]:
    def convert(layer: Any) -> Layer | None:
        if layer.return_indices:
            return None
        window = {"kernel": layer.kernel_size, "stride": layer.stride, "padding": layer.padding}
        settings = {name: _each(size, places) for name, size in {**window, "dilation": layer.dilation}.items()}
        return f"max_pool{places}d", settings | {"ceil": layer.ceil_mode}, {}

    return convert


def _avg_pool(places: int) -> Callable[[Any], Layer | None]:
    def convert(layer: Any) -> Layer | None:
        if not layer.count_include_pad or getattr(layer, "divisor_override", None) is not None:
            return None
        window = {"kernel": layer.kernel_size, "stride": layer.stride, "padding": layer.padding}
        settings: dict[str, Any] = {name: _each(size, places) for name, size in window.items()}
        return f"avg_pool{places}d", settings | {"ceil": layer.ceil_mode}, {}

    return convert


def _adaptive(what: str, places: int) -> Callable[[Any], Layer | None]:
    def convert(layer: Any) -> Layer | None:
        size = layer.output_size
        if getattr(layer, "return_indices", False) or size is None or None in (size if isinstance(size, tuple) else ()):
            return None
        return f"adaptive_{what}_pool{places}d", {"size": _each(size, places)}, {}

    return convert


def _attention(layer: Any) -> Layer | None:
    plain = layer.batch_first and layer.bias_k is None and not layer.add_zero_attn and layer._qkv_same_embed_dim
    return ("attention", {"heads": layer.num_heads, "dropout": layer.dropout}, _own(layer)) if plain else None


_LAYERS: dict[str, Callable[[Any], Layer | None]] = {
    "Linear": _linear,
    "NonDynamicallyQuantizableLinear": _linear,
    "Embedding": _embedding,
    "LayerNorm": _layer_norm,
    "RMSNorm": _rms_norm,
    "GroupNorm": _group_norm,
    "Dropout": _dropout,
    **{f"Conv{places}d": _convolution for places in PLACES},
    **{f"BatchNorm{places}d": _batch_norm for places in PLACES},
    **{f"InstanceNorm{places}d": _instance_norm for places in PLACES},
    **{f"Dropout{places}d": _dropout for places in PLACES},
    **{f"MaxPool{places}d": _max_pool(places) for places in PLACES},
    **{f"AvgPool{places}d": _avg_pool(places) for places in PLACES},
    **{f"AdaptiveAvgPool{places}d": _adaptive("avg", places) for places in PLACES},
    **{f"AdaptiveMaxPool{places}d": _adaptive("max", places) for places in PLACES},
    "Identity": _plain("identity"),
    "ReLU": _plain("relu"),
    "ReLU6": _plain("relu6"),
    "LeakyReLU": _plain("leaky_relu", negative_slope="negative_slope"),
    "ELU": _elu,
    "GELU": _plain("gelu", approximate="approximate"),
    "SiLU": _plain("silu"),
    "Sigmoid": _plain("sigmoid"),
    "Tanh": _plain("tanh"),
    "Hardswish": _plain("hardswish"),
    "Hardsigmoid": _plain("hardsigmoid"),
    "PReLU": _prelu,
    "Flatten": _flatten,
    "MultiheadAttention": _attention,
}


def layer_of(layer: Any) -> Layer | None:
    """What stands for a layer: only for `torch.nn`'s own classes, since a subclass may compute something else."""
    home = type(layer).__module__
    if not home.startswith("torch."):
        return None if _hooked(layer) else _stochastic_depth(layer) or norm_by_hand(layer)
    if not home.startswith("torch.nn.modules") or getattr(layer, "parametrizations", None) or _hooked(layer):
        return None
    convert = _LAYERS.get(type(layer).__name__)
    return convert(layer) if convert else None


def _stochastic_depth(layer: Any) -> Layer | None:
    """Stochastic depth, which people write themselves: found by what it does to an example."""
    import torch

    from graphs.kinds import KINDS

    if vars(layer)["_modules"] or vars(layer)["_parameters"] or vars(layer)["_buffers"]:
        return None
    rates = {
        rate for value in vars(layer).values() if type(value) is float and 0 < value < 1 for rate in (value, 1 - value)
    }
    own, x = layer.__dict__["training"], torch.linspace(1, 2, 96).reshape(32, 3)
    found = []
    with torch.random.fork_rng(devices=[]):
        try:
            for training in (False, True) if rates else ():
                layer.__dict__["training"] = training
                torch.default_generator.manual_seed(0)
                found.append(layer.forward(x))
        except Exception:
            return None
        finally:
            layer.__dict__["training"] = own
        if not found or found[0] is not x or not isinstance(found[1], torch.Tensor) or found[1].shape != x.shape:
            return None
        for settings in ({"p": p, "mode": mode} for p in sorted(rates) for mode in ("row", "below", "above")):
            torch.default_generator.manual_seed(0)
            made = KINDS["stochastic_depth"].compute(settings, [x], {}, True)  # type: ignore[misc]
            if torch.allclose(found[1], made, rtol=1e-6, atol=0):
                return "stochastic_depth", settings, {}
    return None


def _hooked(layer: Any) -> bool:
    return bool(layer._forward_hooks or layer._forward_pre_hooks)


def in_mode(found: Layer, training: bool) -> Layer | None:
    """What stands for a layer that is always in one mode, whatever that of the module is; None if nothing does."""
    kind, settings, own = found
    change = _IN_TRAINING if training else _IN_EVAL
    return change[kind](kind, settings, own) if kind in change else found


def _call_always(kind: str, settings: dict[str, Any], own: dict[str, str]) -> Layer | None:
    return f"functional.{kind}", settings, own


def _dropless(kind: str, settings: dict[str, Any], own: dict[str, str]) -> Layer | None:
    return kind, settings | {"dropout": 0.0}, own


_DROPS = ("dropout", *(f"dropout{places}d" for places in PLACES))

_IN_EVAL: dict[str, Callable[..., Layer | None]] = {
    "batch_norm": lambda kind, settings, own: ("frozen_batch_norm", settings, own),
    **dict.fromkeys((*_DROPS, "stochastic_depth"), lambda kind, settings, own: ("identity", {}, {})),
    "attention": _dropless,
}

_IN_TRAINING: dict[str, Callable[..., Layer | None]] = {
    **dict.fromkeys(("batch_norm", "stochastic_depth"), lambda kind, settings, own: None),
    **dict.fromkeys(_DROPS, _call_always),
    "attention": lambda kind, settings, own: None if settings["dropout"] else (kind, settings, own),
}
"""Layers that know the mode: what they are where they are always in the one, or in the other."""
