"""Where a run stands, in a few lines for a person."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from evolve.display.text import accuracy, clean, count

__all__ = ["best_line", "overview"]


def overview(path: object, status: Mapping[str, Any]) -> Iterator[str]:
    """Lines about `status`, the object that `evolve status --json` prints, of the run in the folder `path`."""
    numbers = status["candidates"]
    by_status = ", ".join(f"{number} {name}" for name, number in numbers.items() if number)
    yield f"run          {clean(path)}"
    yield f"strategy     {clean(status['strategy'])}, seed {status['seed']}"
    yield f"candidates   {sum(numbers.values())}" + (f": {by_status}" if by_status else "")
    yield f"best         {best_line(status['best'])}"


def best_line(best: Mapping[str, Any] | None) -> str:
    """The best candidate in words."""
    if best is None:
        return "none yet"
    test = best["test_accuracy"]
    measured = "test split not touched yet" if test is None else f"test {accuracy(test)}"
    size = f"{count(best['parameters'])} parameters, {count(best['macs'])} MACs"
    return f"candidate {best['id']}: validation {accuracy(best['val_accuracy'])}, {measured}, {size}"
