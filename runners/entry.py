"""The function that a worker runs, named by a string, so that any process can be told which one it is."""

from __future__ import annotations

import importlib
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path

from graphs.errors import EvolutionError

__all__ = ["SERVE", "EntryError", "Serve", "import_path", "resolve"]

Serve = Callable[[bytes, Callable[[dict[str, object]], None]], bytes]
"""An encoded job and a function to report progress to in, an encoded outcome out."""

SERVE = "runners.jobs:serve"
"""The one that trains."""


class EntryError(EvolutionError, ValueError):
    """A worker's function cannot be found."""


def resolve(name: str) -> Serve:
    """The function called `package.module:function`, with its module warmed up.

    If the module has a function `warm_up`, that is called once, so that what takes long to import is there
    before the worker says that it is ready.

    Raises:
        EntryError: `name` is not of that form, or names nothing.
    """
    if not re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*", name):
        raise EntryError(f"a worker's function is called 'package.module:function', got {name!r}")
    module_name, function_name = name.split(":")
    try:
        module = importlib.import_module(module_name)
        function: Serve = getattr(module, function_name)
    except (ImportError, AttributeError) as error:
        raise EntryError(f"there is no function {name!r} for workers: {error}") from error
    if hasattr(module, "warm_up"):
        module.warm_up()
    return function


def import_path() -> str:
    """A `PYTHONPATH` with which another Python finds the modules that this one finds, in the same order.

    `graphs`, `ops` and `runners` are then ours in a worker also where the working directory, or a package of
    the same name elsewhere, could get in between.
    """
    home = str(Path(__file__).resolve().parent.parent)
    entries = [os.path.abspath(entry) for entry in sys.path]
    found = [entry for entry in dict.fromkeys(entries) if os.path.exists(entry)]
    return os.pathsep.join(found if home in found else [home, *found])
