"""The search with a pool that trains nothing: what is decided, what is durable when, and how it ends."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import ops
from evolve import events, open_run, proposals, resume, search
from evolve.decisions import family_line
from evolve.interrupts import Interrupted
from evolve.lineage_writer import Writer
from evolve.loop import SearchFailed
from evolve.odds import depth, widest
from evolve.presets import search_preset
from evolve.run_folder import RunError, RunFolder
from evolve.run_lock import RunLocked
from evolve.runs import NotTrained, Run
from evolve.settings import Settings
from graphs import Draft, Genome, initial, parameters, save, zoo
from graphs.errors import EvolutionError, FormatError, GraphError, StorageFull, UnknownName
from ops import ReplayError
from runners import Job, Outcome
from runners.jobs import perform
from tests.evolve.pools import FakePool, beyond_a_table, small, trained

LOG_KEYS = (
    "id parent operator site preserves certificate teaching status failure val_accuracy parameters macs seconds worker "
    "seed"
).split()


def told(run: Run) -> list[dict[str, Any]]:
    """The log, without what depends on the clock and on the place."""
    return [{key: value for key, value in row.items() if key not in {"seconds", "worker"}} for row in run.log()]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


# The whole way


def test_a_search_from_its_start_to_its_end(here: Path) -> None:
    pool, seen = FakePool(), []
    run = search(small(), seen.append, through=pool)
    assert str(run.path) == "runs/0001" and not pool.closed
    log = run.log()
    assert [list(row) for row in log] == [LOG_KEYS] * 6
    assert [row["id"] for row in log] == list(range(6))
    assert all(row["status"] == "done" and row["failure"] is None for row in log)
    assert all(log[0][key] is None for key in ("parent", "operator", "site", "preserves", "certificate"))
    for row in log[1:]:
        assert row["parent"] < row["id"] and row["operator"] in ops.MUTATIONS
        assert row["preserves"] in {"exact", "eval-exact", "approximate"}
        certificate = row["certificate"]
        assert set(certificate) == {"dtype", "probe", "stirred", "eval", "train"}
        assert set(certificate["probe"]) == {"batch", "source", "seed"} and certificate["probe"]["batch"] == 8
        for mode in ("eval", "train"):
            assert set(certificate[mode]) == {"error", "floor", "tolerance", "power", "verdict"}
            assert certificate[mode]["verdict"] in {"pass", "unreached", "approximate"}
    assert len({candidate.fingerprint for candidate in run.candidates()}) == 6
    assert json.loads(json.dumps(log, allow_nan=False)) == log
    best = run.best()
    assert best is not None and best.val_accuracy == max(row["val_accuracy"] for row in log)
    assert run.status() == {
        "candidates": {"pending": 0, "running": 0, "done": 6, "failed": 0},
        "best": {
            "id": best.id,
            "val_accuracy": best.val_accuracy,
            "test_accuracy": best.test_accuracy,
            "parameters": best.parameters,
            "macs": best.macs,
        },
        "strategy": "aging",
        "seed": 3,
    }
    assert json.loads((run.path / "status.json").read_text()) == run.status()
    assert best.test_accuracy is not None and 0 <= best.test_accuracy <= 1
    kinds = [type(event) for event in seen]
    assert kinds[0] is events.Opened and kinds[-1] is events.Ended
    assert kinds.count(events.Dispatched) == kinds.count(events.Finished) == 6
    assert kinds.count(events.Proposed) == 5
    assert not (run.path / "lineage.sqlite-wal").exists()


def test_a_candidate_is_durable_before_it_is_handed_out_and_its_weights_before_its_outcome(here: Path) -> None:
    def look(pool: FakePool) -> None:
        found = open_run("runs/0001").lineage.snapshot()
        for job in pool.jobs:
            if job.id < len(found.proposals):
                assert found.attempts[job.id] == 1
        for number, result in found.results.items():
            assert result.weights is not None
            assert open_run("runs/0001").candidate(number).genome().digest == result.weights

    search(small(candidates=4), through=FakePool(before_wait=look))


def test_children_start_from_their_parents_weights_and_only_approximate_ones_have_a_teacher(here: Path) -> None:
    pool = FakePool()
    run = search(small(candidates=12, odds={"widen": 1, "narrow": 1}), through=pool)
    jobs = {job.id: job for job in pool.jobs}
    assert {candidate.preserves for candidate in run.candidates()[1:]} >= {"exact", "approximate"}
    for candidate in run.candidates():
        job = jobs[candidate.id]
        assert job.seed == candidate.seed and job.genome.digest == candidate.untrained().digest
        if candidate.parent is None:
            assert candidate.record is None and not job.teachers
            continue
        parent = run.candidate(candidate.parent).genome()
        assert candidate.record is not None
        assert ops.replay(parent, candidate.record).digest == job.genome.digest
        assert candidate.teaching is not None
        if candidate.preserves == "approximate":
            assert [teacher.digest for teacher in job.teachers] == [parent.digest]
            assert candidate.teaching == {"teachers": [candidate.parent], "reason": None}
        else:
            assert not job.teachers and "the gradient of distillation is zero" in candidate.teaching["reason"]


def test_what_a_mutation_computed_from_data_is_kept(here: Path) -> None:
    pool = FakePool()
    run = search(small(odds={"deepen": 1}), through=pool)
    kept = [proposal.tensors for proposal in run.lineage.snapshot().proposals if proposal.tensors]
    assert kept and {f"{name}.safetensors" for name in kept} == set(os.listdir(run.path / "tensors"))
    for candidate in run.candidates():
        assert candidate.untrained().digest == pool.jobs[candidate.id].genome.digest


def test_the_end_touches_the_test_split_once_for_the_winner_and_its_control(here: Path) -> None:
    pool, seen = FakePool(), []
    run = search(small(candidates=8, recipe={"epochs": 2}), seen.append, through=pool)
    best = run.best()
    assert best is not None and best.parent is not None
    *jobs, control = pool.jobs
    assert [job.measure for job in jobs] == ["train"] * 8 and control.measure == "evaluate-test"
    line = run.line(best.id)
    assert line[0].id == 0 and line[-1].id == best.id
    assert control.recipe.epochs == 2 * len(line) and control.recipe.changed(epochs=2) == jobs[0].recipe
    assert control.genome.digest == run.candidate(0).untrained().digest and not control.teachers
    assert control.deadline == 3600 * len(line)
    assert run.controls["control"]["epochs"] == 2 * len(line)
    assert run.controls["control"]["test_accuracy"] == trained(control).test_accuracy
    assert run.controls["winner"]["candidate"] == best.id and run.controls["winner"]["examples"] > 100
    assert sum(isinstance(event, events.Measuring) for event in seen) == 2
    again = FakePool()
    assert told(resume(run.path, through=again)) == told(run)
    assert again.jobs == []


def test_a_starting_network_that_wins_is_its_own_control(here: Path) -> None:
    def answer(job: Job) -> Outcome:
        found = trained(job)
        return Outcome(found.genome, 0.9 if job.id == 0 else 0.1)

    pool = FakePool(answer)
    run = search(small(candidates=3), through=pool)
    best = run.best()
    assert best is not None and best.id == 0 and len(pool.jobs) == 3
    assert run.controls["control"]["test_accuracy"] == best.test_accuracy


# Decisions


def test_the_same_seed_gives_the_same_lineage_and_another_one_another(here: Path) -> None:
    one, two = (told(search(small(), through=FakePool())) for _ in range(2))
    other = told(search(small(seed=4), through=FakePool()))
    assert one == two and one != other


def test_strict_order_does_not_depend_on_who_finishes_first(here: Path) -> None:
    settings = small(candidates=9, workers=3, order="strict")
    pools = [FakePool(pick=min), FakePool(pick=max), FakePool(pick=lambda open_: open_[len(open_) // 2])]
    runs = [search(settings, through=pool) for pool in pools]
    assert told(runs[0]) == told(runs[1]) == told(runs[2])
    assert [pool.most for pool in pools] == [3, 3, 3]
    assert len({str(run.lineage.snapshot().results[8].finished) for run in runs}) == 1
    arrival = search(settings.changed(order="arrival"), through=FakePool(pick=max))
    assert told(arrival) != told(runs[0])


def test_with_one_worker_arrival_is_strict(here: Path) -> None:
    found = [told(search(small(order=order), through=FakePool())) for order in ("strict", "arrival")]
    assert found[0] == found[1]


@pytest.mark.parametrize("strategy", ["aging", "random"])
def test_who_fails_is_neither_parent_nor_best(here: Path, strategy: str) -> None:
    def answer(job: Job) -> Outcome:
        if job.id % 3 == 1:
            return Outcome.failed("diverged", "the loss is nan")
        if job.id % 3 == 2 and job.measure == "train":
            return Outcome(trained(job).genome, float("nan"))
        return trained(job)

    run = search(small(candidates=10, strategy=strategy), through=FakePool(answer))
    status = run.status()
    assert status["candidates"] == {"pending": 0, "running": 0, "done": 4, "failed": 6}
    for row in run.log():
        assert row["parent"] is None or row["parent"] % 3 == 0
        assert (row["failure"] is None) == (row["id"] % 3 == 0) == (row["val_accuracy"] is not None)
    assert status["best"]["id"] % 3 == 0
    assert all(member.id % 3 == 0 for member in run.population)
    with pytest.raises(NotTrained, match=r"candidate 1 .*failed \(diverged\)"):
        run.candidate(1).genome()
    assert run.candidate(1).untrained().digest
    with pytest.raises(UnknownName, match="candidates 0 to 9"):
        run.candidate(10)


def test_the_population_of_aging_is_the_last_to_finish(here: Path) -> None:
    run = search(small(candidates=9, population=3), through=FakePool())
    assert [member.id for member in run.population] == [6, 7, 8]


def test_no_candidate_outgrows_the_limit(here: Path) -> None:
    run = search(small(candidates=12, growth=1.3, odds={"widen": 3, "narrow": 1}), through=FakePool())
    start, *others = run.log()
    assert all(row["parameters"] <= 1.3 * start["parameters"] for row in others)
    assert all(row["macs"] <= 1.3 * start["macs"] for row in others)


def test_the_control_gets_the_minutes_of_the_whole_line(here: Path) -> None:
    pool = FakePool()
    run = search(small(candidates=8, recipe={"minutes": 2}), through=pool)
    best = run.best()
    assert best is not None and best.parent is not None
    line = len(family_line(run.lineage.snapshot().proposals, best.id))
    assert pool.jobs[-1].recipe.minutes == 2 * line and pool.jobs[-1].deadline == 3600 * line
    assert {job.recipe.minutes for job in pool.jobs[:-1]} == {2}


def test_no_candidate_is_wider_or_deeper_than_allowed(here: Path) -> None:
    limits = {"growth": 1000, "widest": 48, "deepest": 6, "retries": 300}
    run = search(small(candidates=12, odds={"widen": 1, "deepen": 1}, steps=(1, 3), **limits), through=FakePool())
    made = [candidate.untrained().graph for candidate in run.candidates()]
    assert {widest(graph) for graph in made} <= set(range(49)) and max(map(depth, made)) <= 6
    assert max(map(widest, made)) > 32 and max(map(depth, made)) > 4
    operators = [row["operator"] for row in run.log()[1:]]
    assert "chain" in operators and {"widen", "deepen"} & set(operators)


def test_networkcompress_as_a_whole_can_be_taken_up_and_made_again(here: Path) -> None:
    given = search_preset("networkcompress") | {"model_settings": {"width": 8}, "candidates": 14, "population": 3}
    del given["data"]
    whole = search(small(**given), through=FakePool())
    assert whole.log()[0]["parameters"] == parameters(zoo.create("networkcompress", 10, (1, 8, 8), width=8).graph)

    def stop(event: events.Event) -> None:
        if isinstance(event, events.Finished) and event.entry["id"] == 6:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Interrupted):
        search(small(**given), stop, through=FakePool())
    assert told(resume("runs/0002", through=FakePool())) == told(whole)
    for candidate in whole.candidates()[1:]:
        assert candidate.record is not None and candidate.parent is not None
        parent = whole.candidate(candidate.parent).genome()
        snapshot = whole.lineage.snapshot().proposals[candidate.id]
        assert RunFolder(whole.path).replayed(snapshot, parent).digest == candidate.untrained().digest


# Failures


def test_a_starting_network_that_fails_ends_the_search(here: Path) -> None:
    pool = FakePool(lambda job: Outcome.failed("diverged", "the loss is nan"))
    with pytest.raises(SearchFailed, match=r"diverged: the loss is nan.*runs/0001") as caught:
        search(small(), through=pool)
    assert "\n" not in str(caught.value)
    again = FakePool()
    with pytest.raises(SearchFailed):
        resume("runs/0001", through=again)
    assert again.jobs == []
    assert open_run("runs/0001").status()["candidates"]["failed"] == 1


def test_a_test_split_that_the_best_network_cannot_read_loses_no_candidate(here: Path) -> None:
    genome, task = beyond_a_table()
    save(genome, here / "net.safetensors")
    task.save(here / "words.safetensors")
    pool = FakePool(lambda job: Outcome(job.genome, 0.5))
    settings = small(
        **{"data": "words.safetensors", "model": "net.safetensors", "model_settings": {}, "limit": None},
        **{"candidates": 1, "recipe": {"epochs": 1, "crop": 0}},
    )
    with pytest.raises(SearchFailed, match=r"kept in runs/0001, but .*candidate 0 on the test split: ") as caught:
        search(settings, through=pool)
    assert caught.value.exit_code == 2 and "\n" not in str(caught.value)
    assert open_run("runs/0001").status()["candidates"]["done"] == 1


def test_a_broken_promise_is_recorded_never_trained_and_named(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    certify = ops.certify

    class Broken:
        def __init__(self, found: Any) -> None:
            self.found = found

        def to_json(self) -> dict[str, Any]:
            data: dict[str, Any] = self.found.to_json()
            return {**data, "eval": {**data["eval"], "error": 0.5, "verdict": "broken"}}

    calls = []

    def planted(parent: Any, child: Any, **options: Any) -> Any:
        calls.append(child)
        found = certify(parent, child, **options)
        return Broken(found) if len(calls) in {2, 3} else found

    monkeypatch.setattr("ops.certify", planted, raising=False)
    seen: list[events.Event] = []
    pool = FakePool()
    run = search(small(), seen.append, through=pool)
    assert run.broken == [2, 3]
    assert {job.id for job in pool.jobs} & {2, 3} == set()
    for number in (2, 3):
        row = run.log()[number]
        assert row["status"] == "failed" and row["failure"]["kind"] == "broken-promise"
        assert "eval mode is off by 0.5" in row["failure"]["message"]
    ended = seen[-1]
    assert isinstance(ended, events.Ended) and ended.broken == (2, 3)
    assert "2 (" in ended.message and "3 (" in ended.message
    assert run.status()["candidates"] == {"pending": 0, "running": 0, "done": 4, "failed": 2}


def test_a_broken_promise_is_not_trained_after_a_crash_either(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = search(small(candidates=3), through=FakePool())
    found = run.lineage.snapshot()

    def fill(folder: RunFolder) -> None:
        start = RunFolder(run.path).load_genome(found.meta["start"])
        folder.save_genome(start)
        Writer.create(
            folder.lineage.path, {key: found.meta[key] for key in ("settings", "task", "start")}, found.proposals[0]
        )

    with RunFolder.create("crashed", fill) as folder, Writer.open(folder.lineage.path) as writer:
        weights = found.results[0].weights
        assert weights is not None
        folder.save_genome(RunFolder(run.path).load_genome(weights))
        writer.finish(found.results[0])
        one = found.proposals[1]
        certificate = {**(one.certificate or {}), "train": {**(one.certificate or {})["train"], "verdict": "broken"}}
        from dataclasses import replace

        writer.propose(replace(one, certificate=certificate))
    pool = FakePool()
    again = resume("crashed", through=pool)
    assert again.log()[1]["failure"]["kind"] == "broken-promise"
    assert 1 not in {job.id for job in pool.jobs}


def test_a_search_without_any_site_ends_early(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere(*arguments: Any, **options: Any) -> Any:
        raise ops.NoSite("none")

    monkeypatch.setattr("ops.propose", nowhere, raising=False)
    seen: list[events.Event] = []
    pool = FakePool()
    run = search(small(), seen.append, through=pool)
    assert run.ended is not None and run.ended["reason"] == "exhausted"
    assert "1 without a place for any operator" in run.ended["message"] and len(run.log()) == 1
    assert run.status()["best"]["test_accuracy"] is not None
    assert told(resume(run.path, through=FakePool())) == told(run)


def test_a_search_that_only_repeats_itself_ends_early(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    propose, made = ops.propose, []

    def always_the_same(genome: Any, rng: Any, **options: Any) -> Any:
        made.append(genome if not made else made[0])
        import numpy

        return propose(made[0], numpy.random.default_rng(0), **options)

    monkeypatch.setattr("ops.propose", always_the_same, raising=False)
    run = search(small(retries=5), through=FakePool())
    assert run.ended is not None and "5 tried before" in run.ended["message"]
    assert len(run.log()) == 2


def test_an_operator_that_fails_does_not_stop_the_search(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    propose, calls = ops.propose, []

    def stumbles(*arguments: Any, **options: Any) -> Any:
        calls.append(1)
        if len(calls) == 2:
            raise GraphError("node 'x' has no such thing")
        return propose(*arguments, **options)

    monkeypatch.setattr("ops.propose", stumbles, raising=False)
    with pytest.warns(RuntimeWarning, match="node 'x'"):
        run = search(small(candidates=4), through=FakePool())
    assert len(run.log()) == 4


def test_late_double_and_foreign_answers_change_nothing(here: Path) -> None:
    class Noisy(FakePool):
        def wait(self, timeout: float) -> list[tuple[int, Outcome]]:
            found = super().wait(timeout)
            late = [(job.id, Outcome(trained(job).genome, 1.0)) for job in self.jobs if job.id not in self.open]
            return [*found, *late, (99, Outcome.failed("crashed", "who?"))]

    noisy = search(small(), through=Noisy())
    assert told(noisy) == told(search(small(), through=FakePool()))
    assert sum(noisy.lineage.snapshot().attempts.values()) == 6


def test_bodies_with_heads_are_grown_where_the_recipe_makes_heads(here: Path) -> None:
    """By the training itself: what it gives back has the heads that it was sent."""
    hydra = {"heads": 3, "frozen": 0}
    settings = small(candidates=4, recipe={"epochs": 1, "batch": 16, "precision": "float32", "hydra": hydra})
    run = search(settings, through=FakePool(perform))
    assert [candidate.failure for candidate in run.candidates()] == [None] * 4
    for candidate in run.candidates():
        assert [head.name for head in candidate.genome().graph.heads] == ["head0", "head1", "head2"]
    start, trained = run.candidate(0).untrained(), run.candidate(0).genome()
    assert start.graph == trained.graph and start.digest != trained.digest


def test_another_structure_than_was_sent_is_a_failure(here: Path) -> None:
    def answer(job: Job) -> Outcome:
        return Outcome(pool.jobs[0].genome, 0.99) if job.id == 1 else trained(job)

    pool = FakePool(answer)
    run = search(small(candidates=3), through=pool)
    assert run.log()[1]["failure"] == {
        "kind": "invalid",
        "message": "the worker gave back another structure than it was given",
    }


def test_a_control_that_fails_does_not_spoil_the_run(here: Path) -> None:
    def answer(job: Job) -> Outcome:
        if job.measure != "train":
            return Outcome.failed("timed-out", "no result")
        return Outcome(trained(job).genome, 0.5 if job.id else 0.1)  # The starting network would be its own control.

    run = search(small(), through=FakePool(answer))
    assert run.controls["control"]["failure"] == {"kind": "timed-out", "message": "no result"}
    assert run.controls["control"]["test_accuracy"] is None and run.ended is not None
    assert run.status()["best"]["test_accuracy"] is not None


def test_a_pool_that_does_not_open_leaves_no_run(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: Any, **options: Any) -> Any:
        raise EvolutionError("ray is not installed; use --pool local")

    monkeypatch.setattr("evolve.loop.Search.open_pool", refuse)
    with pytest.raises(EvolutionError, match="--pool local"):
        search(small())
    assert os.listdir("runs") == []


def test_wrong_input_is_refused_before_anything_is_made(here: Path) -> None:
    cases: list[Callable[[], Settings]] = [
        lambda: small(data="digit"),
        lambda: small(data="none.npz"),
        lambda: small(model="none.safetensors"),
        lambda: small(model="convne", model_settings={}),
        lambda: small(odds={"widn": 1}),
        lambda: small(model_settings={"depth": 3}),
    ]
    for settings in cases:
        with pytest.raises(EvolutionError) as caught:
            search(settings(), through=FakePool())
        assert caught.value.exit_code == 2 and "\n" not in str(caught.value)
    assert os.listdir(here) == []
    search(small(candidates=1, run="mine"), through=FakePool())
    with pytest.raises(RunError, match="evolve resume"):
        search(small(run="mine"), through=FakePool())
    with pytest.raises(TypeError, match="not 'seed'"):
        resume("mine", seed=3)


def test_a_second_search_in_the_same_folder_is_refused(here: Path) -> None:
    def second(pool: FakePool) -> None:
        with pytest.raises(RunLocked, match="in use by another search"):
            resume("runs/0001", through=FakePool())
        assert open_run("runs/0001").status()["candidates"]["running"] == 1

    search(small(candidates=1), through=FakePool(before_wait=second))


# Interruptions


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_search_in_order(here: Path, number: signal.Signals, code: int) -> None:
    whole = search(small(run="whole"), through=FakePool())

    def strike(pool: FakePool) -> None:
        if len(pool.jobs) == 4:
            os.kill(os.getpid(), number)

    before = signal.getsignal(number)
    with pytest.raises(Interrupted, match=r"3 of 6 .*evolve resume runs/0001") as caught:
        search(small(), through=FakePool(before_wait=strike))
    assert caught.value.exit_code == code and signal.getsignal(number) is before
    status = open_run("runs/0001").status()
    assert status["candidates"]["done"] >= 3 and status["candidates"]["running"] == 0
    assert status["best"]["test_accuracy"] is None
    assert told(resume("runs/0001", through=FakePool())) == told(whole)


def test_a_worker_that_the_signal_killed_is_no_failure(here: Path) -> None:
    def answer(job: Job) -> Outcome:
        if job.id == 2:
            os.kill(os.getpid(), signal.SIGTERM)
            return Outcome.failed("crashed", "its process was ended by signal 15")
        return trained(job)

    with pytest.raises(Interrupted):
        search(small(), through=FakePool(answer))
    assert open_run("runs/0001").log()[2]["status"] == "pending"
    assert [row["status"] for row in resume("runs/0001", through=FakePool()).log()] == ["done"] * 6


class Killed(BaseException):
    """Stands for the end of the process at one place."""


STEPS = {
    "propose": (Writer, "propose"),
    "dispatch": (Writer, "dispatch"),
    "finish": (Writer, "finish"),
    "control": (Writer, "control"),
    "end": (Writer, "end"),
    "weights": (RunFolder, "save_genome"),
    "status": (RunFolder, "write_status"),
}


def killed_at(monkeypatch: pytest.MonkeyPatch, step: str, count: int, after: bool) -> None:
    """Ends the process before or after the `count`th time that `step` is made."""
    owner, name = STEPS[step]
    original = getattr(owner, name)
    calls = []

    def made(*arguments: Any, **options: Any) -> Any:
        calls.append(1)
        if len(calls) == count and not after:
            raise Killed
        found = original(*arguments, **options)
        if len(calls) == count:
            raise Killed
        return found

    monkeypatch.setattr(owner, name, made)


def places() -> Iterator[tuple[str, int, bool]]:
    times = {"propose": 3, "dispatch": 4, "finish": 4, "control": 2, "end": 1, "weights": 5, "status": 6}
    for step, most in times.items():
        for count in sorted({1, 2, most}):
            if count <= most and not (step == "weights" and count == 1):  # the first is the starting network's
                for after in (False, True):
                    yield step, count, after


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> list[Run]:
    folder = tmp_path_factory.mktemp("whole")
    return [
        search(small(candidates=4, workers=2, order="strict", run=str(folder / order)), through=FakePool(pick=pick))
        for order, pick in (("min", min), ("max", max))
    ]


@pytest.mark.parametrize(("step", "count", "after"), list(places()))
def test_a_search_killed_between_any_two_steps_goes_on_as_if_nothing_was(
    here: Path, uninterrupted: list[Run], step: str, count: int, after: bool
) -> None:
    settings = small(candidates=4, workers=2, order="strict", run="run")
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        killed_at(patch, step, count, after)
        search(settings, through=FakePool(pick=max))
    before = open_run("run").lineage.snapshot()
    pool = FakePool(pick=min)
    run = resume("run", through=pool)
    assert told(run) == told(uninterrupted[0]) == told(uninterrupted[1])
    assert run.controls.keys() == uninterrupted[0].controls.keys()
    found = run.lineage.snapshot()
    for number, result in before.results.items():
        assert found.results[number] == result  # not lost
        assert found.attempts[number] == before.attempts[number]  # not trained twice
        assert number not in {job.id for job in pool.jobs}
    assert {name: found.results[name].weights for name in found.results} == {
        name: result.weights for name, result in uninterrupted[0].lineage.snapshot().results.items()
    }


def test_a_full_disk_ends_the_search_and_loses_nothing(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = search(small(run="whole"), through=FakePool())
    for step in STEPS:
        owner, name = STEPS[step]
        with pytest.MonkeyPatch.context() as patch:
            original, calls = getattr(owner, name), []

            def full(*arguments: Any, original: Any = original, calls: Any = calls, **options: Any) -> Any:
                calls.append(1)
                if len(calls) == 2 or (len(calls) == 1 and original.__name__ == "end"):
                    raise StorageFull("no space left")
                return original(*arguments, **options)

            patch.setattr(owner, name, full)
            with pytest.raises(StorageFull):
                search(small(run=step), through=FakePool())
        assert told(resume(step, through=FakePool())) == told(whole)


def test_a_replay_that_draws_other_numbers_is_refused(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = search(small(candidates=2, odds={"branch": 1}), through=FakePool())
    assert run.candidate(1).untrained().digest == run.lineage.snapshot().proposals[1].untrained
    original = initial.stream
    monkeypatch.setattr(initial, "stream", lambda seed, name: original(seed + 1, name))
    with pytest.raises(ReplayError, match=r"candidate 1 of .* were proposed"):
        run.candidate(1).untrained()


def test_a_network_without_parameters_is_refused(here: Path) -> None:
    draft = Draft()
    draft.head(draft.add("flatten", draft.add("adaptive_avg_pool2d", draft.input((1, 8, 8)), size=(2, 5))))
    save(Genome(draft.finish(), {}), here / "bare.safetensors")
    with pytest.raises(EvolutionError, match="has no parameters"):
        search(small(model="bare.safetensors", model_settings={}), through=FakePool())


def test_a_cluster_is_for_the_pool_that_uses_one(here: Path) -> None:
    with pytest.raises(EvolutionError, match="address for --pool ray"):
        search(small(pool="local", ray="127.0.0.1:1"), through=FakePool())
    assert not (here / "runs").exists()


def test_missing_weights_are_named(here: Path) -> None:
    run = search(small(candidates=2), through=FakePool())
    best = run.best()
    assert best is not None
    weights = run.lineage.snapshot().results[best.id].weights
    (run.path / "weights" / f"{weights}.safetensors").unlink()
    with pytest.raises(FormatError, match="restore it from a copy"):
        best.genome()


def test_proposals_do_not_depend_on_the_retries_of_others(here: Path) -> None:
    """Each candidate draws from its own generator: how often one was drawn again does not move the next."""
    run = search(small(candidates=3), through=FakePool())
    found = run.lineage.snapshot()
    settings = Settings(**found.meta["settings"])
    from evolve.decisions import scored

    for _ in range(2):
        again = proposals.propose(
            settings,
            found.proposals[:2],
            scored(found.proposals, {number: found.results[number] for number in (0, 1)}),
            lambda number: run.candidate(number).genome(),
            _probe(settings),
        )
        assert isinstance(again, proposals.Offspring)
        assert again.child.record.to_json() == found.proposals[2].record


def _probe(settings: Settings) -> Any:
    from evolve.seeds import seed_of
    from evolve.starting import starting_task

    return starting_task(settings).probe(settings.probe, seed_of(settings.seed, 0, "probe"))
