"""The lineage of a run: every candidate, record, certificate, dispatch and outcome, in one database.

All of it is durable before anything depends on it.

`Lineage` reads, at any time and from any process; `evolve.lineage_writer` writes. What is read is complete
or refused: rows carry digests (`evolve.rows`), ids are consecutive, and each candidate but the first has its
record and certificate. People may query the file with any SQLite tool; `TABLES` says what is in it.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from evolve.database import database_errors, reading
from evolve.rows import Table, select
from graphs.errors import FormatError

__all__ = ["FORMAT", "TABLES", "Lineage", "Proposal", "Result", "Snapshot", "read_all", "read_meta"]

FORMAT = 1
"""Version of the tables. A reader accepts it and all before; whatever is newer is refused."""

TABLES = MappingProxyType(
    {
        table.name: table
        for table in (
            Table("meta", {"key": "TEXT", "value": "JSON"}),
            Table(
                "candidates",
                {
                    "id": "INTEGER",
                    "parent": "INTEGER",
                    "seed": "INTEGER",
                    "preserves": "TEXT",
                    "fingerprint": "TEXT",
                    "parameters": "INTEGER",
                    "macs": "INTEGER",
                    "untrained": "TEXT",
                    "teaching": "JSON",
                },
            ),
            Table("records", {"candidate": "INTEGER", "operator": "TEXT", "record": "JSON", "tensors": "TEXT"}),
            Table(
                "certificates",
                {"candidate": "INTEGER", "eval": "TEXT", "train": "TEXT", "certificate": "JSON"},
            ),
            Table("dispatches", {"number": "INTEGER", "candidate": "INTEGER", "attempt": "INTEGER"}),
            Table(
                "outcomes",
                {
                    "candidate": "INTEGER",
                    "finished": "INTEGER",
                    "status": "TEXT",
                    "val_accuracy": "REAL",
                    "failure": "TEXT",
                    "message": "TEXT",
                    "weights": "TEXT",
                    "seconds": "REAL",
                    "worker": "TEXT",
                    "curves": "JSON",
                },
                unique=("finished",),
            ),
            Table("controls", {"name": "TEXT", "control": "JSON"}),
        )
    }
)
"""`meta`: format, settings, digests of the starting network and of a named teacher, how the search ended.
`dispatches`: each handing over to a pool. `outcomes.finished` numbers the outcomes in the order in which
decisions take them. `controls`: what was measured at the end. `weights` and `tensors` are names of files in the
run's folder, by content."""


@dataclass(frozen=True, slots=True)
class Proposal:
    """A candidate as it was proposed, before it trains. The starting network has no parent and no record.

    `untrained` is the digest of its genome before training, against which every replay of its record is checked;
    `teaching` is what `evolve.teachers` decided.
    """

    id: int
    seed: int
    fingerprint: str
    parameters: int
    macs: int
    untrained: str
    parent: int | None = None
    preserves: str | None = None
    record: Mapping[str, Any] | None = None
    tensors: str | None = None
    certificate: Mapping[str, Any] | None = None
    teaching: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Result:
    """How a candidate ended: with an accuracy and weights, or with a failure.

    Attributes:
        candidate: Its id.
        val_accuracy: Fraction of the validation split; None if it failed.
        weights: Digest of the trained genome's file; None if it failed.
        failure: Kind and message; None if it did not fail.
        seconds: How long it took.
        worker: Where it ran.
        curves: One mapping an epoch.
        finished: Its number in the order in which decisions take outcomes; given by the writer.
    """

    candidate: int
    val_accuracy: float | None = None
    weights: str | None = None
    failure: tuple[str, str] | None = None
    seconds: float = 0.0
    worker: str = ""
    curves: Sequence[Mapping[str, Any]] = ()
    finished: int = -1


@dataclass(frozen=True)
class Snapshot:
    """All of a lineage at one moment, verified. `results` and `attempts` go by candidate id."""

    meta: Mapping[str, Any]
    proposals: list[Proposal]
    attempts: Counter[int] = field(default_factory=Counter)
    results: dict[int, Result] = field(default_factory=dict)
    controls: dict[str, Any] = field(default_factory=dict)

    @property
    def tested(self) -> Mapping[str, Any] | None:
        """What the winner reached on the test split, once the search has ended."""
        return self.controls.get("winner") if "ended" in self.meta else None

    def references(self) -> dict[str, int]:
        """How many candidates need each file of weights or tensors; one that is not named here, nobody needs.

        A candidate needs the weights that it was trained to, and those of its parent: before training, it is
        nothing but its parent's weights and its record. It needs those of its teachers, too.
        """
        needed: Counter[str] = Counter()
        needed.update(self.meta[name] for name in ("start", "teacher") if name in self.meta)
        for result in self.results.values():
            if result.weights is not None:
                needed[result.weights] += 1
        for proposal in self.proposals:
            if proposal.tensors is not None:
                needed[proposal.tensors] += 1
            teachers = (proposal.teaching or {}).get("teachers", ())
            for elder in (proposal.parent, *teachers):
                known = self.results.get(elder)
                if known is not None and known.weights is not None:
                    needed[known.weights] += 1
        for control in self.controls.values():
            if control.get("weights") is not None:
                needed[control["weights"]] += 1
        return dict(needed)


class Lineage:
    """The lineage in the file at `path`, for reading; safe while a search writes it."""

    def __init__(self, path: Path) -> None:
        self.path = Path(path)

    def snapshot(self) -> Snapshot:
        """Everything, as of now.

        Raises:
            FormatError: A row or the file is damaged, something is missing, or a newer version wrote it.
            StorageError: The file cannot be read.
        """
        with reading(self.path) as connection, database_errors(self.path):
            return read_all(connection, str(self.path))


def read_meta(connection: sqlite3.Connection, where: str) -> dict[str, Any]:
    """The facts about the run; raises `FormatError` where they are damaged or written by a newer version."""
    meta = {row["key"]: row["value"] for row in select(connection, TABLES["meta"], where)}
    version = meta.get("format")
    if not isinstance(version, int) or version < 1:
        raise FormatError(f"{where} is damaged: table 'meta' has no row 'format'; restore the file from a copy")
    if version > FORMAT:
        raise FormatError(
            f"{where} was written by a newer version of this program "
            f"(format {version}, this one reads up to {FORMAT}); "
            "upgrade with: pip install --upgrade hydra-evolve"
        )
    return meta


def read_all(connection: sqlite3.Connection, where: str) -> Snapshot:
    """Everything; raises `FormatError` where something is damaged or missing."""
    meta = read_meta(connection, where)
    rows = {name: select(connection, table, where) for name, table in TABLES.items()}
    _check_complete(rows, where)
    records = {row["candidate"]: row for row in rows["records"]}
    certificates = {row["candidate"]: row["certificate"] for row in rows["certificates"]}
    nothing: dict[str, Any] = {"record": None, "tensors": None}
    return Snapshot(
        meta=meta,
        proposals=[
            Proposal(
                **row,
                record=records.get(row["id"], nothing)["record"],
                tensors=records.get(row["id"], nothing)["tensors"],
                certificate=certificates.get(row["id"]),
            )
            for row in rows["candidates"]
        ],
        attempts=Counter(row["candidate"] for row in rows["dispatches"]),
        results={row["candidate"]: _result(row) for row in rows["outcomes"]},
        controls={row["name"]: row["control"] for row in rows["controls"]},
    )


def _check_complete(rows: Mapping[str, list[dict[str, Any]]], where: str) -> None:
    """Raises `FormatError` where a row is missing or belongs to no candidate; no digest can tell that."""
    ids = [row["id"] for row in rows["candidates"]]
    mutated = [row["id"] for row in rows["candidates"] if row["parent"] is not None]
    for table, expected, got in (
        ("candidates", list(range(max(1, len(ids)))), ids),
        ("records", mutated, [row["candidate"] for row in rows["records"]]),
        ("certificates", mutated, [row["candidate"] for row in rows["certificates"]]),
        ("dispatches", list(range(1, len(rows["dispatches"]) + 1)), [row["number"] for row in rows["dispatches"]]),
    ):
        wrong = sorted(set(expected) ^ set(got))
        if wrong:
            fault = "has no row" if wrong[0] in expected else "has a superfluous row"
            raise FormatError(f"{where} is damaged: table '{table}' {fault} {wrong[0]}; restore the file from a copy")
    ended = any(row["key"] == "ended" for row in rows["meta"])
    finished = {row["candidate"] for row in rows["outcomes"]}
    for needed in ids if ended else [row["parent"] for row in rows["candidates"] if row["parent"] is not None]:
        if needed not in finished:
            raise FormatError(
                f"{where} is damaged: table 'outcomes' has no row {needed}, on which others depend; "
                "restore the file from a copy"
            )
    for table in ("dispatches", "outcomes"):
        strange = [row["candidate"] for row in rows[table] if row["candidate"] not in set(ids)]
        if strange:
            raise FormatError(
                f"{where} is damaged: table '{table}' names candidate {strange[0]}, which does not exist; "
                "restore the file from a copy"
            )


def _result(row: Mapping[str, Any]) -> Result:
    return Result(
        candidate=row["candidate"],
        val_accuracy=row["val_accuracy"],
        weights=row["weights"],
        failure=None if row["failure"] is None else (row["failure"], row["message"] or ""),
        seconds=row["seconds"],
        worker=row["worker"],
        curves=tuple(row["curves"] or ()),
        finished=row["finished"],
    )
