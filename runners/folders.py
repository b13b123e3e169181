"""Images in class folders: which files there are, which class each belongs to, and which split.

The layout is that of torchvision's ImageFolder: one folder for each class, named like it, with its images anywhere
below. Where a folder with the name of a split (`NAMES`) holds such folders, all folders beside it are splits, too,
and are taken as they are. What is missing is cut from the training images: a fifth of each class to test, then a part
to validate, by a draw that depends on the number of images of each class alone.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from runners.arrays import DataError
from runners.splits import stratified, validation_size

__all__ = ["SUFFIXES", "Image", "Listing", "scan"]

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")
"""How the names of images end."""

NAMES: Mapping[str, tuple[str, ...]] = {
    "train": ("train", "training"),
    "validation": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing", "eval"),
}
"""What the folder of a split is called, in any case."""

LEFT_BY_SYSTEMS = frozenset({"desktop.ini", "ehthumbs.db", "thumbs.db"})
"""Files that Windows leaves in folders, in small letters; other systems begin the names of theirs with a dot."""

SEED = 0
"""Of the draws that cut the training images."""


@dataclass(frozen=True, slots=True)
class Image:
    """One file.

    Attributes:
        path: Below the folder.
        label: Number of its class.
        stamp: Size in bytes, and when its contents and its entry last changed, in nanoseconds.
    """

    path: str
    label: int
    stamp: tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Listing:
    """All images of a folder.

    Attributes:
        root: The folder.
        labels: Names of the classes, in alphabetical order.
        images: Of each split, in alphabetical order.
    """

    root: Path
    labels: tuple[str, ...]
    images: Mapping[str, tuple[Image, ...]]


def scan(root: Path, limit: int | None = None) -> Listing:
    """The images below `root`.

    Args:
        root: The folder.
        limit: Take at most this many training images, and as many for validation, evenly over the classes.

    Raises:
        DataError: A file is no image by its name, a class has no images or too few, there are no classes, or which
            folders are splits is not clear.
    """
    places = _places(root)
    labels = _labels(places["train"])
    images = {split: _of_split(root, place, labels) for split, place in places.items()}
    classes = np.array([image.label for image in images["train"]])
    order = stratified(classes, SEED)
    parts: dict[str, NDArray[np.int64]] = {}
    if "test" not in images:
        count = max(1, len(order) // 5)
        parts["test"], order = order[:count], order[count:]
    if "validation" not in images:
        count = validation_size(len(order))
        parts["validation"], order = order[:count], order[count:]
    _enough(places["train"], labels, classes, classes[order])
    parts["train"] = order
    if limit is not None and limit < len(labels):
        raise DataError(
            f"a limit of {limit} training images is too low for the {len(labels)} classes of {root}; "
            f"expected {len(labels)} or more"
        )
    for split in ("train", "validation"):
        if split not in parts:
            parts[split] = stratified(np.array([image.label for image in images[split]]), SEED)
        parts[split] = parts[split][:limit]
    whole = images["train"]
    chosen = {
        split: tuple(images.get(split, whole)[row] for row in np.sort(rows).tolist()) for split, rows in parts.items()
    }
    return Listing(root, labels, {"test": images.get("test", ()), **chosen})


def _places(root: Path) -> dict[str, Path]:
    """The folder of each split that is there; `root` is that of the training images where no folder is a split's."""
    if not root.is_dir():
        raise DataError(f"{root}: there is no such folder; name one that holds a folder of images for each class")
    split_of = {name: split for split, names in NAMES.items() for name in names}
    known = ", ".join(split_of)
    names = sorted(_folders(root))
    divided = [name for name in names if name.lower() in split_of and _folders(root / name)]
    if not divided:
        return {"train": root}
    places: dict[str, Path] = {}
    for name in names:
        split = split_of.get(name.lower())
        if split is None:
            raise DataError(
                f"{root / name}: not the name of a split ({known}), beside {divided[0]}, which is one by its name and "
                f"its folders; move {name} elsewhere, or rename {divided[0]} if it is a class"
            )
        if split in places:
            raise DataError(
                f"{root}: {places[split].name} and {name} are both the {split} split by their names; keep one of them"
            )
        places[split] = root / name
    if "train" not in places:
        raise DataError(
            f"{root}: {divided[0]} is a split by its name and its folders, but there is no training split beside it; "
            f"add a folder train, or rename {divided[0]} if it is a class"
        )
    return places


def _labels(place: Path) -> tuple[str, ...]:
    """The names of the classes whose folders are in `place`."""
    labels = sorted(_folders(place))
    if len(labels) < 2:
        raise DataError(
            f"{place}: holds {len(labels)} folders, expected two or more, one for each class with its images in it"
        )
    strays = [name for name in os.listdir(place) if name.lower().endswith(SUFFIXES) and name not in labels]
    if strays:
        raise DataError(f"{place / min(strays)}: an image outside of the class folders; put it into one, or elsewhere")
    for label in labels:
        if not label.isprintable():
            raise DataError(f"{place}: the folder {label!a} bears no name that can be printed; rename it")
    return tuple(labels)


def _of_split(root: Path, place: Path, labels: tuple[str, ...]) -> tuple[Image, ...]:
    """The images of one split."""
    found = []
    for name in sorted(_folders(place)):
        if name not in labels:
            raise DataError(
                f"{place / name}: there is no class of that name among the training images; "
                f"known are {', '.join(labels[:8])}{' …' if len(labels) > 8 else ''}"
            )
        files = _files(place / name)
        if not files:
            raise DataError(f"{place / name}: a class without images; put some into it, or remove the folder")
        label = labels.index(name)
        found += [Image(os.path.relpath(path, root), label, stamp) for path, stamp in files]
    if not found:
        raise DataError(f"{place}: there are no images in it; put some into class folders there, or remove the folder")
    return tuple(found)


def _files(folder: Path) -> list[tuple[str, tuple[int, int, int]]]:
    """The images anywhere below `folder`, with their stamps; what systems leave there is left alone."""
    found = []
    for place, below, names in os.walk(folder, onerror=_raise):
        below[:] = sorted(name for name in below if not name.startswith("."))
        for name in sorted(names):
            path = os.path.join(place, name)
            if name.startswith(".") or name.lower() in LEFT_BY_SYSTEMS:
                continue
            if not name.lower().endswith(SUFFIXES):
                raise DataError(
                    f"{path}: no image by its name, which ends in none of {', '.join(SUFFIXES)}; "
                    "take it out of the class folders"
                )
            try:
                about = os.stat(path)
            except OSError as error:
                _raise(error)
            if not stat.S_ISREG(about.st_mode):  # what a pipe or a device holds never ends, or never comes
                raise DataError(f"{path}: a pipe, a socket or a device, and no file; take it out of the class folders")
            found.append((path, (about.st_size, about.st_mtime_ns, about.st_ctime_ns)))
    return found


def _folders(place: Path) -> list[str]:
    try:
        with os.scandir(place) as entries:
            return [entry.name for entry in entries if entry.is_dir() and not entry.name.startswith(".")]
    except OSError as error:
        _raise(error)


def _raise(error: OSError) -> NoReturn:
    raise DataError(f"{error.filename}: cannot be read: {error.strerror}; check its permissions") from None


def _enough(place: Path, labels: tuple[str, ...], given: Any, left: Any) -> None:
    """Checks that every class has an image left to learn from, and had another where some were set apart."""
    for label, count in enumerate(np.bincount(left, minlength=len(labels))):
        there = int((given == label).sum())
        if not count or (there < 2 and len(given) > len(left)):
            raise DataError(
                f"{place / labels[label]}: {there} images are too few to learn from, validate and test with; "
                "add some, or make the splits yourself, as folders train, val and test"
            )
