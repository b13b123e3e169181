"""Grow a network by hand: train it, widen it, see that it still computes the same, train on, export it.

    python examples/grow_by_hand.py [FOLDER]

Runs on the embedded digits in under a minute.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy

import evolve
import graphs
import ops
import runners


def main(folder: Path) -> None:
    """Runs the example and writes the grown network to `folder`."""
    task = runners.Task.named("digits")
    recipe = runners.Recipe(epochs=3)
    start = graphs.zoo.create("convnet", classes=task.classes, input_shape=task.input_shape)
    trained = runners.train(start, recipe, task, seed=0)
    assert trained.genome is not None
    print(f"trained: {graphs.parameters(start.graph):,} parameters, {100 * trained.val_accuracy:.1f} % validation accuracy")

    rng = numpy.random.default_rng(0)
    widen = ops.MUTATIONS["widen"]
    child = widen.apply(trained.genome, widen.sites(trained.genome)[0], rng)
    certificate = ops.certify(trained.genome, child, probe=task.probe(16, seed=0)).require()
    print(f"widened: {graphs.parameters(child.genome.graph):,} parameters, differs by {certificate.eval.error:.1e} units")

    grown = runners.train(child.genome, recipe, task, seed=1)
    assert grown.genome is not None
    print(f"trained on: {100 * grown.val_accuracy:.1f} % validation accuracy")
    evolve.export(grown.genome, folder / "grown")
    print(f"exported: {folder / 'grown'}")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as scratch:
            main(Path(scratch))
