"""What parts of a network may be called, so that their names can stand in the text of a module.

Names reach generated Python: tensors as attributes of modules, inputs as arguments of `forward`, heads in a docstring.
Whoever writes a file chooses them, so only characters that mean nothing to Python are let through, and only names that
Python takes as they are: it reads identifiers in their NFKC form, another name where the two differ.
"""

from __future__ import annotations

import keyword
import re
import unicodedata
from collections.abc import Iterable
from functools import cache, lru_cache

from graphs.errors import GraphError

__all__ = ["check_argument", "check_label", "check_tensors", "is_free"]

_PART = re.compile(r"[\w/:-]+")
"""Letters, digits and underscores, and what `torch` allows beside them in names that people use, as in `block1-0`."""

_LABEL = re.compile(r"[\w/:.#-]+")

_GENERATED = frozenset({"self", "torch", "getattr", "slice", "Ellipsis", "device", "inf", "nan", "NoneType"})
"""What the text of a forward pass calls by these names."""


def check_label(name: str, what: str) -> None:
    """Checks the name of a node or of a head.

    Raises:
        GraphError: It has a character that no name has.
    """
    if not _LABEL.fullmatch(name) or not _plain(name):
        raise GraphError(f"{what} has the name {name!a}; expected letters, digits and any of _ . # / : - alone")


def check_argument(name: object) -> str:
    """The name of an argument of the generated forward pass.

    Raises:
        ValueError: It cannot be one.
    """
    plain = isinstance(name, str) and name.isascii() and name.isidentifier() and not name.startswith("__")
    if not plain or keyword.iskeyword(str(name)) or name in _GENERATED:
        raise ValueError(
            "expected a name of letters from a to z, digits and underscores that Python and torch leave free"
        )
    return str(name)


def check_tensors(names: Iterable[str]) -> None:
    """Checks that tensors of these names can stand in one module.

    Raises:
        GraphError: A part of a name is no name, or one that every module has already; or a name is the path of another.
    """
    known = set(names)
    for name in known:
        parts = name.split(".")
        for part in parts:
            if not (is_free(part) if part is parts[0] else _allowed(part)):
                raise GraphError(
                    f"tensor {name!a} cannot stand in a module: {part!a} is taken there, or no name of letters, digits "
                    "and any of _ / : -"
                )
        for end in range(1, len(parts)):
            if ".".join(parts[:end]) in known:
                raise GraphError(
                    f"tensor '{name}' cannot stand in a module: '{'.'.join(parts[:end])}' is a tensor, and no place "
                    "for another"
                )


def is_free(name: str) -> bool:
    """Whether a module of ours can have a part of this name."""
    return _allowed(name) and name not in _root_names()


@lru_cache(maxsize=4096)
def _allowed(part: str) -> bool:
    # Python gives names with two leading underscores another form inside of a class.
    taken = keyword.iskeyword(part) or part.startswith("__") or part in _module_names()
    return not taken and _PART.fullmatch(part) is not None and _plain(part)


def _plain(name: str) -> bool:
    return name.isascii() or unicodedata.is_normalized("NFKC", name)


@cache
def _module_names() -> frozenset[str]:
    from torch import nn

    return frozenset(dir(nn.Module()))


@cache
def _root_names() -> frozenset[str]:
    """What a traced module has of its own beside what every module has."""
    from torch import fx, nn

    return frozenset(dir(fx.GraphModule(nn.Module(), fx.Graph())))
