"""The end of a search in words: the best candidate, how it came about, its control beside it, what to try next."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from evolve.display.table import candidates
from evolve.display.text import Entry, accuracy, clean, count, line_of, where

if TYPE_CHECKING:
    from evolve.runs import Run

__all__ = ["summary"]


def summary(run: Run, width: int) -> Iterator[str | Text | Table]:
    """What to print when the search of `run` has ended: lines of text, and a table for `width` columns."""
    entries = run.log()
    best = run.best()
    if best is None:
        return
    line = line_of(entries, best.id)
    yield ""
    yield Text(f"best: candidate {best.id}, {_figures(line[-1])}", style="bold green")
    yield f"how it came about: {_steps(line)}"
    yield candidates(line, width, [best.id])
    yield ""
    yield from _comparison(best.id, run.controls)
    for number in run.broken:
        entry = entries[number]
        yield Text(
            f"broken promise: candidate {number}, {entry['operator']} {where(entry['site'])}, was not trained; "
            f"evolve show {shlex.quote(str(run.path))} {number}",
            style="bold red",
        )
    yield ""
    yield f"run folder: {clean(run.path)}"
    yield "next, for example:"
    for command in _commands(shlex.quote(str(run.path)), best.id):
        yield f"  {command}"


def _figures(entry: Entry) -> str:
    return f"{accuracy(entry['val_accuracy'])} on the validation split, {count(entry['parameters'])} parameters"


def _steps(line: list[Entry]) -> str:
    if len(line) == 1:
        return "it is the starting network itself"
    return "one mutation of the starting network" if len(line) == 2 else f"{len(line) - 1} mutations, one on another"


def _comparison(best: int, controls: Mapping[str, Any]) -> Iterator[str]:
    """The two lines that are to be compared; the control may have failed."""
    winner, control = controls.get("winner"), controls.get("control")
    if winner is None or control is None:
        return
    yield f"test {accuracy(winner['test_accuracy'])}  candidate {best}"
    count = control["epochs"]
    epochs = f"{count} epoch{'' if count == 1 else 's'}, as long as the whole line of candidate {best} got"
    if control["failure"] is not None:
        yield f"test –        control, the starting network trained for {epochs}: {clean(control['failure']['kind'])}"
    else:
        yield f"test {accuracy(control['test_accuracy'])}  control: the starting network, trained for {epochs}"


def _commands(path: str, best: int) -> Iterator[str]:
    yield f"evolve tree {path}"
    yield f"evolve show {path} {best}"
    yield f"evolve log {path}"
    yield f"evolve export {path} --to best"
