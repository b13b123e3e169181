"""Teachers by name: who they are is decided from outcomes alone, durable, and the same after an interruption."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from evolve import resume, search
from evolve.ranking import Scored
from evolve.runs import Run
from evolve.settings import Settings
from evolve.starting import StartError
from evolve.teachers import TEACHERS, teaching
from graphs import save, zoo
from graphs.errors import UnknownName
from runners import Job
from tests.evolve.pools import FakePool, small

HISTORY = [
    Scored(0, 0.5, 10),
    Scored(3, None, 10),
    Scored(1, 0.9, 10),
    Scored(2, 0.7, 10),
    Scored(5, float("nan"), 10),
    Scored(4, 0.7, 9),
    Scored(6, 0.6, 9),
]


@pytest.mark.parametrize("preserves", ["exact", "eval-exact", "approximate"])
@pytest.mark.parametrize("parent", [1, 2])
@pytest.mark.parametrize("teacher", TEACHERS)
def test_the_only_teacher_is_never_the_parent_of_an_exact_child(teacher: str, parent: int, preserves: str) -> None:
    found = teaching(Settings(teacher=teacher), HISTORY, parent, preserves)
    if teacher == "none":
        assert found is None
        return
    assert found is not None
    wanted = {"parent": [parent], "best": [1], "ensemble": [1, 4, 2]}[teacher]
    if wanted == [parent] and preserves != "approximate":
        assert found["teachers"] == [] and f"candidate {parent}" in found["reason"] and preserves in found["reason"]
    else:
        assert found == {"teachers": wanted, "reason": None}


def test_an_ensemble_is_of_those_who_are_alive() -> None:
    settings = Settings(teacher="ensemble", population=3, ensemble=2)
    assert teaching(settings, HISTORY, 6, "exact") == {"teachers": [4, 2], "reason": None}


def test_nobody_is_asked_where_nothing_would_be_learnt() -> None:
    settings = Settings(teacher="best", recipe={"distill": {"weight": 0}})
    assert teaching(settings, HISTORY, 2, "approximate") is None
    assert teaching(Settings(teacher="best"), [], None, None) is None


def jobs(run: Run, pool: FakePool) -> dict[int, Job]:
    return {job.id: job for job in pool.jobs}


@pytest.mark.parametrize("teacher", ["best", "ensemble"])
def test_teachers_are_what_the_lineage_says(teacher: str, tmp_path: Path) -> None:
    pool = FakePool()
    run = search(small(candidates=10, teacher=teacher, ensemble=2, run=str(tmp_path / "run")), through=pool)
    found, given = run.candidates(), jobs(run, pool)
    assert found[0].teaching is None and not given[0].teachers
    for candidate in found[1:]:
        assert candidate.teaching is not None
        teachers = candidate.teaching["teachers"]
        assert [each.digest for each in given[candidate.id].teachers] == [
            run.candidate(number).genome().digest for number in teachers
        ]
        ranked = sorted(found[: candidate.id], key=lambda one: (one.val_accuracy, -one.parameters), reverse=True)
        if teacher == "best":
            assert teachers == [ranked[0].id] or (teachers, candidate.parent) == ([], ranked[0].id)
    if teacher == "ensemble":
        assert len({tuple(one.teaching["teachers"]) for one in found[3:] if one.teaching}) > 1
        assert all(len(one.teaching["teachers"]) == 2 for one in found[2:] if one.teaching)


def test_a_search_that_goes_on_asks_the_same_teachers(tmp_path: Path) -> None:
    class Stop(Exception):
        pass

    def stop(pool: FakePool) -> None:
        if len(pool.jobs) == 6:
            raise Stop

    settings = small(candidates=8, workers=3, teacher="best", run=str(tmp_path / "run"))
    first, second = FakePool(before_wait=stop, pick=max), FakePool(pick=max)
    with pytest.raises(Stop):
        search(settings, through=first)
    run = resume(tmp_path / "run", through=second)
    again = [job for job in second.jobs if job.id in {job.id for job in first.jobs}]
    assert again
    for job in again:
        before = jobs(run, first)[job.id]
        assert [each.digest for each in job.teachers] == [each.digest for each in before.teachers]


def test_a_network_of_its_own_teaches_everybody_and_travels_with_the_run(tmp_path: Path) -> None:
    master = zoo.create("convnet", input_shape=(1, 8, 8), seed=9)
    file = tmp_path / "master.safetensors"
    save(master, file)
    pool = FakePool()
    run = search(small(candidates=3, teacher=str(file), run=str(tmp_path / "one")), through=pool)
    weights = {name: tensor for name, tensor in master.weights.items()}
    for job in pool.jobs:  # the control at the end, too
        assert len(job.teachers) == 1
        assert all(job.teachers[0].weights[name].equal(tensor) for name, tensor in weights.items())
    assert len(pool.jobs) == 3 + (run.best().id != 0)  # type: ignore[union-attr]
    assert all(row["teaching"] == {"teachers": [str(file)], "reason": None} for row in run.log())
    digest = run.lineage.snapshot().meta["teacher"]
    assert run.lineage.snapshot().references()[digest] and (run.path / "weights" / f"{digest}.safetensors").exists()
    other = FakePool()
    search(small(candidates=2, teacher=f"{run.path}:1", run=str(tmp_path / "two")), through=other)
    assert other.jobs[0].teachers[0].digest == run.candidate(1).genome().digest


@pytest.mark.parametrize(
    ("teacher", "error", "words"),
    [
        ("parents", UnknownName, "did you mean 'parent'.*or the path of a .safetensors file, or RUN:ID"),
        ("WIDE.safetensors", StartError, "teacher .*WIDE.safetensors: head 'logits' .* 10 classes"),
    ],
)
def test_what_cannot_teach_is_refused_before_a_run_begins(
    teacher: str, error: Any, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    save(zoo.create("convnet", classes=12, input_shape=(1, 8, 8)), tmp_path / "WIDE.safetensors")
    with pytest.raises(error, match=words):
        search(small(teacher=teacher), through=FakePool())
    assert not (tmp_path / "runs").exists()
