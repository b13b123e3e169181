"""Workers that are Ray actors, on this machine or a cluster; the only module that imports Ray.

Ray is trusted with starting processes and carrying bytes, and with nothing else: how long a job may take, how
often it is tried and what is believed of it is decided by `runners.dispatch`, and nothing here waits for Ray
without a limit.

A Ray that this module starts itself is private: own temporary folder, a token of its own, no dashboard, no
usage report, every socket on the loopback interface. What has to be set in the environment for that is taken
back on closing.
"""

from __future__ import annotations

import contextlib
import json
import logging
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from graphs.errors import EvolutionError
from runners.dispatch import Died, Dispatcher, Done, Event, Ready, Reported
from runners.entry import SERVE, resolve
from runners.outcome import finite
from runners.pools import PoolSettings
from runners.surroundings import Surroundings, connects, package_folders

__all__ = ["Connection", "RayFailure", "RayMissing", "RayWorkers", "open_ray"]

_TALK_SECONDS = 1.0
_FETCH_SECONDS = 10.0
_QUOTED = 500


class RayMissing(EvolutionError, ImportError):
    """Ray is not installed."""


class RayFailure(EvolutionError, RuntimeError):
    """Ray does not start, does not answer, or is lost."""

    exit_code = 1


class Connection:
    """This process's connection to Ray; there can be one at a time.

    Args:
        cpus: CPUs of the Ray that is started here.
        address: Cluster to connect to instead, `HOST:PORT` or `auto`.
        entry: The function that workers run, whose package goes to the cluster with ours.

    Raises:
        RayMissing: Ray is not installed.
        RayFailure: Ray does not start, no cluster answers, or the process has a connection already.
        PoolSettingError: `address` is no address.
    """

    def __init__(self, cpus: int = 1, address: str | None = None, entry: str = SERVE) -> None:
        if address is not None and (fault := connects(address)):
            raise RayFailure(f"no Ray cluster answers at {address}: {fault}; start one, or leave --ray out")
        self._surroundings: Surroundings | None = Surroundings(private=address is None)
        self._connected = False
        try:
            with self._surroundings.starting():
                self.ray = _import_ray()
                self._connect(cpus, address, entry)
            self.resources: dict[str, float] = dict(self.ray.cluster_resources())
        except BaseException as error:
            self.close()
            if isinstance(error, EvolutionError) or not isinstance(error, Exception):
                raise
            what = "Ray does not start here" if address is None else f"the Ray cluster at {address} does not let us in"
            line = " ".join(str(error).split())[:300]
            raise RayFailure(f"{what}: {type(error).__name__}: {line}; --pool local needs no Ray") from error

    def close(self) -> None:
        """Disconnects, ends a Ray that was started here, and takes back what was set. May be called twice."""
        if self._connected:
            self._connected = False
            self.ray.shutdown()
            self._printing("print_to_stdstream", self._print)
        surroundings, self._surroundings = self._surroundings, None
        if surroundings is not None:
            surroundings.restore()

    def _connect(self, cpus: int, address: str | None, entry: str) -> None:
        if self.ray.is_initialized():
            raise RayFailure("this process is connected to a Ray already; close that pool, or call ray.shutdown()")
        logging.getLogger("ray").setLevel(logging.ERROR)
        self._print = self._printing("print_to_stdstream", lambda *_, **__: None)
        self._connected = True
        quiet = {"configure_logging": False, "log_to_driver": False}
        if address is not None:
            packages = {"py_modules": package_folders(entry), "excludes": ["__pycache__"]}
            self.ray.init(address=address, runtime_env=packages, **quiet)
        elif self._surroundings is not None:
            folder = f"{self._surroundings.folder}/ray"
            self.ray.init(address="local", num_cpus=cpus, include_dashboard=False, _temp_dir=folder, **quiet)

    def _printing(self, name: str, function: Any) -> Any:
        """Replaces what prints Ray's warnings to the terminal; what matters of them comes back as errors.

        Returns:
            What was there before, or None where this Ray has no such function.
        """
        home = getattr(getattr(self.ray, "_private", None), "worker", None)
        before = getattr(home, name, None)
        if before is not None and function is not None:
            setattr(home, name, function)
        return before


@dataclass(slots=True)
class _Actor:
    """One worker: its handle, how many jobs it got, and how many reports on the last one have arrived."""

    handle: Any
    jobs: int = 0
    heard: int = 0
    busy: bool = False
    talking: bool = False
    asked: float = 0.0


class _Seat:
    """What runs in the worker's process."""

    def __init__(self, entry: str) -> None:
        self._serve = resolve(entry)
        self._job = 0
        self._reports: list[str] = []

    def ready(self) -> None:
        """Answers as soon as everything is imported."""

    def run(self, number: int, job: bytes) -> tuple[list[str], bytes]:
        """Does this worker's job of a number; returns all reports on it, and the outcome."""
        reports: list[str] = []
        self._job, self._reports = number, reports
        outcome = self._serve(job, lambda report: reports.append(json.dumps(finite(report), allow_nan=False)))
        return reports, outcome

    def talk(self, number: int, heard: int) -> list[str]:
        """The reports on a job from one on; runs beside `run`, so that an answer is a sign of life."""
        return self._reports[heard:] if number == self._job else []


class RayWorkers:
    """Ray actors; see `runners.dispatch.Workers`.

    Args:
        connection: Where they run.
        threads: CPUs that each asks for.
        gpus: GPUs that each asks for, or a fraction of one.
        entry: The function that they run.
        owns: Whether closing these closes the connection.
        silence: Seconds that a worker may leave a question unanswered before it counts as dead.
    """

    def __init__(
        self,
        connection: Connection,
        threads: int = 1,
        gpus: float = 0.0,
        entry: str = SERVE,
        owns: bool = True,
        silence: float = 120.0,
    ) -> None:
        self._connection = connection
        self._ray: Any = connection.ray
        self._wants = {"num_cpus": threads, "num_gpus": gpus}
        self._entry = entry
        self._owns = owns
        self._silence = silence
        self._class = self._ray.remote(
            max_restarts=0, max_task_retries=0, concurrency_groups={"talk": 1}, **self._wants
        )(_Seat)
        self._actors: dict[int, _Actor] = {}
        self._pending: dict[Any, tuple[str, int, int]] = {}
        self._count = 0

    def start(self) -> int:
        """Asks Ray for an actor."""
        number = self._count
        self._count += 1
        with _ray_errors(self._ray):
            actor = _Actor(self._class.remote(self._entry))
            self._pending[actor.handle.ready.remote()] = ("ready", number, 0)
        self._actors[number] = actor
        return number

    def give(self, worker: int, job: bytes) -> None:
        """Sends a job to an actor."""
        actor = self._actors.get(worker)
        if actor is None:
            return
        actor.jobs, actor.heard, actor.busy, actor.asked = actor.jobs + 1, 0, True, time.monotonic()
        with _ray_errors(self._ray):
            self._pending[actor.handle.run.remote(actor.jobs, job)] = ("run", worker, actor.jobs)

    def stop(self, worker: int) -> None:
        """Kills an actor and forgets what it was asked."""
        actor = self._actors.pop(worker, None)
        self._pending = {ref: of for ref, of in self._pending.items() if of[1] != worker}
        if actor is not None:
            with contextlib.suppress(self._ray.exceptions.RayError, ValueError, RuntimeError):
                self._ray.kill(actor.handle, no_restart=True)

    def events(self, timeout: float) -> list[Event]:
        """What the actors answer, and who of them has died."""
        events: list[Event] = []
        end = time.monotonic() + timeout
        while True:
            pause = min(_TALK_SECONDS, max(0.0, end - time.monotonic()))
            with _ray_errors(self._ray):
                self._ask()
                for ref in self._answered(pause):
                    self._settle(ref, events)
            self._end_silence(events)
            if events or time.monotonic() >= end:
                return events

    def explain(self) -> str:
        """What each worker asks for, and what there is."""
        wants = " and ".join(f"{n:g} {name[4:-1].upper()}" for name, n in self._wants.items() if n)
        there = " and ".join(f"{self._connection.resources.get(name, 0):g} {name}" for name in ("CPU", "GPU"))
        return f"each worker asks Ray for {wants}, and at the start there were {there}"

    def close(self) -> None:
        """Kills all actors, and Ray if it is ours."""
        for worker in list(self._actors):
            self.stop(worker)
        if self._owns:
            self._connection.close()

    def _ask(self) -> None:
        """Asks those that work, now and then, for their reports."""
        now = time.monotonic()
        for number, actor in self._actors.items():
            if actor.busy and not actor.talking and now - actor.asked >= _TALK_SECONDS:
                talk = actor.handle.talk.options(concurrency_group="talk")
                self._pending[talk.remote(actor.jobs, actor.heard)] = ("talk", number, actor.jobs)
                actor.talking, actor.asked = True, now

    def _answered(self, pause: float) -> list[Any]:
        refs = list(self._pending)
        if not refs:
            time.sleep(pause)
            return []
        ready, _ = self._ray.wait(refs, num_returns=1, timeout=pause)
        if ready and len(refs) > 1:
            ready, _ = self._ray.wait(refs, num_returns=len(refs), timeout=0)
        found: list[Any] = ready
        return found

    def _settle(self, ref: Any, events: list[Event]) -> None:
        what, number, job = self._pending.pop(ref, ("", -1, 0))
        actor = self._actors.get(number)
        if actor is None:
            return
        try:
            answer = self._ray.get(ref, timeout=_FETCH_SECONDS)
        except self._ray.exceptions.RayError as error:
            self.stop(number)
            kind = "out-of-memory" if "OutOfMemory" in f"{type(error).__name__} {error}" else "crashed"
            events.append(Died(number, _reason(error), kind))
            return
        if what == "ready":
            events.append(Ready(number))
            return
        new: list[str] = []
        if what == "run":
            new = answer[0][actor.heard :]
        elif actor.busy and job == actor.jobs:
            new = answer
        actor.heard += len(new)
        events += [Reported(number, json.loads(report)) for report in new]
        if what == "talk":
            actor.talking = False
        else:
            actor.busy = False
            events.append(Done(number, answer[1]))

    def _end_silence(self, events: list[Event]) -> None:
        now = time.monotonic()
        for number, actor in list(self._actors.items()):
            if actor.talking and now - actor.asked > self._silence:
                self.stop(number)
                events.append(Died(number, f"its worker gave no sign of life for {self._silence:g} s"))


def open_ray(settings: PoolSettings, connection: Connection | None = None) -> Dispatcher:
    """A pool of Ray actors.

    Args:
        settings: How many, and how.
        connection: One to use, which stays open when the pool is closed; by default it makes its own.

    Raises:
        RayMissing: Ray is not installed.
        RayFailure: Ray does not start, or no cluster answers.
    """
    owned = connection is None
    if connection is None:
        connection = Connection(settings.workers * settings.threads, settings.address, settings.perform)
    try:
        return Dispatcher(
            RayWorkers(connection, settings.threads, settings.gpus_per_worker, settings.perform, owns=owned),
            [f"ray-{index}" for index in range(settings.workers)],
            report=settings.report,
            max_retries=settings.max_retries,
            start_limit=settings.start_limit,
        )
    except BaseException:
        if owned:
            connection.close()
        raise


def _import_ray() -> ModuleType:
    try:
        import ray
    except ImportError as error:
        raise RayMissing(
            f"Ray cannot be imported ({error}); use --pool local, which needs none, or install it"
        ) from error
    module: ModuleType = ray
    return module


@contextlib.contextmanager
def _ray_errors(ray: Any) -> Iterator[None]:
    """Turns the loss of Ray itself into one clear line."""
    try:
        yield
    except ray.exceptions.RayError as error:
        raise RayFailure(
            f"the connection to Ray is lost: {_reason(error)}; what was finished before is kept"
        ) from error


def _reason(error: BaseException) -> str:
    """One line of what Ray says in many, without its colours."""
    cause = getattr(error, "cause", None)
    if isinstance(cause, Exception):
        return f"its worker raised {type(cause).__name__}: {cause}"
    text = " ".join(re.sub(r"\x1b\[\d*m", "", str(error)).split())
    detail = text.rpartition("Worker exit detail: ")[2]
    short = detail if len(detail) <= _QUOTED else f"{detail[: _QUOTED // 2]} … {detail[-_QUOTED // 2 :]}"
    return f"its worker was lost: {type(error).__name__}: {short}"
