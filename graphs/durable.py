"""The one way in which this project writes a file.

A file appears whole or not at all, also when the process is killed or the disk fills up: its bytes go to a temporary
file beside it, which is flushed to the disk, renamed over the name, and made durable by flushing the directory.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from graphs.errors import EvolutionError, StorageFull

__all__ = ["TEMPORARY", "StorageError", "storage_errors", "sync_directory", "write_bytes", "write_text", "writing"]

TEMPORARY = ".tmp"
"""Suffix of files that are not whole yet; whatever bears it after a crash may be deleted."""

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class StorageError(EvolutionError, OSError):
    """A file cannot be written: no permission, no such directory, a failing disk."""

    exit_code = 1


@contextlib.contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turns the operating system's refusals to write `path` into one clear line.

    Raises:
        StorageFull: The disk, the quota or the largest permitted file size is exhausted.
        StorageError: Any other failure of the operating system.
    """
    try:
        yield
    except EvolutionError:
        raise
    except OSError as error:
        if error.errno in _FULL:
            raise StorageFull(
                f"cannot write {path}: {os.strerror(error.errno or 0).lower()}; "
                "free some space there; nothing that was written before is lost"
            ) from error
        reason = error.strerror or error
        if error.errno == errno.ENOENT and path.parent.is_dir():
            reason = f"the folder {path.parent} takes no new files"
        raise StorageError(f"cannot write {path}: {reason}; check the path and its permissions") from error


def sync_directory(folder: Path) -> None:
    """Makes the names in `folder` durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def writing(path: Path) -> Iterator[BinaryIO]:
    """A new file that becomes `path`, durably and whole, when the block ends; where it fails nothing has changed.

    Raises:
        StorageFull: No room; the temporary file is gone and the old file intact.
        StorageError: The operating system refuses otherwise.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}{TEMPORARY}")
    with storage_errors(path):
        try:
            with open(temporary, "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
            sync_directory(path.parent)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise


def write_bytes(path: Path, data: bytes) -> None:
    """Writes `data` to `path`, durably and whole; what stood there before survives a failure.

    Raises:
        StorageFull: As `writing`.
        StorageError: As `writing`.
    """
    with writing(path) as file:
        file.write(data)


def write_text(path: Path, text: str) -> None:
    """`write_bytes` of `text` in UTF-8."""
    write_bytes(path, text.encode())
