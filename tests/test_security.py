"""What our code never does: run code from a file, read a pickle, go through a shell."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SOURCES = sorted(path for name in ("graphs", "ops", "runners", "evolve") for path in (ROOT / name).rglob("*.py"))

FORBIDDEN_MODULES = {"pickle", "cPickle", "marshal", "shelve", "joblib", "dill", "cloudpickle"}
FORBIDDEN_CALLS = {"eval", "exec", "torch.load", "yaml.load", "yaml.unsafe_load", "os.system", "os.popen"}


def imported(node: ast.AST) -> set[str]:
    if isinstance(node, ast.Import):
        return {alias.name.split(".")[0] for alias in node.names}
    if isinstance(node, ast.ImportFrom):
        return {(node.module or "").split(".")[0]}
    return set()


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_code_is_run_from_data(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        assert not imported(node) & FORBIDDEN_MODULES, f"line {getattr(node, 'lineno', 0)}"
        if isinstance(node, ast.Call):
            assert ast.unparse(node.func) not in FORBIDDEN_CALLS, f"line {node.lineno}"
            for keyword in node.keywords:
                if keyword.arg in ("shell", "allow_pickle"):
                    assert isinstance(keyword.value, ast.Constant) and keyword.value.value is False, (
                        f"line {node.lineno}"
                    )


def test_only_one_module_writes_files_in_its_own_way() -> None:
    openers = set()
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                if node.func.attr in ("write_text", "write_bytes") and ast.unparse(node.func.value) != "durable":
                    openers.add(str(path.relative_to(ROOT)))
    assert openers <= {"runners/surroundings.py"}, "write through graphs.durable"
