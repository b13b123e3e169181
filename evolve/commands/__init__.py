"""The command line as a table: `COMMANDS` names every command and the function that runs it.

A command's function takes what the user typed, imports what it needs when it runs (so that `--help` is instant), and
prints through `evolve.display`. It raises an `EvolutionError` for what the user can mend.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import MappingProxyType
from typing import Any

import typer
import typer.main

from evolve.commands.importing import import_
from evolve.commands.listing import ops, zoo
from evolve.commands.mutating import mutate
from evolve.commands.reading import log, show, status, tree
from evolve.commands.searching import resume, search
from evolve.commands.taking import export, replay
from evolve.commands.training import freezeout_speedup, train
from evolve.commands.uniting import ensemble, hydra

__all__ = ["COMMANDS", "execute", "usage_error"]

COMMANDS: MappingProxyType[str, Callable[..., None]] = MappingProxyType(
    {
        "search": search,
        "resume": resume,
        "status": status,
        "log": log,
        "tree": tree,
        "show": show,
        "replay": replay,
        "export": export,
        "hydra": hydra,
        "ensemble": ensemble,
        "import": import_,
        "mutate": mutate,
        "train": train,
        "freezeout-speedup": freezeout_speedup,
        "zoo": zoo,
        "ops": ops,
    }
)

_USAGE_ERROR: Any = typer.BadParameter.__base__
"""What the parser raises for a wrong command line; typer exports only this child of it under a stable name."""

_ABOUT = """Grow neural networks by mutations that keep what a network has learnt, and search among them.

`evolve search` with no option is a demonstration of some minutes; it ends by naming what to try next.
"""


def execute(arguments: Sequence[str]) -> None:
    """Runs the command that `arguments` name.

    Raises:
        typer.Exit: The command is done, with the exit code that it bears.
        Exception: Whatever the command or the parser raises; `usage_error` tells the parser's errors.
    """
    app = typer.Typer(name="evolve", help=_ABOUT, add_completion=False, pretty_exceptions_enable=False)
    for title, function in COMMANDS.items():
        app.command(title)(function)
    command: Any = typer.main.get_command(app)
    name, rest = "evolve", list(arguments) or ["--help"]
    if rest[0] in COMMANDS:  # straight to the command: parsing what stands before it would import pydantic
        name, command, rest = f"evolve {rest[0]}", command.commands[rest[0]], rest[1:]
    with command.make_context(name, rest) as context:
        command.invoke(context)


def usage_error(error: BaseException) -> str | None:
    """The line to show for a command line that the parser refuses; None for any other error."""
    if not isinstance(error, _USAGE_ERROR):
        return None
    path = error.ctx.command_path if error.ctx is not None else "evolve"
    return f"{error.format_message().rstrip('.')}; see '{path} --help'"
