"""What can go wrong, as one family of exceptions.

Every error of this project derives from `EvolutionError` and from the built-in that people expect. Its message is one
line for a person: what is wrong, where, what was found, what was expected, and what to do. The command line prints that
line and ends with `exit_code`; a traceback is only ever a fault of ours.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = [
    "EvolutionError",
    "FormatError",
    "GraphError",
    "MissingExtra",
    "NotComputed",
    "ShapeError",
    "StorageFull",
    "UnknownName",
]


class EvolutionError(Exception):
    """Root of all errors that this project raises on purpose."""

    exit_code = 2
    """Exit status of the command line: 2 for the user's input, 1 for the machine or a service."""


class GraphError(EvolutionError, ValueError):
    """A graph, a genome or a change of one is not valid; the message names the node."""


class NotComputed(GraphError):
    """A node cannot compute its value from what it is given, such as an index that is out of range."""


class ShapeError(GraphError):
    """Shapes do not fit each other at a node; the message names it."""


class FormatError(EvolutionError, ValueError):
    """A file is damaged or not of the expected format; the message names the file and the place."""


class StorageFull(EvolutionError, OSError):
    """The disk, or the quota on it, is full; what was there before is intact."""

    exit_code = 1


class MissingExtra(EvolutionError, ImportError):
    """An optional package is not installed, or does not work; the message says how to install it."""

    exit_code = 1


class UnknownName(EvolutionError, KeyError):
    """A name that no table knows; the message lists the known ones and the nearest."""

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""

    @classmethod
    def of(cls, what: str, name: object, known: Iterable[str]) -> UnknownName:
        """The error for `name`, which is no key of the table of `what`.

        >>> print(UnknownName.of("strategy", "agin", ["aging", "random"]))
        unknown strategy 'agin': did you mean 'aging'? Known: aging, random
        """
        names = sorted(known)
        near = difflib.get_close_matches(str(name), names, n=1)
        hint = f": did you mean '{near[0]}'?" if near else "."
        return cls(f"unknown {what} '{name}'{hint} Known: {', '.join(names)}")
