"""Which tests stay together where pytest-xdist spreads them over processes.

One process runs all files with tests that start a Ray, which therefore start one; one process runs a file in which the
tests share what a fixture of theirs has made, and the rows of a test, which share what is cached. The process that
hands out the tests knows their names alone, so all this is read from the files. (Marks for groups would say it, but
have no effect under pytest 9.2: https://github.com/pytest-dev/pytest-xdist/issues/1386.)
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

from xdist.scheduler import LoadScopeScheduling  # type: ignore[import-untyped]

CLUSTER = re.compile(r"\b(ray_connection|ray_environment|open_place)\b")
"""Fixtures of tests that start a Ray."""

SHARED = re.compile(r'\bscope="module"')


class Spreading(LoadScopeScheduling):  # type: ignore[misc]
    """Hands out groups of tests, large ones first, each to one process."""

    def _split_scope(self, nodeid: str) -> str:
        return group(self.config.rootpath, nodeid)


def group(root: Path, test: str) -> str:
    """The name of the group to which a test belongs."""
    file = test.partition("::")[0]
    return _of_file(root / file) or test.partition("[")[0]


@cache
def _of_file(path: Path) -> str | None:
    text = path.read_text()
    return "ray" if CLUSTER.search(text) else str(path) if SHARED.search(text) else None
