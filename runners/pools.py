"""The places where jobs run: the `Pool` contract and the table of pools."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Protocol

from graphs.errors import EvolutionError, UnknownName
from runners.entry import SERVE
from runners.jobs import Job
from runners.outcome import Outcome

__all__ = ["POOLS", "Pool", "PoolSettingError", "PoolSettings", "open_pool"]


class PoolSettingError(EvolutionError, ValueError):
    """A pool is asked for with settings that make no sense."""


class Pool(Protocol):
    """Runs jobs on a number of workers and gives back their outcomes.

    The contract, which one suite of tests checks for each pool:

    - Each job that is submitted and not cancelled gets exactly one outcome. Whatever goes wrong in training
      is a failure in it; a pool raises only for misuse and when the machine or a service fails as a whole.
    - The outcome's genome depends on the job alone: two pools give the same weights to the last bit.
    - A worker runs one job at a time and is kept for the next one. A job with which a worker dies is tried
      again on a fresh worker, at most twice, then fails as `crashed`.
    - An attempt that takes longer than `job.deadline` seconds, counted from when a ready worker gets it,
      fails as `timed-out`, and its process is gone.
    - A job that finds no worker at all, because none can be started, fails after the pool's `start_limit`.
    - A late or second result is dropped without a word.
    - Limits are enforced inside `wait`, so call it again and again, if only for a moment.
    - A pool is used by one thread, the one that opened it, and that thread outlives it.
    """

    @property
    def free(self) -> int:
        """How many more jobs would start at once; submitting more than that queues them."""
        ...

    def submit(self, job: Job) -> None:
        """Takes `job` on and returns without waiting for it.

        Raises:
            ValueError: A job with this id is in the pool.
            PoolClosed: The pool was closed.
        """
        ...

    def wait(self, timeout: float) -> list[tuple[int, Outcome]]:
        """Outcomes that have arrived, as (job id, outcome), in the order of arrival.

        Waits until there is one, though never longer than `timeout` seconds; empty then. Empty at once if no
        job is in the pool.

        Raises:
            PoolClosed: The pool was closed.
        """
        ...

    def cancel(self, job: int) -> bool:
        """Ends a job, killing its worker if it runs; no outcome follows. False if there is no such job."""
        ...

    def close(self) -> None:
        """Ends all workers, drops all jobs, and leaves no process, file or environment variable behind.

        May be called twice. Leaving the pool's `with` block does it.
        """
        ...

    def __enter__(self) -> Pool:
        """The pool."""
        ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Closes it."""
        ...


@dataclass(frozen=True, slots=True)
class PoolSettings:
    """How a pool is to be.

    Attributes:
        workers: How many jobs run at a time.
        threads: CPU threads that each job computes with.
        address: Ray cluster to connect to, `HOST:PORT` or `auto`; None starts a Ray on this machine.
        report: Called inside `wait` as `report(job id, progress)`, with what training reports.
        max_retries: How often a job is tried again after its worker died.
        start_limit: Seconds that a worker may take to start; 60 by default, and 300 on a cluster, which may
            first have to grow.
        gpus_per_worker: GPUs, or the fraction of one, that each Ray worker asks for.
        perform: The function that workers run, `package.module:function` (`runners.entry`).

    Raises:
        PoolSettingError: A setting makes no sense.
    """

    workers: int
    threads: int = 1
    address: str | None = None
    report: Callable[[int, dict[str, Any]], None] | None = None
    max_retries: int = 2
    start_limit: float = 0.0
    gpus_per_worker: float = 0.0
    perform: str = SERVE

    def __post_init__(self) -> None:
        least = {"workers": 1, "threads": 1, "max_retries": 0, "start_limit": 0, "gpus_per_worker": 0}
        for name, lowest in least.items():
            value = getattr(self, name)
            if not value >= lowest:
                raise PoolSettingError(f"pool: {name} is {value}, expected {lowest} or more")
        if not self.start_limit:
            object.__setattr__(self, "start_limit", 60.0 if self.address is None else 300.0)


def _local(settings: PoolSettings) -> Pool:
    from runners.local_pool import open_local

    return open_local(settings)


def _ray(settings: PoolSettings) -> Pool:
    from runners.ray_pool import open_ray

    return open_ray(settings)


POOLS: dict[str, Callable[[PoolSettings], Pool]] = {
    "local": _local,
    "ray": _ray,
}
"""Each kind of pool. `local`: processes of this machine. `ray`: a Ray of our own here, or a cluster."""


def open_pool(name: str, workers: int, threads: int = 1, **settings: Any) -> Pool:
    """Opens a pool, for use in a `with` statement.

    Args:
        name: Key of `POOLS`.
        workers: How many jobs run at a time.
        threads: CPU threads that each job computes with.
        **settings: The others of `PoolSettings`.

    Raises:
        UnknownName: There is no such pool.
        PoolSettingError: A setting makes no sense, here or for this pool.
        EvolutionError: Ray is missing, does not start, or no cluster answers.
    """
    if name not in POOLS:
        raise UnknownName.of("pool", name, POOLS)
    return POOLS[name](PoolSettings(workers, threads, **settings))
