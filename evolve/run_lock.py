"""One search a run, one training a folder: a lock that the kernel takes back when its holder dies, however it dies.

`flock` belongs to an open file, not to a file's existence, so a process that was killed leaves no lock behind that
would have to be removed by hand. Reading needs no lock.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from pathlib import Path
from types import TracebackType

from graphs.durable import storage_errors
from graphs.errors import EvolutionError

__all__ = ["Lock", "RunLocked", "held"]

PATIENCE = 0.5
"""Seconds before giving up. Whoever asks whether a run is locked holds it for a moment; that must not refuse
a search."""


class RunLocked(EvolutionError, BlockingIOError):
    """Another process searches or trains in this folder."""


class Lock:
    """Holds the lock of `folder` while its `with` block lasts.

    Args:
        folder: Of a run, or of a training.
        use: What is done there, for the message.

    Raises:
        RunLocked: Another process holds it; the message names that process.
        StorageError: The lock file cannot be made.
    """

    def __init__(self, folder: Path, use: str = "search") -> None:
        self._folder, self._use = folder, use
        self._handle = -1

    def __enter__(self) -> Lock:
        path = self._folder / "lock"
        with storage_errors(path):
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            end = time.monotonic() + PATIENCE
            while not _take(handle, fcntl.LOCK_EX):
                if time.monotonic() >= end:
                    holder = os.pread(handle, 32, 0).decode("ascii", "replace").strip()
                    process = f" (process {holder})" if holder.isdecimal() else ""
                    raise RunLocked(
                        f"{self._folder} is in use by another {self._use}{process}; "
                        "wait until it ends, or stop it first"
                    )
                time.sleep(0.02)
            with storage_errors(path):
                os.ftruncate(handle, 0)
                os.pwrite(handle, f"{os.getpid()}\n".encode(), 0)
        except BaseException:
            os.close(handle)
            raise
        self._handle = handle
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._handle)


def held(folder: Path) -> bool:
    """Whether a process holds the lock of the run in `folder` at this moment."""
    try:
        handle = os.open(folder / "lock", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return not _take(handle, fcntl.LOCK_SH)
    finally:
        with contextlib.suppress(OSError):
            os.close(handle)


def _take(handle: int, kind: int) -> bool:
    try:
        fcntl.flock(handle, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
