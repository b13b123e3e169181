"""What brings pixels to mean 0 and deviation 1, from exact sums, so that every machine gets the same bits."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["histogram", "moments"]

CHUNK = 1 << 24
"""Bytes looked at in one go: images that are mapped into memory may be more than fit into it."""


def histogram(images: Tensor) -> Tensor:
    """How often each channel has each value: `(C, 256)` of int64, for images `(N, C, H, W)` of uint8."""
    counts = torch.zeros(images.shape[1], 256, dtype=torch.int64)
    step = max(1, CHUNK // images[0].numel())
    for start in range(0, len(images), step):
        for channel, values in enumerate(images[start : start + step].unbind(1)):
            counts[channel] += torch.bincount(values.reshape(-1), minlength=256)
    return counts


def moments(counts: Tensor) -> dict[str, list[float]]:
    """`mean` and `std` of each channel, of pixels scaled to 0 to 1, from a histogram; a constant has the deviation 1.

    >>> moments(torch.eye(256, dtype=torch.int64)[:1] + torch.eye(256, dtype=torch.int64)[255:])
    {'mean': [0.5], 'std': [0.5]}
    """
    mean, std = [], []
    for channel in counts.tolist():
        total = sum(channel)
        first = sum(value * count for value, count in enumerate(channel))
        second = sum(value * value * count for value, count in enumerate(channel))
        variance = (second * total - first * first) / (total * 255) ** 2
        mean.append(first / (total * 255))
        std.append(variance**0.5 or 1.0)
    return {"mean": mean, "std": std}
