"""A training on a terminal: a bar while it runs, a few lines at its end."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from evolve.display.console import Page
from evolve.display.text import accuracy

__all__ = ["progress", "summary"]

_SHOWN = ("val_loss", "val_accuracy")


@contextlib.contextmanager
def progress(page: Page, as_json: bool) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """What shows each epoch: a bar that moves on a terminal, else a line."""
    if as_json or not page.live:
        yield lambda entry: page.line(json.dumps(dict(entry), allow_nan=False) if as_json else _line(entry))
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(bar_width=None), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=page.console, expand=True) as bar:
        task = bar.add_task("epochs", total=None)

        def report(entry: Mapping[str, Any]) -> None:
            bar.update(task, completed=entry["epoch"], total=entry["epochs"], description=_line(entry))

        yield report


def _line(entry: Mapping[str, Any]) -> str:
    own = {name[4:]: value for name, value in entry.items() if name.startswith("val_") and name not in _SHOWN}
    metric = "".join(f", {name} {value:.4f}" for name, value in own.items() if value is not None)
    frozen = f", {entry['frozen']} stages frozen" if entry.get("frozen") else ""
    return (
        f"epoch {entry['epoch']}/{entry['epochs']}: loss {entry['train_loss']:.4f}, "
        f"validation {accuracy(entry['val_accuracy'])}{metric}{frozen}"
    )


def summary(folder: Path, result: Mapping[str, Any]) -> list[str]:
    """What came of a training, in lines."""
    lines = [
        f"validation   {accuracy(result['val_accuracy'])}",
        f"test         {accuracy(result['test_accuracy'])}",
    ]
    frozen = (result["recipe"]["hydra"] or {}).get("frozen", 0)
    if frozen >= result["epochs"]:
        lines.append(f"body         frozen in all {result['epochs']} epochs, as hydra.frozen is {frozen}")
    lines += [f"{name:<13}{accuracy(found)} on test" for name, found in result.get("tasks", {}).items()]
    only = {"": result["ensemble"]} if "ensemble" in result else {}
    for name, ensemble in {**only, **result.get("ensembles", {})}.items():
        count = f"{len(ensemble['members'])} members{f' for {name}' if name else ''}"
        lines += [
            f"ensemble     {accuracy(ensemble['test_accuracy'])} on test, {count}",
            f"weighted     {accuracy(ensemble['weighted_test_accuracy'])}, with weights from the validation split",
            f"members      {', '.join(accuracy(each) for each in ensemble['members'])}",
            f"oracle       {accuracy(ensemble['oracle'])}, disagreement {accuracy(ensemble['disagreement'])}",
        ]
    if "distilled" in result:
        found = accuracy(result["distilled"]["test_accuracy"])
        lines.append(f"distilled    {found} on test, in {folder / 'distilled'}")
    return [*lines, f"written to {folder}"]
