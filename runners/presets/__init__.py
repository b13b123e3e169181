"""Recipes by name: those of the founding systems, and our own default. Each is a YAML file beside this one.

>>> preset("snapshot").cycles
5
>>> preset("snapshot", epochs=10, cycles=2, snapshots=2).epochs
10
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from graphs.errors import UnknownName
from runners.recipe import Recipe
from runners.settings_errors import SettingsError
from runners.settings_files import read_yaml

__all__ = ["PRESETS", "assigned", "merged", "preset"]

_FOLDER = Path(__file__).parent

PRESETS: Mapping[str, Path] = {
    name: _FOLDER / f"{name}.yaml"
    for name in ("default", "hydranet", "freezeout", "snapshot", "networkcompress", "cifar10-experiments")
}
"""Name -> file."""


def preset(name: str | os.PathLike[str], **changes: Any) -> Recipe:
    """The recipe with a name, or in a YAML file, but for `changes`.

    Args:
        name: Key of `PRESETS`, or the path of a file that ends in `.yaml` or `.yml`; it may name one as its `preset`.
        **changes: Settings that win; a mapping for a part, such as `hydra={"heads": 2}`, changes what it names.

    Raises:
        UnknownName: There is no such preset.
        SettingsError: The file cannot be read, or holds a wrong value.
    """
    text = os.fspath(name)
    path = PRESETS.get(text, Path(text))
    if text not in PRESETS and path.suffix not in (".yaml", ".yml"):
        raise UnknownName.of("recipe", text, PRESETS)
    given = read_yaml(path, "a recipe")
    base = given.pop("preset", None) if text not in PRESETS else None
    if base is not None:
        if base not in PRESETS:
            raise UnknownName.of("recipe", str(base), PRESETS)
        given = merged(read_yaml(PRESETS[base], "a recipe"), given)
    try:
        return Recipe(**merged(given, changes))
    except SettingsError as error:
        raise SettingsError(str(error) if text in PRESETS else f"{path}: {error}") from None


def merged(given: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Settings with `changes` that win; a mapping for a part changes what it names."""
    found = dict(given)
    for key, value in changes.items():
        before = found.get(key)
        found[key] = {**before, **value} if isinstance(before, Mapping) and isinstance(value, Mapping) else value
    return found


def assigned(texts: list[str]) -> dict[str, Any]:
    """Settings from `key=value` texts; a dot leads into a part, and the value is YAML.

    >>> assigned(["lr=0.05", "freezeout.t0=0.5", "flip=true"])
    {'lr': 0.05, 'freezeout': {'t0': 0.5}, 'flip': True}

    Raises:
        SettingsError: A text is none.
    """
    import yaml

    found: dict[str, Any] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            raise SettingsError(f"--set {text}: expected key=value, such as lr=0.05 or freezeout.t0=0.5")
        try:
            parsed = yaml.safe_load(value)
        except yaml.YAMLError:
            parsed = value
        place = found
        *parts, last = key.strip().split(".")
        for part in parts:
            inner = place.setdefault(part, {})
            if not isinstance(inner, dict):
                raise SettingsError(f"--set {text}: {part} is given as a whole already")
            place = inner
        place[last] = parsed
    return found
