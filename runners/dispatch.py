"""The policy that all pools share: who works on which job, how long, how often, and what is believed of it.

A `Dispatcher` gives jobs to workers and knows nothing of what a worker is: a `Workers` starts them, feeds
them, kills them and says what happened. So deadlines, retries and the dropping of late results are written,
and tested, once.

Laws:

- Each job that was submitted and not cancelled gets exactly one outcome.
- An attempt that takes longer than its job's deadline is ended with its worker; that is final (`timed-out`).
- A worker that dies takes its attempt with it; the job is tried again, at most `max_retries` times, before it
  fails (`crashed`, or `out-of-memory` where that is known).
- A job that no worker takes up within `start_limit` seconds, while there is none at all, fails: nothing waits
  for ever.
- What a worker says after it was given up is not heard: a late or second result changes nothing.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, Protocol

from graphs.errors import EvolutionError
from runners.jobs import Job, decode_outcome, encode_job
from runners.outcome import Outcome

__all__ = ["Died", "Dispatcher", "Done", "Event", "PoolClosed", "Ready", "Reported", "Workers"]


class PoolClosed(EvolutionError, RuntimeError):
    """The pool was closed."""

    exit_code = 1


@dataclass(frozen=True, slots=True)
class Ready:
    """A worker has started and can take a job."""

    worker: int


@dataclass(frozen=True, slots=True)
class Reported:
    """A worker says how far it is."""

    worker: int
    report: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Done:
    """A worker has finished its job and can take another."""

    worker: int
    outcome: bytes


@dataclass(frozen=True, slots=True)
class Died:
    """A worker is no more; `kind` is what its job is to fail with in the end."""

    worker: int
    reason: str
    kind: str = "crashed"


Event = Ready | Reported | Done | Died


class Workers(Protocol):
    """Processes that run one job at a time, somewhere. Each has a number of its own, never used again."""

    def start(self) -> int:
        """Begins to start a worker and returns its number; `Ready` or `Died` follow, or nothing at all.

        Raises:
            OSError: Not even that is possible.
        """
        ...

    def give(self, worker: int, job: bytes) -> None:
        """Hands an encoded job to a worker that is ready, without waiting for it."""
        ...

    def stop(self, worker: int) -> None:
        """Kills a worker, whatever it does; no event of it follows."""
        ...

    def events(self, timeout: float) -> list[Event]:
        """What happened, in order; waits for at most `timeout` seconds for something to happen.

        A worker that gives no sign of life for long has `Died`; there is no need to `stop` it then.
        """
        ...

    def explain(self) -> str:
        """What a person should look at when no worker starts."""
        ...

    def close(self) -> None:
        """Kills all workers and frees what they held. May be called twice."""
        ...


_LONGEST_REST = 30.0


@dataclass(slots=True)
class _Entry:
    """A job on its way."""

    job: int
    data: bytes
    deadline: float
    queued: float
    crashes: int = 0


@dataclass(slots=True)
class _Slot:
    """A place for one worker."""

    name: str
    worker: int | None = None
    ready: bool = False
    entry: _Entry | None = None
    since: float = 0.0
    failures: int = 0
    rest: float = 0.0

    def clear(self) -> None:
        self.worker, self.ready, self.entry = None, False, None


class Dispatcher:
    """A pool over `workers`; see `runners.pools.Pool` for what it promises.

    Args:
        workers: What starts and feeds the workers; closed with the pool.
        names: Name of each slot, which becomes `Outcome.worker`; as many workers run at a time.
        report: Called in `wait` as `report(job id, what the worker reported)`.
        max_retries: How often a job is tried again after its worker died.
        start_limit: Seconds that a worker may take to start.
        clock: Seconds that only ever grow.
    """

    def __init__(
        self,
        workers: Workers,
        names: list[str],
        *,
        report: Callable[[int, dict[str, Any]], None] | None = None,
        max_retries: int = 2,
        start_limit: float = 60.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._workers = workers
        self._slots = [_Slot(name) for name in names]
        self._report = report
        self._max_retries = max_retries
        self._start_limit = start_limit
        self._clock = clock
        self._queue: deque[_Entry] = deque()
        self._jobs: set[int] = set()
        self._events: deque[Event] = deque()
        self._finished: list[tuple[int, Outcome]] = []
        self._closed = False
        self._served = clock()
        self._start_workers()

    @property
    def free(self) -> int:
        """How many more jobs would start at once."""
        return max(0, len(self._slots) - len(self._jobs))

    def submit(self, job: Job) -> None:
        """Takes a job on; see `runners.pools.Pool.submit`."""
        self._check_open()
        if job.id in self._jobs:
            raise ValueError(f"job {job.id} is in this pool already")
        self._queue.append(_Entry(job.id, encode_job(job), job.deadline, self._clock()))
        self._jobs.add(job.id)
        self._hand_out()

    def wait(self, timeout: float) -> list[tuple[int, Outcome]]:
        """Outcomes in the order of their arrival; see `runners.pools.Pool.wait`."""
        self._check_open()
        end = self._clock() + timeout
        while True:
            self._hand_out()
            now = self._clock()
            nothing_to_wait_for = self._finished or not self._jobs
            pause = 0.0 if nothing_to_wait_for else max(0.0, min(end, self._next_limit()) - now)
            self._events.extend(self._workers.events(pause))
            while self._events:
                self._handle(self._events.popleft())
            self._enforce_limits()
            if self._finished or not self._jobs or self._clock() >= end:
                self._hand_out()
                return self._take_finished()

    def cancel(self, job: int) -> bool:
        """Ends a job without an outcome; see `runners.pools.Pool.cancel`."""
        if job not in self._jobs:
            return False
        self._jobs.discard(job)
        self._queue = deque(entry for entry in self._queue if entry.job != job)
        self._finished = [item for item in self._finished if item[0] != job]
        for slot in self._slots:
            if slot.entry is not None and slot.entry.job == job:
                self._stop(slot)
        return True

    def close(self) -> None:
        """Ends all workers; see `runners.pools.Pool.close`."""
        if not self._closed:
            self._closed = True
            self._jobs.clear()
            self._queue.clear()
            self._finished.clear()
        self._workers.close()

    def __enter__(self) -> Dispatcher:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _check_open(self) -> None:
        if self._closed:
            raise PoolClosed("this pool was closed; open another one")

    def _take_finished(self) -> list[tuple[int, Outcome]]:
        finished, self._finished = self._finished, []
        self._jobs.difference_update(job for job, _ in finished)
        return finished

    def _hand_out(self) -> None:
        self._start_workers()
        for slot in self._slots:
            if self._queue and slot.ready and slot.entry is None and slot.worker is not None:
                slot.entry = self._queue.popleft()
                slot.since = self._clock()
                self._workers.give(slot.worker, slot.entry.data)

    def _start_workers(self) -> None:
        """Fills the empty slots; after a failure to start only when a job waits, and after a rest."""
        for slot in self._slots:
            now = self._clock()
            if slot.worker is None and (not slot.failures or (self._queue and now >= slot.rest)):
                slot.since = now
                try:
                    slot.worker = self._workers.start()
                except OSError as error:
                    self._failed_to_start(slot, f"a worker cannot be started: {error}", "crashed")

    def _handle(self, event: Event) -> None:
        slot = next((slot for slot in self._slots if slot.worker == event.worker), None)
        if slot is None:
            return
        if isinstance(event, Ready):
            slot.ready, slot.failures = True, 0
        elif isinstance(event, Reported):
            if self._report is not None and slot.entry is not None:
                self._report(slot.entry.job, event.report)
        elif isinstance(event, Died):
            self._died(slot, event.reason, event.kind)
        elif isinstance(event, Done) and slot.entry is not None:
            try:
                outcome = decode_outcome(event.outcome)
            except EvolutionError as error:
                self._workers.stop(event.worker)
                self._died(slot, f"its outcome cannot be read: {error}", "crashed")
                return
            entry, slot.entry = slot.entry, None
            self._finish(entry, replace(outcome, worker=slot.name))

    def _died(self, slot: _Slot, reason: str, kind: str) -> None:
        entry, was_ready = slot.entry, slot.ready
        seconds = self._clock() - slot.since
        slot.clear()
        if entry is not None:
            self._crash(entry, reason, kind, seconds, slot.name)
        elif not was_ready:
            self._failed_to_start(slot, reason, kind)

    def _failed_to_start(self, slot: _Slot, reason: str, kind: str) -> None:
        slot.clear()
        slot.failures += 1
        slot.rest = self._clock() + min(_LONGEST_REST, 0.25 * 2**slot.failures)
        if self._queue and not any(other.ready for other in self._slots):
            self._crash(self._queue.popleft(), reason, kind, 0.0, slot.name)

    def _crash(self, entry: _Entry, reason: str, kind: str, seconds: float, where: str) -> None:
        entry.crashes += 1
        if entry.crashes <= self._max_retries:
            entry.queued = self._clock()
            self._queue.appendleft(entry)
            return
        times = f" ({entry.crashes} attempts)" if entry.crashes > 1 else ""
        self._finish(entry, Outcome.failed(kind, f"{reason}{times}", seconds, where))

    def _finish(self, entry: _Entry, outcome: Outcome) -> None:
        self._finished.append((entry.job, outcome))

    def _stop(self, slot: _Slot) -> None:
        if slot.worker is not None:
            self._workers.stop(slot.worker)
        slot.clear()

    def _limit(self, slot: _Slot) -> float:
        """The moment at which this slot's worker is given up if nothing happens."""
        if slot.worker is None:
            return float("inf")
        if not slot.ready:
            return slot.since + self._start_limit
        return float("inf") if slot.entry is None else slot.since + slot.entry.deadline

    def _next_limit(self) -> float:
        now = self._clock()
        limits = [self._limit(slot) for slot in self._slots]
        limits += [slot.rest for slot in self._slots if self._queue and slot.worker is None and slot.rest > now]
        if self._queue and not any(slot.ready for slot in self._slots):
            limits.append(max(self._served, self._queue[0].queued) + self._start_limit)
        return min(limits)

    def _enforce_limits(self) -> None:
        now = self._clock()
        for slot in self._slots:
            if now < self._limit(slot):
                continue
            entry = slot.entry
            self._stop(slot)
            if entry is not None:
                message = f"no result within the deadline of {entry.deadline:g} s"
                self._finish(entry, Outcome.failed("timed-out", message, now - slot.since, slot.name))
        if any(slot.ready for slot in self._slots):
            self._served = now
            return
        for entry in list(self._queue):
            waited = now - max(self._served, entry.queued)
            if waited >= self._start_limit:
                self._queue.remove(entry)
                message = f"no worker could be started within {self._start_limit:g} s; {self._workers.explain()}"
                self._finish(entry, Outcome.failed("timed-out", message, waited))
