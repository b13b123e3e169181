"""What a Ray needs around it in this process, and taking all of that back.

Importing and starting Ray changes the environment, signal handlers, the exception hook and a logger, for
good; for a Ray of our own on this machine more has to be set: a private folder, a token, and the loopback
interface for every socket. `Surroundings` does it, remembers what was there before, and restores it. Nothing
here imports Ray.
"""

from __future__ import annotations

import contextlib
import faulthandler
import fcntl
import functools
import importlib.util
import logging
import os
import secrets
import shutil
import signal
import socket
import stat
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from graphs.durable import storage_errors
from runners.entry import import_path
from runners.pools import PoolSettingError

__all__ = ["Surroundings", "connects", "package_folders"]

_PACKAGES = ("graphs", "ops", "runners", "evolve")
_LONGEST_FOLDER = 24
_PREFIX = "hydra-"
_LOCK = "lock"
_TOKEN = "token"  # noqa: S105 - a file's name
_CONNECT_SECONDS = 10.0


class Surroundings:
    """The environment of a Ray.

    Args:
        private: Whether the Ray is started here, for us alone, instead of joined.

    Attributes:
        folder: Temporary folder around that of a private Ray, which makes its own open to all; mode 0700.
    """

    def __init__(self, private: bool) -> None:
        self._before = dict(os.environ)
        self._changed: dict[str, str | None] = {}
        self._level = logging.getLogger("ray").level
        self._had_faulthandler = faulthandler.is_enabled()
        self.folder: Path | None = None
        self._lock: int | None = None
        if private:
            home = _short_folder()
            with storage_errors(Path(home)):
                _remove_abandoned(Path(home))
                self.folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=home))
                self._lock = _take_lock(self.folder / _LOCK, create=True)
                self._make_private(self.folder)
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

    def _make_private(self, folder: Path) -> None:
        token = folder / _TOKEN
        token.touch(0o600)
        token.write_text(_token())
        for name in ("RAY_AUTH_TOKEN", "RAY_ADDRESS"):
            os.environ.pop(name, None)
        os.environ.update(
            RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER="0",  # an odd name for: bind every socket to 127.0.0.1
            RAY_AUTH_MODE="token",
            RAY_AUTH_TOKEN_PATH=str(token),
            PYTHONPATH=import_path(),
        )

    @contextlib.contextmanager
    def starting(self) -> Iterator[None]:
        """Puts back the handlers that Ray replaces while it starts, and notes what it sets."""
        hook = sys.excepthook
        handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            sys.excepthook = hook
            for number, handler in handlers.items():
                with contextlib.suppress(ValueError):
                    if handler is not None and signal.getsignal(number) is not handler:
                        signal.signal(number, handler)
            for name in {*self._before, *os.environ}:
                if self._before.get(name) != os.environ.get(name):
                    self._changed[name] = self._before.get(name)

    def restore(self) -> None:
        """Takes back what was set, and deletes the folder."""
        logging.getLogger("ray").setLevel(self._level)
        if not self._had_faulthandler:
            faulthandler.disable()
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None
        for name, value in self._changed.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def connects(address: str) -> str:
    """Why nobody can be reached at `address`, or "" if somebody can; Ray itself would try for minutes.

    Raises:
        PoolSettingError: It is no address.
    """
    if address == "auto":
        return ""
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or "//" in address:
        raise PoolSettingError(f"Ray cluster {address!r}: expected HOST:PORT, or 'auto' for one on this machine")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_SECONDS).close()
    except (OSError, OverflowError) as error:
        return str(error)
    return ""


def package_folders(entry: str) -> list[str]:
    """Folders of our packages, and of that of `entry`, for Ray to put onto the cluster's workers."""
    names = dict.fromkeys([*_PACKAGES, entry.split(":")[0].split(".")[0]])
    specs = [importlib.util.find_spec(name) for name in names]
    places = [spec.submodule_search_locations for spec in specs if spec is not None]
    return [str(Path(place[0]).resolve()) for place in places if place]


def _take_lock(path: Path, create: bool = False) -> int | None:
    """Locks a file until it is closed or this process ends, however it ends; None if another process holds it."""
    try:
        handle = os.open(path, os.O_RDWR | (os.O_CREAT if create else 0), 0o600)
    except OSError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(handle)
        return None
    return handle


def _is_private(path: Path, mode: int) -> bool:
    """Whether a file or folder is this user's and has exactly these permissions; links do not count."""
    try:
        found = path.lstat()
    except OSError:
        return False
    return found.st_uid == os.getuid() and stat.S_IMODE(found.st_mode) == mode and not stat.S_ISLNK(found.st_mode)


def _remove_abandoned(home: Path) -> None:
    """Removes the folders of Rays whose process was killed: nobody holds their lock any more.

    Only what bears our marks is ours: a private folder with a lock and a token in it that nobody else may read.
    """
    for folder in home.glob(f"{_PREFIX}????????"):
        marks = [(folder, 0o700), (folder / _LOCK, 0o600), (folder / _TOKEN, 0o600)]
        if not all(_is_private(path, mode) for path, mode in marks):
            continue
        handle = _take_lock(folder / _LOCK)
        if handle is not None:
            shutil.rmtree(folder, ignore_errors=True)
            os.close(handle)


@functools.cache
def _token() -> str:
    """The secret of the Rays that this process starts; one for all, because Ray's client remembers it."""
    return secrets.token_hex(32)


def _short_folder() -> str:
    """A folder for temporary files with a name short enough for the sockets below it.

    Their paths may have 107 bytes, of which ours is 15, and Ray's session, its folder and a name are 64 or more.
    """
    usual, short = tempfile.gettempdir(), os.path.join(os.sep, "tmp")
    return usual if len(usual.encode()) <= _LONGEST_FOLDER or not os.path.isdir(short) else short
