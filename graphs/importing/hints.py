"""What is asked while a trace runs, and a stand-in cannot answer, though it is known or does not matter."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

__all__ = ["causal_unasked", "limits_known"]


@contextlib.contextmanager
def causal_unasked() -> Iterator[None]:
    """Within, encoders and decoders do not look whether the numbers of a mask that they are given are a causal one's.

    They tell their attention, which may then compute faster; the mask is what counts.
    """
    from torch.nn.modules import transformer

    name, module = "_detect_is_causal_mask", vars(transformer)
    detect = module.get(name)

    def hint(mask: Any, is_causal: bool | None = None, size: int | None = None) -> bool:
        return is_causal is True

    if detect is not None:
        module[name] = hint
    try:
        yield
    finally:
        if detect is not None:
            module[name] = detect


@contextlib.contextmanager
def limits_known(dtype_of: Callable[[Any], Any]) -> Iterator[None]:
    """Within, `torch.finfo(x.dtype)` knows the type that is asked for.

    Args:
        dtype_of: The type that a stand-in stands for; None for what is none.
    """
    import torch

    plain = torch.finfo

    def limits(dtype: Any = None) -> Any:
        given = torch.get_default_dtype() if dtype is None else dtype
        return plain(dtype_of(given) or given)

    torch.finfo = limits  # type: ignore[assignment, misc]
    try:
        yield
    finally:
        torch.finfo = plain  # type: ignore[misc]
