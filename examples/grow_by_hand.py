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
    parent, accuracy = train(start, recipe, task, seed=0)
    print(f"trained: {graphs.parameters(parent.graph):,} parameters, {accuracy:.1%} validation accuracy")

    rng = numpy.random.default_rng(0)
    widen = ops.MUTATIONS["widen"]
    child = widen.apply(parent, widen.sites(parent)[0], rng)
    certificate = ops.certify(parent, child, probe=task.probe(16, seed=0)).require()
    print(f"widened: {graphs.parameters(child.genome.graph):,} parameters, off by {certificate.eval.error:.1e} units")

    grown, accuracy = train(child.genome, recipe, task, seed=1)
    print(f"trained on: {accuracy:.1%} validation accuracy")
    evolve.export(grown, folder / "grown")
    print(f"exported: {folder / 'grown'}")


def train(genome: graphs.Genome, recipe: runners.Recipe, task: runners.Task, seed: int) -> tuple[graphs.Genome, float]:
    """The trained network and its validation accuracy; a failure ends the example."""
    outcome = runners.train(genome, recipe, task, seed)
    if outcome.genome is None or outcome.val_accuracy is None:
        sys.exit(f"training failed: {outcome.failure}")
    return outcome.genome, outcome.val_accuracy


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as scratch:
            main(Path(scratch))
