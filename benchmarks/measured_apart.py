"""Long measurements in parts: each in a process of its own, with limits, and what was found kept in a file.

A part is a generator of rows (of JSON types). Its memory ends with its process; what goes on for too long is killed,
and what it gave until then remains.
"""

from __future__ import annotations

import json
import multiprocessing
import resource
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

__all__ = ["Stopped", "apart", "keep", "kept"]

Row = dict[str, Any]
Part = Callable[..., Iterator[Row]]


class Stopped(RuntimeError):
    """A part did not come to its end; the message says why."""


def apart(part: Part, *arguments: Any, seconds: float, gibibytes: float) -> Iterator[Row]:
    """The rows of `part(*arguments)`, which runs in a process of its own.

    Raises:
        Stopped: It took more than `seconds`, or its process ended of itself, most likely for want of memory.
    """
    context = multiprocessing.get_context("spawn")
    rows, sender = context.Pipe(duplex=False)
    process = context.Process(target=_send, args=(sender, gibibytes, part, arguments))
    process.start()
    sender.close()
    end = time.monotonic() + seconds
    try:
        while rows.poll(max(0.0, end - time.monotonic())):
            try:
                row = rows.recv()
            except EOFError:
                process.join()
                if process.exitcode:
                    raise Stopped(
                        f"its process ended with {process.exitcode}, most likely for want of memory"
                    ) from None
                return
            yield row
        raise Stopped(f"it took more than {seconds:.0f} s")
    finally:
        process.kill()
        process.join()


def _send(sender: Connection, gibibytes: float, part: Part, arguments: tuple[Any, ...]) -> None:
    most = int(gibibytes * 2**30)
    resource.setrlimit(resource.RLIMIT_DATA, (most, most))
    for row in part(*arguments):
        sender.send(row)


def keep(path: Path, row: Row) -> None:
    """Appends a row to a file of JSON lines."""
    with path.open("a") as file:
        file.write(json.dumps(row) + "\n")


def kept(path: Path) -> list[Row]:
    """The rows of a file; the last line may be cut, where a benchmark was killed, and is then dropped."""
    rows: list[Row] = []
    if not path.exists():
        return rows
    lines = path.read_text().splitlines()
    for number, line in enumerate(lines):
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            if number != len(lines) - 1:
                raise
            path.write_text("".join(f"{whole}\n" for whole in lines[:-1]))
    return rows
