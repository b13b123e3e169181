"""Which arithmetic is fast on a device: bfloat16 where there are units made for it, else float32."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch

__all__ = ["BFLOAT16_UNITS", "fastest_precision"]

BFLOAT16_UNITS = ("amx_bf16",)
"""Names, in `torch.cpu.get_capabilities()`, of the processor's units for which bfloat16 is chosen.

Instructions that multiply bfloat16 vectors (`avx512_bf16`) without matrix units are not among them.
"""


def fastest_precision(
    device: str = "cpu", capabilities: Mapping[str, Any] | None = None
) -> Literal["float32", "bfloat16"]:
    """The precision to train with on `device`, found by asking the device.

    Args:
        device: `cpu`, `cuda` or `cuda:N`.
        capabilities: What a processor can do, as `torch.cpu.get_capabilities()` tells it; by default this one's.

    >>> fastest_precision("cpu", {"avx2": True, "amx_bf16": True})
    'bfloat16'
    >>> fastest_precision("cpu", {"avx2": True, "avx512_bf16": True})
    'float32'
    """
    if torch.device(device).type == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    if capabilities is None:
        ask = getattr(torch.cpu, "get_capabilities", dict)  # an older torch can't say: then nothing is assumed
        capabilities = ask()
    return "bfloat16" if any(capabilities.get(unit, False) for unit in BFLOAT16_UNITS) else "float32"
