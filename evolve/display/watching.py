"""Following a search: each event becomes a redraw on a terminal and one line elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from evolve import events
from evolve.display.console import Page
from evolve.display.decoding import DecodingBar
from evolve.display.live import LiveDisplay
from evolve.display.text import Entry, accuracy, clean, count, duration, failure, verdict, where

__all__ = ["Watching"]


class Watching:
    """A context and a `Watcher`: prints what a search tells, the run's folder first.

    Attributes:
        path: The run's folder, once it is known.
        page: Where it prints.
    """

    def __init__(self, page: Page) -> None:
        self.page = page
        self.path: Path | None = None
        self._live: LiveDisplay | None = None
        self._decoding = DecodingBar(page)
        self._total = 0
        self._ended = 0
        self._since = time.monotonic()
        self._tell: Mapping[type, Callable[[Any], None]] = {
            events.Decoding: lambda event: self._decoding(event.done, event.total),
            events.Opened: self._opened,
            events.Proposed: self._proposed,
            events.Dispatched: self._dispatched,
            events.Progress: self._progress,
            events.Finished: self._finished,
            events.Measuring: self._measuring,
            events.Ended: self._end,
        }

    def __enter__(self) -> Watching:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Leaves the terminal as it was, the last state of the table on it."""
        self._decoding.close()
        if self._live is not None:
            self._live.__exit__(None, None, None)
            self._live = None

    def __call__(self, event: events.Event) -> None:
        """Shows `event`."""
        self._tell[type(event)](event)

    def _opened(self, event: events.Opened) -> None:
        self.path = event.path
        self._total = int(event.settings["candidates"])
        self._ended = sum(entry["status"] in {"done", "failed"} for entry in event.entries)
        self.page.line(str(event.path))
        self.page.line(_plan(event.settings, self._ended if event.resumed else None))
        if self.page.live:
            self._live = LiveDisplay(self.page, self._total)
            for entry in event.entries:
                self._live.candidate(entry)
            self._live.__enter__()

    def _proposed(self, event: events.Proposed) -> None:
        self._show(event.entry, None)

    def _dispatched(self, event: events.Dispatched) -> None:
        again = f", attempt {event.attempt}" if event.attempt > 1 else ""
        self._show(event.entry, f"{_made(event.entry)}: training{again}")

    def _progress(self, event: events.Progress) -> None:
        if self._live is not None:
            self._live.progress(event.id, event.epoch, event.epochs)

    def _finished(self, event: events.Finished) -> None:
        self._ended += 1
        best = ", the best so far" if event.best == event.entry["id"] else ""
        self._show(event.entry, f"{event.entry['id']}: {_fate(event.entry)}{best}")

    def _measuring(self, event: events.Measuring) -> None:
        self._note(clean(event.message))

    def _end(self, event: events.Ended) -> None:
        self.close()
        self.page.line(clean(event.message))

    def _show(self, entry: Entry, line: str | None) -> None:
        if self._live is not None:
            self._live.candidate(entry)
        elif line is not None:
            self._note(line)

    def _note(self, line: str) -> None:
        if self._live is not None:
            self._live.note(line)
        else:
            elapsed = duration(time.monotonic() - self._since)
            self.page.line(f"{elapsed:>8}  {self._ended}/{self._total}  {line}")


def _plan(settings: Mapping[str, Any], ended: int | None) -> str:
    """What is about to happen, in one line."""
    plan = (
        f"{settings['candidates']} candidates from {settings['model']} on {settings['data']}, "
        f"strategy {settings['strategy']}, pool {settings['pool']}, seed {settings['seed']}"
    )
    return clean(plan if ended is None else f"{plan}; resumed with {ended} finished")


def _made(entry: Entry) -> str:
    if entry["operator"] is None:
        return f"{entry['id']}, the starting network, {count(entry['parameters'])} parameters"
    proof = f"certificate {verdict(entry['certificate'])}"
    return f"{entry['id']} = {entry['operator']} {where(entry['site'])} of {entry['parent']}, {proof}"


def _fate(entry: Entry) -> str:
    if entry["status"] == "failed":
        return f"failed, {failure(entry)}"
    size = f"{count(entry['parameters'])} parameters, {count(entry['macs'])} MACs"
    return f"{accuracy(entry['val_accuracy'])}, {size}, {duration(entry['seconds'])}"
