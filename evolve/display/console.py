"""Where output goes: a terminal with colours and live redraws, or plain text for a file, a pipe or a simple terminal.

Plain text never holds a control character, whatever the environment asks for; `NO_COLOR` is honoured on terminals.
A reader that stops reading (`| head`) ends the output, not the work.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TextIO

from rich.console import Console
from rich.text import Text

from graphs.durable import StorageError, storage_errors

__all__ = ["PLAIN_WIDTH", "Page", "silence"]

PLAIN_WIDTH = 160
"""Columns of a table that is written into a file or a pipe."""


class Page:
    """The standard output, as a sheet to print on; in tests any other stream.

    Attributes:
        live: Whether lines on it can be redrawn.
        console: For what Rich draws; renderables on it are cut to the terminal's width.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self.stream = sys.stdout if stream is None else stream
        terminal = self.stream.isatty()
        self.console = _Output(
            file=self.stream,
            force_terminal=terminal,
            force_interactive=None if terminal else False,
            width=None if terminal else PLAIN_WIDTH,
            color_system="auto" if terminal else None,
            highlight=False,
            markup=False,
            emoji=False,
            soft_wrap=False,
        )
        self.live = terminal and not self.console.is_dumb_terminal
        self.closed = False

    @property
    def width(self) -> int:
        """Columns to fill."""
        return self.console.width

    def draw(self, renderable: Any) -> None:
        """Prints what Rich renders, without spaces at the ends of lines where the output is plain."""
        if self.live:
            whole = isinstance(renderable, Text) and renderable.no_wrap  # which printing would forget
            self.console.print(renderable, no_wrap=whole or None, overflow="ellipsis" if whole else None)
            return
        with self.console.capture() as captured:
            self.console.print(renderable)
        for line in captured.get().splitlines():
            self.line(line.rstrip())

    def line(self, text: str = "") -> None:
        """Prints one line as it is, however long, at once."""
        if self.closed:
            return
        try:
            with storage_errors(Path("the output")):
                print(_printable(text), file=self.stream, flush=True)
        except StorageError as error:
            if not isinstance(error.__cause__, BrokenPipeError):
                raise
            self.closed = True
            silence()

    def show(self, parts: Iterable[Any]) -> None:
        """Prints lines of text and draws everything else; a styled line is cut on a terminal only."""
        for part in parts:
            if isinstance(part, str):
                self.line(part)
            elif isinstance(part, Text) and not self.live:
                self.line(part.plain)
            else:
                self.draw(part)


class _Output(Console):
    """A console whose reader may leave."""

    def on_broken_pipe(self) -> None:
        """Goes on in silence."""
        self.quiet = True
        silence()


def silence() -> None:
    """Sends what is printed from now on nowhere, what is still buffered included."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


def _printable(text: str) -> str:
    """`text` with its spaces kept and everything that could steer a terminal replaced."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)
