"""The container of a genome's file: the layout of safetensors, read under limits.

Eight bytes give the length of a JSON header, which gives type, shape and place of each tensor; the tensors'
bytes follow. Files are written by the safetensors library and read here, because sizes must be judged before
anything is allocated, which the library leaves to its caller, and because it accepts a key that stands twice.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

from graphs.documents import bounded, fields, name_of, parse, whole
from graphs.errors import FormatError, GraphError
from graphs.structure import Shape

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "FLOATING",
    "MAX_HEADER",
    "Entry",
    "memory",
    "pack",
    "read_entries",
    "read_header",
    "read_tensors",
    "type_of",
]

FLOATING = ("BF16", "F16", "F32", "F64")
"""The types of numbers with a floating point; the others are integers and truth values."""

MAX_HEADER = 16 * 2**20
"""Most bytes of a header."""

MAX_TENSORS = 10_000
"""Most tensors of a network."""

_TYPES = {
    "BF16": ("bfloat16", 2),
    "F16": ("float16", 2),
    "F32": ("float32", 4),
    "F64": ("float64", 8),
    "I64": ("int64", 8),
    "I32": ("int32", 4),
    "I16": ("int16", 2),
    "I8": ("int8", 1),
    "U8": ("uint8", 1),
    "BOOL": ("bool", 1),
}
_CODES = {name: code for code, (name, _) in _TYPES.items()}


@dataclass(frozen=True, slots=True)
class Entry:
    """What a header says of one tensor: its type and shape, and where in the file's data its bytes lie."""

    name: str
    code: str
    shape: Shape
    begin: int
    end: int


def type_of(name: str, tensor: Tensor) -> str:
    """How the format calls the type of a tensor.

    Raises:
        GraphError: It has no word for it.
    """
    code = _CODES.get(str(tensor.dtype).removeprefix("torch."))
    if code is None:
        raise GraphError(f"tensor '{name}' has type {tensor.dtype}; a file holds {', '.join(sorted(_CODES))}")
    return code


def memory(tensor: Tensor) -> memoryview:
    """The bytes of a contiguous tensor on the CPU, not a copy of them."""
    import torch

    return memoryview(tensor.reshape(-1).view(torch.uint8).numpy())  # type: ignore[arg-type]


def pack(tensors: Mapping[str, Tensor], metadata: dict[str, str]) -> bytes:
    """The bytes of a file with these tensors, which are contiguous and on the CPU.

    Raises:
        GraphError: The header is longer, or there are more tensors, than what is read again.
        FormatError: The header holds more than what is read again.
    """
    from safetensors.torch import save

    separate: dict[str, Tensor] = {}
    storages: set[int] = set()
    for name, tensor in tensors.items():
        # The library refuses tensors that share memory, which two names of one immutable tensor may well do.
        storage = tensor.untyped_storage().data_ptr()
        separate[name] = tensor.clone() if storage in storages else tensor
        storages.add(storage)
    data: bytes = save(separate, metadata)
    length = int.from_bytes(data[:8], "little")
    if length > MAX_HEADER:
        raise GraphError(f"the structure and the facts take more than {MAX_HEADER} bytes, the most that is read again")
    if len(tensors) > MAX_TENSORS:
        raise GraphError(f"the network has {len(tensors)} tensors; at most {MAX_TENSORS} can be written")
    bounded(data[8 : 8 + length], "the structure and the facts")
    return data


def read_header(file: io.BufferedIOBase, size: int, where: str) -> tuple[dict[str, Any], int]:
    """The header of a file of `size` bytes, and where the data behind it begins.

    Raises:
        FormatError: It is cut short, too long, or not a JSON object.
    """
    prefix = file.read(8)
    length = int.from_bytes(prefix, "little")
    if len(prefix) < 8 or (8 + length > size and length <= MAX_HEADER):
        raise FormatError(f"{where}: not a genome, or cut short: {size} bytes do not hold the whole header")
    if length > MAX_HEADER:
        raise FormatError(
            f"{where}: not a genome, or damaged: its header would take {length} bytes, at most {MAX_HEADER} are allowed"
        )
    text = file.read(length)
    if not text.isascii() and length > MAX_HEADER // 4:  # One character beyond ASCII makes all four times as large.
        raise FormatError(f"{where}: header of {length} bytes; at most {MAX_HEADER // 4} where it is not all ASCII")
    header = parse(text, f"{where}: header")
    if not isinstance(header, dict):
        raise FormatError(f"{where}: header: expected an object")
    return header, 8 + length


def read_entries(header: Mapping[str, Any], size: int, where: str) -> dict[str, Entry]:
    """What the header says of each tensor; together they fill the `size` bytes behind it, without overlap.

    Raises:
        FormatError: It is not so; names the tensor.
    """
    if len(header) > MAX_TENSORS:
        raise FormatError(f"{where}: {len(header)} tensors; at most {MAX_TENSORS} are allowed")
    entries: dict[str, Entry] = {}
    for name, value in header.items():
        place = f"{where}: tensor '{name_of(name, where)}'"
        found = fields(value, {"dtype", "shape", "data_offsets"}, place)
        code, shape, offsets = found["dtype"], found["shape"], found["data_offsets"]
        if not isinstance(code, str) or code not in _TYPES:
            raise FormatError(f"{place}: unknown dtype; expected one of {', '.join(_TYPES)}")
        if not isinstance(shape, list) or len(shape) > 8 or not isinstance(offsets, list) or len(offsets) != 2:
            raise FormatError(f"{place}: expected a shape of at most 8 axes and two data_offsets")
        sizes = tuple(whole(each, f"{place}: shape") for each in shape)
        begin, end = (whole(each, f"{place}: data_offsets", size) for each in offsets)
        if end - begin != prod(sizes) * _TYPES[code][1]:
            raise FormatError(f"{place}: {end - begin} bytes do not hold {code} of shape {sizes}")
        entries[name] = Entry(name, code, sizes, begin, end)
    reached = 0
    for entry in sorted(entries.values(), key=lambda entry: (entry.begin, entry.end)):
        if entry.begin != reached:
            raise FormatError(f"{where}: tensor '{entry.name}' begins at byte {entry.begin}, expected {reached}")
        reached = entry.end
    if reached != size:
        raise FormatError(f"{where}: the tensors take {reached} bytes, but {size} are there; use another copy")
    return entries


def read_tensors(file: io.BufferedIOBase, entries: Iterable[Entry], where: str) -> dict[str, Tensor]:
    """The tensors of all entries, read from where the data begins.

    Raises:
        FormatError: The file ends too early.
    """
    import torch

    weights: dict[str, Tensor] = {}
    for entry in sorted(entries, key=lambda entry: (entry.begin, entry.end)):
        tensor = torch.empty(entry.shape, dtype=getattr(torch, _TYPES[entry.code][0]))
        if file.readinto(memory(tensor)) != entry.end - entry.begin:
            raise FormatError(f"{where}: cut short inside tensor '{entry.name}'; use another copy")
        weights[entry.name] = tensor
    return weights
