"""The layers of `torch.nn` that have a kind of their own.

For each class, how one of its instances becomes `(kind, settings, names of its tensors by role)`; None where this
instance does something that the kind does not, and its forward pass is traced through instead.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

__all__ = ["Layer", "layer_of"]

Layer = tuple[str, dict[str, Any], dict[str, str]]


def _convolution(layer: Any) -> Layer | None:
    if layer.padding_mode != "zeros" or isinstance(layer.padding, str):
        return None
    names = ("kernel_size", "stride", "padding", "dilation")
    kernel, stride, padding, dilation = (tuple(getattr(layer, name)) for name in names)
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
    if not layer.affine or not layer.track_running_stats or layer.momentum is None:
        return None
    return "batch_norm", {"eps": layer.eps, "momentum": layer.momentum}, _own(layer)


def _layer_norm(layer: Any) -> Layer | None:
    own = _own(layer)
    return ("layer_norm", {"axes": len(layer.normalized_shape), "eps": layer.eps}, own) if len(own) == 2 else None


def _rms_norm(layer: Any) -> Layer | None:
    own = _own(layer)
    return ("rms_norm", {"axes": len(layer.normalized_shape), "eps": layer.eps}, own) if own else None


def _group_norm(layer: Any) -> Layer | None:
    if not layer.affine:
        return None
    return "group_norm", {"groups": layer.num_groups, "eps": layer.eps}, _own(layer)


def _own(layer: Any) -> dict[str, str]:
    """The names of a layer's tensors, none of which is asked for: a trace would note that."""
    if layer._modules:
        return {name: name for name, _ in [*layer.named_parameters(), *layer.named_buffers()]}
    held = [*layer._parameters.items(), *layer._buffers.items()]
    return {name: name for name, tensor in held if tensor is not None}


def _dropout(layer: Any) -> Layer | None:
    return "dropout", {"p": layer.p}, {}


def _dropout2d(layer: Any) -> Layer | None:
    return "dropout2d", {"p": layer.p}, {}


def _plain(kind: str, **names: str) -> Callable[[Any], Layer | None]:
    """A layer without tensors; for each setting, the layer's attribute."""
    return lambda layer: (kind, {setting: getattr(layer, name) for setting, name in names.items()}, {})


def _elu(layer: Any) -> Layer | None:
    return ("elu", {}, {}) if layer.alpha == 1 else None


def _prelu(layer: Any) -> Layer | None:
    return "prelu", {"per_channel": layer.num_parameters > 1}, _own(layer)


def _flatten(layer: Any) -> Layer | None:
    return ("flatten", {}, {}) if (layer.start_dim, layer.end_dim) == (1, -1) else None


def _two(value: Any) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else tuple(value)


def _max_pool(layer: Any) -> Layer | None:
    if layer.return_indices:
        return None
    settings = {"kernel": _two(layer.kernel_size), "stride": _two(layer.stride), "padding": _two(layer.padding)}
    return "max_pool2d", settings | {"dilation": _two(layer.dilation), "ceil": layer.ceil_mode}, {}


def _avg_pool(layer: Any) -> Layer | None:
    if not layer.count_include_pad or layer.divisor_override is not None:
        return None
    settings = {"kernel": _two(layer.kernel_size), "stride": _two(layer.stride), "padding": _two(layer.padding)}
    return "avg_pool2d", settings | {"ceil": layer.ceil_mode}, {}


def _adaptive(kind: str) -> Callable[[Any], Layer | None]:
    def convert(layer: Any) -> Layer | None:
        size = layer.output_size
        if getattr(layer, "return_indices", False) or size is None or None in (size if isinstance(size, tuple) else ()):
            return None
        return kind, {"size": _two(size)}, {}

    return convert


def _attention(layer: Any) -> Layer | None:
    plain = layer.batch_first and layer.bias_k is None and not layer.add_zero_attn and layer._qkv_same_embed_dim
    return ("attention", {"heads": layer.num_heads, "dropout": layer.dropout}, _own(layer)) if plain else None


_LAYERS: dict[str, Callable[[Any], Layer | None]] = {
    "Conv1d": _convolution,
    "Conv2d": _convolution,
    "Conv3d": _convolution,
    "Linear": _linear,
    "NonDynamicallyQuantizableLinear": _linear,
    "Embedding": _embedding,
    "BatchNorm1d": _batch_norm,
    "BatchNorm2d": _batch_norm,
    "BatchNorm3d": _batch_norm,
    "LayerNorm": _layer_norm,
    "RMSNorm": _rms_norm,
    "GroupNorm": _group_norm,
    "Dropout": _dropout,
    "Dropout2d": _dropout2d,
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
    "MaxPool2d": _max_pool,
    "AvgPool2d": _avg_pool,
    "AdaptiveAvgPool2d": _adaptive("adaptive_avg_pool2d"),
    "AdaptiveMaxPool2d": _adaptive("adaptive_max_pool2d"),
    "MultiheadAttention": _attention,
}


def layer_of(layer: Any) -> Layer | None:
    """What stands for a layer: only for `torch.nn`'s own classes, since a subclass may compute something else."""
    home = type(layer).__module__
    if not home.startswith("torch.nn.modules") or getattr(layer, "parametrizations", None) or _hooked(layer):
        return None
    convert = _LAYERS.get(type(layer).__name__)
    return convert(layer) if convert else None


def _hooked(layer: Any) -> bool:
    return bool(layer._forward_hooks or layer._forward_pre_hooks)
