"""How fast a training step is, beside the loop of a tutorial.

Claim: on a processor with units for bfloat16, at least 2.5 times the images a second for ResNet-20 and for the
VGG-like network, at least 2 times for VGG-8; whole epochs run at 95 % or more of a step that is fed one fixed tensor.
Environment: a CPU; printed with the versions.
Method: the same network, images of CIFAR's shape, batch and number of threads. `plain` is PyTorch as it is taught:
float32, NCHW, a DataLoader with two workers, torchvision's transforms on each image, SGD with Nesterov's momentum;
`ours` is an epoch of `runners.session`, without its validation, in a process set up as a worker's; `fixed` is the same
network, precision and optimiser on one tensor.
Each has a process of its own, and their turns are interleaved; a ratio is taken within a turn. Medians with quartiles
over --n turns of --steps steps.

    python benchmarks/training_speed.py [--n 9] [--steps 8] [--threads 2] [--only resnet20]
"""

from __future__ import annotations

import argparse
import multiprocessing
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from typing import Any

import numpy
import torch
from torch import nn

from evolve.vision import torchvision_models
from graphs import Genome, to_torch, zoo
from runners import jobs
from runners.precision import fastest_precision
from runners.recipe import Recipe
from runners.session import Session
from runners.task import Task

BATCH = 128

NETWORKS: dict[str, Callable[[], Genome]] = {
    "resnet20": lambda: zoo.create("resnet", depth=20),
    "vgg-like": lambda: zoo.create("vgg-like"),
    "vgg8": lambda: zoo.create("vgg8"),
}


def images(count: int) -> Task:
    """Random images of CIFAR's shape."""
    random = numpy.random.default_rng(0)
    pixels = random.integers(0, 256, (count, 32, 32, 3), dtype=numpy.uint8)
    labels = numpy.arange(count) % 10
    return Task.from_arrays(pixels, labels, pixels[:100], labels[:100], mirror=True)


class Plain(torch.utils.data.Dataset[Any]):
    """Images one by one through torchvision's transforms."""

    def __init__(self, task: Task) -> None:
        torchvision_models()
        from torchvision import transforms

        self.pixels = task.train.images.permute(0, 2, 3, 1).contiguous().numpy()
        self.labels = task.train.labels.tolist()
        mean, std = task.normalisation["mean"], task.normalisation["std"]
        self.transform = transforms.Compose(
            [
                transforms.ToPILImage(),
                transforms.RandomCrop(32, padding=4),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize(mean, std),
            ]
        )

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> Any:
        return self.transform(self.pixels[index]), self.labels[index]


def plain(genome: Genome, task: Task) -> Callable[[int], None]:
    """The loop of a tutorial, for so many steps."""
    module = to_torch(genome).train()
    optimizer = torch.optim.SGD(module.parameters(), 0.1, 0.9, weight_decay=5e-4, nesterov=True)
    criterion = nn.CrossEntropyLoss()
    loader = torch.utils.data.DataLoader(
        Plain(task), BATCH, shuffle=True, num_workers=2, persistent_workers=True, multiprocessing_context="fork"
    )

    def endless() -> Iterator[Any]:
        while True:
            yield from loader

    batches = endless()

    def run(steps: int) -> None:
        for _ in range(steps):
            inputs, labels = next(batches)
            optimizer.zero_grad()
            loss = criterion(module(inputs), labels)
            loss.backward()
            optimizer.step()
            loss.item()

    return run


def session(genome: Genome, task: Task) -> Session:
    """A training under way."""
    recipe = Recipe(batch=BATCH, crop=4, epochs=1000, label_smoothing=0).resolved(task)
    return Session(genome, recipe, task, [], "cpu", 0, 1)


def ours(genome: Genome, task: Task) -> Callable[[int], None]:
    """Steps as an epoch takes them."""
    made = session(genome, task)
    made._freezer.train()
    order = torch.Generator().manual_seed(0)

    def run(steps: int) -> None:
        rows = torch.randperm(len(task.train), generator=order)
        for step in range(steps):
            made._set_rates(1000 * steps, [])
            made._learn(rows[step * BATCH : (step + 1) * BATCH], 0.0).item()

    return run


def fixed(genome: Genome, task: Task) -> Callable[[int], None]:
    """The same on one tensor, again and again."""
    made = session(genome, task)
    made._freezer.train()
    batch = made._train.take(torch.arange(BATCH), False, 0, torch.Generator())
    made._train.take = lambda *arguments, **named: (batch[0].clone(), batch[1])  # type: ignore[method-assign]

    def run(steps: int) -> None:
        for _ in range(steps):
            made._learn(torch.arange(BATCH), 0.0).item()

    return run


RUNS: dict[str, Callable[[Genome, Task], Callable[[int], None]]] = {"plain": plain, "ours": ours, "fixed": fixed}


def turns(orders: Connection, kind: str, name: str, steps: int, threads: int) -> None:
    """What a process of its own does: trains for so many steps when it is told to, and says how long that took."""
    torch.set_num_threads(threads)
    if kind != "plain":
        jobs.warm_up()
    run = RUNS[kind](NETWORKS[name](), images(BATCH * steps * 2))
    run(2)
    orders.send(0.0)
    while orders.recv():
        begin = time.perf_counter()
        run(steps)
        orders.send(time.perf_counter() - begin)


def seconds(name: str, n: int, steps: int, threads: int) -> dict[str, list[float]]:
    """How long each turn of each kind took."""
    context = multiprocessing.get_context("spawn")
    pipes: dict[str, Connection] = {}
    for kind in RUNS:
        pipes[kind], end = context.Pipe()
        context.Process(target=turns, args=(end, kind, name, steps, threads)).start()
        end.close()
        pipes[kind].recv()
    found: dict[str, list[float]] = {kind: [] for kind in RUNS}
    for _ in range(n):
        for kind, pipe in pipes.items():
            pipe.send(True)
            found[kind].append(pipe.recv())
    for pipe in pipes.values():
        pipe.send(False)
    return found


def quartiles(values: list[float]) -> str:
    """Median [quartiles]."""
    low, middle, high = statistics.quantiles(values, n=4) if len(values) > 1 else values * 3
    return f"{middle:8.2f} [{low:.2f}, {high:.2f}]"


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n", type=int, default=9)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", default=",".join(NETWORKS))
    given = parser.parse_args()
    print(
        f"{platform.processor() or platform.machine()}, Python {platform.python_version()}, torch {torch.__version__}, "
        f"{given.threads} threads, {fastest_precision()}, batch {BATCH}, "
        f"n={given.n} turns of {given.steps} steps"
    )
    print("network      plain, images/s            ours, images/s             ours/plain                 ours/fixed")
    for name in given.only.split(","):
        taken = seconds(name, given.n, given.steps, given.threads)
        rates = {kind: [given.steps * BATCH / each for each in found] for kind, found in taken.items()}
        gain = [one / other for one, other in zip(rates["ours"], rates["plain"], strict=True)]
        whole = [one / other for one, other in zip(rates["ours"], rates["fixed"], strict=True)]
        columns = (rates["plain"], rates["ours"], gain, whole)
        print(f"{name:<10}", *(quartiles(each) for each in columns))
        sys.stdout.flush()


if __name__ == "__main__":
    main()
