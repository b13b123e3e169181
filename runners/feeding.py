"""Batches of a split that lies on the device, or on the disk: gathered, augmented and normalised as whole tensors."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from runners.augmentation import augment, cut_out
from runners.task import Split, Task

__all__ = ["Feed", "shuffled"]


class Feed:
    """A split on a device.

    Args:
        task: Whose normalisation is used.
        split: The examples.
        device: Where they are kept, as uint8. Of those that are mapped only a batch at a time is sent there.
        memory_format: Of the batches.
    """

    def __init__(self, task: Task, split: Split, device: str, memory_format: torch.memory_format) -> None:
        self._images = split.images if split.mapped else split.images.to(device)
        self._labels = split.labels.to(device)
        self._others = {name: labels.to(device) for name, labels in split.others.items()}
        if task.normalisation:
            self._scale, self._shift = task.scale_and_shift(device)
        self._format = memory_format

    def __len__(self) -> int:
        return len(self._labels)

    @property
    def labels(self) -> Tensor:
        """Of all examples."""
        return self._labels

    @property
    def device(self) -> torch.device:
        """Where the examples are."""
        return self._labels.device

    def labels_of(self, head: str) -> Tensor:
        """Of all examples, `(N,)`, for a head with that name: of its label set, or the main ones."""
        return self._others.get(head, self._labels)

    def take(
        self, rows: Tensor, flip: bool, crop: int, generator: torch.Generator, cutout: int = 0
    ) -> tuple[Tensor, Tensor]:
        """Augmented and normalised images `(N, C, H, W)` of float32, and labels, of the examples at `rows`."""
        images = self._images.index_select(0, rows.to(self._images.device)).to(self.device)
        images = augment(images, flip, crop, generator)
        images = self._normalised(images)
        if cutout:
            images = cut_out(images, cutout, generator)
        return images, self._labels.index_select(0, rows.to(self.device))

    def batches(self, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """All examples in their order, as they are but normalised, at most `size` at a time."""
        for start in range(0, len(self), size):
            yield (
                self._normalised(self._images[start : start + size].to(self.device)),
                self._labels[start : start + size],
            )

    def _normalised(self, images: Tensor) -> Tensor:
        if images.dtype != torch.uint8:
            return images
        return images.to(torch.float32, memory_format=self._format).mul_(self._scale).sub_(self._shift)


def shuffled(count: int, size: int, generator: torch.Generator) -> tuple[Tensor, ...]:
    """The numbers from 0 to `count`-1 in a random order, in parts whose lengths differ by one at most.

    No part is longer than `size`, unless a part of a single number, which batch norm refuses, would be left.
    """
    parts = max(1, min(-(-count // size), count // 2))
    return torch.randperm(count, generator=generator).tensor_split(parts)
