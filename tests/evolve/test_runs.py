"""Reading a run: while a search writes, after it was killed, and when it is damaged."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

import pytest

from evolve import open_run, search
from evolve.runs import Candidate
from graphs.errors import EvolutionError, FormatError
from tests.evolve.pools import FakePool, small


def test_a_run_can_be_read_at_every_moment_of_a_search(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    seen: list[dict[str, int]] = []

    def read(pool: FakePool) -> None:
        run = open_run(folder)
        status = run.status()
        seen.append(status["candidates"])
        assert [row["status"] for row in run.log()].count("running") == status["candidates"]["running"]
        best = run.best()
        assert (best is None) == (status["best"] is None) == (not status["candidates"]["done"])
        assert best is None or best.test_accuracy is None
        assert run.ended is None and not (run.controls.get("control"))
        if best is not None:
            assert all(isinstance(one, Candidate) for one in run.population)

    run = search(small(candidates=5, workers=2, run=str(folder)), through=FakePool(before_wait=read))
    totals = [sum(counts.values()) for counts in seen]
    assert totals == sorted(totals) and totals[0] == 1 and max(totals) == 5
    assert any(counts["running"] == 2 for counts in seen)
    assert run.ended == {"reason": "complete", "message": "5 candidates are finished, 0 of them failed"}
    assert run.settings.seed == 3 and run.settings.workers == 2


def test_reading_changes_nothing(tmp_path: Path) -> None:
    run = search(small(candidates=2, run=str(tmp_path / "run")), through=FakePool())
    before = {place: place.stat().st_mtime_ns for place in run.path.rglob("*")}
    again = open_run(run.path)
    assert again.log() == run.log() and again.status() == run.status()
    assert [one.genome().digest for one in again.candidates()] == [one.genome().digest for one in run.candidates()]
    assert {place: place.stat().st_mtime_ns for place in run.path.rglob("*")} == before


def test_a_run_can_be_moved(tmp_path: Path) -> None:
    run = search(small(candidates=2, run=str(tmp_path / "run")), through=FakePool())
    log = run.log()
    os.rename(tmp_path / "run", tmp_path / "other")
    moved = open_run(tmp_path / "other")
    best = moved.best()
    assert moved.log() == log and best is not None and best.genome().digest


def test_a_damaged_run_is_one_line(tmp_path: Path) -> None:
    run = search(small(candidates=2, run=str(tmp_path / "run")), through=FakePool())
    connection = sqlite3.connect(run.lineage.path)
    connection.execute("UPDATE outcomes SET val_accuracy = 0.99 WHERE candidate = 1")
    connection.commit()
    connection.close()
    with pytest.raises(FormatError, match=r"lineage\.sqlite is damaged: table 'outcomes', row 2") as caught:
        open_run(run.path)
    assert caught.value.exit_code == 2 and "\n" not in str(caught.value)
    with pytest.raises(EvolutionError, match="there is no run"):
        open_run(tmp_path / "none")


def test_nothing_of_the_machine_is_in_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No variable of the environment and no host name, which may be secret."""
    monkeypatch.setenv("SOME_TOKEN", "planted-secret-4711")
    run = search(small(candidates=2, run=str(tmp_path / "run")), through=FakePool())
    for place in run.path.rglob("*"):
        if place.is_file():
            data = place.read_bytes()
            assert b"planted-secret-4711" not in data
            assert os.uname().nodename.encode() not in data or len(os.uname().nodename) < 4
