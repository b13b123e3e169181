"""Candidates as a table that fits the width there is: the least important columns go first."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from rich.table import Table
from rich.text import Text

from evolve.display.text import Entry, accuracy, clean, count, duration, verdict, where

__all__ = ["COLUMNS", "STYLES", "Column", "candidates"]

STYLES = {"done": "", "failed": "red", "running": "cyan", "pending": "dim"}
"""Style of a row by the candidate's status."""


@dataclass(frozen=True, slots=True)
class Column:
    """One column: its title, the cell that it makes of an entry, and its rank (the highest goes first)."""

    title: str
    cell: Callable[[Entry], str]
    rank: int
    right: bool = False
    widest: int = 30


def _status(entry: Entry) -> str:
    return clean(f"failed: {entry['failure']['kind']}" if entry["failure"] else entry["status"])


def _plain(key: str) -> Callable[[Entry], str]:
    return lambda entry: clean("–" if entry[key] is None else entry[key])


COLUMNS = (
    Column("id", _plain("id"), 0, right=True),
    Column("parent", _plain("parent"), 4, right=True),
    Column("operator", lambda entry: clean(entry["operator"] or "(start)"), 2),
    Column("where", lambda entry: where(entry["site"]), 6, widest=28),
    Column("certificate", lambda entry: verdict(entry["certificate"]), 5),
    Column("status", _status, 3),
    Column("accuracy", lambda entry: accuracy(entry["val_accuracy"]), 1, right=True),
    Column("parameters", lambda entry: count(entry["parameters"]), 7, right=True),
    Column("MACs", lambda entry: count(entry["macs"]), 8, right=True),
    Column("time", lambda entry: duration(entry["seconds"]), 9, right=True),
)


def candidates(entries: Iterable[Entry], width: int, best: Sequence[int] = ()) -> Table:
    """The table of `entries`, one row each, for `width` columns of a terminal.

    Args:
        entries: What to show, in this order.
        width: Columns to fill at most.
        best: Ids of the candidates to highlight.
    """
    rows = list(entries)
    cells = {column.title: [column.cell(entry) for entry in rows] for column in COLUMNS}
    needs = {
        column.title: min(column.widest, max(map(cell_len, [column.title, *cells[column.title]]))) for column in COLUMNS
    }
    shown = list(COLUMNS)
    while len(shown) > 1 and sum(needs[column.title] + 2 for column in shown) > width:
        shown.remove(max(shown, key=lambda column: column.rank))
    table = Table(box=None, padding=(0, 1), pad_edge=False, header_style="bold")
    for column in shown:
        table.add_column(
            column.title,
            justify="right" if column.right else "left",
            max_width=column.widest,
            no_wrap=True,
            overflow="ellipsis",
        )
    for position, entry in enumerate(rows):
        style = "bold green" if entry["id"] in best else STYLES.get(str(entry["status"]).split()[0], "")
        table.add_row(*(Text(cells[column.title][position]) for column in shown), style=style)
    return table
