"""Jobs for the tests of pools and waiting for their outcomes; tasks that another process makes."""

from __future__ import annotations

import functools
import json
import subprocess
import sys
import time
from typing import Any

import psutil

from graphs import Genome, zoo
from runners import Job, Outcome, Pool, Recipe, Task

__all__ = ["collect", "gone", "job", "said_elsewhere", "small"]

PATIENCE = 60.0
"""Seconds after which a test gives up; far longer than anything here takes, also on a busy machine."""


@functools.cache
def small(seed: int = 0) -> Genome:
    """A small network for digits."""
    return zoo.create("convnet", classes=10, input_shape=(1, 8, 8), seed=seed)


def job(id: int, behaviour: str = "sleep", *, deadline: float = PATIENCE, **arguments: Any) -> Job:
    """A job for `tests.runners.misbehaving`."""
    return Job(id, small(), Recipe(), {"behaviour": behaviour, **arguments}, deadline=deadline)


def collect(pool: Pool, count: int, patience: float = PATIENCE) -> list[tuple[int, Outcome]]:
    """The next `count` outcomes."""
    found: list[tuple[int, Outcome]] = []
    end = time.monotonic() + patience
    while len(found) < count:
        assert time.monotonic() < end, f"{len(found)} of {count} outcomes after {patience} s"
        found += pool.wait(0.5)
    assert len(found) == count
    return found


def gone(pids: list[int], within: float) -> bool:
    """Whether all of these processes end within so many seconds; one that nobody has reaped yet has ended."""
    end = time.monotonic() + within
    while any(_lives(pid) for pid in pids):
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


def _lives(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def said_elsewhere(task: Task, what: str) -> Any:
    """The expression `what` of the `task` that another process makes from its spec, of JSON types."""
    program = (
        "import json, sys; from runners.task import Task; task = Task.from_spec(json.loads(sys.argv[1]));"
        f"print(json.dumps({what}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, json.dumps(dict(task.spec))], capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout)
