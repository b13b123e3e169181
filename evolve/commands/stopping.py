"""What SIGINT and SIGTERM do: each raises `KeyboardInterrupt` once, so that everything open is closed in order.

While a search runs it takes the signals itself (`evolve.interrupts`); this holds before, after, and for other commands.
A signal that follows at once is taken for the same one (Ctrl-C reaches a whole group of processes, `timeout` sends
its signal twice); one that follows after some seconds ends the closing too.
"""

from __future__ import annotations

import signal
import threading
import time
from types import FrameType, TracebackType
from typing import Any

__all__ = ["GRACE", "Stopping"]

GRACE = 3.0
"""Seconds during which further signals change nothing."""


class Stopping:
    """A context in which SIGINT and SIGTERM end the program cleanly; remembers which of them came.

    Attributes:
        exit_code: None, or 128 plus the number of the first signal: 130 for SIGINT, 143 for SIGTERM.
    """

    def __init__(self) -> None:
        self.exit_code: int | None = None
        self._since = 0.0
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Stopping:
        if threading.current_thread() is threading.main_thread():  # only there may handlers be set
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._stop)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self.exit_code is not None and now - self._since < GRACE:
            return
        self.exit_code = self.exit_code or 128 + number
        self._since = now
        raise KeyboardInterrupt
