"""Worker processes live as long as their driver and no longer, and nothing of ours listens to the network."""

from __future__ import annotations

import ipaddress
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from runners import open_pool, surroundings
from runners.entry import import_path
from runners.frames import BEAT, JOB, OUTCOME, READY, REPORT, Splitter, pack
from runners.jobs import decode_outcome, encode_job
from runners.local_pool import LocalWorkers
from tests.runners.misbehaving import SERVE
from tests.runners.places import PATIENCE, collect, gone, job

if TYPE_CHECKING:
    from runners.ray_pool import Connection

DRIVER = """
import sys
from runners import open_pool
from tests.runners.misbehaving import SERVE
from tests.runners.places import job

def report(id, progress):
    print(progress["pid"], flush=True)

with open_pool("local", 2, perform=SERVE, report=report) as pool:
    pool.submit(job(0, "sleep", seconds=60))
    pool.submit(job(1, "hold"))
    while True:
        pool.wait(1)
"""


@pytest.fixture
def driver() -> Iterator[subprocess.Popen[str]]:
    """A process whose two workers train: one hangs in Python, one in C, holding the interpreter's lock."""
    environment = {**os.environ, "PYTHONPATH": import_path()}
    process = subprocess.Popen([sys.executable, "-c", DRIVER], stdout=subprocess.PIPE, text=True, env=environment)
    yield process
    process.kill()
    process.communicate()


def test_workers_end_with_their_driver(driver: subprocess.Popen[str]) -> None:
    assert driver.stdout is not None
    pids = [int(driver.stdout.readline()) for _ in range(2)]
    time.sleep(2)
    assert len(psutil.Process(driver.pid).children()) == 2
    driver.kill()
    assert gone(pids, within=2)


class Line:
    """A worker, spoken to without a pool."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self._splitter = Splitter()
        self._heard: list[tuple[bytes, bytes]] = []

    def read(self, kind: bytes) -> bytes:
        """The next message of a kind; those before it are forgotten."""
        assert self.process.stdout is not None
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            while self._heard:
                found, payload = self._heard.pop(0)
                if found == kind:
                    return payload
            self._splitter.feed(os.read(self.process.stdout.fileno(), 1 << 16))
            self._heard += self._splitter
        raise AssertionError(f"no {kind!r} from the worker")

    def give(self, behaviour: str, **arguments: Any) -> None:
        """Sends a job."""
        data = encode_job(job(0, behaviour, **arguments))
        assert self.process.stdin is not None
        self.process.stdin.write(pack(JOB, len(data)) + data)
        self.process.stdin.flush()


@pytest.fixture
def worker() -> Iterator[Line]:
    """A worker that is ready."""
    command = [sys.executable, "-P", "-m", "runners.worker", SERVE]
    environment = {**os.environ, "PYTHONPATH": import_path()}
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, env=environment) as process:
        line = Line(process)
        line.read(READY)
        yield line
        process.kill()


def test_a_worker_ignores_interrupts_and_speaks_of_life(worker: Line) -> None:
    worker.give("sleep", seconds=1)
    assert b"pid" in worker.read(REPORT)
    worker.process.send_signal(signal.SIGINT)
    assert decode_outcome(worker.read(OUTCOME)).failure is not None
    assert worker.read(BEAT) == b""


def test_a_worker_ends_when_its_input_does(worker: Line) -> None:
    worker.give("sleep", seconds=60)
    worker.read(REPORT)
    assert worker.process.stdin is not None
    worker.process.stdin.close()
    worker.process.wait(2)


def test_what_a_worker_has_started_is_killed_with_it() -> None:
    pids: list[int] = []
    with open_pool("local", 1, perform=SERVE, report=lambda _, progress: pids.extend(progress.values())) as pool:
        pool.submit(job(0, "parent"))
        while len(pids) < 2:
            assert pool.wait(0.2) == []
        os.kill(pids[0], signal.SIGKILL)
        assert gone(pids, within=0.0) is False
        pool.wait(0.5)
        assert gone(pids[:2], within=2)


def test_a_worker_that_falls_silent_is_given_up() -> None:
    workers = LocalWorkers(perform=SERVE, silence=3.0)
    number = workers.start()
    events: list[object] = []
    while not events:
        events += workers.events(1)
    workers.give(number, encode_job(job(0, "signal", number=int(signal.SIGSTOP))))
    events.clear()
    end = time.monotonic() + PATIENCE
    while "no sign of life for 3 s" not in str(events):
        events += workers.events(1)
        assert time.monotonic() < end
    workers.close()
    workers.close()


def test_a_pool_that_is_not_closed_ends_with_the_interpreter() -> None:
    code = DRIVER.replace("with open_pool", "pool = open_pool").replace(") as pool:", ")\nif True:")
    code = code.replace("    while True:\n        pool.wait(1)", "    pool.wait(1)")
    environment = {**os.environ, "PYTHONPATH": import_path()}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert gone([int(line) for line in done.stdout.split()], within=2)


OPEN = (psutil.CONN_LISTEN, psutil.CONN_NONE)


def listening(process: psutil.Process) -> set[str]:
    """Addresses other than the loopback interface's on which a process listens."""
    try:
        sockets = process.net_connections(kind="inet")
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return set()
    found = {socket.laddr.ip for socket in sockets if socket.laddr and socket.status in OPEN}
    addresses = {ipaddress.ip_address(address) for address in found}
    return {str(address) for address in addresses if not (getattr(address, "ipv4_mapped", None) or address).is_loopback}


def test_ray_listens_to_this_machine_alone_and_tells_nobody(ray_connection: Connection) -> None:
    from runners.pools import PoolSettings
    from runners.ray_pool import open_ray

    with open_ray(PoolSettings(2, perform=SERVE), connection=ray_connection) as pool:
        for id in range(2):
            pool.submit(job(id, seconds=0.5))
        collect(pool, 2)
        tree = [psutil.Process(), *psutil.Process().children(recursive=True)]
        assert len(tree) >= 6
        assert {process.pid: listening(process) for process in tree if listening(process)} == {}
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0"
    assert os.environ["RAY_AUTH_MODE"] == "token"
    token = os.environ["RAY_AUTH_TOKEN_PATH"]
    assert os.stat(token).st_mode & 0o777 == 0o600
    assert os.stat(os.path.dirname(token)).st_mode & 0o777 == 0o700


def test_what_a_killed_driver_left_of_its_ray_is_removed_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(surroundings, "_short_folder", lambda: str(tmp_path))
    code = (
        "import os, signal, sys; from runners import surroundings; "
        "surroundings._short_folder = lambda: sys.argv[1]; "
        "print(surroundings.Surroundings(private=True).folder, flush=True); os.kill(os.getpid(), signal.SIGKILL)"
    )
    environment = {**os.environ, "PYTHONPATH": import_path()}
    killed = subprocess.run(
        [sys.executable, "-c", code, tmp_path], env=environment, stdout=subprocess.PIPE, text=True, check=False
    )
    left = Path(killed.stdout.strip())
    assert killed.returncode == -signal.SIGKILL and (left / "token").exists()
    foreign = tmp_path / "hydra-12345678"
    foreign.mkdir()
    (foreign / "lock").touch()
    first = surroundings.Surroundings(private=True)
    second = surroundings.Surroundings(private=True)
    assert (foreign / "lock").exists()
    shutil.rmtree(foreign)
    folders = [first.folder, second.folder]
    assert sorted(tmp_path.iterdir()) == sorted(folder for folder in folders if folder is not None)
    for one in (second, first):
        with one.starting():
            pass
        one.restore()
    assert list(tmp_path.iterdir()) == []
