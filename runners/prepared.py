"""A data set as one file, whose examples are mapped into memory and not read into it.

The file is a `.safetensors`: for each split `SPLIT.inputs` and `SPLIT.targets`, a `histogram` of the training images'
pixels, the `digest` of all that, and facts of JSON types. It is written from its beginning to its end without holding
more than a few examples, so a set may be larger than memory: what is trained on then comes from the disk, page by page.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from graphs.durable import writing
from runners.arrays import DataError
from runners.normalising import histogram

__all__ = ["SPLITS", "Prepared", "read", "write"]

SPLITS = ("train", "validation", "test")
"""Names of the splits."""

VERSION = 1

VERIFIED = 1 << 28
"""Up to so many bytes a file's contents are held against its digest when it is read; more would take too long."""

TYPES = {torch.uint8: "U8", torch.int64: "I64", torch.float32: "F32"}
"""The types that examples can have, and what the format calls them."""


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """What such a file holds.

    Attributes:
        inputs: Of each split, `(N, …)`.
        targets: Of each split, `(N,)` of int64, or `(N, D)` of float32.
        facts: What the writer has told, of JSON types.
        pixels: `runners.normalising.histogram` of the training images; None where they are not images of uint8.
        digest: SHA-256 over all of that but the pixels, in hexadecimal.
    """

    inputs: Mapping[str, Tensor]
    targets: Mapping[str, Tensor]
    facts: Mapping[str, Any]
    pixels: Tensor | None
    digest: str


def write(
    path: Path,
    facts: Mapping[str, Any],
    targets: Mapping[str, Tensor],
    shape: tuple[int, ...],
    kind: torch.dtype,
    inputs: Iterable[Tensor],
) -> None:
    """Writes a file, durably and whole.

    Args:
        path: Of the file.
        facts: Of JSON types.
        targets: Of each split.
        shape: Of one input.
        kind: Type of the inputs.
        inputs: Those of the training split, then validation, then test, in parts `(K, …)` of any length.

    Raises:
        StorageFull: No room.
        StorageError: The file cannot be written.
    """
    text = json.dumps({"version": VERSION, **facts}, sort_keys=True)
    images = kind == torch.uint8 and len(shape) == 3
    sizes = {split: len(targets[split]) for split in SPLITS}
    forms: dict[str, tuple[torch.dtype, tuple[int, ...]]] = {"digest": (torch.uint8, (32,))}
    forms |= {f"{split}.targets": (targets[split].dtype, tuple(targets[split].shape)) for split in SPLITS}
    forms |= {f"{split}.inputs": (kind, (sizes[split], *shape)) for split in SPLITS}
    if images:
        forms["histogram"] = (torch.int64, (shape[0], 256))
    places, header = _laid_out(forms, text)
    found, counts = _begun(text, targets, kind, shape), torch.zeros(shape[0] if images else 0, 256, dtype=torch.int64)
    with writing(path) as file:
        file.write(header)
        for split in SPLITS:
            file.seek(len(header) + places[f"{split}.targets"])
            file.write(_bytes(targets[split]))
            found.update(_bytes(targets[split]))
        file.seek(len(header) + places["train.inputs"])
        done = 0
        for part in inputs:
            if images and done < sizes["train"]:
                counts += histogram(part[: sizes["train"] - done])
            file.write(_bytes(part))
            found.update(_bytes(part))
            done += len(part)
        if done != sum(sizes.values()):
            raise ValueError(f"{done} inputs for {sum(sizes.values())} targets")
        if images:
            file.seek(len(header) + places["histogram"])
            file.write(_bytes(counts))
        file.seek(len(header) + places["digest"])
        file.write(found.digest())


def read(path: Path) -> Prepared:
    """What a file holds, mapped into memory.

    Raises:
        DataError: It is missing, damaged, or another kind of file.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            text = (file.metadata() or {})["data"]
            tensors = {name: file.get_tensor(name) for name in file.keys()}
        facts = json.loads(text)
        inputs = {split: tensors[f"{split}.inputs"] for split in SPLITS}
        targets = {split: tensors[f"{split}.targets"] for split in SPLITS}
        digest = tensors["digest"].numpy().tobytes()
    except FileNotFoundError:
        raise DataError(f"{path}: there is no such file; write it with Task.save") from None
    except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: this is no file of examples, or a damaged one ({error!r})") from None
    _check(path, facts, inputs, targets)
    if sum(tensor.numel() for tensor in inputs.values()) <= VERIFIED:
        found = _begun(text, targets, inputs["train"].dtype, tuple(inputs["train"].shape[1:]))
        for tensor in (*(targets[split] for split in SPLITS), *(inputs[split] for split in SPLITS)):
            found.update(_bytes(tensor))
        if found.digest() != digest:
            raise DataError(f"{path}: this file of examples is damaged; remove it and make it again")
    return Prepared(inputs, targets, facts, tensors.get("histogram"), digest.hex())


def _check(path: Path, facts: Any, inputs: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> None:
    """Raises `DataError` unless every split has examples of one form."""
    version = facts.get("version") if isinstance(facts, dict) else None
    if version != VERSION:
        raise DataError(f"{path}: is of version {version} of the format, expected {VERSION}; make it again")
    for what, parts in (("inputs", inputs), ("targets", targets)):
        forms = {(part.dtype, part.shape[1:]) for part in parts.values()}
        if len(forms) > 1 or any(part.dtype not in TYPES for part in parts.values()):
            raise DataError(f"{path}: the splits have {what} of different forms, or of a type that is not known")
    for split in SPLITS:
        if not len(inputs[split]) or len(inputs[split]) != len(targets[split]):
            raise DataError(
                f"{path}: the split {split} has {len(inputs[split])} inputs and {len(targets[split])} targets; "
                "expected as many of both, and one at least"
            )


def _laid_out(forms: Mapping[str, tuple[torch.dtype, tuple[int, ...]]], text: str) -> tuple[dict[str, int], bytes]:
    """Where each tensor begins behind the header, wide types first so that all are aligned, and the header."""
    header: dict[str, Any] = {"__metadata__": {"data": text}}
    places: dict[str, int] = {}
    end = 0
    for name, (kind, shape) in sorted(forms.items(), key=lambda item: -item[1][0].itemsize):
        places[name], end = end, end + prod(shape) * kind.itemsize
        header[name] = {"dtype": TYPES[kind], "shape": list(shape), "data_offsets": [places[name], end]}
    content = json.dumps(header).encode()
    content += b" " * (-len(content) % 8)
    return places, len(content).to_bytes(8, "little") + content


def _begun(text: str, targets: Mapping[str, Tensor], kind: torch.dtype, shape: tuple[int, ...]) -> Any:
    """A digest that has seen the facts and the forms of all; the targets' bytes are next, then those of the inputs."""
    forms = [[len(targets[split]), *targets[split].shape[1:], str(targets[split].dtype)] for split in SPLITS]
    return hashlib.sha256(f"{text}{forms}{kind}{shape}".encode())


def _bytes(tensor: Tensor) -> Any:
    return np.ascontiguousarray(tensor.numpy()).data.cast("B")
