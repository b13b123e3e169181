"""What layers of torch find out about numbers for speed alone, and a trace cannot know."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

__all__ = ["causal_unasked"]


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
