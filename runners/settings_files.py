"""Settings in YAML files: a mapping of names to values, each name once."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from typing import Any

from runners.settings_errors import SettingsError

__all__ = ["read_yaml"]


def read_yaml(path: str | os.PathLike[str], what: str) -> dict[str, Any]:
    """The settings in a file; none of an empty one.

    Args:
        path: Of the file.
        what: What is in it, for messages, such as `settings` or `a recipe`.

    Raises:
        SettingsError: It cannot be read, or is no mapping of names to values.
    """
    import yaml

    try:
        text = Path(path).read_text(encoding="utf-8")
        given = _unique_loader()(text).get_single_data()
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = error.strerror if isinstance(error, OSError) else " ".join(str(error).split())
        raise SettingsError(f"cannot read {what} from {path}: {reason}; expected a YAML file") from error
    if given is None:
        given = {}
    if not isinstance(given, dict) or not all(isinstance(key, str) for key in given):
        raise SettingsError(f"{path}: expected a mapping such as 'epochs: 24', one setting a line")
    return given


@cache
def _unique_loader() -> Any:
    """YAML's safe loader, which also refuses a key that is given twice."""
    import yaml

    class UniqueLoader(yaml.SafeLoader):
        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
            keys = [self.construct_object(key, deep=True) for key, _ in node.value]
            twice = [key for number, key in enumerate(keys) if key in keys[:number]]
            if twice:
                raise yaml.YAMLError(f"'{twice[0]}' is given twice")
            return super().construct_mapping(node, deep)

    return UniqueLoader
