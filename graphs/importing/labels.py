"""What outputs are called that a forward pass gives in tuples and dictionaries."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["labelled"]


def labelled(value: Mapping[Any, Any] | Sequence[Any], name: str) -> list[tuple[str, Any]]:
    """The parts of a value that is called `name`, each with its own name; empty is the name of the whole output."""
    keys = [*map(str, value)] if isinstance(value, Mapping) else [*map(str, range(len(value)))]
    parts = value.values() if isinstance(value, Mapping) else value
    found = []
    for key, part in zip(keys, parts, strict=True):
        plain = re.sub(r"\W", "_", key)
        label = f"{name}_{plain}" if name else f"output_{plain}" if plain.isdigit() else plain
        found.append((label, part))
    return found
