"""Whether what makes training fast costs accuracy: the same network, data and epochs in the loop of a tutorial.

Claim: final accuracies are equal within a 95 % interval of ±0.75 points.
Environment: a CPU; printed with the versions.
Method: the small convnet on --limit training images of CIFAR-10, from the same weights for each seed. `plain` is
PyTorch as it is taught (see `training_speed`): float32, NCHW, a DataLoader, torchvision's transforms, SGD with
Nesterov's momentum and a cosine over the steps; `ours` is `runners.train` in the precision that is fastest here.
Accuracies are those of the 10,000 test images, measured once, at the end, in float32. The difference is paired by seed,
its interval that of Student's t. Each finished training is a line of --to; what stands there is not run again.

    python benchmarks/training_accuracy.py --data DIR --to FILE.jsonl [--seeds 16] [--epochs 12] [--limit 10000]
        [--budget SECONDS]
"""

from __future__ import annotations

import argparse
import math
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from measured_apart import keep, kept
from scipy import stats
from torch import nn
from training_speed import Plain

from graphs import Genome, to_torch, zoo
from runners import Recipe, Task, train

BATCH = 64


def ours(genome: Genome, task: Task, epochs: int, seed: int) -> nn.Module:
    """Trained as a candidate is."""
    recipe = Recipe(batch=BATCH, crop=4, epochs=epochs, label_smoothing=0)
    outcome = train(genome, recipe, task, seed, threads=1)
    if outcome.genome is None:
        raise RuntimeError(str(outcome.failure))
    return to_torch(outcome.genome)


def plain(genome: Genome, task: Task, epochs: int, seed: int) -> nn.Module:
    """Trained by the loop of a tutorial."""
    torch.manual_seed(seed)
    module = to_torch(genome).train()
    optimizer = torch.optim.SGD(module.parameters(), 0.1, 0.9, weight_decay=5e-4, nesterov=True)
    loader = torch.utils.data.DataLoader(Plain(task), BATCH, shuffle=True, num_workers=1, persistent_workers=True)
    steps = epochs * math.ceil(len(task.train) / BATCH)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    criterion = nn.CrossEntropyLoss()
    for _ in range(epochs):
        for inputs, labels in loader:
            optimizer.zero_grad()
            criterion(module(inputs), labels).backward()
            optimizer.step()
            schedule.step()
    return module


WAYS: Mapping[str, Callable[[Genome, Task, int, int], nn.Module]] = {"plain": plain, "ours": ours}
"""What is compared."""


@torch.no_grad()
def accuracy(module: nn.Module, task: Task) -> float:
    """On the test split, a fraction from 0 to 1."""
    scale, shift = task.scale_and_shift()
    module.eval()
    right = 0
    for start in range(0, len(task.test), 500):
        inputs = task.test.images[start : start + 500].float() * scale - shift
        right += int((module(inputs).argmax(1) == task.test.labels[start : start + 500]).sum())
    return right / len(task.test)


def show(path: Path) -> None:
    """Prints means and the difference."""
    found = {(row["way"], row["seed"]): row["accuracy"] for row in kept(path)}
    seeds = sorted(seed for way, seed in found if way == "ours" and ("plain", seed) in found)
    for way in WAYS:
        values = [100 * found[way, seed] for seed in seeds]
        if len(values) > 1:
            print(f"{way:<6} {statistics.fmean(values):.2f}, deviation {statistics.stdev(values):.2f}, n={len(values)}")
    pairs = [100 * (found["ours", seed] - found["plain", seed]) for seed in seeds]
    if len(pairs) > 1:
        half = float(stats.t.ppf(0.975, len(pairs) - 1)) * statistics.stdev(pairs) / len(pairs) ** 0.5
        print(f"ours - plain {statistics.fmean(pairs):+.2f} ± {half:.2f} points (95 %, paired, n={len(pairs)})")


def main() -> None:
    """Runs what is not there yet, then prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--to", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=16)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--limit", type=int, default=10_000)
    parser.add_argument("--budget", type=float, default=float("inf"), help="seconds after which no training is begun")
    given = parser.parse_args()
    torch.set_num_threads(1)
    start = time.monotonic()
    task = Task.named("cifar10", given.data, limit=given.limit)
    precision = Recipe().resolved(task).precision
    print(
        f"{platform.processor() or platform.machine()}, Python {platform.python_version()}, torch {torch.__version__}, "
        f"ours in {precision}, {len(task.train)} images, {given.epochs} epochs, batch {BATCH}"
    )
    same = {"epochs": given.epochs, "images": len(task.train), "precision": precision}
    if any(row[key] != value for row in kept(given.to) for key, value in same.items()):
        parser.error(f"{given.to} is not of {same}; name another file")
    done = {(row["way"], row["seed"]) for row in kept(given.to)}
    for seed in range(given.seeds):
        for way, run in WAYS.items():
            if (way, seed) in done or time.monotonic() - start > given.budget:
                continue
            began = time.process_time()
            module = run(zoo.create("convnet", seed=seed), task, given.epochs, seed)
            row = {"way": way, "seed": seed, "accuracy": accuracy(module, task), **same}
            keep(given.to, row)
            print(f"{way:<6} seed {seed}  {time.process_time() - began:6.1f} s  {row['accuracy']:.4f}", flush=True)
    show(given.to)


if __name__ == "__main__":
    main()
