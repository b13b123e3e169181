"""Bursts of small objects that live on, such as those of a graph with all its nodes.

Python's cycle collector counts new objects, and passes over all that a process holds when there are many: beside torch
that takes a quarter of a second, several times in one import of a large network, and finds nothing.
"""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator

__all__ = ["uncollected"]


@contextlib.contextmanager
def uncollected() -> Iterator[None]:
    """What is within, or the function that is decorated, runs without the cycle collector, where that was on."""
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
