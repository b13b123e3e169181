"""The one file format of a genome.

A file is one `.safetensors`: the tensors in full (one that several nodes share, once), and all else as
canonical JSON under the single metadata key `hydra_evolve`: format version, graph, facts, and the digest over
that JSON and all tensors. A single key, because safetensors writes several in a different order in each
process.

Reading trusts nothing: sizes are judged before anything is allocated, so a damaged or hostile file costs
little and ends in a `FormatError` that names file and place.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphs.container import FLOATING, Entry, memory, pack, read_entries, read_header, read_tensors, type_of
from graphs.documents import canonical, facts, fields, from_json, name_of, parse, to_json
from graphs.durable import write_bytes
from graphs.errors import EvolutionError, FormatError, GraphError
from graphs.genome import Genome
from graphs.state import State

if TYPE_CHECKING:
    from torch import Tensor

    from graphs.kinds import TensorSpec

__all__ = ["FORMAT", "Unreadable", "decode", "digest", "encode", "from_json", "load", "save", "to_json"]

FORMAT = 1
"""Version of the format that is written; later ones are refused."""

KEY = "hydra_evolve"
"""The one key of the metadata."""

_DIGEST = re.compile("[0-9a-f]{64}")


class Unreadable(FormatError, OSError):
    """A file cannot be opened: it does not exist, is a directory, or may not be read."""


def save(genome: Genome, path: str | os.PathLike[str]) -> None:
    """Writes a genome to a file, durably and whole.

    Raises:
        GraphError: The genome holds something that the format does not, such as a complex tensor, or calls a function
            that is in the memory of this process alone.
        StorageFull: There is no room.
        StorageError: The file cannot be written for another reason.
    """
    write_bytes(Path(path), encode(genome))


def load(path: str | os.PathLike[str]) -> Genome:
    """The genome in a file.

    Raises:
        FormatError: The file is damaged, not one of ours, or of a later version; `Unreadable` if it cannot be
        opened.
    """
    where = os.fspath(path)
    try:
        if not stat.S_ISREG(os.stat(where).st_mode):
            raise Unreadable(f"cannot read {where}: it is not a file; give the path of a .safetensors file")
        with open(where, "rb") as file:
            return _read(file, os.fstat(file.fileno()).st_size, where)
    except EvolutionError:
        raise
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise Unreadable(f"cannot read {where!r}: {reason.lower()}; check the path and its permissions") from None


def encode(genome: Genome) -> bytes:
    """A genome as the bytes of a file; equal genomes give equal bytes, in any process.

    Raises:
        GraphError: The genome holds something that the format does not, such as a complex tensor, or calls a function
            that is in the memory of this process alone.
    """
    from graphs.kinds.in_memory import check_stored

    check_stored(genome.graph)
    return pack(_prepared(genome.weights), {KEY: canonical({**_document(genome), "digest": genome.digest})})


def decode(data: bytes, where: str = "") -> Genome:
    """The genome in the bytes of a file.

    Args:
        data: What `encode` returned.
        where: What messages call it.

    Raises:
        FormatError: The bytes are damaged, not ours, or of a later version.
    """
    return _read(io.BytesIO(data), len(data), where or "genome")


def digest(genome: Genome) -> str:
    """SHA-256, in hexadecimal, over the canonical JSON and each tensor's name, type, shape and bytes.

    Tensors come in the order of their names, so that the order of a dictionary does not matter.

    Raises:
        GraphError: The genome holds something that the format does not, such as a complex tensor.
    """
    text = canonical(_document(genome))
    return _hash(text, (_row(name, tensor) for name, tensor in sorted(_prepared(genome.weights).items())))


def _document(genome: Genome) -> dict[str, Any]:
    facts(genome.about, "about")
    return {"format": FORMAT, "graph": to_json(genome.graph), "about": genome.about}


def _prepared(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors as they are written: on the CPU, dense in memory, under names that can be read again."""
    return {name_of(name, "a tensor's name"): tensor.detach().cpu().contiguous() for name, tensor in weights.items()}


def _row(name: str, tensor: Tensor) -> tuple[str, str, tuple[int, ...], memoryview]:
    return name, type_of(name, tensor), tuple(tensor.shape), memory(tensor)


def _hash(text: str, rows: Iterable[tuple[str, str, tuple[int, ...], memoryview]]) -> str:
    found = hashlib.sha256()
    for name, code, shape, data in (("", "", (), memoryview(text.encode())), *rows):
        line = canonical([name, code, shape, len(data)]).encode()
        found.update(len(line).to_bytes(8, "little") + line)
        found.update(data)
    return found.hexdigest()


def _read(file: io.BufferedIOBase, size: int, where: str) -> Genome:
    """Reads a genome from a file of `size` bytes, once, front to back."""
    header, start = read_header(file, size, where)
    document = _metadata(header.pop("__metadata__", None), where)
    stored = document.pop("digest")
    text = canonical(document)
    graph = from_json(document["graph"], f"{where}: graph")
    entries = read_entries(header, size - start, where)
    expected = graph.tensors
    try:
        unused = State.of(document["about"]).unused
    except GraphError as error:
        raise FormatError(f"{where}: {error}") from None
    for name in sorted((expected.keys() | unused.keys()) ^ entries.keys()):
        raise FormatError(
            f"{where}: tensor '{name}' is missing"
            if name in expected or name in unused
            else f"{where}: tensor '{name}' belongs to no node"
        )
    for name, spec in expected.items():
        _check_type(entries[name], spec, where)
    weights = read_tensors(file, entries.values(), where)
    found = _hash(text, (_row(name, weights[name]) for name in sorted(weights)))
    if found != stored:
        raise FormatError(
            f"{where}: damaged: its content has the digest {found[:12]}…, "
            f"but {stored[:12]}… is recorded; use another copy"
        )
    try:
        return Genome(graph, {name: weights[name] for name in (*expected, *unused)}, document["about"])
    except GraphError as error:
        raise FormatError(f"{where}: {error}") from None


def _metadata(value: Any, where: str) -> dict[str, Any]:
    """The document under our key: canonical, of a version that is known, with all of its parts."""
    text = value.get(KEY) if isinstance(value, dict) else None
    if not isinstance(text, str):
        raise FormatError(
            f"{where}: not a genome: its metadata lacks '{KEY}'; expected a file that `graphs.save` wrote"
        )
    if not text.isascii():
        raise FormatError(f"{where}: metadata: characters beyond ASCII")
    fields(value, {KEY}, f"{where}: metadata")
    document: dict[str, Any] = parse(text.encode(), f"{where}: metadata")
    version = document.get("format") if isinstance(document, dict) else None
    if type(version) is not int or version < 1:
        raise FormatError(f"{where}: metadata: 'format' is missing or no version")
    if version > FORMAT:
        raise FormatError(
            f"{where}: format version {min(version, 2**63)} is newer than this program, "
            f"which reads up to {FORMAT}; update hydra-evolve"
        )
    fields(document, {"format", "graph", "about", "digest"}, f"{where}: metadata")
    if not isinstance(document["about"], dict):
        raise FormatError(f"{where}: metadata: expected an object 'about'")
    if not isinstance(document["digest"], str) or not _DIGEST.fullmatch(document["digest"]):
        raise FormatError(f"{where}: metadata: 'digest' is not 64 hexadecimal digits")
    facts(document["about"], f"{where}: about")
    try:
        same = canonical(document) == text
    except FormatError as error:
        raise FormatError(f"{where}: metadata: {error}") from None
    if not same:
        raise FormatError(f"{where}: metadata: not in canonical form (sorted keys, no spaces)")
    return document


def _check_type(entry: Entry, spec: TensorSpec, where: str) -> None:
    if entry.shape != spec.shape:
        raise FormatError(f"{where}: tensor '{entry.name}' has shape {entry.shape}; its node expects {spec.shape}")
    if (entry.code not in FLOATING) != spec.integer:
        raise FormatError(
            f"{where}: tensor '{entry.name}' has type {entry.code}; its node expects "
            f"{'integers' if spec.integer else 'a floating-point type'}"
        )
