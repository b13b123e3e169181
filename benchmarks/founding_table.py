"""The table of `founding_systems`: means and spreads, and differences paired by seed with their 95 % intervals."""

from __future__ import annotations

import csv
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from scipy import stats

__all__ = ["DIFFERENCES", "show"]

Row = Mapping[str, Any]
Figure = tuple[str, str]
"""Name of an arm, and of one of its figures."""

DIFFERENCES: Sequence[tuple[Figure, Figure]] = (
    (("freezeout", "accuracy, t0=.8"), ("freezeout", "accuracy, off")),
    (("freezeout", "accuracy, t0=.5"), ("freezeout", "accuracy, off")),
    (("freezeout", "saved, t0=.8, wall"), ("freezeout", "saved, t0=.8, estimated")),
    (("freezeout", "saved, t0=.8, processor"), ("freezeout", "saved, t0=.8, estimated")),
    (("freezeout", "saved, t0=.8, processor, steps alone"), ("freezeout", "saved, t0=.8, estimated")),
    (("freezeout", "saved, t0=.5, wall"), ("freezeout", "saved, t0=.5, estimated")),
    (("freezeout", "saved, t0=.5, processor"), ("freezeout", "saved, t0=.5, estimated")),
    (("freezeout", "saved, t0=.5, processor, steps alone"), ("freezeout", "saved, t0=.5, estimated")),
    (("snapshots", "single"), ("plain", "accuracy")),
    (("snapshots", "ensemble"), ("plain", "accuracy")),
    (("snapshots", "last three"), ("plain", "accuracy")),
    (("snapshots", "distilled back"), ("plain", "accuracy")),
    (("snapshots", "distilled back"), ("self-taught", "accuracy")),
    (("1 head", "accuracy"), ("plain", "accuracy")),
    (("4 heads", "accuracy"), ("plain", "accuracy")),
    (("8 heads", "accuracy"), ("plain", "accuracy")),
    (("4 heads", "accuracy"), ("as large as 4 heads", "accuracy")),
    (("8 heads", "accuracy"), ("as large as 8 heads", "accuracy")),
    (("distillation", "insert_pool, on"), ("distillation", "insert_pool, off")),
    (("distillation", "narrow, on"), ("distillation", "narrow, off")),
    (("vgg8 with dropout", "accuracy"), ("vgg8", "accuracy")),
    (("deeper, then wider", "accuracy"), ("vgg8", "accuracy")),
    (("wider, then deeper", "accuracy"), ("vgg8", "accuracy")),
    (("deeper, then wider", "accuracy"), ("wider, then deeper", "accuracy")),
    (("resnet-like-light", "accuracy"), ("vgg-like", "accuracy")),
)
"""What is compared: the first minus the second, seed by seed."""

COLUMNS = ("what", "n", "mean", "deviation", "95% from", "to")


def show(rows: Iterable[Row], to: Path) -> None:
    """Prints the table and writes it beside `to`, as .csv and as .md."""
    rows = list(rows)
    values: dict[Figure, dict[int, float]] = {}
    for row in rows:
        for name, value in row["figures"].items():
            values.setdefault((row["arm"], name), {})[row["seed"]] = value
    single = [(": ".join(figure), *_summary(figure[1], list(found.values()))) for figure, found in values.items()]
    compared = []
    for one, other in DIFFERENCES:
        both = sorted(values.get(one, {}).keys() & values.get(other, {}).keys())
        found = [values[one][seed] - values[other][seed] for seed in both]
        if found:
            compared.append((f"{': '.join(one)} − {': '.join(other)}", *_summary(one[1], found)))
    text = _markdown(rows, single, compared)
    print(text)
    to.with_suffix(".md").write_text(text)
    with to.with_suffix(".csv").open("w", newline="") as file:
        csv.writer(file).writerows([COLUMNS, *single, *compared])


def _summary(name: str, values: Sequence[float]) -> tuple[str, ...]:
    """Number, mean, deviation, and the interval of the mean by Student's t; shares in percent."""
    scale, digits = (1, 0) if name == "parameters" else (100, 2)
    count, mean = len(values), statistics.fmean(values) * scale
    if count < 2:
        return (str(count), f"{mean:.{digits}f}", "", "", "")
    spread = statistics.stdev(values) * scale
    half = float(stats.t.ppf(0.975, count - 1)) * spread / count**0.5
    return (str(count), *(f"{each:.{digits}f}" for each in (mean, spread, mean - half, mean + half)))


def _markdown(rows: Sequence[Row], single: Sequence[Sequence[str]], compared: Sequence[Sequence[str]]) -> str:
    """Both tables, with where they were measured in front."""
    places = {
        ", ".join(f"{name} {row[name]}" for name in ("machine", "python", "torch", "precision", "epochs", "images"))
        for row in rows
    }
    hours = sum(row["processor_seconds"] for row in rows) / 3600
    lines = [
        *sorted(places),
        f"{len(rows)} arms in {hours:.2f} hours of one core; accuracies and shares in percent",
        "",
    ]
    for title, table in (("figure", single), ("difference, paired by seed", compared)):
        lines += [f"| {' | '.join((title, *COLUMNS[1:]))} |", "|---|" + "---:|" * (len(COLUMNS) - 1)]
        lines += [f"| {' | '.join(row)} |" for row in table] + [""]
    return "\n".join(lines)
