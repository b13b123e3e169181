"""Searches by name: settings in YAML files beside this one, which a file of one's own and flags win over.

>>> search_preset("networkcompress")["strategy"]
'mu-plus-lambda'
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from graphs.errors import UnknownName
from runners.settings_files import read_yaml

__all__ = ["SEARCHES", "search_preset"]

_FOLDER = Path(__file__).parent

SEARCHES: Mapping[str, Path] = {
    name: _FOLDER / f"{name}.yaml" for name in ("networkcompress", "networkcompress-chains")
}
"""Name -> file."""


def search_preset(name: str) -> dict[str, Any]:
    """The settings of a preset.

    Raises:
        UnknownName: There is none of that name.
    """
    if name not in SEARCHES:
        raise UnknownName.of("search preset", name, SEARCHES)
    return read_yaml(SEARCHES[name], "settings")
