"""Made-up candidates and outcomes for tests of the lineage and of decisions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from evolve.lineage import Proposal, Result
from evolve.lineage_writer import Writer
from evolve.run_folder import RunFolder

MODE = {"error": 1e-15, "floor": 1e-16, "tolerance": 1e-12, "power": 0.5, "verdict": "pass"}


def proposal(number: int, parent: int = 0, verdict: str = "pass", **changes: Any) -> Proposal:
    if number == 0:
        return Proposal(id=0, seed=7, fingerprint="f0", parameters=100, macs=1000, untrained="u0")
    certificate = {
        "dtype": "float64",
        "probe": {"batch": 16, "source": "data", "seed": 1},
        "stirred": False,
        "eval": MODE | {"verdict": verdict},
        "train": MODE,
    }
    record = {"operator": "widen", "site": {"node": "conv1"}, "choices": {"to": 12}, "seed": number, "born": number}
    known = {
        "id": number,
        "seed": 7 + number,
        "fingerprint": f"f{number}",
        "parameters": 100 + number,
        "macs": 1000 + number,
        "untrained": f"u{number}",
        "parent": parent,
        "preserves": "exact",
        "record": record,
        "certificate": certificate,
    }
    return Proposal(**(known | changes))


def result(number: int, accuracy: float | None = 0.5, **changes: Any) -> Result:
    if accuracy is None:
        return Result(number, failure=("diverged", "the loss is nan"), **changes)
    known = {"weights": f"w{number}", "seconds": 1.5, "worker": "local-0", "curves": ({"epoch": 1, "lr": 0.1},)}
    return Result(number, accuracy, **(known | changes))


def new_lineage(path: Path, **meta: Any) -> Path:
    """A lineage with candidate 0 in it."""
    Writer.create(path, {"settings": {"seed": 1}, "start": "w", **meta}, proposal(0))
    return path


def filled_lineage(path: Path, candidates: int = 6) -> Path:
    """A lineage with some candidates, finished and not, and measurements."""
    new_lineage(path)
    with Writer.open(path) as writer:
        for number in range(candidates):
            if number:
                writer.propose(proposal(number, parent=number // 2))
            writer.dispatch(number)
            if number < candidates - 1:
                writer.finish(result(number, None if number == 3 else 0.1 * number))
        writer.control("winner", {"candidate": 2, "test_accuracy": 0.25, "weights": None})
    return path


def fill(folder: RunFolder) -> None:
    """What a run's folder needs to be one."""
    folder.write_settings({"seed": 1})
    new_lineage(folder.lineage.path)
