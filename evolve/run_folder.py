"""A run is a folder: `RunFolder` makes it, finds it, locks it, and keeps the files of weights.

    lineage.sqlite    all that happened (`evolve.lineage`)
    weights/          genomes, each named by its digest, which loading verifies
    tensors/          what mutations computed from data, named by digest; only where there is some
    settings.yaml     the settings, for people; the lineage's copy is the one that counts
    status.json       what `evolve status --json` prints, replaced whole after each step
    lock              held by the process that searches, and by nobody after its death

The folder is made under a temporary name and renamed when it is whole. Only its owner may read it. Whatever ends in
`.tmp` was left by a process that died, and is removed when the run is next worked on. The weights of all candidates are
kept; `Snapshot.references` says how many candidates need a file.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import secrets
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evolve.lineage import Lineage, Proposal
from evolve.run_lock import Lock, held
from graphs.durable import TEMPORARY, storage_errors, sync_directory, write_bytes, write_text
from graphs.errors import EvolutionError, FormatError

if TYPE_CHECKING:
    from torch import Tensor

    from graphs import Genome

__all__ = ["RUNS", "RunError", "RunFolder"]

RUNS = Path("runs")
"""Where runs go that are given no folder."""

ABANDONED = 3600.0
"""Seconds after which an unfinished folder that nobody locks is taken for left behind."""


_DRAFT = re.compile(rf"\..+\.[0-9a-f]{{8}}{re.escape(TEMPORARY)}")
"""Names of unfinished folders."""


class RunError(EvolutionError, ValueError):
    """A folder is not a run, or is one where a new one should go."""


class RunFolder:
    """The folder of one run.

    Attributes:
        path: Where it is.
        lineage: Its lineage, for reading.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self.lineage = Lineage(self.path / "lineage.sqlite")

    @classmethod
    def find(cls, path: str | os.PathLike[str]) -> RunFolder:
        """The run at `path`.

        Raises:
            RunError: There is none.
        """
        folder = cls(Path(path))
        try:
            if folder.lineage.path.is_file():
                return folder
            exists = folder.path.exists()
        except OSError as error:
            raise RunError(f"cannot look into {path}: {error.strerror}; check its permissions") from error
        if not exists:
            raise RunError(f"there is no run {path}; expected a folder that 'evolve search' made, such as runs/0001")
        raise RunError(f"{path} is not a run: it has no lineage.sqlite; expected a folder that 'evolve search' made")

    @classmethod
    @contextlib.contextmanager
    def create(cls, path: str | os.PathLike[str] | None, fill: Callable[[RunFolder], None]) -> Iterator[RunFolder]:
        """Makes a run's folder, and holds its lock.

        Args:
            path: Where; None for the next free number in `RUNS`.
            fill: Called with the folder under its temporary name, to write what belongs there.

        Raises:
            RunError: Something is there already.
            StorageError: The folder cannot be made.
        """
        cls.check_free(path)
        base = RUNS if path is None else Path(path).absolute().parent
        draft = base / f".{'run' if path is None else Path(path).name}.{secrets.token_hex(4)}{TEMPORARY}"
        with contextlib.ExitStack() as stack:
            with storage_errors(draft):
                base.mkdir(parents=True, exist_ok=True)
                _remove_abandoned(base)
                draft.mkdir(mode=0o700)
            try:
                stack.enter_context(Lock(draft))
                with storage_errors(draft), private():
                    (draft / "weights").mkdir()
                    fill(cls(draft))
                    for folder in (draft / "weights", draft):
                        sync_directory(folder)
                place = _rename(draft, path)
            except BaseException:
                shutil.rmtree(draft, ignore_errors=True)
                raise
            yield cls(place)

    @classmethod
    def check_free(cls, path: str | os.PathLike[str] | None) -> None:
        """Passes where `create` may make a folder.

        Raises:
            RunError: Something is there already.
        """
        if path is None:
            return
        place = Path(path)
        if cls(place).lineage.path.exists():
            raise RunError(
                f"{path} holds a run already; go on with it by 'evolve resume {path}', or name another folder"
            )
        if place.exists() and not (place.is_dir() and not any(place.iterdir())):
            raise RunError(f"{path} exists and is not an empty folder; name another one for the run")

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Holds the run's lock, and removes what a process that died has left.

        Raises:
            RunLocked: Another process searches here.
        """
        with Lock(self.path):
            for folder in (self.path, self.path / "weights", self.path / "tensors"):
                for leftover in folder.glob(f".*{TEMPORARY}") if folder.is_dir() else ():
                    with storage_errors(leftover):
                        leftover.unlink()
            yield

    @property
    def in_use(self) -> bool:
        """Whether a process searches here at this moment."""
        return held(self.path)

    def save_genome(self, genome: Genome) -> str:
        """Writes a genome's file; returns its digest, by which `load_genome` finds it."""
        from graphs.files import encode

        with private():
            write_bytes(self._weights(genome.digest), encode(genome))
        return genome.digest

    def load_genome(self, digest: str) -> Genome:
        """The genome whose digest is `digest`.

        Raises:
            FormatError: The file is missing, damaged, or another one.
        """
        from graphs import load

        path = self._weights(digest)
        if not path.is_file():
            raise FormatError(f"{path} is missing, though the lineage names it; restore it from a copy")
        genome = load(path)
        if genome.digest != digest:
            raise FormatError(f"{path} holds another network ({genome.digest[:12]}…); restore it from a copy")
        return genome

    def save_tensors(self, tensors: Mapping[str, Tensor]) -> str | None:
        """Writes what a mutation computed from data; returns the file's digest, None for nothing."""
        if not tensors:
            return None
        import torch
        from safetensors.torch import save

        dense = torch.contiguous_format  # one tensor may stand under two names, which the format does not allow
        data = save({name: tensor.detach().clone(memory_format=dense) for name, tensor in tensors.items()})
        digest = hashlib.sha256(data).hexdigest()
        path = self._tensors(digest)
        with private(), storage_errors(path):
            path.parent.mkdir(exist_ok=True)
            write_bytes(path, data)
            sync_directory(self.path)
        return digest

    def load_tensors(self, digest: str | None) -> dict[str, Tensor]:
        """The tensors that `save_tensors` wrote; none for None.

        Raises:
            FormatError: The file is missing or damaged.
        """
        if digest is None:
            return {}
        from safetensors.torch import load

        path = self._tensors(digest)
        try:
            data = path.read_bytes()
        except OSError as error:
            raise FormatError(f"cannot read {path}: {error.strerror}; restore it from a copy") from error
        if hashlib.sha256(data).hexdigest() != digest:
            raise FormatError(f"{path} is damaged: its bytes do not match its name; restore it from a copy")
        tensors: dict[str, Tensor] = load(data)
        return tensors

    def replayed(self, proposal: Proposal, parent: Genome) -> Genome:
        """The untrained network of a candidate, made again from its trained parent and its record.

        Raises:
            ReplayError: It is not, bit for bit, the one that was proposed.
            FormatError: What was computed from data is missing or damaged.
        """
        from ops import Record, ReplayError, replay

        record = Record.from_json(dict(proposal.record or {}))
        genome = replay(parent, record, self.load_tensors(proposal.tensors) or None)
        if genome.digest != proposal.untrained:
            raise ReplayError(
                f"candidate {proposal.id} of {self.path}: its record leads to the weights {genome.digest[:12]}…, but "
                f"{proposal.untrained[:12]}… were proposed; this program or its libraries draw other numbers than then"
            )
        return genome

    def write_settings(self, settings: Mapping[str, Any]) -> None:
        """Writes `settings.yaml`."""
        import yaml

        with private():
            write_text(
                self.path / "settings.yaml",
                yaml.safe_dump(dict(settings), sort_keys=False, allow_unicode=True),
            )

    def write_status(self, status: Mapping[str, Any]) -> None:
        """Replaces `status.json`."""
        with private():
            write_text(self.path / "status.json", json.dumps(status, allow_nan=False, indent=2) + "\n")

    def _weights(self, digest: str) -> Path:
        return self.path / "weights" / f"{digest}.safetensors"

    def _tensors(self, digest: str) -> Path:
        return self.path / "tensors" / f"{digest}.safetensors"


@contextlib.contextmanager
def private() -> Iterator[None]:
    """Files and folders made inside are for their owner alone."""
    before = os.umask(0o077)
    try:
        yield
    finally:
        os.umask(before)


def _rename(draft: Path, path: str | os.PathLike[str] | None) -> Path:
    """Gives the finished folder its name, `path` or the first free number; a rename takes no taken name."""
    for number in count(1):
        place = Path(path) if path is not None else draft.parent / f"{number:04d}"
        if path is None and place.exists():
            continue
        try:
            with storage_errors(place):
                os.rename(draft, place)
                sync_directory(draft.parent)
            return place
        except OSError as error:
            cause = error.__cause__
            taken = isinstance(cause, OSError) and cause.errno in {
                errno.ENOTEMPTY,
                errno.EEXIST,
                errno.ENOTDIR,
            }
            if not taken:
                raise
            RunFolder.check_free(path)  # says what is there
            if path is not None:
                raise
    raise AssertionError("unreachable")  # pragma: no cover


def _remove_abandoned(base: Path) -> None:
    """Removes folders that were begun long ago by a process that died before they got their name."""
    for folder in base.glob(f".*{TEMPORARY}"):
        with contextlib.suppress(OSError, EvolutionError):
            old = time.time() - folder.stat().st_mtime > ABANDONED
            ours = _DRAFT.fullmatch(folder.name) and {"lock", "weights"} <= set(os.listdir(folder))
            if old and ours and not held(folder):
                shutil.rmtree(folder)
