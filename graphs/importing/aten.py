"""The calls that `torch.export` records, under the names and with the arguments that people call them by.

It records functions of aten, most of which have a public function of their name and with the same arguments. What the
others are called outside of torch is said by a literal table, so that a network's file names public functions alone.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any

from graphs.importing.stand_ins import Decline

__all__ = ["home_of", "public"]

_Call = tuple[str, list[Any], dict[str, Any]]
_Converter = Callable[[list[Any], dict[str, Any]], _Call]


def home_of(name: str) -> str:
    """Where people call a function of aten that works on no tensor in place, such as `torch.flatten`."""
    import torch

    for prefix in ("linalg", "fft", "special"):
        if name.startswith(f"{prefix}_"):
            return f"{prefix}.{name.removeprefix(f'{prefix}_')}"
    homes = {"torch": torch, "functional": torch.nn.functional, "method": torch.Tensor}
    return f"{next((home for home, where in homes.items() if hasattr(where, name)), 'aten')}.{name}"


def public(name: str, arguments: list[Any], keywords: Mapping[str, Any]) -> _Call | None:
    """The public call that does what a call of aten does; None where its name and its arguments are public already."""
    found = _PUBLIC.get(name)
    if found is None:
        return None
    try:
        return (found, arguments, dict(keywords)) if isinstance(found, str) else found(arguments, dict(keywords))
    except (Decline, TypeError):
        return None


def _index(arguments: list[Any], keywords: dict[str, Any]) -> _Call:
    """`x[:, index]`, whose axes that are taken whole are None in aten."""
    value, places = arguments
    items = tuple(slice(None) if each is None else each for each in places)
    return "operator.getitem", [value, items[0] if len(items) == 1 else items], keywords


def _sliced(arguments: list[Any], keywords: dict[str, Any]) -> _Call:
    """`x[:, start:stop]`, whose ends stand apart from the axis in aten, and may be the largest number there is."""
    given = dict(zip(("value", "dim", "start", "end", "step"), arguments, strict=False)) | keywords
    axis, start, end = given.get("dim", 0), given.get("start") or None, given.get("end")
    each = slice(start, None if end == sys.maxsize else end, None if given.get("step") == 1 else given.get("step"))
    before = (slice(None),) * axis if axis >= 0 else (Ellipsis,)
    return "operator.getitem", [given["value"], (*before, each, *(slice(None),) * (-axis - 1))], {}


def _typed(arguments: list[Any], keywords: dict[str, Any]) -> _Call:
    """`x.to(type)`: where a tensor is, a network does not say."""
    import torch

    types = [each for each in (*arguments[1:], *keywords.values()) if isinstance(each, torch.dtype)]
    return "method.to", [arguments[0], *types], {}


def _interpolated(mode: str, aligns: bool = False, smooth: bool = False) -> _Converter:
    def convert(arguments: list[Any], keywords: dict[str, Any]) -> _Call:
        value, size, *rest = arguments
        more = {"align_corners": rest[0]} if aligns else {}
        more |= {"antialias": True} if smooth else {}
        scales = [each for each in rest[aligns:] if each is not None]
        if len(scales) > 1 or keywords or (size is None) == (not scales):
            raise Decline
        how = {"scale_factor": scales[0]} if scales else {"size": size}
        return "functional.interpolate", [value], {**how, "mode": mode, **more}

    return convert


def _spread(arguments: list[Any], keywords: dict[str, Any]) -> _Call:
    return "torch.broadcast_tensors", list(arguments[0]), keywords


_REDUCTIONS = ("none", "mean", "sum")


def _loss(name: str, places: int) -> _Converter:
    """A loss: how it is reduced is a number in aten, and one of the arguments behind its first ones."""

    def convert(arguments: list[Any], keywords: dict[str, Any]) -> _Call:
        operands, rest = arguments[:places], arguments[places:]
        if len(rest) > 1:
            raise Decline
        reduction = rest[0] if rest else keywords.pop("reduction", 1)
        return f"functional.{name}", operands, {**keywords, "reduction": _REDUCTIONS[reduction]}

    return convert


_PUBLIC: dict[str, str | _Converter] = {
    "__and__": "operator.and_",
    "__or__": "operator.or_",
    "__xor__": "operator.xor",
    "adaptive_max_pool2d": "functional.adaptive_max_pool2d_with_indices",
    "adaptive_max_pool3d": "functional.adaptive_max_pool3d_with_indices",
    "broadcast_tensors": _spread,
    "col2im": "functional.fold",
    "im2col": "functional.unfold",
    "index": _index,
    "log_sigmoid": "functional.logsigmoid",
    "matrix_H": "torch.adjoint",
    "mH": "torch.adjoint",
    "numpy_T": "torch.t",
    "slice": _sliced,
    "split_with_sizes": "torch.split",
    "to": _typed,
    "unfold": "method.unfold",
    "_upsample_bicubic2d_aa": _interpolated("bicubic", aligns=True, smooth=True),
    "_upsample_bilinear2d_aa": _interpolated("bilinear", aligns=True, smooth=True),
    "upsample_bicubic2d": _interpolated("bicubic", aligns=True),
    "upsample_bilinear2d": _interpolated("bilinear", aligns=True),
    "upsample_linear1d": _interpolated("linear", aligns=True),
    "upsample_nearest1d": _interpolated("nearest"),
    "upsample_nearest2d": _interpolated("nearest"),
    "upsample_nearest3d": _interpolated("nearest"),
    "upsample_trilinear3d": _interpolated("trilinear", aligns=True),
    "binary_cross_entropy": _loss("binary_cross_entropy", 3),
    "huber_loss": _loss("huber_loss", 2),
    "l1_loss": _loss("l1_loss", 2),
    "mse_loss": _loss("mse_loss", 2),
    "smooth_l1_loss": _loss("smooth_l1_loss", 2),
    "soft_margin_loss": _loss("soft_margin_loss", 2),
}
"""Functions of aten that are called otherwise outside of torch: the name of a function that takes the same arguments,
or what makes the arguments those that it takes."""
