"""An image set as it comes from its files: four arrays, checked before anything else sees them."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphs.errors import EvolutionError

__all__ = ["MOST_CHANNELS", "Arrays", "DataError", "checked", "checked_images", "label_sets", "refuse_bomb"]

MOST_CHANNELS = 4
"""More channels than this are taken for a sign that the axes are in another order."""

TWO = 2
"""Fewest training images of a class: one to learn from and one to validate with."""


_FURTHER = re.compile(r"y_(?:train|test)_(.*)", re.DOTALL)
"""Names of the arrays that hold further label sets, with that of the set."""

_NAME = re.compile(r"[a-z][a-z0-9_]*")
"""Names that a label set may have, and so a head that learns it."""

OUTPUTS = re.compile(r"logits|head\d+|output_\d\w*")
"""Names that outputs have by themselves, and no label set may have: an output learns the label set of its name."""

MOST_BYTES = 1 << 36
"""Largest image set that is read, in bytes: it has to fit into memory."""

FREE_BYTES = 1 << 28
"""Up to this size a file may be compressed as much as it likes."""

MOST_RATIO = 100
"""Above `FREE_BYTES`, images are taken to be compressed no more than this many times."""


class DataError(EvolutionError, ValueError):
    """An image set is missing, damaged or not of the expected form; the message says where and what to do."""


@dataclass(frozen=True, slots=True)
class Arrays:
    """Training and test images `(N, C, H, W)` of uint8 with labels `(N,)` of int64, checked by `checked`.

    `others` are further labels of the same images, by the name of their set: of the training and of the test images.
    """

    x_train: NDArray[np.uint8]
    y_train: NDArray[np.int64]
    x_test: NDArray[np.uint8]
    y_test: NDArray[np.int64]
    classes: int
    others: Mapping[str, tuple[NDArray[np.int64], NDArray[np.int64]]] = field(default_factory=dict)

    def others_digest(self) -> str:
        """SHA-256 over the further labels, in hexadecimal."""
        found = hashlib.sha256()
        for name, labels in sorted(self.others.items()):
            found.update(name.encode() + b"".join(np.ascontiguousarray(each).tobytes() for each in labels))
        return found.hexdigest()

    def digest(self) -> str:
        """SHA-256 over shapes and contents, in hexadecimal: equal for the same images however they are stored."""
        found = hashlib.sha256(str(self.classes).encode())
        for array in (self.x_train, self.y_train, self.x_test, self.y_test):
            found.update(str(array.shape).encode())
            found.update(np.ascontiguousarray(array).data)
        return found.hexdigest()


def refuse_bomb(claimed: int, size: int, where: str) -> None:
    """Refuses a file of `size` bytes that claims to hold more than such a file can.

    Raises:
        DataError: `claimed` bytes are too many.
    """
    if claimed > MOST_BYTES or (claimed > FREE_BYTES and claimed > MOST_RATIO * size):
        raise DataError(
            f"{where}: claims {claimed} bytes of images in a file of {size}; expected at most {MOST_BYTES} bytes, and "
            f"{MOST_RATIO} times the file"
        )


def label_sets(arrays: Iterable[str], where: str) -> dict[str, str]:
    """The arrays that hold further labels, by their names, and the label set of each.

    Raises:
        DataError: A label set cannot be called so.
    """
    found = {array: match[1] for array in arrays if (match := _FURTHER.fullmatch(array))}
    for array, name in found.items():
        if not _NAME.fullmatch(name):
            raise DataError(
                f"{where}: the array {array!r} would be the label set {name!r}; expected a name of the letters a to z, "
                "digits and underscores that begins with a letter, such as y_train_coarse; rename the array"
            )
    return found


def checked(given: dict[str, Any], where: str, classes: int | None = None, main: str = "labels") -> Arrays:
    """Checks the four arrays of the Keras layout and brings them to the form of `Arrays`.

    Args:
        given: `x_train`, `y_train`, `x_test`, `y_test`; images uint8 `(N, H, W)` or `(N, H, W, C)`, labels of any
            integer type, `(N,)` or `(N, 1)`; further label sets as `y_train_NAME` and `y_test_NAME`.
        where: Name of the file or data set, for messages.
        classes: Number of classes; None for the highest training label and one.
        main: Name of the label set that `y_train` and `y_test` are.

    Raises:
        DataError: Anything is missing, of the wrong type or size, or out of range.
    """
    images = {split: checked_images(given[f"x_{split}"], f"x_{split}", where) for split in ("train", "test")}
    labels = {split: _labels(given[f"y_{split}"], f"y_{split}", where) for split in ("train", "test")}
    for split in ("train", "test"):
        if len(images[split]) != len(labels[split]):
            raise DataError(
                f"{where}: x_{split} has {len(images[split])} images but y_{split} has {len(labels[split])} labels; "
                "each image needs one label"
            )
    if images["train"].shape[1:] != images["test"].shape[1:]:
        sizes = [tuple(images[split].shape[1:]) for split in ("train", "test")]
        raise DataError(
            f"{where}: images of x_train have the shape {sizes[0]} and those of x_test {sizes[1]} (channels, height, "
            "width); make them equal, for example by resizing"
        )
    found = _classes(labels["train"], where) if classes is None else classes
    for split in ("train", "test"):
        highest = int(labels[split].max())
        if highest >= found:
            row = int(labels[split].argmax())
            raise DataError(
                f"{where}: y_{split}[{row}] is {highest}, but there are {found} classes"
                f"{' in y_train' if classes is None else ''}; expected labels from 0 to {found - 1}"
            )
    names = sorted(set(label_sets(given, where).values()))
    for name in names:
        if name == main or OUTPUTS.fullmatch(name):
            whose = "y_train has itself" if name == main else "networks give outputs by themselves"
            raise DataError(
                f"{where}: y_train_{name} is a label set called '{name}', a name that {whose}, so that nothing "
                "tells which labels are meant; give the arrays another name"
            )
    others = {name: _further(given, name, labels, where) for name in names}
    return Arrays(images["train"], labels["train"], images["test"], labels["test"], found, others)


def _further(
    given: dict[str, Any], name: str, main: Mapping[str, NDArray[np.int64]], where: str
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The further labels called `name` of the training and of the test images."""
    found = []
    for split in ("train", "test"):
        key = f"y_{split}_{name}"
        if key not in given:
            raise DataError(f"{where}: there is no {key}; a label set needs labels of the training and the test images")
        labels = _labels(given[key], key, where)
        if len(labels) != len(main[split]):
            raise DataError(f"{where}: {key} has {len(labels)} labels, but y_{split} {len(main[split])}")
        found.append(labels)
    classes = _classes(found[0], where, f"y_train_{name}")
    if int(found[1].max()) >= classes:
        raise DataError(
            f"{where}: y_test_{name} has a label {int(found[1].max())}, but y_train_{name} {classes} classes"
        )
    return found[0], found[1]


def checked_images(value: Any, name: str, where: str) -> NDArray[np.uint8]:
    """Images in the form `(N, C, H, W)`.

    Raises:
        DataError: They are of another type or form.
    """
    array = np.asarray(value)
    if array.dtype != np.uint8:
        raise DataError(
            f"{where}: {name} is of type {array.dtype}, expected uint8; store the pixels as whole numbers from 0 to 255"
        )
    if array.ndim not in (3, 4):
        raise DataError(
            f"{where}: {name} has the shape {array.shape}, expected (images, height, width) or "
            "(images, height, width, channels)"
        )
    if 0 in array.shape:
        raise DataError(f"{where}: {name} is empty, its shape is {array.shape}; every split needs images")
    if array.ndim == 3:
        return np.ascontiguousarray(array[:, None])
    if array.shape[3] > MOST_CHANNELS:
        raise DataError(
            f"{where}: {name} has the shape {array.shape}, which is {array.shape[3]} channels; expected 1 to "
            f"{MOST_CHANNELS}, in the last axis: (images, height, width, channels)"
        )
    return np.ascontiguousarray(array.transpose(0, 3, 1, 2))


def _labels(value: Any, name: str, where: str) -> NDArray[np.int64]:
    """Labels in the form `(N,)`, none negative."""
    array = np.asarray(value)
    if not np.issubdtype(array.dtype, np.integer):
        raise DataError(
            f"{where}: {name} is of type {array.dtype}, expected whole numbers; store the number of each image's "
            "class, counted from 0"
        )
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1:
        raise DataError(f"{where}: {name} has the shape {array.shape}, expected (images,) or (images, 1)")
    if not array.size:
        raise DataError(f"{where}: {name} is empty; every split needs images")
    lowest, highest = int(array.min()), int(array.max())
    if lowest < 0 or highest > np.iinfo(np.int32).max:
        row = int(array.argmin() if lowest < 0 else array.argmax())
        raise DataError(f"{where}: {name}[{row}] is {int(array[row])}; expected the number of a class, counted from 0")
    return array.astype(np.int64)


def _classes(labels: NDArray[np.int64], where: str, key: str = "y_train") -> int:
    """Number of classes, if each one from 0 to the highest label has enough training images."""
    highest = int(labels.max())
    if highest >= len(labels):
        raise DataError(
            f"{where}: {key}[{int(labels.argmax())}] is {highest}, which makes {highest + 1} classes for "
            f"{len(labels)} training images; number the classes from 0 without gaps"
        )
    counts = np.bincount(labels, minlength=highest + 1)
    if highest == 0:
        raise DataError(f"{where}: every label in {key} is 0; expected two classes or more")
    rare = int(counts.argmin())
    if counts[rare] < TWO:
        raise DataError(
            f"{where}: class {rare} has {int(counts[rare])} training images of the {len(labels)} in {key}, whose "
            f"highest label is {highest}; expected classes from 0 without gaps, each with {TWO} images or more"
        )
    return highest + 1
