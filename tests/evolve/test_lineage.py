"""The lineage keeps what it was given, once, notices any damage, and survives being cut off at any byte."""

from __future__ import annotations

import contextlib
import json
import math
import os
import random
import resource
import shutil
import sqlite3
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from evolve import database
from evolve.lineage import TABLES, Lineage, Snapshot
from evolve.lineage_writer import Writer
from graphs.durable import StorageError
from graphs.errors import EvolutionError, FormatError, StorageFull, UnknownName
from tests.evolve.lineages import filled_lineage, new_lineage, proposal, result


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the death of a process leaves does not depend on it; what the loss of power leaves is not tested here."""
    assert database.SYNCHRONOUS == "FULL"
    monkeypatch.setattr(database, "SYNCHRONOUS", "OFF")


@pytest.fixture(params=["WAL", "DELETE"])
def journal(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both journals, whatever disk the tests run on."""
    name: str = request.param
    monkeypatch.setattr(database, "journal_for", lambda path: name)
    return name


def test_what_is_written_is_read(tmp_path: Path, journal: str) -> None:
    path = filled_lineage(tmp_path / "lineage.sqlite")
    found = Lineage(path).snapshot()
    assert [one.id for one in found.proposals] == [0, 1, 2, 3, 4, 5]
    assert found.proposals[4] == proposal(4, parent=2)
    assert found.proposals[0] == proposal(0)
    assert found.results[2].val_accuracy == 0.2
    assert found.results[3].failure == ("diverged", "the loss is nan")
    assert [found.results[number].finished for number in range(5)] == [0, 1, 2, 3, 4]
    assert 5 not in found.results and found.attempts[5] == 1
    assert found.controls["winner"]["candidate"] == 2
    assert found.meta["settings"] == {"seed": 1}
    assert sorted(os.listdir(tmp_path)) == ["lineage.sqlite"]  # no journal is left beside it


def test_commits_wait_for_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    with Writer.open(new_lineage(tmp_path / "lineage.sqlite")) as writer:
        assert writer._connection.execute("PRAGMA synchronous").fetchone()[0] == 2  # FULL


def test_people_can_query_it(tmp_path: Path) -> None:
    path = filled_lineage(tmp_path / "lineage.sqlite")
    connection = sqlite3.connect(path)
    query = "SELECT operator, avg(val_accuracy) FROM outcomes JOIN records USING (candidate) GROUP BY operator"
    ((operator, accuracy),) = connection.execute(query).fetchall()
    connection.close()
    assert operator == "widen" and accuracy == pytest.approx((0.1 + 0.2 + 0.4) / 3)


def test_a_second_outcome_changes_nothing(tmp_path: Path) -> None:
    path = new_lineage(tmp_path / "lineage.sqlite")
    with Writer.open(path) as writer:
        first = writer.finish(result(0, 0.5))
        assert first is not None and first.finished == 0
        assert writer.finish(result(0, 0.9)) is None
        assert writer.finish(result(0, None)) is None
        assert writer.snapshot().results == {0: first}
        with pytest.raises(UnknownName, match="no candidate 1"):
            writer.finish(result(1, 0.9))
        assert writer.control("winner", {"a": 1}) and not writer.control("winner", {"a": 2})
        writer.end("complete", "one")
        writer.end("complete", "two")
        assert writer.snapshot().meta["ended"]["message"] == "one"


def test_numbers_that_json_does_not_have_are_refused(tmp_path: Path) -> None:
    path = new_lineage(tmp_path / "lineage.sqlite")
    with Writer.open(path) as writer:
        for wrong in (result(0, math.nan), result(0, 0.5, curves=({"lr": math.inf},))):
            with pytest.raises(FormatError):
                writer.finish(wrong)
        assert writer.snapshot().results == {}
        assert writer.finish(result(0, 0.5)) is not None


def test_odd_values_come_back(tmp_path: Path) -> None:
    path = new_lineage(tmp_path / "lineage.sqlite")
    message = "line\nquote' \x00 ☃ \ud800"
    with Writer.open(path) as writer:
        writer.propose(proposal(1, seed=2**63 - 1, macs=2**62))
        writer.finish(result(0, -0.0, seconds=1))
        writer.finish(result(1, None, worker="wörker"))
        writer.propose(proposal(2))
        writer.finish(type(result(2))(2, failure=("crashed", message)))
    found = Lineage(path).snapshot()
    assert found.proposals[1].seed == 2**63 - 1 and found.proposals[1].macs == 2**62
    assert found.results[0].val_accuracy == 0 and isinstance(found.results[0].seconds, float)
    assert found.results[1].worker == "wörker"
    assert found.results[2].failure == ("crashed", message.replace("\ud800", "?"))


def test_readers_see_whole_steps_while_a_search_writes(tmp_path: Path, journal: str) -> None:
    path = new_lineage(tmp_path / "lineage.sqlite")
    seen: list[Snapshot] = []
    stop = threading.Event()

    def read() -> None:
        while not stop.is_set():
            seen.append(Lineage(path).snapshot())

    reader = threading.Thread(target=read)
    reader.start()
    try:
        with Writer.open(path) as writer:
            for number in range(40):
                if number:
                    writer.propose(proposal(number))
                writer.finish(result(number))
                time.sleep(0.005)
    finally:
        stop.set()
        reader.join()
    assert seen
    sizes = [len(one.proposals) for one in seen]
    assert sizes == sorted(sizes)
    assert all(len(one.proposals) - len(one.results) in {0, 1} for one in seen)
    assert len(Lineage(path).snapshot().results) == 40


@contextlib.contextmanager
def without_privileges() -> Iterator[None]:
    """As an ordinary user, who may write only where the modes say so."""
    before = os.geteuid()
    if before == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(before)


def test_it_can_be_read_where_nothing_may_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in another user's folder, after a clean end and as a killed writer leaves it on another machine."""
    monkeypatch.setattr(database, "journal_for", lambda path: "WAL")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        clean = filled_lineage(folder / "clean.sqlite")
        killed = filled_lineage(folder / "killed.sqlite")
        copy = folder / "copy.sqlite"
        with Writer.open(killed) as writer:
            writer.finish(result(5, 0.75))
            for suffix in ("", "-wal"):
                shutil.copyfile(f"{killed}{suffix}", f"{copy}{suffix}")
        for one in folder.iterdir():
            one.chmod(0o444)
        folder.chmod(0o555)
        before = sorted(os.listdir(folder))
        try:
            with without_privileges():
                with pytest.raises(OSError):
                    (folder / "new").touch()
                assert len(Lineage(clean).snapshot().results) == 5
                assert len(Lineage(copy).snapshot().results) == 6
                with pytest.raises(StorageError, match=r"clean\.sqlite"), Writer.open(clean) as writer:
                    writer.finish(result(5))
        finally:
            folder.chmod(0o755)
        assert sorted(os.listdir(folder)) == before


# Damage


def test_an_outcome_on_which_others_depend_cannot_be_deleted_unnoticed(tmp_path: Path) -> None:
    path = filled_lineage(tmp_path / "lineage.sqlite")
    with sqlite3.connect(path) as connection:
        connection.execute("DELETE FROM outcomes WHERE candidate = 2")
    connection.close()
    with pytest.raises(FormatError, match="'outcomes' has no row 2"):
        Lineage(path).snapshot()


def test_an_ended_search_has_all_outcomes(tmp_path: Path) -> None:
    path = filled_lineage(tmp_path / "lineage.sqlite")
    with Writer.open(path) as writer:
        writer.end("complete", "")
    with pytest.raises(FormatError, match="'outcomes' has no row 5"):
        Lineage(path).snapshot()


def rowids(path: Path) -> Iterator[tuple[str, int, str]]:
    connection = sqlite3.connect(path)
    for name, table in TABLES.items():
        for (number,) in connection.execute(f"SELECT rowid FROM {name}").fetchall():  # noqa: S608
            for column in table.columns:
                yield name, number, column
    connection.close()


def test_a_changed_value_is_found_and_named(tmp_path: Path) -> None:
    """Each value of each row, replaced by another: by number, by text, by nothing."""
    whole = filled_lineage(tmp_path / "whole.sqlite")
    path = tmp_path / "damaged.sqlite"
    cases = list(rowids(whole))
    assert {name for name, _, _ in cases} == set(TABLES)
    for name, number, column in cases:
        for value in ("x", 3, 0.5, None):
            shutil.copyfile(whole, path)
            connection = sqlite3.connect(path)
            connection.execute("PRAGMA synchronous=OFF")
            query = f"UPDATE {name} SET {column} = ? WHERE rowid = ?"  # noqa: S608
            (old,) = connection.execute(
                f"SELECT {column} FROM {name} WHERE rowid = ?",  # noqa: S608
                [number],
            ).fetchone()
            try:
                connection.execute(query, [value, number])
            except sqlite3.IntegrityError:
                continue
            finally:
                connection.commit()
                connection.close()
            if old == value and type(old) is type(value):
                continue
            with pytest.raises(FormatError, match=f"table '{name}'") as caught:
                Lineage(path).snapshot()
            assert "row" in str(caught.value) and "\n" not in str(caught.value)


def test_a_missing_row_is_found(tmp_path: Path) -> None:
    whole = filled_lineage(tmp_path / "whole.sqlite")
    path = tmp_path / "damaged.sqlite"
    for name, number in {(name, number) for name, number, _ in rowids(whole)}:
        shutil.copyfile(whole, path)
        connection = sqlite3.connect(path)
        connection.execute("PRAGMA synchronous=OFF")
        connection.execute(f"DELETE FROM {name} WHERE rowid = ?", [number])  # noqa: S608
        connection.commit()
        connection.close()
        if name in {"outcomes", "controls"} or (name, number) == ("dispatches", 6):
            continue  # the candidate is then unfinished, which is a state of its own
        if name == "meta" and number != 1:
            continue
        if (name, number) == ("candidates", 5):
            pass
        with pytest.raises(FormatError, match="damaged: table"):
            Lineage(path).snapshot()


def test_flipped_bits_never_change_what_is_read(tmp_path: Path) -> None:
    """Anywhere in the file: either it is refused in one line, or what is read is what was written."""
    whole = filled_lineage(tmp_path / "whole.sqlite")
    expected = Lineage(whole).snapshot()
    data = whole.read_bytes()
    path = tmp_path / "damaged.sqlite"
    rng = random.Random(4)  # noqa: S311
    refused = 0
    for _ in range(600):
        place, bit = rng.randrange(len(data)), rng.randrange(8)
        damaged = bytearray(data)
        damaged[place] ^= 1 << bit
        path.write_bytes(damaged)
        try:
            found = Lineage(path).snapshot()
        except EvolutionError as error:
            assert "\n" not in str(error)
            refused += 1
        else:
            assert found == expected, f"byte {place}, bit {bit}"
    assert refused > 20


def test_flipped_bits_in_records_are_always_found(tmp_path: Path) -> None:
    whole = filled_lineage(tmp_path / "whole.sqlite")
    data = whole.read_bytes()
    path = tmp_path / "damaged.sqlite"
    rng = random.Random(5)  # noqa: S311
    texts = [b'"operator":"widen"', b'"verdict":"pass"', b"local-0", b'"seed":1', b"the loss is nan", b'"epoch":1']
    for text in texts:
        start = data.index(text)
        for place in range(start, start + len(text)):
            damaged = bytearray(data)
            damaged[place] ^= 1 << rng.randrange(8)
            path.write_bytes(damaged)
            with pytest.raises(FormatError, match=r"table '\w+', row \d+"):
                Lineage(path).snapshot()


@pytest.mark.parametrize("content", [b"", b"no database", b"SQLite format 3\x00" + b"\xff" * 5000, b"\x00" * 8192])
def test_a_file_that_is_no_lineage_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "lineage.sqlite"
    path.write_bytes(content)
    with pytest.raises(FormatError, match=r"lineage\.sqlite"):
        Lineage(path).snapshot()


def test_a_newer_version_is_refused(tmp_path: Path) -> None:
    path = new_lineage(tmp_path / "lineage.sqlite", format=2)
    for attempt in (lambda: Lineage(path).snapshot(), lambda: Writer.open(path).__enter__()):
        with pytest.raises(FormatError, match="newer version"):
            attempt()


# Cut off


def states_of_a_writer(path: Path, copies: Path) -> list[tuple[Path, int]]:
    """Copies of database and journal after each commit of a writer that does not end, with the number of results."""
    states = []
    new_lineage(path)
    with Writer.open(path) as writer:
        for number in range(6):
            if number:
                writer.propose(proposal(number))
            writer.finish(result(number))
            copy = copies / f"{number}.sqlite"
            for suffix in ("", "-wal"):
                if Path(f"{path}{suffix}").exists():
                    shutil.copyfile(f"{path}{suffix}", f"{copy}{suffix}")
            states.append((copy, number + 1))
    return states


def check_usable(path: Path, at_least: int, at_most: int) -> None:
    found = Lineage(path).snapshot()
    assert at_least <= len(found.results) <= at_most
    with Writer.open(path) as writer:
        number = len(found.proposals)
        writer.propose(proposal(number))
        assert writer.finish(result(number)) is not None
    after = Lineage(path).snapshot()
    assert len(after.proposals) == number + 1 and number in after.results
    assert all(after.results[one] == found.results[one] for one in found.results)


def test_a_write_ahead_log_cut_anywhere_keeps_all_earlier_commits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "journal_for", lambda path: "WAL")
    copies = tmp_path / "copies"
    copies.mkdir()
    states = states_of_a_writer(tmp_path / "lineage.sqlite", copies)
    sizes = [Path(f"{copy}-wal").stat().st_size for copy, _ in states]
    assert sizes == sorted(sizes) and sizes[0] < sizes[-1]
    log = Path(f"{states[-1][0]}-wal").read_bytes()
    trial = tmp_path / "trial.sqlite"
    rng = random.Random(6)  # noqa: S311
    for older in (2, 3, 4):  # each of the last three outcomes
        for cut in [
            sizes[older],
            sizes[older + 1] - 1,
            *(rng.randrange(sizes[older], sizes[older + 1]) for _ in range(20)),
        ]:
            shutil.copyfile(states[-1][0], trial)
            Path(f"{trial}-wal").write_bytes(log[:cut])
            check_usable(trial, states[older][1], states[older + 1][1])
        for place in (rng.randrange(sizes[older], sizes[older + 1]) for _ in range(10)):
            flipped = bytearray(log[: sizes[older + 1]])
            flipped[place] ^= 1 << rng.randrange(8)
            shutil.copyfile(states[-1][0], trial)
            Path(f"{trial}-wal").write_bytes(flipped)
            check_usable(trial, states[older][1], states[older + 1][1])


def test_a_rollback_journal_cut_anywhere_keeps_all_earlier_commits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed while the journal is written: the database is not touched before the journal is whole."""
    monkeypatch.setattr(database, "journal_for", lambda path: "DELETE")
    path = filled_lineage(tmp_path / "lineage.sqlite")
    with Writer.open(path) as writer:
        connection = writer._connection
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("UPDATE outcomes SET worker = 'torn'")
        journal = Path(f"{path}-journal").read_bytes()
        database_before = path.read_bytes()
        connection.execute("ROLLBACK")
    assert journal
    trial = tmp_path / "trial.sqlite"
    for cut in range(0, len(journal) + 1, max(1, len(journal) // 60)):
        trial.write_bytes(database_before)
        Path(f"{trial}-journal").write_bytes(journal[:cut])
        check_usable(trial, 5, 5)


def test_a_full_disk_loses_nothing(tmp_path: Path, journal: str) -> None:
    """At each of 64 limits on the size of files: one typed error, and everything before it is there."""
    limits = 0
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    path = new_lineage(tmp_path / "lineage.sqlite")
    size = path.stat().st_size
    for step in range(64):
        trial = tmp_path / f"{step}.sqlite"
        shutil.copyfile(path, trial)
        done = 0
        try:
            with Writer.open(trial) as writer:
                resource.setrlimit(resource.RLIMIT_FSIZE, (size + 600 * step, before[1]))
                for number in range(15):
                    if number:
                        writer.propose(proposal(number))
                    writer.finish(result(number))
                    done = number + 1
            break
        except StorageFull as error:
            assert error.exit_code == 1 and "\n" not in str(error) and trial.name in str(error)
            limits += 1
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert len(Lineage(trial).snapshot().results) == done
        check_usable(trial, done, done)
        for leftover in tmp_path.glob(f"{step}.sqlite*"):
            leftover.unlink()
    assert limits >= 10


# Late and duplicate outcomes, in any order


class Interleavings(RuleBasedStateMachine):
    """A pool that may answer twice, late, or after a crash and a resume; the model is a dictionary of first answers."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(os.environ["HYPOTHESIS_LINEAGES"])
        self.path = self.folder / f"{id(self)}-{random.random()}.sqlite"  # noqa: S311
        new_lineage(self.path)
        self.context = Writer.open(self.path)
        self.writer = self.context.__enter__()
        self.candidates = 1
        self.first: dict[int, float | None] = {}
        self.order: list[int] = []

    @precondition(lambda self: 0 in self.first)
    @rule()
    def propose(self) -> None:
        self.writer.propose(proposal(self.candidates))
        self.candidates += 1

    @rule(data=st.data())
    def dispatch(self, data: st.DataObject) -> None:
        number = data.draw(st.integers(0, self.candidates - 1))
        assert self.writer.dispatch(number) >= 1

    @rule(data=st.data(), accuracy=st.none() | st.floats(0, 1))
    def answer(self, data: st.DataObject, accuracy: float | None) -> None:
        number = data.draw(st.integers(0, self.candidates - 1))
        written = self.writer.finish(result(number, accuracy))
        assert (written is None) == (number in self.first)
        if written is not None:
            assert written.finished == len(self.order)
            self.first[number] = accuracy
            self.order.append(number)

    @precondition(lambda self: self.first)
    @rule(data=st.data())
    def answer_again(self, data: st.DataObject) -> None:
        number = data.draw(st.sampled_from(sorted(self.first)))
        assert self.writer.finish(result(number, 0.123)) is None

    @rule()
    def resume(self) -> None:
        self.context.__exit__(None, None, None)
        self.context = Writer.open(self.path)
        self.writer = self.context.__enter__()

    @invariant()
    def recorded_once(self) -> None:
        found = self.writer.snapshot()
        assert len(found.proposals) == self.candidates
        assert {number: one.val_accuracy for number, one in found.results.items()} == self.first
        assert [one.candidate for one in sorted(found.results.values(), key=lambda one: one.finished)] == self.order

    def teardown(self) -> None:
        self.context.__exit__(None, None, None)
        assert len(Lineage(self.path).snapshot().results) == len(self.first)
        self.path.unlink()


def test_late_and_duplicate_outcomes_in_any_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HYPOTHESIS_LINEAGES", str(tmp_path))
    from hypothesis.stateful import run_state_machine_as_test

    run_state_machine_as_test(
        Interleavings,
        settings=hypothesis_settings(max_examples=30, stateful_step_count=20, deadline=None, database=None),
    )


# References


def test_references_count_who_needs_a_file(tmp_path: Path) -> None:
    path = new_lineage(tmp_path / "lineage.sqlite")
    with Writer.open(path) as writer:
        writer.finish(result(0))
        writer.propose(proposal(1, tensors="t1"))
        writer.propose(proposal(2))
        writer.propose(proposal(3))
        writer.finish(result(3, None))
        found = writer.snapshot()
    assert found.references() == {"w": 1, "w0": 4, "t1": 1}
    assert json.dumps(found.references())
