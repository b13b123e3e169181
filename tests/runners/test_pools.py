"""The contract of a pool, checked for each entry of `POOLS`; and bit-equal results in all of them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from graphs import zoo
from graphs.errors import UnknownName
from runners import Failure, Job, Pool, Recipe, Task, open_pool, train
from runners.dispatch import PoolClosed
from runners.pools import PoolSettingError
from tests.conftest import OpenPool
from tests.runners.misbehaving import SERVE
from tests.runners.places import PATIENCE, collect, gone, job, small


class Reports(list[tuple[int, dict[str, Any]]]):
    """What jobs have reported."""

    def __call__(self, job: int, report: dict[str, Any]) -> None:
        self.append((job, report))

    def all(self, key: str) -> list[Any]:
        """The values of `key`, in the order of their arrival."""
        return [report[key] for _, report in self if key in report]


def wait_for(pool: Pool, reports: Reports, key: str, count: int = 1) -> Any:
    """The first value that a job reports under `key`, once there are `count`."""
    end = time.monotonic() + PATIENCE
    while len(reports.all(key)) < count:
        assert pool.wait(0.2) == []
        assert time.monotonic() < end
    return reports.all(key)[0]


def test_outcomes_arrive_as_they_are_finished(open_place: OpenPool) -> None:
    with open_place(2, perform=SERVE) as pool:
        assert pool.free == 2
        assert pool.wait(5.0) == []
        for id, seconds in enumerate([1.0, 0.0, 0.0, 0.0, 0.0]):
            pool.submit(job(id, seconds=seconds))
        assert pool.free == 0
        found = dict(collect(pool, 5))
        assert set(found) == set(range(5))
        assert {outcome.failure.message for outcome in found.values() if outcome.failure} == {"done"}
        assert len({outcome.worker for outcome in found.values()}) <= 2
        assert pool.free == 2


def test_wait_comes_back_in_time(open_place: OpenPool) -> None:
    with open_place(1, perform=SERVE) as pool:
        pool.submit(job(0, seconds=2.0))
        for timeout in (0.0, 0.3):
            begin = time.monotonic()
            assert pool.wait(timeout) == []
            assert timeout - 0.05 <= time.monotonic() - begin < timeout + 1.5
        collect(pool, 1)


def test_a_hung_job_ends_at_its_deadline_and_the_next_one_runs(open_place: OpenPool) -> None:
    reports = Reports()
    with open_place(2, perform=SERVE, report=reports) as pool:
        pool.submit(job(0))
        collect(pool, 1)
        begin = time.monotonic()
        pool.submit(job(1, "sleep", deadline=3.0, seconds=60))
        pool.submit(job(2, "hold", deadline=3.0))
        wait_for(pool, reports, "pid", count=3)
        for _, outcome in collect(pool, 2):
            assert outcome.failure is not None and outcome.failure.kind == "timed-out"
            assert outcome.seconds >= 3.0
        pids = [report["pid"] for id, report in reports if id > 0]
        assert len(pids) == 2
        assert gone(pids, within=2)
        assert 3.0 <= time.monotonic() - begin < 6.0
        pool.submit(job(3))
        collect(pool, 1)


DEADLY = {
    "signal": "",
    "exit": "",
    "raise": "not caught by anybody",
    "garbage": "cannot be read",
}
"""Behaviours with which a worker dies, and what the failure then says."""


def test_jobs_that_kill_their_workers_fail_and_the_others_go_on(open_place: OpenPool) -> None:
    with open_place(2, perform=SERVE, max_retries=0) as pool:
        for id, behaviour in enumerate(DEADLY):
            pool.submit(job(id, behaviour))
            pool.submit(job(100 + id))
        found = dict(collect(pool, 2 * len(DEADLY)))
    for id, sign in enumerate(DEADLY.values()):
        dead, well = found[id].failure, found[100 + id].failure
        assert dead is not None and dead.kind == "crashed" and sign in dead.message
        assert well is not None and well.message == "done"


def test_a_job_whose_worker_is_killed_is_tried_again_at_most_twice(open_place: OpenPool, tmp_path: Path) -> None:
    with open_place(2, perform=SERVE) as pool:
        for times in (2, 3):
            folder = tmp_path / str(times)
            folder.mkdir()
            pool.submit(job(times, "unless", folder=str(folder), times=times))
        found = {id: outcome.failure for id, outcome in collect(pool, 2)}
    assert found[2] is not None and found[2].message == "done"
    assert found[3] is not None and found[3].kind == "crashed" and "3 attempts" in found[3].message
    assert [len(list((tmp_path / name).iterdir())) for name in ("2", "3")] == [3, 3]


def test_kill_9_from_outside_is_survived(open_place: OpenPool) -> None:
    reports = Reports()
    with open_place(1, perform=SERVE, report=reports) as pool:
        pool.submit(job(0, seconds=3.0))
        os.kill(wait_for(pool, reports, "pid"), signal.SIGKILL)
        begin = time.monotonic()
        [(id, outcome)] = collect(pool, 1)
        assert (id, outcome.failure and outcome.failure.message) == (0, "done")
        assert time.monotonic() - begin < 10 + 3
        assert len(set(reports.all("pid"))) == 2


def test_cancelled_jobs_give_no_outcome_and_leave_no_process(open_place: OpenPool) -> None:
    reports = Reports()
    with open_place(1, perform=SERVE, report=reports) as pool:
        pool.submit(job(0, seconds=60))
        pool.submit(job(1, seconds=60))
        pid = wait_for(pool, reports, "pid")
        assert pool.cancel(1) and pool.cancel(0)
        assert not pool.cancel(0) and not pool.cancel(99)
        assert gone([pid], within=2)
        assert pool.wait(0.5) == []
        pool.submit(job(0))
        [(id, outcome)] = collect(pool, 1)
        assert (id, outcome.failure and outcome.failure.message) == (0, "done")
        assert pool.wait(0.2) == []


def test_misuse_is_refused(open_place: OpenPool) -> None:
    pool = open_place(1, perform=SERVE)
    pool.submit(job(0, seconds=60))
    with pytest.raises(ValueError, match="job 0 is in this pool already"):
        pool.submit(job(0))
    pool.close()
    pool.close()
    for action in (lambda: pool.submit(job(1)), lambda: pool.wait(0.0)):
        with pytest.raises(PoolClosed):
            action()


def test_closing_leaves_no_process(open_place: OpenPool) -> None:
    reports = Reports()
    with open_place(1, perform=SERVE, report=reports) as pool:
        pool.submit(job(0, seconds=60))
        pid = wait_for(pool, reports, "pid")
    assert gone([pid], within=3)


def test_large_and_talkative_jobs_do_not_block_each_other(open_place: OpenPool) -> None:
    reports = Reports()
    with open_place(2, perform=SERVE, report=reports) as pool:
        for id in range(4):
            pool.submit(job(id, "talkative", count=200, size=20_000, ballast="b" * 5_000_000))
        for _, outcome in collect(pool, 4):
            assert outcome.failure is not None and outcome.failure.message == "done"
            assert len(outcome.curves) == 200
        assert [report["number"] for id, report in reports if id == 0 and "number" in report] == list(range(200))


def test_a_worker_that_cannot_start_fails_its_job(open_place: OpenPool) -> None:
    with open_place(1, perform="tests.runners.misbehaving:no_such_function", max_retries=1) as pool:
        pool.submit(job(0))
        [(_, outcome)] = collect(pool, 1)
        assert outcome.failure is not None and outcome.failure.kind == "crashed"
        assert "no_such_function" in outcome.failure.message


def test_workers_find_our_packages_and_keep_their_input_to_themselves(open_place: OpenPool) -> None:
    reports = Reports()
    with open_place(1, perform=SERVE, report=reports) as pool:
        pool.submit(job(0, "environment"))
        collect(pool, 1)
    root = Path(__file__).resolve().parent.parent.parent
    assert reports.all("homes") == [[str(root / name) for name in ("graphs", "ops", "runners")]]
    assert reports.all("threads") == ["1"]
    assert reports.all("input") == [""]


def test_what_training_raises_becomes_a_failure(open_place: OpenPool) -> None:
    with open_place(1, perform=SERVE, max_retries=0) as pool:
        pool.submit(job(0, "training-raises", error="MemoryError"))
        pool.submit(job(1, "training-raises", error="ZeroDivisionError"))
        found = {id: outcome.failure for id, outcome in collect(pool, 2)}
    assert found[0] is not None and found[0].kind == "out-of-memory"
    assert found[1] == Failure("crashed", "ZeroDivisionError: by zero")


def test_the_same_job_gives_the_same_weights_everywhere(open_place: OpenPool) -> None:
    task, recipe, teacher = Task.named("digits", limit=100), Recipe(epochs=2), small(1)
    here = train(small(), recipe, task, 5, teacher=teacher, threads=1)
    reports = Reports()
    with open_place(1, report=reports) as pool:
        pool.submit(Job(0, small(), recipe, task.spec, 5, [teacher], measure="evaluate-test"))
        pool.submit(Job(1, small(), recipe, task.spec, 5, [teacher]))
        found = dict(collect(pool, 2))
        pool.submit(Job(2, zoo.create("convnet", classes=10, input_shape=(3, 8, 8)), recipe, task.spec))
        pool.submit(Job(3, small(), recipe, {**task.spec, "name": "no such data"}))
        unfit = [outcome.failure for _, outcome in collect(pool, 2)]
    assert [failure.kind for failure in unfit if failure] == ["invalid", "invalid"]
    assert here.genome is not None
    for outcome in found.values():
        assert outcome.genome is not None
        assert outcome.genome.digest == here.genome.digest
        assert (outcome.val_accuracy, outcome.curves) == (here.val_accuracy, here.curves)
        assert outcome.failure is None and outcome.seconds > 0
    assert found[0].test_accuracy is not None and found[1].test_accuracy is None
    assert [report["epoch"] for id, report in reports if id == 0] == [1, 2]


def test_many_jobs_leave_nothing_open(open_place: OpenPool) -> None:
    with open_place(2, perform=SERVE) as pool:
        pool.submit(job(0))
        collect(pool, 1)
        process = psutil.Process()
        before = process.num_fds()
        for start in range(1, 200, 20):
            for id in range(start, start + 20):
                pool.submit(job(id))
            collect(pool, 20)
        assert abs(process.num_fds() - before) <= 5


NO_RAY = """
import os, sys
sys.modules["ray"] = None
from graphs.errors import EvolutionError
from runners import open_pool
before = dict(os.environ)
for address, code in ((None, 2), ("127.0.0.1:1", 1), ("ray://127.0.0.1:1", 2)):
    try:
        open_pool("ray", 1, address=address)
    except EvolutionError as error:
        assert error.exit_code == code, error
        print(error)
assert os.environ == before
"""


def test_a_ray_that_is_missing_or_does_not_answer_is_said_in_one_line() -> None:
    done = subprocess.run([sys.executable, "-c", NO_RAY], capture_output=True, text=True, check=True)
    missing, refused, wrong = done.stdout.splitlines()
    assert "use --pool local" in missing
    assert "no Ray cluster answers at 127.0.0.1:1" in refused
    assert "expected HOST:PORT" in wrong


def test_unknown_pools_and_settings_that_make_no_sense() -> None:
    with pytest.raises(UnknownName, match="did you mean 'local'"):
        open_pool("locl", 1)
    with pytest.raises(PoolSettingError, match="workers is 0"):
        open_pool("local", 0)
    with pytest.raises(PoolSettingError, match="knows no cluster"):
        open_pool("local", 1, address="10.0.0.1:6379")
