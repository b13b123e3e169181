"""Images being decoded: a bar on a terminal, else a line for every tenth of them, on the error stream.

Scripts read the standard output, of which a search's first line is the run's folder.
"""

from __future__ import annotations

import sys
from typing import Any

from evolve.display.console import Page
from evolve.display.text import count

__all__ = ["DecodingBar"]


class DecodingBar:
    """Called with how many images are decoded and how many there are; the last call ends it, or `close`."""

    def __init__(self, page: Page) -> None:
        self._page = page
        self._bar: Any = None
        self._tenths = 0

    def __call__(self, done: int, total: int) -> None:
        """Shows how far it is."""
        if not self._page.live:
            tenths = 10 * done // total
            if tenths > self._tenths:
                self._tenths = tenths
                print(f"decoding images: {count(done)} of {count(total)}", file=sys.stderr, flush=True)
            return
        if self._bar is None:
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            columns = (TextColumn("decoding images"), BarColumn(bar_width=None), MofNCompleteColumn())
            self._bar = Progress(*columns, TimeRemainingColumn(), console=self._page.console, expand=True)
            self._bar.add_task("decoding", total=total)
            self._bar.start()
        self._bar.update(self._bar.task_ids[0], completed=done)
        if done == total:
            self.close()

    def close(self) -> None:
        """Leaves the terminal as it was."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
