"""A folder of images as a file of pixels, decoded once: `decoded`.

The file lies in a cache, `hydra-evolve/images` below `$XDG_CACHE_HOME` or `~/.cache`, and is named after all that
determines it: the files with their sizes and times, and the size that they are brought to. So it is made anew when an
image changes, and may be removed at any time. Decoding is Pillow's, an optional extra of this project.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from graphs.durable import TEMPORARY, StorageError, storage_errors
from graphs.errors import MissingExtra
from runners.arrays import DataError
from runners.folders import Image, Listing
from runners.prepared import SPLITS, VERSION, Prepared, read, write

__all__ = ["Progress", "cache", "decoded"]

Progress = Callable[[int, int], None]
"""What is called with how many images are decoded, and how many there are."""

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
"""What Pillow may take a file for: formats that are pixels alone."""

TOGETHER = 64
"""Images that are decoded before they are written."""


def cache() -> Path:
    """The folder of the files of pixels."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home).expanduser() / "hydra-evolve" / "images"


def decoded(listing: Listing, size: int | None, report: Progress | None = None) -> Prepared:
    """The images of a folder as `(N, 3, H, W)` of uint8, mapped into memory; decoded unless that was done before.

    Args:
        listing: The files.
        size: Height and width to which each image is scaled and, where its sides differ, cut around its centre. None
            takes them as they are, if all are equal.
        report: Called after every few images, where there are any to decode.

    Raises:
        DataError: A file is no image, is damaged, or of another size than the first one where no size is given.
        MissingExtra: Pillow is not installed.
        StorageFull: The cache's disk is full.
        StorageError: The cache cannot be written.
    """
    key = [VERSION, size, listing.labels, [[listing.images[split], split] for split in SPLITS]]
    text = json.dumps(key, default=lambda image: [image.path, image.label, image.stamp])
    path = cache() / f"{hashlib.sha256(text.encode()).hexdigest()}.safetensors"
    if not path.exists():
        try:
            _make(path, listing, size, report)
        except StorageError as error:
            error.add_note("name another place for decoded images with XDG_CACHE_HOME=DIR")
            raise
    return read(path)


def _make(path: Path, listing: Listing, size: int | None, report: Progress | None) -> None:
    """Decodes into the file at `path`; of several processes that want it, one does so while the others wait."""
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = open(path.with_suffix(".lock"), "w")
    with lock:
        with storage_errors(path):
            fcntl.flock(lock, fcntl.LOCK_EX)
            if path.exists():
                return
            for left in path.parent.glob(f".{path.name}.*{TEMPORARY}"):  # by a process that was killed
                left.unlink()
        targets = {split: torch.tensor([image.label for image in listing.images[split]]) for split in SPLITS}
        images = [image for split in SPLITS for image in listing.images[split]]
        with warnings.catch_warnings():
            warnings.simplefilter("error", _pillow()[0].DecompressionBombWarning)
            shape = tuple(_decode(listing.root, images[0], size, None).shape)
            parts = _parts(listing.root, images, size, shape, report)
            write(path, {"labels": list(listing.labels)}, targets, shape, torch.uint8, parts)


def _parts(
    root: Path, images: list[Image], size: int | None, shape: tuple[int, ...], report: Progress | None
) -> Iterator[Tensor]:
    """The images in their order, some at a time; several threads decode."""
    workers = min(8, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    with ThreadPoolExecutor(workers) as pool:
        for start in range(0, len(images), TOGETHER):
            some = images[start : start + TOGETHER]
            yield torch.from_numpy(np.stack(list(pool.map(lambda image: _decode(root, image, size, shape), some))))
            if report is not None:
                report(start + len(some), len(images))


def _decode(root: Path, image: Image, size: int | None, expected: tuple[int, ...] | None) -> Any:
    """One image as `(3, H, W)` of uint8.

    Raises:
        DataError: The file is no image, or of another shape than `expected`.
    """
    pillow, ops = _pillow()
    path = root / image.path
    try:
        with pillow.open(path, formats=FORMATS) as opened:
            found = ops.exif_transpose(opened)
            if found.mode.startswith("I;16"):  # of which `convert` keeps the low byte
                found = pillow.fromarray((np.asarray(found) >> 8).astype(np.uint8))
            if found.mode in ("I", "F"):  # whose range nobody says, and `convert` cuts at 255
                raise DataError(f"{path}: its pixels have 32 bits; write it with 8 or 16 bits each, or take it out")
            found = found.convert("RGB")
        if size is not None:
            found = ops.fit(found, (size, size), pillow.Resampling.BICUBIC)
        pixels = np.ascontiguousarray(np.asarray(found).transpose(2, 0, 1))
    except DataError:
        raise
    except Exception as error:  # a damaged file makes Pillow raise nearly anything
        reason = "not an image that can be read" if isinstance(error, pillow.UnidentifiedImageError) else str(error)
        first = reason.split("\n")[0] or type(error).__name__
        raise DataError(f"{path}: broken, or no image: {first}; mend the file, or take it out") from None
    if expected is not None and pixels.shape != expected:
        raise DataError(
            f"{path}: this image is of {pixels.shape[2]}×{pixels.shape[1]} pixels, and the first one of "
            f"{expected[2]}×{expected[1]}; name the size to which all are brought, such as --image-size 64"
        )
    return pixels


def _pillow() -> tuple[Any, Any]:
    """Pillow's modules `Image` and `ImageOps`.

    Raises:
        MissingExtra: It is not installed.
    """
    try:
        from PIL import Image, ImageOps
    except ImportError:
        raise MissingExtra(
            "Pillow, which decodes images, is not installed; install it with: pip install 'hydra-evolve[images]'"
        ) from None
    return Image, ImageOps
