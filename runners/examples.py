"""A torch `Dataset` as tensors: read once, example by example, and checked."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from runners.arrays import DataError
from runners.prepared import SPLITS
from runners.splits import stratified, validation_size

__all__ = ["Examples", "divided", "fingerprint", "read"]

Examples = tuple[Tensor, Tensor]
"""Inputs `(N, …)` of uint8, float32 or int64, and targets, `(N,)` of int64 or `(N, D)` of float32."""

SEED = 0

LEAST = 2
"""Fewest examples to learn from; each split that is cut off takes one more at least."""


def read(dataset: Any, where: str, classes: bool) -> Examples:
    """The examples of a data set.

    Args:
        dataset: What has a length and gives (input, target) by number; each is asked for once.
        where: Its name, for messages.
        classes: Whether a target is the number of a class; else it is a number or several.

    Raises:
        DataError: An example is of another form.
    """
    try:
        count = len(dataset)
    except TypeError:
        raise DataError(f"{where}: a {type(dataset).__name__} has no length; give a data set with __len__") from None
    if not count:
        raise DataError(f"{where}: the data set is empty; every split needs examples")
    inputs, targets = [], []
    for row in range(count):
        example = dataset[row]
        if not isinstance(example, tuple | list) or len(example) != 2:
            raise DataError(f"{where}: example {row} is a {type(example).__name__}; expected (input, target)")
        inputs.append(_tensor(example[0], f"{where}: the input of example {row}"))
        targets.append(_tensor(example[1], f"{where}: the target of example {row}"))
    return _inputs(inputs, where), _targets(targets, where, classes)


def divided(given: Mapping[str, Examples], where: str, classes: bool) -> dict[str, Examples]:
    """The three splits; one that is not given is cut from the training examples, a fifth of which test.

    Raises:
        DataError: There are too few examples, or the splits have different forms.
    """
    parts = dict(given)
    missing = [split for split in ("test", "validation") if split not in parts]
    if missing and len(parts["train"][1]) < LEAST + len(missing):
        raise DataError(
            f"{where}: {len(parts['train'][1])} training examples are too few to cut {' and '.join(missing)} from; "
            f"expected {LEAST + len(missing)} or more"
        )
    for split, size in (("test", lambda count: max(1, count // 5)), ("validation", validation_size)):
        if split in parts:
            continue
        inputs, targets = parts["train"]
        count = len(targets)
        held_out = size(count)
        labels = targets.numpy() if classes else np.zeros(count, np.int64)
        order = stratified(labels, SEED)
        for name, rows in ((split, order[:held_out]), ("train", order[held_out:])):
            taken = torch.from_numpy(np.sort(rows))
            parts[name] = (inputs[taken], targets[taken])
    for what, place in (("inputs", 0), ("targets", 1)):
        forms = {split: (str(parts[split][place].dtype), tuple(parts[split][place].shape[1:])) for split in SPLITS}
        if len(set(forms.values())) > 1:
            raise DataError(f"{where}: the splits have {what} of different forms: {forms}")
    return parts


def fingerprint(parts: Mapping[str, Examples], text: str) -> str:
    """SHA-256 over a text and all examples, in hexadecimal."""
    found = hashlib.sha256(text.encode())
    for split in SPLITS:
        for tensor in parts[split]:
            found.update(f"{split} {tensor.dtype} {tuple(tensor.shape)}".encode())
            found.update(np.ascontiguousarray(tensor.numpy()).data)
    return found.hexdigest()


def _tensor(value: Any, what: str) -> Tensor:
    try:
        tensor = torch.as_tensor(value).detach().cpu()
    except (TypeError, ValueError, RuntimeError):
        raise DataError(
            f"{what} is a {type(value).__name__}; expected a tensor or numbers (for images, a transform such as "
            "torchvision.transforms.PILToTensor makes them one)"
        ) from None
    if tensor.is_complex():
        raise DataError(f"{what} is of {tensor.dtype}; expected real numbers (torch.view_as_real makes two of each)")
    return tensor


def _inputs(parts: list[Tensor], where: str) -> Tensor:
    inputs = _stacked(parts, f"{where}: the input")
    if inputs.dtype == torch.uint8:
        if inputs.dim() != 4:
            raise DataError(
                f"{where}: inputs of uint8 are images of shape (channels, height, width), got "
                f"{tuple(inputs.shape[1:])}; give other inputs as float32"
            )
        return inputs
    if not inputs.is_floating_point():
        return inputs.long()
    return _finite(inputs.float(), f"{where}: the input")


def _targets(parts: list[Tensor], where: str, classes: bool) -> Tensor:
    targets = _stacked(parts, f"{where}: the target")
    if not classes:
        flat = targets.reshape(len(targets), -1) if targets.dim() < 2 else targets
        if flat.dim() != 2:
            raise DataError(f"{where}: a target has the shape {tuple(targets.shape[1:])}; expected a number or a row")
        return _finite(flat.float(), f"{where}: the target")
    if targets.is_floating_point() or targets.dim() != 1:
        raise DataError(
            f"{where}: a target is of type {targets.dtype} and shape {tuple(targets.shape[1:])}; expected the number "
            "of a class (for numbers to be met: loss='regression'; for several labels at once: loss='multilabel')"
        )
    targets = targets.long()
    if targets.min() < 0:
        row = int(targets.argmin())
        raise DataError(f"{where}: the target of example {row} is {int(targets[row])}; classes are counted from 0")
    return targets


def _stacked(parts: list[Tensor], what: str) -> Tensor:
    for row, part in enumerate(parts):
        if part.shape != parts[0].shape or part.dtype != parts[0].dtype:
            raise DataError(
                f"{what} of example {row} is {part.dtype} of shape {tuple(part.shape)}, that of the first one "
                f"{parts[0].dtype} of shape {tuple(parts[0].shape)}; make them equal"
            )
    return torch.stack(parts)


def _finite(tensor: Tensor, what: str) -> Tensor:
    wrong = ~tensor.reshape(len(tensor), -1).isfinite().all(1)
    if wrong.any():
        raise DataError(f"{what} of example {int(wrong.int().argmax())} holds a number that is not finite")
    return tensor
