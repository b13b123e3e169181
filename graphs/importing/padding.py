"""The padding of a convolution where it has a name instead of numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from graphs.importing.stand_ins import Decline

__all__ = ["padding_of"]


def padding_of(padding: Any, kernel: Sequence[int], dilation: Sequence[int]) -> Any:
    """A convolution's padding as numbers, where it may be named `same` or `valid`.

    Raises:
        Decline: It is another one before the map than behind it, as `same` is for even kernels.
    """
    if not isinstance(padding, str):
        return padding
    reach = [wide * (size - 1) * (padding == "same") for size, wide in zip(kernel, dilation, strict=True)]
    if padding not in ("same", "valid") or any(each % 2 for each in reach):
        raise Decline
    return tuple(each // 2 for each in reach)
