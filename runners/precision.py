"""Whether a device is there, and which arithmetic is fast on it: bfloat16 where it has units for that, else float32."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch

from runners.settings_errors import SettingsError

__all__ = ["BFLOAT16_UNITS", "check_device", "fastest_precision"]

BFLOAT16_UNITS = ("amx_bf16", "avx512_bf16")
"""Names, in `torch.cpu.get_capabilities()`, of the processor's units for which bfloat16 is chosen.

With either, a training step of the networks of `benchmarks/training_speed.py` is faster than in float32; with AVX2
alone bfloat16 is emulated, and an order of magnitude slower.
"""


def check_device(device: str) -> None:
    """Passes where it is possible to compute on `device`, here.

    Raises:
        SettingsError: It is none of `cpu`, `cuda` and `cuda:N`, or there is no such GPU.
    """
    kind, colon, number = device.partition(":")
    if kind not in ("cpu", "cuda") or (colon and (kind == "cpu" or not number.isdecimal())):
        raise SettingsError(f"device: expected cpu, cuda or cuda:N, got '{device}'")
    if kind == "cuda" and not torch.cuda.is_available():
        raise SettingsError(f"device: {device} is asked for, and torch finds no GPU on this machine; take cpu")
    if number and int(number) >= torch.cuda.device_count():
        raise SettingsError(f"device: {device} is asked for, and this machine has {torch.cuda.device_count()} GPUs")


def fastest_precision(
    device: str = "cpu", capabilities: Mapping[str, Any] | None = None
) -> Literal["float32", "bfloat16"]:
    """The precision to train with on `device`, found by asking the device.

    A GPU of another machine, where this one has none, is taken for a recent one, which has units for bfloat16.

    Args:
        device: `cpu`, `cuda` or `cuda:N`.
        capabilities: What a processor can do, as `torch.cpu.get_capabilities()` tells it; by default this one's.

    >>> fastest_precision("cpu", {"avx2": True, "amx_bf16": True})
    'bfloat16'
    >>> fastest_precision("cpu", {"avx2": True, "avx512_f": True, "avx512_bf16": False})
    'float32'
    """
    if torch.device(device).type == "cuda":
        if not torch.cuda.is_available():
            return "bfloat16"
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    if capabilities is None:
        ask = getattr(torch.cpu, "get_capabilities", dict)  # an older torch can't say: then nothing is assumed
        capabilities = ask()
    return "bfloat16" if any(capabilities.get(unit, False) for unit in BFLOAT16_UNITS) else "float32"
