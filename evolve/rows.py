"""Rows that notice damage: each carries the digest of its canonical JSON, checked whenever it is read.

SQLite keeps no checksums of its own. A row here is a mapping from column to value; columns of type `JSON`
hold any value of JSON types and are stored as canonical JSON (sorted keys, no NaN).
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from graphs.documents import canonical
from graphs.errors import FormatError

__all__ = ["Table", "create", "insert", "select"]


@dataclass(frozen=True, slots=True)
class Table:
    """One table: its columns with their types (INTEGER, REAL, TEXT or JSON), the first being the key."""

    name: str
    columns: Mapping[str, str]
    unique: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """Name of the key column."""
        return next(iter(self.columns))


def create(connection: sqlite3.Connection, table: Table) -> None:
    """Makes the table."""
    columns = [
        f"{name} {'TEXT' if kind == 'JSON' else kind}{' PRIMARY KEY' if name == table.key else ''}"
        f"{' UNIQUE' if name in table.unique else ''}"
        for name, kind in table.columns.items()
    ]
    connection.execute(f"CREATE TABLE {table.name} ({', '.join([*columns, 'digest TEXT NOT NULL'])})")


def insert(connection: sqlite3.Connection, table: Table, row: Mapping[str, Any]) -> None:
    """Writes `row`, which has exactly the table's columns, with its digest.

    Raises:
        FormatError: A float is not finite, or a value is not of JSON types.
        ValueError: The columns are not the table's.
    """
    if row.keys() != table.columns.keys():
        raise ValueError(f"a row of '{table.name}' has the columns {list(table.columns)}, got {list(row)}")
    stored = {name: _stored(kind, row[name]) for name, kind in table.columns.items()}
    names = ", ".join([*stored, "digest"])
    marks = ", ".join("?" * (len(stored) + 1))
    connection.execute(
        f"INSERT INTO {table.name} ({names}) VALUES ({marks})",  # noqa: S608  (names of the table, no values)
        [*stored.values(), _digest(table, stored)],
    )


def select(connection: sqlite3.Connection, table: Table, where: str) -> list[dict[str, Any]]:
    """All rows of the table by rising key, each verified.

    Args:
        connection: Where to read.
        table: What to read.
        where: The database's name, for messages.

    Raises:
        FormatError: A row is damaged; the message names the table and the row.
    """
    names = ", ".join([*table.columns, "digest"])
    rows = []
    # The row's number comes first and the order is SQLite's own, so that a damaged key cannot hide its row.
    for position, found in enumerate(
        connection.execute(f"SELECT {names} FROM {table.name}")  # noqa: S608  (names of the table, no values)
    ):
        stored = {name: found[name] for name in table.columns}
        if not _matches(table, stored, found["digest"]):
            raise FormatError(
                f"{where} is damaged: table '{table.name}', "
                f"row {position + 1} ({table.key} {stored[table.key]!r}) does not match its digest; "
                "restore the file from a copy"
            )
        rows.append(
            {
                name: json.loads(stored[name]) if kind == "JSON" and stored[name] is not None else stored[name]
                for name, kind in table.columns.items()
            }
        )
    return sorted(rows, key=lambda row: row[table.key])


def _stored(kind: str, value: Any) -> Any:
    """`value` as SQLite gives it back, so that the digest is the same on writing and on reading."""
    if kind == "JSON":
        return canonical(value)
    if value is None:
        return None
    if kind == "INTEGER":
        return int(value)
    if kind == "REAL":
        return float(value) + 0.0  # SQLite keeps no negative zero
    return str(value).encode("utf-8", "replace").decode()  # a lone surrogate, from a file's name, cannot be stored


def _digest(table: Table, stored: Mapping[str, Any]) -> str:
    return hashlib.sha256(canonical({"row": stored, "table": table.name}).encode()).hexdigest()


def _matches(table: Table, stored: Mapping[str, Any], digest: Any) -> bool:
    try:
        return bool(_digest(table, stored) == digest)
    except ValueError:  # damage turned a value into bytes or into an infinity
        return False
