"""A worker process: `python -m runners.worker [package.module:function]`.

Reads jobs from its standard input and writes readiness, signs of life, reports and outcomes to its standard
output, in the frames of `runners.frames`. What training prints goes to standard error instead, so that it
can't get in between. Its one purpose is its driver, so it ends when that does, also in the midst of training:
at once when its standard input closes, and on Linux by a signal from the kernel, which reaches it even where
a library keeps Python from running.
"""

from __future__ import annotations

import ctypes
import json
import os
import queue
import signal
import sys
import threading
from typing import Any

from runners.entry import SERVE, resolve
from runners.frames import BEAT, JOB, OUTCOME, READY, REPORT, Splitter, pack, write_all
from runners.outcome import finite

__all__ = ["BEAT_SECONDS", "main"]

BEAT_SECONDS = 2.0
"""How often a worker gives a sign of life."""

_SET_PARENT_DEATH_SIGNAL = 1
_CHUNK = 1 << 20


class _Channel:
    """Standard input and output, taken away from everybody else in this process."""

    def __init__(self) -> None:
        self._source = os.dup(0)
        self._sink = os.dup(1)
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        os.close(nothing)
        os.dup2(2, 1)
        self._lock = threading.Lock()
        self.jobs: queue.SimpleQueue[bytes] = queue.SimpleQueue()

    def send(self, kind: bytes, payload: bytes = b"") -> None:
        """Writes one message; ends the process if nobody is there to read it."""
        try:
            with self._lock:
                write_all(self._sink, pack(kind, len(payload)), payload)
        except OSError:
            os._exit(1)

    def listen(self) -> None:
        """Queues the jobs that come in, until standard input closes, which ends the process on the spot."""
        splitter = Splitter()
        while data := os.read(self._source, _CHUNK):
            splitter.feed(data)
            for kind, payload in splitter:
                if kind == JOB:
                    self.jobs.put(payload)
        os._exit(0)

    def beat(self) -> None:
        """Gives signs of life for ever."""
        pause = threading.Event()
        while True:
            self.send(BEAT)
            pause.wait(BEAT_SECONDS)


def main(entry: str = SERVE) -> None:
    """Does jobs until the driver is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _die_with_parent()
    channel = _Channel()
    for task in (channel.listen, channel.beat):
        threading.Thread(target=task, name=f"worker-{task.__name__}", daemon=True).start()
    serve = resolve(entry)
    channel.send(READY)

    def report(progress: dict[str, Any]) -> None:
        channel.send(REPORT, json.dumps(finite(progress), allow_nan=False).encode())

    while True:
        outcome = serve(channel.jobs.get(), report)
        sys.stdout.flush()
        sys.stderr.flush()
        channel.send(OUTCOME, outcome)


def _die_with_parent() -> None:
    """Asks the kernel, where it is Linux, to kill this process when the thread that started it ends."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0)


if __name__ == "__main__":
    main(*sys.argv[1:2])
