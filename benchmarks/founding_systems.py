"""What the five founding systems are worth on CIFAR-10, at equal epochs, on a small network.

Claim: none; the table stands as it comes out, also where it disagrees with the papers.
Environment: a CPU, one thread; printed with the versions.
Method: --limit training images of CIFAR-10, padded, cropped and mirrored, SGD with Nesterov's momentum and a cosine;
the same split for all, and each arm once for each seed, from which its weights and the order of its images come. What
an arm is says its function. Accuracies are those of the 10,000 test images, measured once, at the end. Arms are taken
seed by seed, so that what is there at any moment has about the same n for each. Each finished arm is a line of --to;
what stands there is not run again. Differences are paired by seed.

    python benchmarks/founding_systems.py --data DIR --to FILE.jsonl [--seeds 5] [--epochs 12] [--budget SECONDS]
        [--arms "plain;freezeout"] [--limit 10000] [--table]

DIR holds cifar10.npz, or the original files in torchvision's layout. With --table, what is in FILE.jsonl is printed and
written beside it as .csv and .md, and nothing is run. All arms of one seed take about an hour of one core.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy
import torch
from founding_table import show
from measured_apart import keep, kept
from torch import nn

from graphs import Genome, from_torch, load, parameters, save, zoo
from ops import MUTATIONS
from runners import Outcome, Recipe, Task, evaluate, train
from runners.ensembles import head_logits, report
from runners.freezeout import FreezeOut, speedup
from runners.hydra import split
from runners.presets import preset

Figures = dict[str, float]

BODY = 2
"""Units of the convnet that its heads share: two of its three stages."""

TURN = 3
"""Epochs of each training before it is another's turn, where their times are compared."""

VGG_WIDTH = 32
"""Channels of VGG-8's first block, half of what it has elsewhere."""

LATER = 0.3
"""Share of the learning rate with which a network goes on that was grown."""


@dataclass(frozen=True)
class Bench:
    """What all arms share: the data, how long they train, and where they may keep a network."""

    task: Task
    epochs: int
    folder: Path

    @cached_property
    def recipe(self) -> Recipe:
        """What each arm changes something of."""
        return Recipe(epochs=self.epochs, crop=4, label_smoothing=0)

    def convnet(self, seed: int, width: int = 16) -> Genome:
        """The small network, untrained."""
        return zoo.create("convnet", seed=seed, width=width)

    def train(self, genome: Genome, recipe: Recipe, seed: int, teacher: Sequence[Genome] = ()) -> Outcome:
        """One training on one thread."""
        return sound(train(genome, recipe, self.task, seed, teacher=teacher, threads=1))

    def parent(self, seed: int) -> Genome:
        """The convnet, trained plainly; kept, because several arms begin with it."""
        path = self.folder / f"plain-{self.epochs}-{len(self.task.train)}-{seed}.safetensors"
        if not path.exists():
            self.folder.mkdir(parents=True, exist_ok=True)
            save(trained(self.train(self.convnet(seed), self.recipe, seed)), path)
        return load(path)

    def accuracy(self, genome: Genome) -> float:
        """On the test split."""
        return float(evaluate(genome, self.task, "test")["accuracy"])

    def together(self, networks: Sequence[Genome], of: str) -> Mapping[str, Any]:
        """What networks, or their heads, are worth together on the test split."""
        logits = [head for each in networks for head in head_logits(each, self.task, "test").values()]
        return report(logits, self.task.test.labels, of=of)


def sound(outcome: Outcome) -> Outcome:
    """An outcome that is no failure."""
    if outcome.failure is not None:
        raise RuntimeError(f"{outcome.failure.kind}: {outcome.failure.message}")
    return outcome


def trained(outcome: Outcome) -> Genome:
    """The network of an outcome."""
    if outcome.genome is None:
        raise RuntimeError("the outcome has no network")
    return outcome.genome


def plain(bench: Bench, seed: int) -> Figures:
    """The convnet with the recipe as it is."""
    genome = bench.parent(seed)
    return {"accuracy": bench.accuracy(genome), "parameters": parameters(genome.graph)}


def freezeout(bench: Bench, seed: int) -> Figures:
    """The convnet without FreezeOut, with the cubic schedule from t0 = 0.8, and from 0.5; they take turns."""
    genome = bench.convnet(seed)
    settings = {"t0=.8": FreezeOut(t0=0.8), "t0=.5": FreezeOut(t0=0.5)}
    recipes = {"off": bench.recipe} | {name: bench.recipe.changed(freezeout=each) for name, each in settings.items()}
    outcomes, clocks = in_turns(bench, genome, recipes, seed)
    found = {f"accuracy, {name}": bench.accuracy(trained(outcome)) for name, outcome in outcomes.items()}
    measuring = evaluation_seconds(bench, genome) * bench.epochs
    for name, each in settings.items():
        found[f"saved, {name}, estimated"] = speedup(genome.graph, each)
        for clock, seconds in clocks.items():
            found[f"saved, {name}, {clock}"] = 1 - seconds[name] / seconds["off"]
        steps = {which: clocks["processor"][which] - measuring for which in ("off", name)}
        found[f"saved, {name}, processor, steps alone"] = 1 - steps[name] / steps["off"]
    return found


class _Pause(Exception):
    """It is another training's turn."""


def in_turns(
    bench: Bench, genome: Genome, recipes: Mapping[str, Recipe], seed: int
) -> tuple[dict[str, Outcome], dict[str, dict[str, float]]]:
    """Trainings that take turns of some epochs, with the seconds of each on the wall and of the processor."""
    outcomes: dict[str, Outcome] = {}
    clocks = {"wall": dict.fromkeys(recipes, 0.0), "processor": dict.fromkeys(recipes, 0.0)}

    def pause(entry: Mapping[str, Any]) -> None:
        if entry["epoch"] % TURN == 0 and entry["epoch"] < entry["epochs"]:
            raise _Pause

    with tempfile.TemporaryDirectory() as folder:
        while len(outcomes) < len(recipes):
            for name in [each for each in recipes if each not in outcomes]:
                wall, processor = time.perf_counter(), time.process_time()
                path = Path(folder) / f"{name}.safetensors"
                try:
                    outcomes[name] = sound(
                        train(genome, recipes[name], bench.task, seed, threads=1, report=pause, checkpoint=path)
                    )
                except _Pause:
                    pass
                clocks["wall"][name] += time.perf_counter() - wall
                clocks["processor"][name] += time.process_time() - processor
    return outcomes, clocks


def evaluation_seconds(bench: Bench, genome: Genome) -> float:
    """Processor seconds of one look at the validation split."""
    found = []
    for _ in range(3):
        begin = time.process_time()
        evaluate(genome, bench.task, "validation")
        found.append(time.process_time() - begin)
    return statistics.median(found)


def snapshots(bench: Bench, seed: int) -> Figures:
    """Five cycles in place of one: the last network, all five together, and what they teach a fresh one."""
    recipe = bench.recipe.changed(cycles=5, snapshots=5)
    outcome = bench.train(bench.convnet(seed), recipe, seed)
    networks = [*outcome.members, trained(outcome)]
    found = bench.together(networks, "probabilities")
    student = bench.train(bench.convnet(seed), bench.recipe, seed, networks)
    return {
        "single": found["members"][-1],
        "ensemble": found["accuracy"],
        "last three": found["last"][2],
        "disagreement": found["disagreement"],
        "distilled back": bench.accuracy(trained(student)),
    }


def self_taught(bench: Bench, seed: int) -> Figures:
    """The plain network as the teacher of a fresh one: what the ensemble's student has to beat."""
    student = bench.train(bench.convnet(seed), bench.recipe, seed, [bench.parent(seed)])
    return {"accuracy": bench.accuracy(trained(student))}


def hydra(bench: Bench, seed: int, heads: int) -> Figures:
    """The convnet with its last stage so many times, body and heads fresh, weights of examples by sample."""
    recipe = bench.recipe.changed(hydra={"heads": heads, "split_point": BODY})
    outcome = bench.train(bench.convnet(seed), recipe, seed)
    found = bench.together([trained(outcome)], "logits")
    return {
        "accuracy": found["accuracy"],
        "a head": statistics.fmean(found["members"]),
        "oracle": found["oracle"],
        "disagreement": found["disagreement"],
        "parameters": parameters(trained(outcome).graph),
    }


def as_large(bench: Bench, seed: int, heads: int) -> Figures:
    """A convnet that is as much wider as gives it the parameters of one with so many heads."""
    wanted = parameters(split(bench.convnet(0), heads, BODY).graph)
    width = min(range(16, 128), key=lambda each: abs(parameters(bench.convnet(0, each).graph) - wanted))
    outcome = bench.train(bench.convnet(seed, width), bench.recipe, seed)
    return {"accuracy": bench.accuracy(trained(outcome)), "parameters": parameters(trained(outcome).graph)}


def distillation(bench: Bench, seed: int) -> Figures:
    """Two approximate mutations of the plain network, trained a third of its epochs with and without it as teacher."""
    parent, found = bench.parent(seed), {}
    recipe = bench.recipe.changed(epochs=max(1, bench.epochs // 3), lr=LATER * bench.recipe.lr)
    for name in ("insert_pool", "narrow"):
        mutation, rng = MUTATIONS[name], numpy.random.default_rng(seed)
        sites = mutation.sites(parent)
        child = mutation.apply(parent, sites[int(rng.integers(len(sites)))], rng).genome
        found[f"{name}, untrained"] = bench.accuracy(child)
        for how, teacher in (("off", []), ("on", [parent])):
            found[f"{name}, {how}"] = bench.accuracy(trained(bench.train(child, recipe, seed, teacher)))
    return found


def vgg8(bench: Bench, seed: int, dropout: float = 0.0) -> Figures:
    """VGG-8 with batch norm, from scratch."""
    genome = zoo.create("vgg8", seed=seed, width=VGG_WIDTH, dropout=dropout)
    outcome = bench.train(genome, bench.recipe, seed)
    return {"accuracy": bench.accuracy(trained(outcome)), "parameters": parameters(genome.graph)}


def half_of_vgg8(seed: int) -> Genome:
    """One convolution a block in place of two, and half the channels."""
    layers: list[nn.Module] = []
    torch.manual_seed(seed)
    before = 3
    for block in range(3):
        width = VGG_WIDTH * 2**block // 2
        layers += [nn.Conv2d(before, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
        layers += [nn.MaxPool2d(2)]
        before = width
    layers += [nn.Flatten(), nn.Linear(before * 4 * 4, 2 * VGG_WIDTH), nn.ReLU(), nn.Linear(2 * VGG_WIDTH, 10)]
    return from_torch(nn.Sequential(*layers), torch.randn(2, 3, 32, 32))


def deeper(bench: Bench, genome: Genome, rng: numpy.random.Generator) -> Genome:
    """A second convolution behind each one, with its norm."""
    mutation = MUTATIONS["deepen"]
    for site in [each for each in mutation.sites(genome) if each.place["norm"]]:
        genome = mutation.apply(genome, site, rng, bench.task.probe(64, 0)).genome
    return genome


def wider(bench: Bench, genome: Genome, rng: numpy.random.Generator) -> Genome:
    """Twice the channels everywhere."""
    mutation = MUTATIONS["widen"]
    for place in range(len(mutation.sites(genome))):
        site = mutation.sites(genome)[place]
        width = genome.graph.shapes[site.place["space"].rpartition(":")[0]][0]
        genome = mutation.apply(genome, site, rng, choices={"width": 2 * width}).genome
    return genome


GROWTH: Mapping[str, Callable[[Bench, Genome, numpy.random.Generator], Genome]] = {"deeper": deeper, "wider": wider}
"""Ways to grow, by name."""


def grown(bench: Bench, seed: int, order: Sequence[str]) -> Figures:
    """VGG-8 from a network of half its width and depth, grown step by step; each stage has its share of the epochs."""
    rng, genome, found = numpy.random.default_rng(seed), half_of_vgg8(seed), {}
    stages = [None, *order]
    for number, step in enumerate(stages):
        more = bench.epochs // len(stages) + (number < bench.epochs % len(stages))
        recipe = bench.recipe.changed(epochs=max(1, more), lr=bench.recipe.lr * (LATER if number else 1))
        if step is not None:
            genome = GROWTH[step](bench, genome, rng)
        genome = trained(bench.train(genome, recipe, seed))
        found[f"after {step or 'the start'}"] = bench.accuracy(genome)
    found["accuracy"] = bench.accuracy(genome)
    return found | {"parameters": parameters(genome.graph)}


def published(bench: Bench, seed: int, network: str) -> Figures:
    """A network of cifar10-experiments with the recipe of that name, for fewer epochs."""
    genome = zoo.create(network, seed=seed)
    outcome = bench.train(genome, preset("cifar10-experiments", epochs=bench.epochs), seed)
    return {"accuracy": bench.accuracy(trained(outcome)), "parameters": parameters(genome.graph)}


ARMS: Mapping[str, Callable[[Bench, int], Figures]] = {
    "plain": plain,
    "freezeout": freezeout,
    "snapshots": snapshots,
    "self-taught": self_taught,
    "1 head": partial(hydra, heads=1),
    "4 heads": partial(hydra, heads=4),
    "8 heads": partial(hydra, heads=8),
    "as large as 4 heads": partial(as_large, heads=4),
    "as large as 8 heads": partial(as_large, heads=8),
    "distillation": distillation,
    "vgg8": vgg8,
    "vgg8 with dropout": partial(vgg8, dropout=0.2),
    "deeper, then wider": partial(grown, order=("deeper", "wider")),
    "wider, then deeper": partial(grown, order=("wider", "deeper")),
    "vgg-like": partial(published, network="vgg-like"),
    "resnet-like-light": partial(published, network="resnet-like-light"),
}
"""What is run for each seed, in this order."""


def main() -> None:
    """Runs what is not there yet, or shows what is."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path)
    parser.add_argument("--to", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--limit", type=int, default=10_000)
    parser.add_argument("--budget", type=float, default=float("inf"), help="seconds after which no arm is begun")
    parser.add_argument("--arms", default=";".join(ARMS), help="names with semicolons between them")
    parser.add_argument("--table", action="store_true")
    given = parser.parse_args()
    if given.table:
        show(kept(given.to), given.to)
        return
    if given.data is None or not set(given.arms.split(";")) <= ARMS.keys():
        parser.error(f"expected --data, and as --arms some of: {'; '.join(ARMS)}")
    start = time.monotonic()
    torch.set_num_threads(1)
    task = Task.named("cifar10", given.data, limit=given.limit)
    bench = Bench(task, given.epochs, given.to.with_suffix(".networks"))
    machine = {
        "machine": platform.processor() or platform.machine(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "precision": bench.recipe.resolved(task).precision,
        "epochs": given.epochs,
        "images": len(task.train),
    }
    print(machine, flush=True)
    other = [
        row for row in kept(given.to) if any(row[key] != machine[key] for key in ("epochs", "images", "precision"))
    ]
    if other:
        parser.error(f"{given.to} is of {other[0]['epochs']} epochs of {other[0]['images']} images; name another file")
    done = {(row["arm"], row["seed"]) for row in kept(given.to)}
    for seed in range(given.seeds):
        for arm in given.arms.split(";"):
            if (arm, seed) in done:
                continue
            if time.monotonic() - start > given.budget:
                return
            wall, processor = time.perf_counter(), time.process_time()
            row: dict[str, Any] = {"arm": arm, "seed": seed, "figures": ARMS[arm](bench, seed), **machine}
            row["seconds"] = time.perf_counter() - wall
            row["processor_seconds"] = time.process_time() - processor
            keep(given.to, row)
            print(f"{arm:<20} seed {seed}  {row['seconds']:7.1f} s  {row['figures']}", flush=True)


if __name__ == "__main__":
    main()
