"""An ensemble of candidates: a table of its members, and what they are together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.table import Table

from evolve.display.text import accuracy

__all__ = ["together"]


def together(found: Mapping[str, Any]) -> Iterator[str | Table]:
    """Tables and lines about what `evolve.ensemble` has measured."""
    for name, each in found.get("tasks", {"": found}).items():
        if name:
            yield f"label set {name}"
        yield from _one(found["candidates"], each)
        yield ""
    yield "weights are fitted on the validation split, so of the weighted ensemble only the test split tells the truth"


def _one(candidates: Sequence[int], found: Mapping[str, Any]) -> Iterator[str | Table]:
    """Of one label set."""
    splits = [name for name in ("validation", "test") if name in found]
    table = Table(box=None, padding=(0, 1), pad_edge=False, header_style="bold")
    for title in ("candidate", "weight", *splits):
        table.add_column(title, justify="right")
    for place, candidate in enumerate(candidates):
        alone = (accuracy(found[name]["members"][place]) for name in splits)
        table.add_row(str(candidate), f"{found['weights'][place]:.3f}", *alone)
    for title, key in (("together", "accuracy"), ("weighted", "weighted_accuracy"), ("oracle", "oracle")):
        table.add_row(title, "", *(accuracy(found[name][key]) for name in splits))
    yield table
    yield ""
    for name in splits:
        yield f"{name}: two of them name different classes for {accuracy(found[name]['disagreement'])} of the images"
