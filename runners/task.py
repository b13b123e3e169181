"""What a candidate is trained on and measured by: examples in three splits that never mix, a loss and a metric.

The training split teaches, the validation split selects, and the test split is for the end alone: nothing that trains
reads it. Images stay uint8 in memory; they are normalised with the mean and deviation of the training split, batch by
batch. Other inputs are taken as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from graphs.errors import UnknownName
from runners import examples, npz, prepared
from runners.arrays import Arrays, DataError, checked
from runners.datasets import DATASETS, FILES, is_path, load
from runners.decoding import Progress, decoded
from runners.folders import scan
from runners.label_sets import LabelSet
from runners.normalising import histogram, moments
from runners.objectives import METRICS, OBJECTIVES, Metric, Objective, ObjectiveError, objective
from runners.prepared import SPLITS, Prepared
from runners.splits import stratified, validation_size

__all__ = ["SPLITS", "Split", "Task"]

_NONE: Mapping[str, tuple[str, ...]] = MappingProxyType({})

SEED = 0
"""Of the draw that sets the validation split apart; the same for every run, so that runs can be compared."""


_USUAL: Mapping[str, Any] = MappingProxyType(
    {"objective": OBJECTIVES["classification"], "main": "labels", "others": _NONE}
)
"""What most tasks are."""


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    """Examples: `images` and `labels`, in general inputs and targets; `others`, labels of further sets.

    Images are `(N, C, H, W)` of uint8; other inputs are float32 or int64, `(N, …)`. Labels are `(N,)` of int64; where
    the task is not one of classes, they are `(N, D)` of float32. `mapped` ones come from the disk when they are asked
    for, and may be more than fit into memory.
    """

    images: Tensor
    labels: Tensor
    others: Mapping[str, Tensor] = field(default_factory=dict)
    mapped: bool = False

    def __len__(self) -> int:
        return len(self.labels)


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
            ObjectiveError: A loss of your own comes without a metric.
            UnknownName: There is no such loss or metric.
        """
        goal = objective(loss, metric, by_class)
        given = {"train": dataset, "validation": validation, "test": test}
        read = {
            split: examples.read(each, f"{name}, {split}", goal.classes)
            for split, each in given.items()
            if each is not None
        }
        parts = examples.divided(read, name, goal.classes)
        targets = parts["train"][1]
        outputs = int(max(part[1].max() for part in parts.values())) + 1 if goal.classes else targets.shape[1]
        if labels and (len(labels) < outputs or (len(labels) > outputs and not goal.classes)):
            raise DataError(f"{name}: {len(labels)} labels for {outputs} outputs; name each of them")
        for split, part in parts.items():
            _check_targets(part[1], goal, max(outputs, len(labels)), f"{name}, {split}")
        digest = examples.fingerprint(parts, f"{goal.name} {goal.metric.name}")
        self._fill(
            name=name,
            **{split: Split(*parts[split]) for split in SPLITS},
            classes=max(outputs, len(labels)),
            labels=tuple(labels),
            normalisation=_normalisation(parts["train"][0]),
            mirror=mirror,
            spec={"name": None, "root": None, "limit": None, "digest": digest},
            objective=goal,
        )

    def classes_of(self, head: str) -> int:
        """How many classes a head with that name tells apart: those of its label set, or the main ones."""
        return self.others[head].classes if head in self.others else self.classes

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
            return cls._of_prepared(found, path.stem, spec, limit)
        if is_path(name):
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
        return cls._of_prepared(found, path.name, spec)

    @classmethod
    def _of_prepared(cls, found: Prepared, name: str, spec: Mapping[str, Any], limit: int | None = None) -> Task:
        facts = {"loss": "classification", "metric": None, "mirror": False, **found.facts}
        goal, labels = objective(facts["loss"], facts["metric"]), tuple(facts["labels"])
        targets = found.targets["train"]
        classes = int(facts.get("classes", len(labels)))
        for split in SPLITS:
            _check_targets(found.targets[split], goal, classes, f"{name}, {split}")
        splits = {split: Split(found.inputs[split], found.targets[split], mapped=True) for split in SPLITS}
        pixels = found.pixels
        if limit is not None:
            for split in ("train", "validation"):
                whole = splits[split]
                order = stratified(whole.labels.numpy() if goal.classes else np.zeros(len(whole), np.int64), SEED)
                rows = torch.from_numpy(np.sort(order[:limit]))
                splits[split] = Split(whole.images[rows], whole.labels[rows])
            pixels = None
        return cls.of(
            name=name,
            **splits,
            classes=classes if goal.classes else targets.shape[1],
            labels=labels,
            normalisation=_normalisation(splits["train"].images) if pixels is None else moments(pixels),
            mirror=facts["mirror"],
            spec=spec,
            objective=goal,
        )

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
        return cls.of(
            name=name,
            train=taken,
            validation=_split(arrays.x_train, arrays.y_train, validation, taught),
            test=_split(arrays.x_test, arrays.y_test, np.arange(len(arrays.y_test)), asked),
            classes=arrays.classes,
            labels=labels,
            normalisation=moments(histogram(taken.images)),
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


def _split(images: Any, labels: Any, rows: Any, others: Mapping[str, Any]) -> Split:
    """The examples at `rows`, in the order of the data set."""
    rows = np.sort(rows)
    further = {name: torch.from_numpy(each[rows]) for name, each in others.items()}
    return Split(torch.from_numpy(images[rows]), torch.from_numpy(labels[rows]), further)


def _normalisation(inputs: Tensor) -> dict[str, list[float]]:
    """What brings images of uint8 to mean 0 and deviation 1; nothing for what is no such image."""
    return moments(histogram(inputs)) if inputs.dtype == torch.uint8 else {}


def _check_targets(targets: Tensor, goal: Objective, classes: Any, where: str) -> None:
    """Raises `DataError` unless targets are what the objective learns from."""
    form = (torch.int64, 1) if goal.classes else (torch.float32, 2)
    if (targets.dtype, targets.dim()) != form:
        raise DataError(f"{where}: the targets are no targets of {goal.name}")
    low, high = (0, classes - 1) if goal.classes else goal.within
    if targets.min() < low or targets.max() > high:
        raise DataError(
            f"{where}: targets of {goal.name} lie from {low:g} to {high:g}, got {float(targets.min()):g}"
            f" to {float(targets.max()):g}"
        )
