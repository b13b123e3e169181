"""What test workers run in place of training: the task's spec says how the job is to go wrong.

    {"behaviour": NAME, ...}        NAME is a key of `BEHAVIOURS`; the rest are its arguments, but for `ballast`

A behaviour that ends well answers with a failure of kind `invalid` whose message is `done`, because that needs
no network and so no torch, whose import would be most of the time that these tests take.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

from runners import jobs
from runners.jobs import Report, encode_outcome, peek
from runners.outcome import Failure, Outcome

SERVE = "tests.runners.misbehaving:serve"


def serve(data: bytes, report: Report) -> bytes:
    """Does what the job's task says."""
    task = peek(data)["task"]
    arguments = {name: value for name, value in task.items() if name not in ("behaviour", "ballast")}
    report({"pid": os.getpid()})
    answer = BEHAVIOURS[task["behaviour"]](data, report, **arguments)
    if isinstance(answer, bytes):
        return answer
    return encode_outcome(answer or Outcome.failed("invalid", "done"))


def _sleep(data: bytes, report: Report, seconds: float = 0.0) -> None:
    time.sleep(seconds)


def _hold(data: bytes, report: Report) -> None:
    """Hangs in C without giving up the interpreter's lock, so that no other thread of this process runs."""
    time.sleep(1.5)
    ctypes.PyDLL(None).sleep(60)


def _exit(data: bytes, report: Report, code: int = 3) -> None:
    print("about to leave", file=sys.stderr, flush=True)
    os._exit(code)


def _signal(data: bytes, report: Report, number: int = signal.SIGKILL) -> None:
    os.kill(os.getpid(), number)
    time.sleep(60)


def _raise(data: bytes, report: Report) -> None:
    raise RuntimeError("not caught by anybody")


def _training_raises(data: bytes, report: Report, error: str) -> Outcome:
    raised = {"MemoryError": MemoryError("no more"), "ZeroDivisionError": ZeroDivisionError("by zero")}[error]
    return jobs.guarded(mock.Mock(side_effect=raised))


def _unless(data: bytes, report: Report, folder: str, times: int) -> None:
    """Is killed the first `times` times; `folder` counts them."""
    attempts = Path(folder)
    (attempts / f"{len(list(attempts.iterdir()))}").touch()
    if len(list(attempts.iterdir())) <= times:
        _signal(data, report)


def _garbage(data: bytes, report: Report) -> bytes:
    return b"this is no outcome"


def _talkative(data: bytes, report: Report, count: int, size: int) -> Outcome:
    """Prints and reports a lot, and answers with more."""
    for number in range(count):
        print("x" * size)
        print("y" * size, file=sys.stderr)
        report({"number": number, "text": "z" * size})
    epochs = [{"epoch": number, "text": "e" * size} for number in range(count)]
    return Outcome(None, None, curves=epochs, failure=Failure("invalid", "done"))


def _parent(data: bytes, report: Report) -> None:
    """Starts a process of its own and hangs."""
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    report({"child": child.pid})
    time.sleep(60)


def _environment(data: bytes, report: Report) -> None:
    import graphs
    import ops
    import runners

    homes = [str(Path(next(iter(package.__path__)))) for package in (graphs, ops, runners)]
    report({"homes": homes, "threads": os.environ.get("OMP_NUM_THREADS"), "input": sys.stdin.read()})


BEHAVIOURS: dict[str, Callable[..., Any]] = {
    "sleep": _sleep,
    "hold": _hold,
    "exit": _exit,
    "signal": _signal,
    "raise": _raise,
    "training-raises": _training_raises,
    "unless": _unless,
    "garbage": _garbage,
    "talkative": _talkative,
    "parent": _parent,
    "environment": _environment,
}
