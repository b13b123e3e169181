"""Images without labels, from which a student learns what its teacher says of them.

NetworkCompress, one of the founding systems, taught from 50,000 images of CIFAR-10 and 15,770 further ones. Labels of a
transfer set are not looked at; an image that validates or tests is left out of it, whatever set it comes from.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from runners import npz
from runners.arrays import DataError, checked_images
from runners.datasets import load

if TYPE_CHECKING:
    from torch import Tensor

    from runners.task import Split, Task

__all__ = ["transfer_images", "widened"]


def transfer_images(name: str, task: Task, digest: str | None = None) -> tuple[Tensor, str]:
    """The images `(N, C, H, W)` of uint8 that are called `name`, and the SHA-256 of all of them.

    Args:
        name: Key of `runners.datasets.DATASETS`, whose training images are taken, or the path of an `.npz` file with
            the array `x_train`.
        task: Whose validation and test images are left out, and in whose folder a named set is looked for.
        digest: What the SHA-256 must be.

    Raises:
        UnknownName: There is no data set of that name.
        DataError: Its files are missing, damaged, changed, or its images have another form than the task's.
    """
    import torch

    found, where, got = _read(name, task.spec.get("root"))
    if digest is not None and got != digest:
        raise DataError(
            f"transfer set '{name}' has changed: its images have the SHA-256 {got[:12]}…, expected {digest[:12]}…; "
            "put the earlier files back, or start anew"
        )
    if found.shape[1:] != task.input_shape:
        raise DataError(
            f"{where}: images of the transfer set have the shape {found.shape[1:]}, but those of {task.name} "
            f"{task.input_shape} (channels, height, width)"
        )
    apart = {_bytes(image) for split in (task.validation, task.test) for image in split.images.numpy()}
    rows = [row for row, image in enumerate(found) if _bytes(image) not in apart]
    if not rows:
        raise DataError(f"{where}: every image of the transfer set validates or tests; name other images")
    return torch.from_numpy(found[rows]), got


def widened(split: Split, images: Tensor) -> Split:
    """A split with further examples, which have no labels."""
    import torch

    from runners.objectives import UNLABELLED
    from runners.task import Split

    nothing = torch.full((len(images),), UNLABELLED, dtype=split.labels.dtype)
    others = {name: torch.cat([labels, nothing]) for name, labels in split.others.items()}
    return Split(torch.cat([split.images, images]), torch.cat([split.labels, nothing]), others)


@lru_cache(maxsize=1)
def _read(name: str, root: str | None) -> tuple[np.ndarray, str, str]:
    if name.endswith(".npz"):
        path = Path(name).expanduser().resolve()
        given, where = npz.read(path, ("x_train",)), str(path)
    else:
        given, where = load(name, None if root is None else Path(root))
    images = checked_images(given["x_train"], "x_train", where)
    return images, where, hashlib.sha256(str(images.shape).encode() + images.tobytes()).hexdigest()


def _bytes(image: np.ndarray) -> bytes:
    return hashlib.blake2b(np.ascontiguousarray(image).data, digest_size=16).digest()
