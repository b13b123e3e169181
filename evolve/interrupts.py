"""SIGINT and SIGTERM during a search: noticed at once, acted on between two steps, so that no step is torn.

The first signal sets a mark that the search looks at between steps; it then closes its workers and ends with
`Interrupted`, whose exit code the shell expects: 130 for SIGINT, 143 for SIGTERM. One that follows within
`GRACE` is taken for the same (`timeout` and a terminal's Ctrl-C send to a whole group, often twice); a later
one goes to whoever handled signals before.
"""

from __future__ import annotations

import signal
import threading
import time
from types import FrameType, TracebackType
from typing import Any

from graphs.errors import EvolutionError

__all__ = ["GRACE", "Interrupted", "Stop"]

GRACE = 3.0
"""Seconds during which further signals change nothing."""


class Interrupted(EvolutionError):
    """A signal ended the search in order, everything finished is kept; the message says how to go on."""

    def __init__(self, number: int, message: str) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}: {message}")
        self.exit_code = 128 + number


class Stop:
    """A context in which SIGINT and SIGTERM set a mark; it changes nothing outside the main thread.

    Attributes:
        signal: Number of the first signal that came, or None.
    """

    def __init__(self) -> None:
        self.signal: int | None = None
        self._since = 0.0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Stop:
        self.arm()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def arm(self) -> None:
        """Takes the signals; again after something else, such as a cluster's client, may have."""
        if threading.current_thread() is not threading.main_thread():
            return
        for number in (signal.SIGINT, signal.SIGTERM):
            handler = signal.getsignal(number)
            if handler is None:  # set by other than Python code, which we could not put back
                continue
            self._before.setdefault(number, handler)
            signal.signal(number, self._mark)

    def check(self, message: str) -> None:
        """Passes while no signal has come.

        Raises:
            Interrupted: One has; `message` says what is kept and how to go on.
        """
        if self.signal is not None:
            raise Interrupted(self.signal, message)

    def _mark(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self.signal is None:
            self.signal, self._since = number, now
        elif now - self._since >= GRACE:
            before = self._before.get(number)
            if callable(before):
                before(number, frame)
            raise KeyboardInterrupt
