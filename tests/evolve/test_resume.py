"""Real searches with real workers, killed at random moments: nothing is lost, nothing is trained twice.

That a killed search goes on as if nothing was is tested for each place between two steps in `test_driver`, with a
pool that trains nothing. Here the process really dies, with its workers at work.
"""

from __future__ import annotations

import os
import random
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy
import psutil
import pytest

from evolve import open_run, resume, search
from evolve.events import Finished, Progress
from evolve.runs import Run
from runners import Pool, Task, open_pool
from tests.evolve.pools import small
from tests.evolve.test_driver import told

SEARCH = """
import resource, sys
from evolve import search
from tests.evolve.pools import small
limit = int(sys.argv[2])
if limit:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
def tell(event):
    print(type(event).__name__, flush=True)
if __name__ == "__main__":
    try:
        search(small(workers=2, order="strict", run=sys.argv[1], data=sys.argv[3]), tell)
    except BaseException as error:
        print("error:", error, flush=True)
        sys.exit(getattr(error, "exit_code", 99))
"""


def start(folder: Path, data: str, limit: int = 0) -> subprocess.Popen[str]:
    root = Path(__file__).parents[2]
    return subprocess.Popen(
        [sys.executable, "-c", SEARCH, str(folder), str(limit), data],
        stdout=subprocess.PIPE,
        text=True,
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"},
    )


def no_process_left(family: list[psutil.Process]) -> bool:
    """Whether all of `family` end within some seconds, with nobody to end them."""
    _, alive = psutil.wait_procs(family, timeout=10)
    return not alive


@pytest.fixture(scope="module")
def pool() -> Iterator[Pool]:
    """Workers for the searches of this process, started once."""
    with open_pool("local", 2) as opened:
        yield opened


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A file with the digits, which a worker reads faster than it imports the library that they come with."""
    path = tmp_path_factory.mktemp("data") / "digits.npz"
    task = Task.named("digits")
    parts = {"train": task.train, "test": task.test}
    arrays = {f"x_{name}": part.images[:, 0].numpy() for name, part in parts.items()}
    numpy.savez(path, **arrays, **{f"y_{name}": part.labels.numpy() for name, part in parts.items()})
    return str(path)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, pool: Pool, data: str) -> Run:
    """The search without any interruption."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    return search(small(workers=2, order="strict", run=str(folder), data=data), through=pool)


def figures(run: Run) -> list[Any]:
    """All that has to be equal: the log, the weights, the curves, what was measured at the end."""
    found = run.lineage.snapshot()
    ends = {
        name: {key: value for key, value in control.items() if key not in {"seconds", "worker"}}
        for name, control in run.controls.items()
    }
    return [
        told(run),
        {number: (result.weights, result.curves, result.finished) for number, result in found.results.items()},
        ends,
    ]


def test_a_search_with_real_workers_learns(whole: Run) -> None:
    log = whole.log()
    assert [row["status"] for row in log] == ["done"] * 6
    assert {row["worker"] for row in log} <= {"local-0", "local-1"}
    assert all(row["seconds"] > 0 for row in log)
    best, first = whole.best(), log[0]["val_accuracy"]
    assert best is not None and best.val_accuracy is not None and best.val_accuracy > first
    assert len(best.curves) == 1 and best.curves[0]["val_accuracy"] == best.val_accuracy


def test_the_same_seed_gives_the_same_lineage_with_other_timing(whole: Run, data: str, tmp_path: Path) -> None:
    seen: list[Any] = []

    def slowly(event: Any) -> None:
        seen.append(event)
        if isinstance(event, Finished):
            time.sleep(0.05)

    again = search(small(workers=2, order="strict", run=str(tmp_path / "run"), data=data), slowly)
    assert figures(again) == figures(whole)
    epochs = [event for event in seen if isinstance(event, Progress)]
    assert {event.id for event in epochs} >= set(range(6)) and all(event.epoch == 1 for event in epochs[:6])


@pytest.mark.parametrize("moment", range(4))
def test_killed_at_a_random_moment_it_goes_on(whole: Run, pool: Pool, data: str, tmp_path: Path, moment: int) -> None:
    rng = random.Random(moment)  # noqa: S311
    folder = tmp_path / "run"
    begun = start(folder, data)
    assert begun.stdout is not None
    for _ in range(1 + 5 * moment + rng.randrange(5)):  # of about 20 lines
        if not begun.stdout.readline():
            break
    time.sleep(rng.random() * 0.1)
    family = psutil.Process(begun.pid).children(recursive=True)
    begun.send_signal(signal.SIGKILL)
    begun.communicate()
    assert no_process_left(family)
    before = open_run(folder).lineage.snapshot()
    assert open_run(folder).status()["candidates"]["running"] == 0
    run = resume(folder, through=pool)
    assert figures(run) == figures(whole)
    after = run.lineage.snapshot()
    for number, result in before.results.items():
        assert after.results[number] == result
        assert after.attempts[number] == before.attempts[number]
    unfinished = [one.id for one in before.proposals if one.id not in before.results]
    assert all(after.attempts[number] <= 2 for number in unfinished)
    assert not list(folder.rglob("*.tmp"))


@pytest.mark.parametrize("number", [signal.SIGTERM])
def test_a_signal_ends_it_with_its_workers(
    whole: Run, pool: Pool, data: str, tmp_path: Path, number: signal.Signals
) -> None:
    folder = tmp_path / "run"
    begun = start(folder, data)
    assert begun.stdout is not None
    while begun.stdout.readline() not in {"Finished\n", ""}:
        pass
    family = psutil.Process(begun.pid).children(recursive=True)
    begun.send_signal(number)
    told_last = begun.communicate(timeout=30)[0].splitlines()[-1]
    assert begun.returncode == 128 + number
    assert f"evolve resume {folder}" in told_last
    assert no_process_left(family)
    assert figures(resume(folder, through=pool)) == figures(whole)


def test_a_full_disk_ends_it_and_loses_nothing(whole: Run, pool: Pool, data: str, tmp_path: Path) -> None:
    """No file may grow beyond a limit that the write-ahead log reaches on the way."""
    folder = tmp_path / "run"
    begun = start(folder, data, 90_000)
    output = begun.communicate(timeout=60)[0]
    assert begun.returncode == 1, output
    last = output.splitlines()[-1]
    assert last.startswith("error: cannot write") and "nothing written before is lost" in last
    done = len(open_run(folder).lineage.snapshot().results)
    assert 0 < done < 6 and output.count("Finished") == done
    assert figures(resume(folder, through=pool)) == figures(whole)


def test_limits_are_put_back() -> None:
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY
