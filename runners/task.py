"""What a candidate is trained on and measured by: examples in three splits that never mix, a loss and a metric.

The training split teaches, the validation split selects, and the test split is for the end alone: nothing that trains
reads it. Images stay uint8 in memory; they are normalised with the mean and deviation of the training split, batch by
batch. Other inputs are taken as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from graphs.errors import UnknownName
from runners import npz, prepared, sources
from runners.arrays import DataError, checked
from runners.datasets import DATASETS, FILES, is_path, load
from runners.decoding import Progress, decoded
from runners.folders import scan
from runners.label_sets import LabelSet
from runners.objectives import METRICS, OBJECTIVES, Metric, Objective, ObjectiveError, objective
from runners.prepared import SPLITS
from runners.sources import NONE, Split

__all__ = ["SPLITS", "Split", "Task"]

_USUAL: Mapping[str, Any] = MappingProxyType(
    {"objective": OBJECTIVES["classification"], "main": "labels", "others": NONE}
)
"""What most tasks are."""


@dataclass(frozen=True, slots=True, eq=False, init=False)
class Task:
    """What to learn: `Task(dataset)` for examples of one's own, `Task.named` for data sets with a name, files, folders.

    Attributes:
        name: Of the data set, or of its file.
        train: Examples to learn from.
        validation: Examples to select by; taken from the data set's training images.
        test: Examples for the end; the data set's own test images.
        classes: Number of classes; in general the number of outputs, D.
        labels: Their names; empty where none are known.
        normalisation: `mean` and `std` of each channel of the training split, of pixels scaled to 0 to 1; empty where
            inputs are taken as they are.
        mirror: A mirrored image belongs to the same class.
        spec: From which `Task.from_spec` makes the same task in another process, of JSON types.
        objective: The loss that is learnt by and the metric that is measured by.
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
    objective: Objective
    main: str
    others: Mapping[str, LabelSet]

    def __init__(
        self,
        dataset: Any,
        validation: Any = None,
        test: Any = None,
        *,
        loss: str | Callable[[Tensor, Tensor], Tensor] = "classification",
        metric: str | Metric | None = None,
        by_class: bool = False,
        labels: Sequence[str] = (),
        mirror: bool = False,
        name: str = "dataset",
    ) -> None:
        """The task of a torch `Dataset`, or of anything that has a length and gives (input, target) by number.

        Each example is read once, into memory, so random transforms of a data set are drawn once too: augmentation is
        the recipe's. Inputs of uint8 are images, which are normalised; others are taken as they are.

        Args:
            dataset: To learn from.
            validation: To select by; None to cut a part off from `dataset`.
            test: For the end; None to cut a fifth off from `dataset`.
            loss: Key of `runners.objectives.OBJECTIVES`: `classification` by one class of each example,
                `regression` by a number or a row of them, `multilabel` by a row of zeros and ones. Or (outputs
                `(N, D)`, targets) -> the loss of each example `(N,)`.
            metric: Key of `runners.objectives.METRICS`, or a `Metric`. Its score, a fraction from 0 to 1 that is higher
                for what is better, is what is called accuracy everywhere. None for the objective's own.
            by_class: For a loss of your own: targets are numbers of classes.
            labels: Names of the classes, or of the outputs.
            mirror: A mirrored image has the same target.
            name: For messages.

        Raises:
            DataError: An example is not of the expected form.
            ObjectiveError: A loss of your own comes without a metric, or a metric of your own is called as something
                else in results is.
            UnknownName: There is no such loss or metric.
        """
        given = {"train": dataset, "validation": validation, "test": test}
        self._fill(**sources.of_dataset(given, objective(loss, metric, by_class), labels, mirror, name))

    def classes_of(self, head: str) -> int:
        """How many classes a head with that name tells apart: those of its label set, or the main ones."""
        return self.others[head].classes if head in self.others else self.classes

    def label_set_of(self, head: str) -> str:
        """Name of the label set whose classes a head with that name tells apart: its own, or the main one."""
        return head if head in self.others else self.main

    def _fill(self, **fields: Any) -> None:
        for name, value in {**_USUAL, **fields}.items():
            object.__setattr__(self, name, value)

    @classmethod
    def of(cls, **fields: Any) -> Task:
        """The task with these attributes; `objective` is that of classification and `others` none unless given."""
        task = object.__new__(cls)
        task._fill(**fields)
        return task

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Of one input; channels, height and width of an image."""
        return tuple(self.train.images.shape[1:])

    @classmethod
    def named(
        cls,
        name: str,
        root: str | Path | None = None,
        download: bool = False,
        limit: int | None = None,
        size: int | None = None,
        report: Progress | None = None,
    ) -> Task:
        """The task of a data set with a name, of a file, or of a folder of images.

        Args:
            name: Key of `runners.datasets.DATASETS`, the path of a file that ends in `.npz`, or in `.safetensors` and
                that `save` has written, or of a folder that holds a folder of images for each class
                (`runners.folders`).
            root: Folder in which a named data set is looked for.
            download: Fetch a named data set that is not there; without it the network is never used.
            limit: Use at most this many training images, and as many for validation, chosen evenly over the classes.
            size: Height and width to which the images of a folder are brought; None where they have one size.
            report: Called while the images of a folder are decoded, with how many are done and how many there are.

        Raises:
            UnknownName: There is no data set of that name.
            DataError: Its files are missing, damaged or not of the expected form.
            MissingExtra: Pillow is not installed, which a folder of images needs.
        """
        path = Path(name).expanduser().resolve()
        if is_path(name) and path.suffix not in FILES:
            return cls._of_folder(path, limit, size, report)
        if size is not None:
            raise DataError(f"an image size is for a folder of images, and {name} has its own; leave it out")
        if path.suffix == ".safetensors":
            found = prepared.read(path)
            spec = {"name": str(path), "root": None, "limit": limit, "digest": found.digest}
            return cls.of(**sources.of_prepared(found, path.stem, spec, limit))
        if is_path(name):
            arrays = checked(npz.read(path), str(path))
            return cls.of(**sources.of_arrays(arrays, path.stem, {"name": str(path), "root": None}, limit))
        folder = None if root is None else Path(root).expanduser().resolve()
        given, where = load(name, folder, download)
        known = DATASETS[name]
        arrays = checked(given, where, classes=len(known.labels), main=known.main)
        spec = {"name": name, "root": None if folder is None else str(folder)}
        return cls.of(
            **sources.of_arrays(arrays, name, spec, limit, known.labels, known.mirror, known.main, known.others)
        )

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
        return cls.of(**sources.of_arrays(arrays, name, {"name": None, "root": None}, limit, tuple(labels), mirror))

    @classmethod
    def from_spec(cls, spec: Mapping[str, Any]) -> Task:
        """The task that `spec` describes; never uses the network.

        Raises:
            DataError: Its files have changed or are gone, or it was made from arrays in memory.
        """
        if spec["name"] is None:
            raise DataError(
                "this task was made from arrays in memory, which another process does not have; write it to a file "
                "with task.save('NAME.safetensors') and name that file, or take Task.named of it"
            )
        task = cls.named(spec["name"], spec["root"], limit=spec["limit"], size=spec.get("size"))
        if task.spec["digest"] != spec["digest"] or spec.get("others") not in (None, task.spec.get("others")):
            raise DataError(
                f"data set '{spec['name']}' has changed: its images have the SHA-256 {task.spec['digest'][:12]}…, "
                f"expected {str(spec['digest'])[:12]}…; put the earlier files back, or start a new run"
            )
        return task

    @classmethod
    def _of_folder(cls, path: Path, limit: int | None, size: int | None, report: Progress | None) -> Task:
        found = decoded(scan(path, limit), size, report)
        spec = {"name": str(path), "root": None, "limit": limit, "size": size, "digest": found.digest}
        return cls.of(**sources.of_prepared(found, path.name, spec))

    def save(self, path: str | Path) -> None:
        """Writes all examples to a file that `Task.named` reads, here, in a worker, and on the command line.

        Further label sets are left out; an `.npz` file holds them.

        Args:
            path: Ends in `.safetensors`.

        Raises:
            ObjectiveError: Loss or metric are your own, which a file cannot hold.
            DataError: The path ends otherwise.
            StorageError: The file cannot be written.
        """
        path, goal = Path(path), self.objective
        if path.suffix != ".safetensors":
            raise DataError(f"{path} does not end in .safetensors, by which a file of examples is known")
        known = OBJECTIVES.get(goal.name), METRICS.get(goal.metric.name)
        if known[0] is None or known[0].losses is not goal.losses or known[1] is not goal.metric:
            raise ObjectiveError(
                f"a file cannot hold a loss or a metric of your own ({goal.name}, {goal.metric.name}); known are "
                f"{', '.join(OBJECTIVES)} and {', '.join(METRICS)}"
            )
        facts = {"loss": goal.name, "metric": goal.metric.name, "mirror": self.mirror, "labels": list(self.labels)}
        targets = {split: self.split(split).labels for split in SPLITS}
        inputs = (self.split(split).images for split in SPLITS)
        kind = self.train.images.dtype
        prepared.write(path, {**facts, "classes": self.classes}, targets, self.input_shape, kind, inputs)

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
        """What normalises images of uint8 as `images·scale - shift`: two tensors `(C, 1, 1)` on `device`."""
        mean = torch.tensor(self.normalisation["mean"], dtype=torch.float64).view(-1, 1, 1)
        std = torch.tensor(self.normalisation["std"], dtype=torch.float64).view(-1, 1, 1)
        return (1 / (255 * std)).float().to(device), (mean / std).float().to(device)

    def probe(self, batch: int, seed: int) -> Tensor:
        """Inputs of the training split as a network gets them, `batch` different ones or all."""
        rows = np.argsort(np.random.PCG64(seed).random_raw(len(self.train)), kind="stable")[:batch]
        inputs = self.train.images[torch.from_numpy(rows)]
        if not self.normalisation:
            return inputs
        scale, shift = self.scale_and_shift()
        return inputs.float() * scale - shift
