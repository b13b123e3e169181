"""The console script `evolve`, also `python -m evolve`: runs one command and turns what happens into an exit code.

| code | meaning |
|---|---|
| 0 | done |
| 1 | the machine or a service failed, or a fault of ours |
| 2 | the user's input is wrong |
| 130, 143 | ended by SIGINT, by SIGTERM |

Whatever goes wrong, one line on the error stream says so. A traceback is printed only on request, with
`EVOLVE_TRACEBACK=1`.
"""

from __future__ import annotations

import os
import sys
import traceback
import warnings
from collections.abc import Sequence
from typing import TextIO

import typer

from evolve.commands import execute, usage_error
from evolve.commands.stopping import Stopping
from graphs.errors import EvolutionError
from runners.allocation import keep_memory

__all__ = ["main", "run"]

TRACEBACK = "EVOLVE_TRACEBACK"
"""Environment variable that asks for the traceback of an error."""


def main() -> None:
    """Runs the command that the process' arguments name, and ends the process with its exit code."""
    keep_memory()
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Runs the command that `arguments` name.

    Returns:
        The exit code. Every line for a person is already printed.
    """
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a terminal without UTF-8 shows '?', and nothing breaks
    with Stopping() as stopping, warnings.catch_warnings():
        warnings.showwarning = _warn
        try:
            execute(arguments)
            sys.stdout.flush()
            return 0
        except typer.Exit as end:
            return end.exit_code
        except BrokenPipeError:  # the reader, `head` for one, has had enough
            from evolve.display.console import silence

            silence()
            return 0
        except KeyboardInterrupt as error:
            return _say("; ".join(["stopped", *_notes(error)]), stopping.exit_code or 130)
        except BaseException as error:
            return _report(error)


def _report(error: BaseException) -> int:
    """Prints the one line that `error` deserves; returns the exit code."""
    if isinstance(error, SystemExit):  # Rich, printing the help, has met a reader who had enough
        return 0 if isinstance(error.__context__, BrokenPipeError) else 1
    if os.environ.get(TRACEBACK) not in (None, "", "0"):
        traceback.print_exception(error)
    usage = usage_error(error)
    if usage is not None:
        return _say(usage, 2)
    code = error.exit_code if isinstance(error, EvolutionError) else 1
    return _say("; ".join([_message(error), *_notes(error)]), code)


def _message(error: BaseException) -> str:
    """What to tell a person about an error that is no wrong command line."""
    if isinstance(error, EvolutionError):
        return str(error)
    if isinstance(error, OSError) and error.strerror:
        place = f"{error.filename}: " if error.filename else ""
        return f"{place}{error.strerror.lower()}"
    if isinstance(error, MemoryError):
        return "this machine has too little memory for that"
    frames = traceback.extract_tb(error.__traceback__)
    place = f" at {os.path.basename(frames[-1].filename)}:{frames[-1].lineno}" if frames else ""
    return (
        f"a fault in this program, not in your input: {type(error).__name__}{place}: {error}; "
        f"the same command with {TRACEBACK}=1 in front of it shows all of it"
    )


def _notes(error: BaseException) -> list[str]:
    """What was added to `error` on its way, such as how a search goes on."""
    return list(getattr(error, "__notes__", ()))


def _warn(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Prints a warning as one line; where in a program it was raised means nothing to a person."""
    _say(f"warning: {message}", 0)


def _say(message: str, code: int) -> int:
    """Prints `message` as one line on the error stream; returns `code`."""
    line = " ".join(message.split())
    printable = "".join(character if character.isprintable() else "?" for character in line)
    print(f"evolve: {printable}", file=sys.stderr)
    return code


if __name__ == "__main__":
    main()
