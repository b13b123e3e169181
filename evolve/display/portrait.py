"""One candidate in full: how it came about, what was proved, how it was trained, what it costs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from evolve.display.table import candidates
from evolve.display.text import NONE, Entry, accuracy, clean, count, duration, failure, where

__all__ = ["portrait"]

MODES = ("eval", "train")
FIGURES = ("error", "floor", "tolerance", "power", "verdict")


def portrait(
    line: Sequence[Entry],
    width: int,
    *,
    choices: Mapping[str, Any] | None = None,
    recipe: Mapping[str, Any] | None = None,
    curves: Sequence[Mapping[str, Any]] = (),
) -> Iterator[str | Table]:
    """What there is to say about the last candidate of `line`: lines of text, and tables.

    Args:
        line: The candidate's line, the starting network first.
        width: Columns to fill.
        choices: What its mutation chose.
        recipe: How it was trained.
        curves: One object an epoch.
    """
    entry = line[-1]
    yield f"candidate {entry['id']}: {failure(entry) or entry['status']}"
    yield f"  validation   {accuracy(entry['val_accuracy'])}"
    yield f"  size         {count(entry['parameters'])} parameters, {count(entry['macs'])} MACs"
    if len(line) > 1:
        yield f"  grown        {_change(line[-2], entry)} from its parent; {_change(line[0], entry)} from the start"
    yield f"  trained      {duration(entry['seconds'])} by {clean(entry['worker'] or NONE)}, seed {entry['seed']}"
    if entry["teaching"]:
        yield f"  taught       {_taught(entry['teaching'])}"
    yield ""
    yield "how it came about"
    yield candidates(line, width, [entry["id"]])
    if entry["operator"] is not None:
        yield ""
        yield f"mutation: {entry['operator']} at {where(entry['site'])}, promised {entry['preserves']}"
        if choices:
            yield f"  chosen       {_settings(choices)}"
    if entry["certificate"]:
        yield from _proof(entry["certificate"])
    if recipe:
        yield ""
        yield f"recipe: {_settings(recipe)}"
    if curves:
        yield ""
        yield _curves(curves)


def _change(before: Entry, after: Entry) -> str:
    """By how much the parameters and the MACs grew.

    >>> _change({"parameters": 100, "macs": 100}, {"parameters": 150, "macs": 90})
    '+50 % parameters, -10 % MACs'
    """
    shares = [
        f"{100 * (after[key] - before[key]) / before[key]:+.0f} % {name}"
        for key, name in (("parameters", "parameters"), ("macs", "MACs"))
        if before[key] and after[key] is not None
    ]
    return ", ".join(shares) or "unchanged"


def _taught(teaching: Mapping[str, Any]) -> str:
    """By whom, or why by nobody.

    >>> _taught({"teachers": [3, 5], "reason": None})
    'by 3, 5'
    """
    names = ", ".join(map(str, teaching["teachers"]))
    return clean(f"by {names}" if names else f"by nobody: {teaching['reason']}")


def _proof(certificate: Mapping[str, Any]) -> Iterator[str | Table]:
    probe = certificate["probe"]
    stirred = ", on stirred weights" if certificate["stirred"] else ""
    source = clean(probe["source"])
    yield ""
    yield f"certificate in {certificate['dtype']}, {probe['batch']} examples ({source}, seed {probe['seed']}){stirred}"
    table = Table(box=None, padding=(0, 1), pad_edge=False, header_style="bold")
    table.add_column("mode")
    for name in FIGURES:
        table.add_column(name, justify="right", no_wrap=True, overflow="ellipsis")
    for mode in MODES:
        measured = certificate[mode]
        style = "bold red" if measured["verdict"] in {"broken", "blind"} else ""
        table.add_row(mode, *(Text(_figure(measured[name])) for name in FIGURES), style=style)
    yield table


def _curves(curves: Sequence[Mapping[str, Any]]) -> Table:
    names = list(dict.fromkeys(name for point in curves for name in point))
    table = Table(box=None, padding=(0, 1), pad_edge=False, header_style="bold")
    for name in names:
        table.add_column(clean(name), justify="right", no_wrap=True, overflow="ellipsis")
    for point in curves:
        cells = ((name, point.get(name)) for name in names)
        table.add_row(
            *(Text(accuracy(value) if name.endswith("accuracy") else _figure(value)) for name, value in cells)
        )
    return table


def _figure(value: Any) -> str:
    if value is None:
        return NONE
    if isinstance(value, float):
        return f"{value:.3g}"
    return clean(value)


def _settings(values: Mapping[str, Any]) -> str:
    return clean(", ".join(f"{name} {_figure(value)}" for name, value in values.items()))
