"""What tasks are made of: torch data sets, arrays, or a file of examples, each as the attributes of a `Task`.

Splits that are not given are cut off from the training examples by a fixed draw, which depends on the classes alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from runners import examples
from runners.arrays import Arrays, DataError
from runners.label_sets import LabelSet
from runners.normalising import histogram, moments
from runners.objectives import Objective, objective
from runners.prepared import SPLITS, Prepared
from runners.splits import stratified, validation_size

__all__ = ["NONE", "SEED", "Split", "of_arrays", "of_dataset", "of_prepared"]

Fields = dict[str, Any]
"""Attributes of a task, by name."""

NONE: Mapping[str, tuple[str, ...]] = MappingProxyType({})
"""No further label sets."""

SEED = 0
"""Of the draw that sets the validation split apart; the same for every run, so that runs can be compared."""


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

    def labels_of(self, label_set: str) -> Tensor:
        """The labels of the further set with that name, or else the main ones."""
        return self.others.get(label_set, self.labels)


def of_dataset(given: Mapping[str, Any], goal: Objective, labels: Sequence[str], mirror: bool, name: str) -> Fields:
    """Of torch data sets by split, of which validation and test may be None."""
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
    digest = examples.fingerprint(parts, goal.text)
    return dict(
        name=name,
        **{split: Split(*parts[split]) for split in SPLITS},
        classes=max(outputs, len(labels)),
        labels=tuple(labels),
        normalisation=_normalisation(parts["train"][0]),
        mirror=mirror,
        spec={"name": None, "root": None, "limit": None, "digest": digest},
        objective=goal,
    )


def of_prepared(found: Prepared, name: str, spec: Mapping[str, Any], limit: int | None = None) -> Fields:
    """Of a file of examples; `limit` takes as many to learn from and to validate with, over the classes."""
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
    return dict(
        name=name,
        **splits,
        classes=classes if goal.classes else targets.shape[1],
        labels=labels,
        normalisation=_normalisation(splits["train"].images) if pixels is None else moments(pixels),
        mirror=facts["mirror"],
        spec=spec,
        objective=goal,
    )


def of_arrays(
    arrays: Arrays,
    name: str,
    spec: dict[str, Any],
    limit: int | None,
    labels: tuple[str, ...] = (),
    mirror: bool = False,
    main: str = "labels",
    names: Mapping[str, tuple[str, ...]] = NONE,
) -> Fields:
    """Of arrays, of which a part is set apart to validate; `names` are the classes' of further label sets."""
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
    return dict(
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
