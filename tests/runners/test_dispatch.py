"""The policy of pools, on workers that a test plays, by a clock that a test moves."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runners.dispatch import Died, Dispatcher, Done, Event, Ready, Reported
from runners.jobs import encode_outcome, peek
from runners.outcome import Outcome
from tests.runners.places import job

GOOD = encode_outcome(Outcome.failed("invalid", "done"))


class Stage:
    """A clock, and workers of which the test says what they do."""

    def __init__(self) -> None:
        self.now = 0.0
        self.live: dict[int, int | None] = {}
        self.stopped: list[int] = []
        self.script: list[Event] = []
        self.refuses = False
        self.closed = False
        self._numbers = itertools.count()

    def clock(self) -> float:
        return self.now

    def start(self) -> int:
        if self.refuses:
            raise OSError("no more processes")
        number = next(self._numbers)
        self.live[number] = None
        return number

    def give(self, worker: int, job: bytes) -> None:
        assert self.live[worker] is None, "a worker got a second job"
        self.live[worker] = peek(job)["job"]

    def stop(self, worker: int) -> None:
        del self.live[worker]
        self.stopped.append(worker)

    def events(self, timeout: float) -> list[Event]:
        assert timeout >= 0
        events, self.script = self.script, []
        for event in events:
            if isinstance(event, Done) and event.worker in self.live:
                self.live[event.worker] = None
            if isinstance(event, Died):
                self.live.pop(event.worker, None)
        if not events:
            self.now += timeout
        return events

    def explain(self) -> str:
        return "look there"

    def close(self) -> None:
        self.closed = True


def pool(stage: Stage, workers: int = 1, **settings: Any) -> Dispatcher:
    return Dispatcher(stage, [f"w{index}" for index in range(workers)], clock=stage.clock, **settings)


def kinds(found: list[tuple[int, Outcome]]) -> list[tuple[int, str]]:
    return [(id, outcome.failure.kind) for id, outcome in found if outcome.failure]


def test_an_outcome_that_is_there_at_the_deadline_counts() -> None:
    stage = Stage()
    with pool(stage) as place:
        stage.script = [Ready(0)]
        place.submit(job(1, deadline=5))
        assert place.wait(0.1) == []
        stage.now = 100.0
        stage.script = [Done(0, GOOD)]
        assert kinds(place.wait(1)) == [(1, "invalid")]
    assert stage.closed and stage.stopped == []


def test_the_deadline_counts_from_when_a_ready_worker_gets_the_job() -> None:
    stage = Stage()
    with pool(stage) as place:
        place.submit(job(1, deadline=5))
        stage.now = 20.0
        stage.script = [Ready(0)]
        assert place.wait(1) == []
        [(_, outcome)] = place.wait(60)
        assert outcome.failure is not None and outcome.failure.kind == "timed-out"
        assert stage.now == pytest.approx(25.0)
        assert stage.stopped == [0]
        assert list(stage.live) == [1]


def test_where_no_worker_starts_jobs_fail_after_the_start_limit() -> None:
    stage = Stage()
    with pool(stage, 2, start_limit=30) as place:
        place.submit(job(1, deadline=1000))
        place.submit(job(2, deadline=1000))
        found = place.wait(1000)
        assert kinds(found) == [(1, "timed-out"), (2, "timed-out")]
        assert stage.now == pytest.approx(30.0)
        assert "look there" in str(found[0][1].failure)


def test_a_slot_that_cannot_be_filled_harms_no_job_while_another_works() -> None:
    stage = Stage()
    with pool(stage, 2, start_limit=30) as place:
        stage.script = [Ready(0)]
        for id in range(3):
            place.submit(job(id, deadline=1000))
        for id in range(3):
            assert place.wait(100) == []
            stage.script = [Done(0, GOOD)]
            assert kinds(place.wait(1)) == [(id, "invalid")]


def test_workers_that_die_at_the_start_are_not_started_for_ever() -> None:
    stage = Stage()
    with pool(stage, max_retries=2) as place:
        place.submit(job(1))
        for _ in range(3):
            stage.script = [Died(max(stage.live), "cannot import")]
            found = place.wait(3)
        assert kinds(found) == [(1, "crashed")]
        assert "cannot import (3 attempts)" in str(found[0][1].failure)
        assert place.wait(10) == [] and not stage.live


def test_an_operating_system_that_refuses_processes_fails_the_job() -> None:
    stage = Stage()
    stage.refuses = True
    with pool(stage, 2) as place:
        place.submit(job(1))
        [(_, outcome)] = place.wait(100)
        assert outcome.failure is not None and "no more processes" in outcome.failure.message
        stage.refuses = False
        place.submit(job(2))
        assert place.wait(20) == []
        stage.script = [Ready(min(stage.live))]
        assert place.wait(1) == []
        stage.script = [Done(min(stage.live), GOOD)]
        assert kinds(place.wait(1)) == [(2, "invalid")]


def test_reports_reach_the_caller_and_its_errors_lose_nothing() -> None:
    heard: list[tuple[int, dict[str, Any]]] = []

    def report(job: int, progress: dict[str, Any]) -> None:
        heard.append((job, progress))
        raise KeyboardInterrupt

    stage = Stage()
    with pool(stage, report=report) as place:
        place.submit(job(4))
        stage.script = [Ready(0)]
        place.wait(0.1)
        stage.script = [Reported(0, {"epoch": 1}), Done(0, GOOD)]
        with pytest.raises(KeyboardInterrupt):
            place.wait(1)
        assert heard == [(4, {"epoch": 1})]
        assert kinds(place.wait(1)) == [(4, "invalid")]


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_each_job_gets_one_outcome_whatever_happens(data: st.DataObject) -> None:
    """Workers start, finish, die, speak twice and too late, in any order; jobs are cancelled and run into deadlines."""
    stage = Stage()
    workers = data.draw(st.integers(1, 3))
    place = pool(stage, workers, max_retries=data.draw(st.integers(0, 2)), start_limit=10)
    expected: set[int] = set()
    outcomes: list[int] = []
    ids = itertools.count()
    for _ in range(data.draw(st.integers(1, 25))):
        action = data.draw(
            st.sampled_from(["submit", "submit", "ready", "done", "die", "late", "nonsense", "cancel", "pass"])
        )
        some = data.draw(st.sampled_from(sorted(stage.live) or [0]))
        if action == "submit":
            expected.add(id := next(ids))
            place.submit(job(id, deadline=data.draw(st.sampled_from([1.0, 3.0, 50.0]))))
        elif action == "ready":
            stage.script.append(Ready(some))
        elif action == "done":
            stage.script += [Done(some, GOOD), Done(some, GOOD)]
        elif action == "nonsense":
            stage.script.append(Done(some, b"nonsense"))
        elif action == "die":
            stage.script += [Died(some, "gone"), Died(some, "gone")]
        elif action == "late":
            stage.script += [event(number) for number in stage.stopped for event in (Ready, lambda n: Done(n, GOOD))]
        elif action == "cancel" and expected:
            victim = data.draw(st.sampled_from(sorted(expected)))
            assert place.cancel(victim) == (victim not in outcomes)
            expected.discard(victim)
        outcomes += [id for id, _ in place.wait(data.draw(st.sampled_from([0.0, 0.5, 2.0])))]
        assert len(stage.live) <= workers
    for _ in range(200):
        stage.script = [Ready(number) for number in stage.live] + [Done(number, GOOD) for number in stage.live]
        outcomes += [id for id, _ in place.wait(5.0)]
    assert len(outcomes) == len(set(outcomes))
    assert expected <= set(outcomes)
    assert place.free == workers
    place.close()
