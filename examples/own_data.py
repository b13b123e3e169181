"""A data set, a loss and a metric of one's own: how far diabetes has come after a year, from ten measurements.

    python examples/own_data.py [FOLDER]

Any torch `Dataset` of (input, target) will do, and any module that can be traced. What it is told by is a number, so
the loss is the squared error and the metric R². Runs in about a minute, on the 442 patients that scikit-learn ships.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import torch
from sklearn.datasets import load_diabetes
from torch import nn
from torch.utils.data import TensorDataset

import evolve
import graphs
import runners


def main(folder: Path) -> None:
    """Trains by hand, searches from the same network, and exports the best one to `folder`."""
    patients = load_diabetes()
    measured = torch.tensor(patients.data / patients.data.std(0), dtype=torch.float32)
    progress = torch.tensor(patients.target / 100, dtype=torch.float32)
    task = runners.Task(TensorDataset(measured, progress), loss="regression", metric="r2", name="diabetes")

    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(10, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 1))
    start = graphs.from_torch(module, measured[:2])
    recipe = runners.Recipe(epochs=20, lr=0.02, batch=32)
    outcome = runners.train(start, recipe, task)
    if outcome.genome is None:
        sys.exit(f"training failed: {outcome.failure}")
    # Everything that ranks networks reads `val_accuracy`, which is 1/(2 - R²) here: higher is better, 1 is perfect.
    print(f"by hand: R² {outcome.curves[-1]['val_r2']:.3f} on the validation split, score {outcome.val_accuracy:.3f}")

    # Workers are other processes, so a search reads examples from a file.
    data, network = folder / "diabetes.safetensors", folder / "start.safetensors"
    task.save(data)
    graphs.save(start, network)
    settings = evolve.Settings(
        data=str(data),
        model=str(network),
        recipe=recipe,
        candidates=4,
        pool="local",
        workers=1,
        run=str(folder / "run"),
    )
    best = evolve.search(settings).best()
    if best is None:
        sys.exit("no candidate has finished")
    found = runners.evaluate(best.genome(), runners.Task.named(str(data)), "test")
    print(f"searched: candidate {best.id}, R² {found['r2']:.3f} on the test split, {best.parameters} parameters")
    evolve.export(best.genome(), folder / "best")
    print(f"exported: {folder / 'best'}")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as scratch:
            main(Path(scratch))
