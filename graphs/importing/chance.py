"""Random numbers that are drawn while a forward pass is traced: they would be the same ones for ever.

A draw that is a traced call becomes a node that draws anew each time. Any other, such as one that decides whether a
layer is left out, is seen by what it does to the generators of torch, Python and NumPy.
"""

from __future__ import annotations

import contextlib
import functools
import linecache
import random
import sys
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

from graphs.errors import GraphError

__all__ = ["generators_kept", "nothing_drawn", "own_file"]


@contextlib.contextmanager
def generators_kept() -> Iterator[None]:
    """Leaves the generators of torch, Python and NumPy as they are."""
    import numpy
    import torch

    before = random.getstate(), numpy.random.get_state()
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        random.setstate(before[0])
        numpy.random.set_state(before[1])


@contextlib.contextmanager
def nothing_drawn(lines: bool = False) -> Iterator[None]:
    """Passes only if nothing within draws a random number.

    Args:
        lines: The message names the line of the user's code that drew, which takes long to find out.

    Raises:
        GraphError: Something was drawn.
    """
    before, line = _states(), Line()
    with line.sought(lambda: _states() != before) if lines else contextlib.nullcontext():
        yield
    if _states() != before:
        raise GraphError(
            f"cannot trace {line.found or 'this module'}: it draws a random number that a trace would keep for ever; "
            "draw with a torch operation on the input, such as torch.nn.functional.dropout or torch.rand_like"
        )


class Line:
    """The line of the user's code after which something has become true.

    Attributes:
        found: File, line, function and code, for a message; empty if it has not become true.
    """

    def __init__(self) -> None:
        self.found = ""

    @contextlib.contextmanager
    def sought(self, happened: Callable[[], bool]) -> Iterator[None]:
        """Looks at each line of the user's code that is run within."""
        last = ""

        def follow(frame: FrameType | None, event: str, argument: Any) -> Any:
            nonlocal last
            if self.found or frame is None or not own_file(frame.f_code.co_filename):
                return None
            if last and happened():
                self.found = last
                return None
            at = frame.f_back if event == "return" else frame
            while at and not own_file(at.f_code.co_filename):
                at = at.f_back
            last = _place(at) if at else last
            return follow

        before = sys.gettrace()
        sys.settrace(follow)
        try:
            yield
        finally:
            sys.settrace(before)
            if not self.found and happened():
                self.found = last


def _place(frame: FrameType) -> str:
    name, line = frame.f_code.co_filename, frame.f_lineno
    return f"{name}:{line}, in {frame.f_code.co_name}: '{linecache.getline(name, line).strip()}'"


_MADE = ("<frozen", "<string", "<eval_with_key")
"""How the names of files begin that are none."""


@functools.lru_cache(maxsize=16384)
def own_file(name: str) -> bool:
    """Whether a file is neither torch's, nor Python's, nor ours."""
    parts = name.replace("\\", "/").split("site-packages/")[-1].split("/")
    library = f"/python{sys.version_info.major}.{sys.version_info.minor}/"
    inside = library in name and "site-packages" not in name
    return parts[0] not in ("torch", "numpy") and not inside and not name.startswith(_MADE) and "importing" not in parts


def _states() -> tuple[Any, ...]:
    import numpy
    import torch

    kind, keys, *rest = numpy.random.get_state()
    return torch.get_rng_state().numpy().tobytes(), random.getstate(), kind, keys.tobytes(), *rest  # type: ignore
