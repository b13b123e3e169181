"""`len(x)` of a traced tensor: the size of its first axis, `x.size(0)`, which no plain number can stand for.

Python takes nothing but a number for a length, so a stand-in cannot say its own: while a forward pass is traced,
another function is called `len` in the user's modules. Of all that is no stand-in it gives what Python's does. Torch
keeps Python's own: what it loads meanwhile knows that function by its identity.
"""

from __future__ import annotations

import builtins
import contextlib
import functools
import sys
from collections.abc import Callable, Iterator
from types import FunctionType, ModuleType
from typing import TYPE_CHECKING, Any

from graphs.importing.chance import own_file

if TYPE_CHECKING:
    from torch import nn

__all__ = ["lengths"]


@contextlib.contextmanager
def lengths(module: nn.Module, of: Callable[[Any], Any]) -> Iterator[None]:
    """Within, `len(value)` in the user's code is `of(value)`, or what it always is where that is None.

    Args:
        module: What is traced: the code of its parts is the user's wherever it is from.
        of: What is asked first.
    """
    plain, asked = builtins.len, [of]

    @functools.wraps(plain)
    def length(value: Any, /) -> Any:
        # The user's code may keep this function for good.
        found = asked[0](value) if asked else None
        return plain(value) if found is None else found

    spaces = [each for each in _namespaces(module) if each.get("len", plain) is plain]
    named = ["len" in each for each in spaces]
    try:
        for each in spaces:
            each["len"] = length
        yield
    finally:
        asked.clear()
        for each, own in zip(spaces, named, strict=True):
            if each.get("len") is length:
                del each["len"]
            if own:
                each.setdefault("len", plain)


def _namespaces(module: nn.Module) -> list[dict[str, Any]]:
    """Where the user's functions look names up: modules that are loaded, and where the parts' classes were made."""
    loaded = [vars(each) for each in list(sys.modules.values()) if isinstance(each, ModuleType)]
    own = [each for each in loaded if own_file(str(each.get("__file__") or "torch"))]
    kinds = {kind for part in module.modules() for kind in type(part).__mro__}
    functions = [
        each
        for kind in kinds
        if str(kind.__module__).partition(".")[0] not in ("torch", "builtins")
        for each in vars(kind).values()
        if isinstance(each, FunctionType)
    ]
    found = {id(each): each for each in (*own, *(function.__globals__ for function in functions))}
    return [each for each in found.values() if each is not vars(builtins)]
