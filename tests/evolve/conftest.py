"""The command line as tests call it, and the form that its errors have."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from evolve.__main__ import run

CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]")

Evolve = Callable[..., tuple[int, str, str]]


@pytest.fixture
def evolve(capsys: pytest.CaptureFixture[str]) -> Evolve:
    """Runs a command in this process; returns exit code, output and errors."""

    def call(*arguments: object) -> tuple[int, str, str]:
        capsys.readouterr()
        code = run([str(argument) for argument in arguments])
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return call


def one_line(errors: str) -> str:
    assert errors.startswith("evolve: ") and errors.count("\n") == 1 and errors.endswith("\n"), errors
    assert "Traceback" not in errors and not CONTROL.search(errors[:-1])
    return errors
