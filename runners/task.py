"""What a candidate is trained on and measured by: images, labels, and three splits that never mix.

The training split teaches, the validation split selects, and the test split is for the end alone: nothing that trains
reads it. Images stay uint8 in memory; they are normalised with the mean and deviation of the training split, batch by
batch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from graphs.errors import UnknownName
from runners import npz
from runners.arrays import Arrays, DataError, checked
from runners.datasets import DATASETS, load
from runners.label_sets import LabelSet
from runners.splits import stratified, validation_size

__all__ = ["SPLITS", "Split", "Task"]

SPLITS = ("train", "validation", "test")
"""Names of the splits."""

_NONE: Mapping[str, tuple[str, ...]] = MappingProxyType({})

SEED = 0
"""Of the draw that sets the validation split apart; the same for every run, so that runs can be compared."""


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    """Examples: `images` `(N, C, H, W)` of uint8 and `labels` `(N,)` of int64; `others`, labels of further sets."""

    images: Tensor
    labels: Tensor
    others: Mapping[str, Tensor] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, slots=True, eq=False)
class Task:
    """An image classification task.

    Attributes:
        name: Of the data set, or of its file.
        train: Examples to learn from.
        validation: Examples to select by; taken from the data set's training images.
        test: Examples for the end; the data set's own test images.
        classes: Number of classes.
        labels: Their names; empty where none are known.
        normalisation: `mean` and `std` of each channel of the training split, of pixels scaled to 0 to 1.
        mirror: A mirrored image belongs to the same class.
        spec: From which `Task.from_spec` makes the same task in another process, of JSON types.
        main: Name of the label set that the classes are.
        others: The further label sets of the same images, by name.
    """

    name: str
    train: Split
    validation: Split
    test: Split
    classes: int
    labels: tuple[str, ...]
    normalisation: Mapping[str, list[float]]
    mirror: bool
    spec: Mapping[str, Any]
    main: str = "labels"
    others: Mapping[str, LabelSet] = field(default_factory=dict)

    def classes_of(self, head: str) -> int:
        """How many classes a head with that name tells apart: those of its label set, or the main ones."""
        return self.others[head].classes if head in self.others else self.classes

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of an image."""
        channels, height, width = self.train.images.shape[1:]
        return channels, height, width

    @classmethod
    def named(cls, name: str, root: str | Path | None = None, download: bool = False, limit: int | None = None) -> Task:
        """The task of a data set with a name, or of an `.npz` file.

        Args:
            name: Key of `runners.datasets.DATASETS`, or the path of a file that ends in `.npz`.
            root: Folder in which a named data set is looked for.
            download: Fetch a named data set that is not there; without it the network is never used.
            limit: Use at most this many training images, and as many for validation, chosen evenly over the classes.

        Raises:
            UnknownName: There is no data set of that name.
            DataError: Its files are missing, damaged or not of the expected form.
        """
        if str(name).endswith(".npz"):
            path = Path(name).expanduser().resolve()
            arrays = checked(npz.read(path), str(path))
            return cls._made(arrays, path.stem, {"name": str(path), "root": None}, limit)
        folder = None if root is None else Path(root).expanduser().resolve()
        given, where = load(name, folder, download)
        known = DATASETS[name]
        arrays = checked(given, where, classes=len(known.labels))
        spec = {"name": name, "root": None if folder is None else str(folder)}
        return cls._made(arrays, name, spec, limit, known.labels, known.mirror, known.main, known.others)

    @classmethod
    def from_arrays(
        cls,
        x_train: Any,
        y_train: Any,
        x_test: Any,
        y_test: Any,
        *,
        name: str = "arrays",
        labels: Sequence[str] = (),
        mirror: bool = False,
        limit: int | None = None,
    ) -> Task:
        """The task of arrays in memory, in the Keras layout: images uint8 `(N, H, W)` or `(N, H, W, C)`.

        Such a task has no files from which another process could make it.

        Raises:
            DataError: An array is not of the expected form.
        """
        given = {"x_train": x_train, "y_train": y_train, "x_test": x_test, "y_test": y_test}
        arrays = checked(given, name, classes=len(labels) or None)
        return cls._made(arrays, name, {"name": None, "root": None}, limit, tuple(labels), mirror)

    @classmethod
    def from_spec(cls, spec: Mapping[str, Any]) -> Task:
        """The task that `spec` describes; never uses the network.

        Raises:
            DataError: Its files have changed or are gone, or it was made from arrays in memory.
        """
        if spec["name"] is None:
            raise DataError(
                "this task was made from arrays in memory, which another process does not have; write them to a file "
                "with numpy.savez and name that file"
            )
        task = cls.named(spec["name"], spec["root"], limit=spec["limit"])
        if task.spec["digest"] != spec["digest"] or spec.get("others") not in (None, task.spec.get("others")):
            raise DataError(
                f"data set '{spec['name']}' has changed: its images have the SHA-256 {task.spec['digest'][:12]}…, "
                f"expected {str(spec['digest'])[:12]}…; put the earlier files back, or start a new run"
            )
        return task

    @classmethod
    def _made(
        cls,
        arrays: Arrays,
        name: str,
        spec: dict[str, Any],
        limit: int | None,
        labels: tuple[str, ...] = (),
        mirror: bool = False,
        main: str = "labels",
        names: Mapping[str, tuple[str, ...]] = _NONE,
    ) -> Task:
        count = len(arrays.y_train)
        held_out = validation_size(count)
        if limit is not None and limit < arrays.classes:
            raise DataError(
                f"a limit of {limit} training images is too low for the {arrays.classes} classes of {name}; "
                f"expected {arrays.classes} or more"
            )
        if count - held_out < 2:
            raise DataError(f"{name}: {count} training images are too few; expected 3 or more")
        order = stratified(arrays.y_train, SEED)
        validation, train = order[:held_out][:limit], order[held_out:][:limit]
        taught, asked = ({name: pair[which] for name, pair in arrays.others.items()} for which in (0, 1))
        taken = _split(arrays.x_train, arrays.y_train, train, taught)
        return cls(
            name=name,
            train=taken,
            validation=_split(arrays.x_train, arrays.y_train, validation, taught),
            test=_split(arrays.x_test, arrays.y_test, np.arange(len(arrays.y_test)), asked),
            classes=arrays.classes,
            labels=labels,
            normalisation=_moments(taken.images),
            mirror=mirror,
            spec=spec
            | {"limit": limit, "digest": arrays.digest()}
            | ({"others": arrays.others_digest()} if arrays.others else {}),
            main=main,
            others={name: LabelSet(int(labels.max()) + 1, names.get(name, ())) for name, labels in taught.items()},
        )

    def split(self, name: str) -> Split:
        """The split called `name`.

        Raises:
            UnknownName: It is none of `SPLITS`.
        """
        if name not in SPLITS:
            raise UnknownName.of("split", name, SPLITS)
        found: Split = getattr(self, name)
        return found

    def scale_and_shift(self, device: str | torch.device = "cpu") -> tuple[Tensor, Tensor]:
        """What normalises uint8 images as `images·scale - shift`: two tensors `(C, 1, 1)` on `device`."""
        mean = torch.tensor(self.normalisation["mean"], dtype=torch.float64).view(-1, 1, 1)
        std = torch.tensor(self.normalisation["std"], dtype=torch.float64).view(-1, 1, 1)
        return (1 / (255 * std)).float().to(device), (mean / std).float().to(device)

    def probe(self, batch: int, seed: int) -> Tensor:
        """Normalised images of the training split, `batch` different ones or all: `(N, C, H, W)` of float32."""
        rows = np.argsort(np.random.PCG64(seed).random_raw(len(self.train)), kind="stable")[:batch]
        scale, shift = self.scale_and_shift()
        return self.train.images[torch.from_numpy(rows)].float() * scale - shift


def _split(images: Any, labels: Any, rows: Any, others: Mapping[str, Any]) -> Split:
    """The examples at `rows`, in the order of the data set."""
    rows = np.sort(rows)
    further = {name: torch.from_numpy(each[rows]) for name, each in others.items()}
    return Split(torch.from_numpy(images[rows]), torch.from_numpy(labels[rows]), further)


def _moments(images: Tensor) -> dict[str, list[float]]:
    """Mean and deviation of each channel from exact sums, so that every machine gets the same bits."""
    mean, std = [], []
    for channel in images.unbind(1):
        counts = torch.bincount(channel.reshape(-1), minlength=256).tolist()
        total = sum(counts)
        first = sum(value * count for value, count in enumerate(counts))
        second = sum(value * value * count for value, count in enumerate(counts))
        variance = (second * total - first * first) / (total * 255) ** 2
        mean.append(first / (total * 255))
        std.append(variance**0.5 or 1.0)
    return {"mean": mean, "std": std}
