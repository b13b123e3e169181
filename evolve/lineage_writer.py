"""Writing the lineage: one writer, each of whose methods is durable when it returns, whole or without effect.

What is recorded once stays as it is: a late or second outcome of a candidate changes nothing.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from evolve.database import database_errors, transaction, writing
from evolve.lineage import FORMAT, TABLES, Lineage, Proposal, Result, Snapshot, read_all, read_meta
from evolve.rows import create, insert
from graphs.durable import sync_directory
from graphs.errors import UnknownName

__all__ = ["Writer"]


class Writer(Lineage):
    """The one writer. A method returns when what it wrote is on the disk, and writes all of it or nothing."""

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        super().__init__(path)
        self._connection = connection

    @classmethod
    def create(cls, path: Path, meta: Mapping[str, Any], start: Proposal) -> None:
        """Makes the file at `path`, with `meta` and candidate 0."""
        handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        os.close(handle)
        with cls.open(path, check=False) as writer, database_errors(path), transaction(writer._connection):
            for table in TABLES.values():
                create(writer._connection, table)
            for key, value in {"format": FORMAT, **meta}.items():
                insert(writer._connection, TABLES["meta"], {"key": key, "value": value})
            writer._propose(start)
        sync_directory(path.parent)

    @classmethod
    @contextlib.contextmanager
    def open(cls, path: Path, *, check: bool = True) -> Iterator[Writer]:
        """Opens the file at `path` for writing; a second writer is kept out by the run folder's lock."""
        with writing(path) as connection:
            if check:
                with database_errors(path):
                    read_meta(connection, str(path))
            yield cls(path, connection)

    def snapshot(self) -> Snapshot:
        """Everything, through the writer's own connection."""
        with database_errors(self.path):
            return read_all(self._connection, str(self.path))

    def propose(self, proposal: Proposal) -> None:
        """Writes a candidate with its record and its certificate."""
        with database_errors(self.path), transaction(self._connection):
            self._propose(proposal)

    def dispatch(self, candidate: int) -> int:
        """Writes that `candidate` goes to the pool; returns which attempt that is, from 1."""
        with database_errors(self.path), transaction(self._connection):
            attempt = 1 + self._count("dispatches", candidate)
            number = self._connection.execute("SELECT coalesce(max(number), 0) + 1 FROM dispatches").fetchone()[0]
            insert(
                self._connection,
                TABLES["dispatches"],
                {"number": number, "candidate": candidate, "attempt": attempt},
            )
            return attempt

    def finish(self, result: Result, finished: int | None = None) -> Result | None:
        """Writes how a candidate ended, once: what comes later for the same candidate changes nothing.

        Args:
            result: The outcome; its own `finished` is not looked at.
            finished: Its number in the order in which decisions take outcomes; by default the next one.

        Returns:
            The result as written, with its number; None if the candidate already had one.

        Raises:
            UnknownName: There is no such candidate.
        """
        with database_errors(self.path), transaction(self._connection):
            if self._count("outcomes", result.candidate):
                return None
            if not self._count("candidates", result.candidate, column="id"):
                raise UnknownName(
                    f"the lineage {self.path} has no candidate {result.candidate} whose outcome it could take"
                )
            if finished is None:
                finished = self._connection.execute("SELECT coalesce(max(finished), -1) + 1 FROM outcomes").fetchone()[
                    0
                ]
            kind, message = result.failure or (None, None)
            insert(
                self._connection,
                TABLES["outcomes"],
                {
                    "candidate": result.candidate,
                    "finished": finished,
                    "status": "failed" if result.failure else "done",
                    "val_accuracy": result.val_accuracy,
                    "failure": kind,
                    "message": message,
                    "weights": result.weights,
                    "seconds": result.seconds,
                    "worker": result.worker,
                    "curves": [dict(epoch) for epoch in result.curves],
                },
            )
        return replace(result, finished=finished)

    def control(self, name: str, control: Mapping[str, Any]) -> bool:
        """Writes a measurement of the end, once; returns whether it was new."""
        with database_errors(self.path), transaction(self._connection):
            if self._count("controls", name, column="name"):
                return False
            insert(self._connection, TABLES["controls"], {"name": name, "control": dict(control)})
            return True

    def end(self, reason: str, message: str) -> None:
        """Writes that the search has ended, and why."""
        with database_errors(self.path), transaction(self._connection):
            if not self._count("meta", "ended", column="key"):
                insert(
                    self._connection,
                    TABLES["meta"],
                    {"key": "ended", "value": {"reason": reason, "message": message}},
                )

    def _count(self, table: str, value: Any, column: str = "candidate") -> int:
        query = f"SELECT count(*) FROM {table} WHERE {column} = ?"  # noqa: S608  (our own names)
        return int(self._connection.execute(query, [value]).fetchone()[0])

    def _propose(self, proposal: Proposal) -> None:
        insert(
            self._connection,
            TABLES["candidates"],
            {name: getattr(proposal, name) for name in TABLES["candidates"].columns},
        )
        if proposal.record is None or proposal.certificate is None:
            return
        insert(
            self._connection,
            TABLES["records"],
            {
                "candidate": proposal.id,
                "operator": proposal.record["operator"],
                "record": dict(proposal.record),
                "tensors": proposal.tensors,
            },
        )
        insert(
            self._connection,
            TABLES["certificates"],
            {
                "candidate": proposal.id,
                "eval": proposal.certificate["eval"]["verdict"],
                "train": proposal.certificate["train"]["verdict"],
                "certificate": dict(proposal.certificate),
            },
        )
