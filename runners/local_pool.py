"""Workers that are processes of this machine: `python -m runners.worker`, spoken to over pipes.

They are started with `subprocess`, never by forking a process that has used torch, in sessions of their own,
so that an interrupt typed at the terminal reaches the driver alone, and that all a worker has started can be
killed with it. Nothing here blocks: jobs are written as fast as their worker reads, between looks at what the
others say.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections import deque
from typing import IO, Any

from graphs.errors import FormatError
from runners.dispatch import Died, Dispatcher, Done, Event, Ready, Reported
from runners.entry import SERVE, import_path
from runners.frames import JOB, OUTCOME, READY, REPORT, Splitter, pack
from runners.pools import PoolSettingError, PoolSettings

__all__ = ["LocalWorkers", "open_local"]

_CHUNK = 1 << 20
_KEPT_STDERR = 8192
_QUOTED_STDERR = 500
_PASSES = 256
_GRACE = 2.0
_LAST_MOMENTS = 0.2


class _Worker:
    """One process, what is still to be written to it, and what it has said."""

    def __init__(self, number: int, command: list[str], environment: dict[str, str]) -> None:
        self.number = number
        self.process = subprocess.Popen(  # noqa: S603 - our own interpreter and module, no shell
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
            start_new_session=True,
        )
        self.outbox: deque[memoryview] = deque()
        self.splitter = Splitter()
        self.stderr = bytearray()
        self.heard = time.monotonic()
        for pipe in self.pipes:
            os.set_blocking(pipe.fileno(), False)

    @property
    def pipes(self) -> list[IO[bytes]]:
        """Standard input, output and error, as far as they are open."""
        three = (self.process.stdin, self.process.stdout, self.process.stderr)
        return [pipe for pipe in three if pipe is not None and not pipe.closed]

    @property
    def ended(self) -> bool:
        """Whether the process is over; asking does not reap it, so its number is not yet another's."""
        if self.process.returncode is not None:
            return True
        return os.waitid(os.P_PID, self.process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def kill(self) -> None:
        """Kills the process, and what it has started also where it is over itself; the pipes are closed."""
        if self.process.returncode is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.process.pid, signal.SIGKILL)
        for pipe in self.pipes:
            with contextlib.suppress(OSError):
                pipe.close()

    def epitaph(self) -> str:
        """How the process ended, and the last that it said."""
        code = self.process.returncode
        if code is None:
            how = "its worker closed its output"
        elif code < 0:
            with contextlib.suppress(ValueError):
                return self.quote(f"its worker was killed by {signal.Signals(-code).name}")
            how = f"its worker was killed by signal {-code}"
        else:
            how = f"its worker exited with code {code}"
        return self.quote(how)

    def quote(self, how: str) -> str:
        """`how`, with the last lines of standard error."""
        lines = self.stderr.decode(errors="replace").split("\n")
        last = " | ".join(line.strip() for line in lines if line.strip(" ^~\r"))[-_QUOTED_STDERR:]
        return f"{how}; the last it said: {last}" if last else how


class LocalWorkers:
    """Worker processes on this machine; see `runners.dispatch.Workers`.

    Args:
        threads: CPU threads for each.
        perform: The function that they run.
        silence: Seconds without a sign of life after which a worker counts as dead.
    """

    def __init__(self, threads: int = 1, perform: str = SERVE, silence: float = 120.0) -> None:
        self._command = [sys.executable, "-P", "-m", "runners.worker", perform]
        self._environment = {
            **os.environ,
            "OMP_NUM_THREADS": str(threads),
            "PYTHONPATH": import_path(),
            "PYTHONFAULTHANDLER": "1",
        }
        self._silence = silence
        self._selector = selectors.DefaultSelector()
        self._workers: dict[int, _Worker] = {}
        self._dying: list[subprocess.Popen[bytes]] = []
        self._count = 0

    def start(self) -> int:
        """Starts a process."""
        worker = _Worker(self._count, self._command, self._environment)
        self._count += 1
        self._workers[worker.number] = worker
        for pipe in worker.pipes[1:]:
            self._selector.register(pipe, selectors.EVENT_READ, worker)
        return worker.number

    def give(self, worker: int, job: bytes) -> None:
        """Begins to write a job to a process."""
        chosen = self._workers.get(worker)
        if chosen is None:
            return
        if not chosen.outbox and chosen.process.stdin is not None:
            self._selector.register(chosen.process.stdin, selectors.EVENT_WRITE, chosen)
        chosen.outbox += [memoryview(pack(JOB, len(job))), memoryview(job)]

    def stop(self, worker: int) -> None:
        """Kills a process and everything that it has started."""
        chosen = self._workers.pop(worker, None)
        if chosen is None:
            return
        for pipe in chosen.pipes:
            with contextlib.suppress(KeyError):
                self._selector.unregister(pipe)
        chosen.kill()
        self._dying.append(chosen.process)
        self._reap()

    def events(self, timeout: float) -> list[Event]:
        """What the processes say, and who of them has died."""
        self._reap()
        events: list[Event] = []
        end = time.monotonic() + timeout
        while True:
            pause = min(1.0, max(0.0, end - time.monotonic()))
            for _ in range(_PASSES):
                active = self._selector.select(pause) if self._workers else []
                if not active:
                    break
                for key, _mask in active:
                    self._serve(key.fileobj, key.data, events)
                pause = 0.0
            self._look_after(events)
            if events or time.monotonic() >= end:
                return events
            if not self._workers:
                time.sleep(min(0.05, max(0.0, end - time.monotonic())))

    def explain(self) -> str:
        """What was run, and what it said."""
        said = next((w.epitaph() for w in self._workers.values() if w.stderr), "it says nothing")
        return f"try '{' '.join(self._command)}' by hand ({said})"

    def close(self) -> None:
        """Kills all processes, which have nothing to lose, and sees them off."""
        for number in list(self._workers):
            self.stop(number)
        end = time.monotonic() + _GRACE
        for process in self._dying:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, end - time.monotonic()))
        self._reap()
        self._selector.close()

    def _serve(self, pipe: Any, worker: _Worker, events: list[Event]) -> None:
        """Reads or writes what can be read from or written to one pipe without waiting."""
        if worker.number not in self._workers or pipe.closed:
            return
        if pipe is worker.process.stdin:
            self._write(worker)
            return
        try:
            data = os.read(pipe.fileno(), _CHUNK)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._selector.unregister(pipe)
            if pipe is worker.process.stdout:
                self._bury(worker, events)
        elif pipe is worker.process.stderr:
            worker.stderr += data
            del worker.stderr[:-_KEPT_STDERR]
        else:
            worker.heard = time.monotonic()
            worker.splitter.feed(data)
            self._hear(worker, events)

    def _hear(self, worker: _Worker, events: list[Event]) -> None:
        try:
            for kind, payload in worker.splitter:
                if kind == READY:
                    events.append(Ready(worker.number))
                elif kind == REPORT:
                    events.append(Reported(worker.number, json.loads(payload)))
                elif kind == OUTCOME:
                    events.append(Done(worker.number, payload))
        except (FormatError, ValueError) as error:
            self.stop(worker.number)
            events.append(Died(worker.number, f"what its worker says cannot be read: {error}"))

    def _write(self, worker: _Worker) -> None:
        pipe = worker.process.stdin
        if pipe is None:
            return
        try:
            while worker.outbox:
                written = os.write(pipe.fileno(), worker.outbox[0][:_CHUNK])
                worker.outbox[0] = worker.outbox[0][written:]
                if not worker.outbox[0]:
                    worker.outbox.popleft()
        except BlockingIOError:
            return
        except OSError:
            worker.outbox.clear()
        self._selector.unregister(pipe)

    def _look_after(self, events: list[Event]) -> None:
        """Notices who has died without closing its output, or is silent."""
        now = time.monotonic()
        for worker in list(self._workers.values()):
            if worker.ended:
                self._bury(worker, events)
            elif now - worker.heard > self._silence:
                self.stop(worker.number)
                reason = f"its worker gave no sign of life for {self._silence:g} s"
                events.append(Died(worker.number, worker.quote(reason)))

    def _bury(self, worker: _Worker, events: list[Event]) -> None:
        """Takes leave of a worker whose output ended, after hearing its last words."""
        end = time.monotonic() + _LAST_MOMENTS
        while not worker.ended and time.monotonic() < end:
            time.sleep(0.002)
        for pipe in worker.pipes[1:]:
            with contextlib.suppress(OSError):
                while data := os.read(pipe.fileno(), _CHUNK):
                    if pipe is worker.process.stderr:
                        worker.stderr += data
                        del worker.stderr[:-_KEPT_STDERR]
                    else:
                        worker.splitter.feed(data)
        self._hear(worker, events)
        exited = worker.ended
        self.stop(worker.number)
        if exited:
            worker.process.wait()
        events.append(Died(worker.number, worker.epitaph()))

    def _reap(self) -> None:
        self._dying = [process for process in self._dying if process.poll() is None]


def open_local(settings: PoolSettings) -> Dispatcher:
    """A pool of processes on this machine.

    Raises:
        PoolSettingError: A cluster or GPUs are asked for, which this pool does not give.
    """
    if settings.address is not None:
        raise PoolSettingError(f"the local pool knows no cluster, got {settings.address!r}; use --pool ray")
    if settings.gpus_per_worker:
        raise PoolSettingError("the local pool hands out no GPUs; use --pool ray")
    return Dispatcher(
        LocalWorkers(settings.threads, settings.perform),
        [f"local-{index}" for index in range(settings.workers)],
        report=settings.report,
        max_retries=settings.max_retries,
        start_limit=settings.start_limit,
    )
