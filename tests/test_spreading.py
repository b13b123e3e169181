"""What shares a Ray or a fixture of a module is found by its name in the file."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.spreading import group

CLUSTER = {"ray_connection", "ray_environment", "open_place"}


def test_tests_that_share_something_stay_together(request: pytest.FixtureRequest) -> None:
    """Of all tests that are collected."""
    root = request.config.rootpath
    for item in request.session.items:
        found = item._fixtureinfo.name2fixturedefs if isinstance(item, pytest.Function) else {}
        file = item.nodeid.partition("::")[0]
        if CLUSTER & found.keys():
            assert group(root, item.nodeid) == "ray"
        elif any(each.scope == "module" for several in found.values() for each in several):
            assert group(root, item.nodeid) in ("ray", str(root / file))


def test_rows_of_a_test_stay_together_and_other_tests_go_anywhere() -> None:
    root, file = Path(__file__).parents[1], "tests/laws/test_inverses.py"
    assert group(root, f"{file}::test_zoo[widen-vgg8]") == group(root, f"{file}::test_zoo[branch-resnet]")
    assert group(root, f"{file}::test_zoo[widen-vgg8]") != group(root, f"{file}::test_random_networks")
