"""A search on a terminal: the latest candidates as a table, a progress bar, the best one so far; redrawn in place."""

from __future__ import annotations

from types import TracebackType

from rich.console import Console, ConsoleOptions, Group, RenderResult
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.text import Text

from evolve.display.console import Page
from evolve.display.table import candidates
from evolve.display.text import Entry, accuracy, came_about, count, line_of

__all__ = ["LiveDisplay"]

CHROME = 5
"""Lines around the table's rows: its title, the bar, the best candidate, and room for the prompt."""


class LiveDisplay:
    """Redraws itself four times a second, in a thread of its own; see `evolve.display.watching.Display`."""

    def __init__(self, page: Page, total: int) -> None:
        self._page = page
        self._entries: dict[int, Entry] = {}
        self._best: int | None = None
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=page.console,
            expand=True,
        )
        self._task = self._progress.add_task("candidates", total=total)
        self._live = Live(self, console=page.console, refresh_per_second=4)

    def __enter__(self) -> LiveDisplay:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self._live.stop()

    def candidate(self, entry: Entry) -> None:
        """Takes what is now known of one candidate."""
        self._entries[entry["id"]] = entry
        ended = [known for known in self._entries.values() if known["status"] in {"done", "failed"}]
        scored = [known for known in ended if known["val_accuracy"] is not None]
        self._best = max(scored, key=lambda known: (known["val_accuracy"], -known["id"]))["id"] if scored else None
        self._progress.update(self._task, completed=len(ended))

    def progress(self, identity: int, epoch: int, epochs: int) -> None:
        """Notes how far a candidate's training is."""
        entry = self._entries.get(identity)
        if entry is not None and str(entry["status"]).startswith("running"):
            self._entries[identity] = {**entry, "status": f"running {epoch}/{epochs}"}

    def note(self, text: str) -> None:
        """Prints a line above the table."""
        self._live.console.print(Text(text))

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        height = max(3, (options.height or console.height) - CHROME)
        entries = dict(self._entries)  # the search writes while the drawing thread reads
        best = self._best
        recent = sorted(entries.values(), key=lambda entry: int(entry["id"]))[-height:]
        parts: list[object] = [candidates(recent, options.max_width, [] if best is None else [best])]
        parts.append(self._progress)
        if best is not None:
            entry = entries[best]
            said = f"best: {accuracy(entry['val_accuracy'])} with {count(entry['parameters'])} parameters, "
            line = came_about(line_of(entries.values(), best))
            parts.append(Text(said + line, style="bold green", no_wrap=True, overflow="ellipsis"))
        yield Group(*parts)  # type: ignore[arg-type]
