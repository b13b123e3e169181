"""Fixtures that many tests share, and the check that the whole suite leaves nothing behind.

Ray takes seconds to start, so the suite starts one, private and on loopback only, and the tests open pools on it.
Where pytest-xdist spreads the tests over processes, each process makes that check for itself, and one of them runs all
tests that start a Ray.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from runners.pools import POOLS, Pool, PoolSettings, open_pool
from runners.surroundings import Surroundings

if TYPE_CHECKING:
    from runners.ray_pool import Connection

RAY_CPUS = 4

OTHERS = {"PYTEST_CURRENT_TEST", "KMP_DUPLICATE_LIB_OK", "KMP_INIT_AT_FORK", "TORCHINDUCTOR_CACHE_DIR"}
"""Environment variables that pytest and, on import, scikit-learn and torch set in this process."""

OpenPool = Callable[..., Pool]


@pytest.hookimpl(optionalhook=True)  # of pytest-xdist
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """What hands out the tests to processes, where there are several."""
    from tests.spreading import Spreading

    return Spreading(config, log)


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name not in OTHERS}


def _folders() -> set[Path]:
    """Folders of Rays that are over; that of another run that goes on beside this suite is locked."""
    found = set()
    for folder in Path(tempfile.gettempdir()).glob("hydra-*"):
        try:
            with (folder / "lock").open("r+") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            continue
        except OSError:
            pass
        found.add(folder)
    return found


def _children() -> list[str]:
    found = []
    for child in psutil.Process().children(recursive=True):
        try:
            found.append(f"{child.pid} {' '.join(child.cmdline())[:120]}")
        except psutil.NoSuchProcess:
            continue
    return found


@pytest.fixture(scope="session", autouse=True)
def nothing_left_behind() -> Iterator[None]:
    """At the end of the suite: no child process, no thread that keeps Python alive, no folder, the same environment."""
    environment, folders, threads = _environment(), _folders(), set(threading.enumerate())
    yield
    end = time.monotonic() + 5
    while (_children() or not _folders() <= folders) and time.monotonic() < end:
        time.sleep(0.1)
    assert _children() == []
    left = [thread for thread in threading.enumerate() if not thread.daemon and thread not in threads]
    assert left == []
    assert _folders() <= folders
    assert _environment() == environment


@pytest.fixture(scope="session")
def ray_connection(nothing_left_behind: None) -> Iterator[Connection]:
    """The one Ray of this suite."""
    from runners.ray_pool import Connection

    connection = Connection(cpus=RAY_CPUS)
    yield connection
    connection.close()


@pytest.fixture
def ray_environment() -> Iterator[dict[str, str]]:
    """The environment in which another process starts a private Ray of its own."""
    surroundings = Surroundings(private=True)
    try:
        with surroundings.starting():
            yield {**os.environ, "RAY_TMPDIR": str(surroundings.folder)}
    finally:
        surroundings.restore()


@pytest.fixture(params=sorted(POOLS))
def pool_name(request: pytest.FixtureRequest) -> str:
    """Each kind of pool in turn."""
    name: str = request.param
    return name


@pytest.fixture
def open_place(pool_name: str, request: pytest.FixtureRequest) -> Iterator[OpenPool]:
    """Opens pools of one kind after another kind; a Ray pool on the Ray of the suite."""
    opened: list[Pool] = []

    def open_here(workers: int = 1, **settings: Any) -> Pool:
        if pool_name == "ray":
            from runners.ray_pool import open_ray

            pool: Pool = open_ray(
                PoolSettings(workers, **settings), connection=request.getfixturevalue("ray_connection")
            )
        else:
            pool = open_pool(pool_name, workers, **settings)
        opened.append(pool)
        return pool

    yield open_here
    for pool in opened:
        pool.close()
