"""What the documents say holds: doctests, examples, names."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("graphs", "ops", "runners", "evolve")


def modules() -> list[str]:
    found = []
    for package in PACKAGES:
        found.append(package)
        prefix = f"{package}."
        found += [
            module.name
            for module in pkgutil.walk_packages([str(ROOT / package)], prefix)
            if not module.name.endswith("__main__")
        ]
    return found


@pytest.mark.parametrize("name", modules())
def test_doctests_hold(name: str) -> None:
    result = doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    assert result.failed == 0


@pytest.mark.parametrize("package", PACKAGES)
def test_no_module_bears_the_name_of_a_public_function(package: str) -> None:
    public = set(importlib.import_module(package).__all__) - {"zoo"}
    assert public.isdisjoint(module.name for module in pkgutil.iter_modules([str(ROOT / package)]))


@pytest.mark.parametrize("package", PACKAGES)
def test_every_public_name_is_there_twice(package: str) -> None:
    module = importlib.import_module(package)
    for name in module.__all__:
        assert getattr(module, name) is getattr(module, name)


@pytest.mark.parametrize("package", PACKAGES)
def test_importing_a_package_is_cheap(package: str) -> None:
    heavy = "torch torchvision ray numpy networkx pydantic sklearn".split()
    code = f"import sys, {package}; print(*set({heavy!r}) & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.stdout.split(), done.stderr) == ([], "")


def test_our_packages_are_the_ones_imported() -> None:
    for package in PACKAGES:
        assert Path(str(importlib.import_module(package).__file__)).parent == ROOT / package


@pytest.mark.parametrize("example", sorted(path.name for path in (ROOT / "examples").glob("*.py")))
def test_examples_run(example: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", str(ROOT / "examples" / example), str(tmp_path)],
        cwd=tmp_path,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "exported" in done.stdout
