"""`python -m tests`: every check of this project, in the order of their cost, each with one line.

Runs all of them even where one fails, and ends with 1 if any did. What a failed check printed is shown; the tests show
their progress while they run, in as many processes as there are cores, four at most. Arguments go to pytest.
"""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

CHECKS: dict[str, list[str]] = {
    "ruff check": [sys.executable, "-m", "ruff", "check", "."],
    "ruff format": [sys.executable, "-m", "ruff", "format", "--check", "."],
    "mypy --strict": [sys.executable, "-m", "mypy"],
    "lint-imports": [str(Path(sysconfig.get_path("scripts")) / "lint-imports"), "--no-logo"],
}
"""Name of a check and its command; the tests themselves come after these."""

MOST_PROCESSES = 4
"""Each holds torch and the networks that its tests share, and many tests start processes of their own."""


def main() -> int:
    """Runs all checks; returns the exit code."""
    # Small tensors and several processes at a time: one thread for each is fastest, and repeatable.
    environment = {"OMP_NUM_THREADS": "1", **os.environ, "RAY_USAGE_STATS_ENABLED": "0"}
    # Other tests keep the cores busy, and a Ray gives its workers the lowest priority but a few.
    environment.setdefault("RAY_worker_niceness", "0")
    failed = []
    for name, command in CHECKS.items():
        begin = time.monotonic()
        done = subprocess.run(
            command,
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        if done.returncode:
            failed.append(name)
            print(done.stdout.rstrip())
        print(_line(name, done.returncode, begin), flush=True)
    begin = time.monotonic()
    tests = subprocess.run(
        [sys.executable, "-m", "pytest", *_spread(), *sys.argv[1:]],
        cwd=ROOT,
        env=environment,
        stdin=subprocess.DEVNULL,
        check=False,
    )
    print(_line("pytest", tests.returncode, begin), flush=True)
    if tests.returncode:
        failed.append("pytest")
    print(f"failed: {', '.join(failed)}" if failed else "all checks passed")
    return 1 if failed else 0


def _spread() -> list[str]:
    """Options that spread the tests over the cores that this process may use; the argument `-n 0` takes that back."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return ["-n", str(min(cores, MOST_PROCESSES))] if cores > 1 else []


def _line(name: str, code: int, begin: float) -> str:
    verdict = "ok" if code == 0 else f"FAILED ({code})"
    return f"{name:<14} {verdict:<12} {time.monotonic() - begin:6.1f} s"


if __name__ == "__main__":
    sys.exit(main())
