"""SQLite as this project uses it: one writer, synchronous commits, readers that ask nothing of the writer.

While a search writes, the database has a write-ahead log on local disks and a rollback journal elsewhere
(shared memory, which the log needs, does not work over a network). When the search ends it is a single file
again, which can be copied and can be read where nothing may be written. What SQLite raises becomes one line
of ours.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from pathlib import Path

from graphs.durable import StorageError
from graphs.errors import EvolutionError, FormatError, StorageFull

__all__ = ["LOCAL_DISKS", "database_errors", "filesystem", "journal_for", "reading", "transaction", "writing"]

LOCAL_DISKS = frozenset(
    {
        "bcachefs",
        "btrfs",
        "ext2",
        "ext3",
        "ext4",
        "f2fs",
        "jfs",
        "overlay",
        "ramfs",
        "reiserfs",
        "tmpfs",
        "xfs",
        "zfs",
    }
)
"""Types of file system whose shared memory and locks one kernel manages; any other gets the rollback
journal."""

SYNCHRONOUS = "FULL"
"""What a commit waits for: until the disk says that it has it."""

PATIENCE = 30.0
"""Seconds to wait for another process' lock on the database."""

_PRIMARY = 0xFF
"""Mask of the primary result code in SQLite's extended ones."""


def filesystem(path: Path) -> str:
    """Type of the file system on which `path` lies, as the kernel names it; empty where it does not say."""
    try:
        mounts = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return ""
    place = os.path.realpath(path)
    best, found = "", ""
    for line in mounts:
        fields, _, tail = line.partition(" - ")
        mount = fields.split()[4].encode("latin-1", "replace").decode("unicode_escape")
        inside = place == mount or place.startswith(mount.rstrip("/") + "/")
        if inside and len(mount) >= len(best):
            best, found = mount, tail.split()[0]
    return found


def journal_for(path: Path) -> str:
    """`WAL` on a local disk, else `DELETE`, which is right everywhere."""
    return "WAL" if filesystem(path) in LOCAL_DISKS else "DELETE"


@contextlib.contextmanager
def database_errors(path: Path) -> Iterator[None]:
    """Turns what SQLite raises into one clear line.

    Raises:
        StorageFull: No room; the transaction is undone and what was there before is intact.
        StorageError: The database cannot be opened, written or locked.
        FormatError: The file is damaged or is no database.
    """
    try:
        yield
    except EvolutionError:
        raise
    except UnicodeDecodeError as error:  # damage in a name that SQLite puts into its message
        raise FormatError(f"{path} is damaged: {error.reason}; restore it from a copy") from error
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT)
        primary = code & _PRIMARY
        if primary == sqlite3.SQLITE_FULL or code in _NO_ROOM:
            raise StorageFull(
                f"cannot write {path}: {error}; free some space there; nothing written before is lost"
            ) from error
        if primary in _REFUSED:
            raise StorageError(
                f"cannot use {path}: {error}; check the disk, the permissions and who else uses it"
            ) from error
        raise FormatError(f"{path} is damaged or not a lineage of ours: {error}; restore it from a copy") from error


_REFUSED = frozenset(
    {
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_READONLY,
    }
)
_NOT_HERE = frozenset({sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY})
"""How SQLite says that it would have to write where it may not."""

_NO_ROOM = frozenset(
    {
        sqlite3.SQLITE_IOERR_FSYNC,
        sqlite3.SQLITE_IOERR_SHMMAP,
        sqlite3.SQLITE_IOERR_SHMSIZE,
        sqlite3.SQLITE_IOERR_TRUNCATE,
        sqlite3.SQLITE_IOERR_WRITE,
    }
)
"""How SQLite words a limit on the size of files, and some disks their end."""


@contextlib.contextmanager
def writing(path: Path) -> Iterator[sqlite3.Connection]:
    """The one connection that writes to the database at `path`, which must exist.

    Commits wait for the disk. At the end the journal is gone, unless somebody reads at that moment.
    """
    with database_errors(path):
        connection = _connect(f"{path.absolute().as_uri()}?mode=rw")
    try:
        with database_errors(path):
            _check_whole(connection, path)
            connection.execute(f"PRAGMA journal_mode={journal_for(path)}")
            connection.execute(f"PRAGMA synchronous={SYNCHRONOUS}")
        yield connection
    finally:
        with contextlib.suppress(sqlite3.Error):  # a reader, a full disk: the log stays beside the file, and is valid
            connection.execute("PRAGMA busy_timeout=0")
            connection.execute("PRAGMA journal_mode=DELETE")
        connection.close()


@contextlib.contextmanager
def reading(path: Path) -> Iterator[sqlite3.Connection]:
    """A consistent view of the database at `path`, whoever writes meanwhile; the folder may be read-only."""
    with contextlib.ExitStack() as stack:
        with database_errors(path):
            try:
                connection = stack.enter_context(_view(path))
            except sqlite3.OperationalError as error:
                if getattr(error, "sqlite_errorcode", 0) & _PRIMARY not in _NOT_HERE:
                    raise
                # The journal of a killed search wants to be worked in, and must not be here: so it is, on a copy.
                copies = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="lineage-")))
                for suffix in ("", "-wal", "-journal"):
                    source = path.with_name(path.name + suffix)
                    if source.exists():
                        shutil.copyfile(source, copies / source.name)
                connection = stack.enter_context(_view(copies / path.name, mode="rw"))
            _check_whole(connection, path)
        yield connection


@contextlib.contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """All that is written inside becomes durable together, or none of it."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            with contextlib.suppress(sqlite3.Error):
                connection.execute("ROLLBACK")
        raise


@contextlib.contextmanager
def _view(path: Path, mode: str = "ro") -> Iterator[sqlite3.Connection]:
    connection = _connect(f"{path.absolute().as_uri()}?mode={mode}")
    try:
        connection.execute("BEGIN")
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()  # the view begins with the first read
        yield connection
    finally:
        connection.close()


def _connect(address: str) -> sqlite3.Connection:
    connection = sqlite3.connect(address, uri=True, isolation_level=None, timeout=PATIENCE)
    connection.row_factory = sqlite3.Row
    connection.text_factory = lambda data: data.decode("utf-8", "surrogateescape")  # damage is for the digest to find
    return connection


def _check_whole(connection: sqlite3.Connection, path: Path) -> None:
    """Raises `FormatError` where pages contradict each other: rows may be missing, which no digest tells."""
    found = connection.execute("PRAGMA quick_check(1)").fetchone()
    if found is None or found[0] != "ok":
        raise FormatError(f"{path} is damaged: {' '.join(str(found and found[0]).split())}; restore it from a copy")
