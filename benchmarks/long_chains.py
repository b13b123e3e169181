"""A hundred exact mutations in a row from networks of torchvision, and how far the outputs have moved.

Claim: the function stays, to 1e-9 of the outputs' deviation or 20 times what rounding does to the last network.
Environment: a CPU; printed with the versions. n = --seeds chains for each network, printed.
Method: fresh weights, stirred so that they hide nothing, in float64. Operators are drawn alike among those that can be
exact, sites alike among those that promise to be exact in both modes; a child with more than four times the first
network's parameters or products is drawn again. First and last network are compared in float64 on 8 examples, in eval
and in train mode, each node that draws random numbers with a seed of its own. What was measured is kept in --to, one
JSON object a line, and not measured again, so the benchmark goes on where it ended. Ends with 1 if a function moved.

    python -m benchmarks.long_chains --to FILE.jsonl [--seeds 3] [--only resnet18,vit] [--threads 1]
"""

from __future__ import annotations

import argparse
import platform
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy
import torch

from benchmarks.measured_apart import keep, kept
from evolve.vision import torchvision_models
from graphs.check import check
from graphs.genome import Genome
from tests.laws.test_long_chains import bold, cost, grown, imported, moved


def listed(name: str, side: int, **settings: int) -> Genome:
    """A network of torchvision as it is, on images of this size."""
    return imported(torchvision_models().get_model(name, weights=None, **settings), side)


def vit() -> Genome:
    """The vision transformer of torchvision, narrower and with fewer layers than those that it lists."""
    sizes = {"num_layers": 4, "num_heads": 4, "hidden_dim": 64, "mlp_dim": 128, "num_classes": 100}
    return imported(torchvision_models().VisionTransformer(image_size=32, patch_size=8, **sizes), 32)


NETWORKS: dict[str, Callable[[], Genome]] = {
    "vit": vit,
    "mobilenet_v3_small": partial(listed, "mobilenet_v3_small", 32),
    "mobilenet_v3_large": partial(listed, "mobilenet_v3_large", 32),
    "resnet18": partial(listed, "resnet18", 32),
    "vit_b_16": partial(listed, "vit_b_16", 64, image_size=64),
}
"""By name, the cheapest first; vit_b_16 is measured only where it is asked for."""


def measured(name: str, seed: int) -> dict[str, Any]:
    """One chain; errors and floors are the largest of all heads."""
    torch.manual_seed(0)
    begin = time.perf_counter()
    first = bold(NETWORKS[name]())
    last, counts = grown(first, numpy.random.default_rng(seed))
    check(last.graph)
    row: dict[str, Any] = {"name": name, "seed": seed, "before": cost(first), "after": cost(last)}
    row["nodes"] = [len(genome.graph.nodes) for genome in (first, last)]
    row["kept"] = True
    for mode in ("eval", "train"):
        units, errors, floors = zip(*moved(first, last, mode == "train").values(), strict=True)
        row[mode] = {"unit": min(units), "error": max(errors), "floor": max(floors)}
        row["kept"] &= min(units) > 0.01 and max(errors) <= max(1e-9, 20 * max(floors))
    row["mutations"] = dict(counts.most_common())
    row["seconds"] = time.perf_counter() - begin
    return row


def shown(row: dict[str, Any]) -> str:
    """A chain on one line; its cost is that in parameters and in products."""
    figures = (f"{mode} {row[mode]['error']:.1e} (floor {row[mode]['floor']:.1e})" for mode in ("eval", "train"))
    growth = " and ".join(f"{after / before:.2f}" for before, after in zip(row["before"], row["after"], strict=True))
    verdict = "kept" if row["kept"] else "MOVED"
    return (
        f"{row['name']:<20} seed {row['seed']:>2}  {verdict}  {'  '.join(figures)}  cost x {growth}  "
        f"nodes {row['nodes'][0]} to {row['nodes'][1]}  {len(row['mutations'])} operators  {row['seconds']:.0f} s"
    )


def main() -> int:
    """Measures what is missing, and prints all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--to", type=Path, required=True, help="file of what was measured")
    parser.add_argument("--seeds", type=int, default=3, help="chains for each network")
    parser.add_argument("--only", default=",".join(name for name in NETWORKS if name != "vit_b_16"))
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    print(f"{platform.processor() or platform.machine()}, {given.threads} threads, torch {torch.__version__}")
    rows = {(row["name"], row["seed"]): row for row in kept(given.to)}
    all_kept = True
    for name in given.only.split(","):
        for seed in range(given.seeds):
            if (name, seed) not in rows:
                rows[name, seed] = measured(name, seed)
                keep(given.to, rows[name, seed])
            print(shown(rows[name, seed]), flush=True)
            all_kept &= rows[name, seed]["kept"]
    return 0 if all_kept else 1


if __name__ == "__main__":
    sys.exit(main())
