"""Does the order of growth matter? Deeper first against wider first, to the same final network.

    python examples/order_of_growth.py [FOLDER] [--data digits] [--data-root DIR] [--limit N] [--epochs 4] [--seeds 1]

A network of three convolutions is given a second convolution behind each one, and twice the channels everywhere, in
one order and in the other; each of the three stages is trained for --epochs. The same network from scratch has all
their epochs at once. This is an experiment of github.com/luzai/NetworkCompress, which found that the order hardly
matters. On the embedded digits it takes a few seconds; `--data cifar10 --data-root DIR --epochs 20 --seeds 5` is the
real one.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy

import evolve
import graphs
import ops
import runners

LATER = 0.3
"""Share of the learning rate with which a network goes on that was grown."""


def deeper(genome: graphs.Genome, task: runners.Task, rng: numpy.random.Generator) -> graphs.Genome:
    """A second convolution behind each one, with a batch norm of its own."""
    mutation = ops.MUTATIONS["deepen"]
    for site in [each for each in mutation.sites(genome) if each.place["norm"]]:
        genome = certified(genome, mutation.apply(genome, site, rng, task.probe(64, seed=0)), task)
    return genome


def wider(genome: graphs.Genome, task: runners.Task, rng: numpy.random.Generator) -> graphs.Genome:
    """Twice the channels everywhere."""
    mutation = ops.MUTATIONS["widen"]
    for place in range(len(mutation.sites(genome))):
        site = mutation.sites(genome)[place]
        width = 2 * genome.graph.shapes[site.place["space"].rpartition(":")[0]][0]
        genome = certified(genome, mutation.apply(genome, site, rng, choices={"width": width}), task)
    return genome


STEPS: Mapping[str, Callable[[graphs.Genome, runners.Task, numpy.random.Generator], graphs.Genome]] = {
    "deeper": deeper,
    "wider": wider,
}
"""Ways to grow, by name."""


def certified(parent: graphs.Genome, child: ops.Child, task: runners.Task) -> graphs.Genome:
    """The child's network, once it is shown to compute what the parent does."""
    ops.certify(parent, child, probe=task.probe(16, seed=0)).require()
    return child.genome


def start(task: runners.Task, seed: int) -> graphs.Genome:
    """The network that is grown."""
    return graphs.zoo.create("convnet", classes=task.classes, input_shape=task.input_shape, seed=seed, width=8)


def trained(genome: graphs.Genome, recipe: runners.Recipe, task: runners.Task, seed: int) -> graphs.Genome:
    """The trained network; a failure ends the example."""
    outcome = runners.train(genome, recipe, task, seed)
    if outcome.genome is None:
        sys.exit(f"training failed: {outcome.failure}")
    return outcome.genome


def grown(order: Sequence[str], recipe: runners.Recipe, task: runners.Task, seed: int) -> graphs.Genome:
    """The network that comes of growing in this order, trained at each stage."""
    rng = numpy.random.default_rng(seed)
    genome = trained(start(task, seed), recipe, task, seed)
    for step in order:
        genome = STEPS[step](genome, task, rng)
        genome = trained(genome, recipe.changed(lr=LATER * recipe.lr), task, seed)
    return genome


def main() -> None:
    """Runs the experiment, and writes the last network that was grown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--data", default="digits")
    parser.add_argument("--data-root", type=Path)
    parser.add_argument("--limit", type=int)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--seeds", type=int, default=1)
    given = parser.parse_args()
    task = runners.Task.named(given.data, given.data_root, limit=given.limit)
    recipe = runners.Recipe(epochs=given.epochs)
    orders = (("deeper", "wider"), ("wider", "deeper"))
    found: dict[str, list[float]] = {", then ".join(order): [] for order in orders} | {"from scratch": []}
    for seed in range(given.seeds):
        for order in orders:
            genome = grown(order, recipe, task, seed)
            found[", then ".join(order)].append(runners.evaluate(genome, task, "test")["accuracy"])
        fresh = graphs.Genome(genome.graph, graphs.initial_weights(genome.graph, seed))
        fresh = trained(fresh, recipe.changed(epochs=(1 + len(STEPS)) * given.epochs), task, seed)
        found["from scratch"].append(runners.evaluate(fresh, task, "test")["accuracy"])
    print(f"{graphs.parameters(genome.graph):,} parameters, from {graphs.parameters(start(task, 0).graph):,}")
    for name, values in found.items():
        spread = f" ± {statistics.stdev(values):.1%}" if len(values) > 1 else ""
        print(f"{name:<20} {statistics.fmean(values):.1%}{spread} on test, n={len(values)}")
    with tempfile.TemporaryDirectory() as scratch:
        folder = (given.folder or Path(scratch)) / "grown"
        evolve.export(genome, folder)
        print(f"exported: {folder}")


if __name__ == "__main__":
    main()
