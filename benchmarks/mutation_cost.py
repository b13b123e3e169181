"""What a mutation costs beside a training step.

Claim: making a child, with record, transfer and certificate, is cheap enough to be done for every candidate.
Method: for each network, n mutations by random operators; in turn with each, one float32 training step (forward,
backward, SGD) at batch 128 of the same network, in the same process with the same threads. Printed: medians with the
smallest and largest value, and the median of the paired ratios.

    python benchmarks/mutation_cost.py [--n 10] [--threads 2]
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from collections.abc import Callable

import numpy
import torch

import graphs
import ops

NETWORKS = {
    "resnet 110": ("resnet", {"depth": 110}),
    "densenet 100-12": ("densenet", {"depth": 100, "growth": 12}),
    "vgg8": ("vgg8", {}),
}


def timed(work: Callable[[], object]) -> float:
    """Seconds that `work` takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def spread(seconds: list[float]) -> str:
    """Median with smallest and largest, in milliseconds."""
    return f"{1e3 * statistics.median(seconds):8.1f} ms ({1e3 * min(seconds):.1f} to {1e3 * max(seconds):.1f})"


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=10, help="mutations for each network")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    print(
        f"{platform.processor() or platform.machine()}, {given.threads} threads, torch {torch.__version__}, n={given.n}"
    )
    for title, (name, settings) in NETWORKS.items():
        parent = graphs.zoo.create(name, **settings)
        module = graphs.to_torch(parent).train()
        optimizer = torch.optim.SGD(module.parameters(), lr=0.01)
        images, labels = torch.randn(128, 3, 32, 32), torch.randint(0, 10, (128,))

        def step(
            module: torch.nn.Module = module,
            optimizer: torch.optim.Optimizer = optimizer,
            images: torch.Tensor = images,
            labels: torch.Tensor = labels,
        ) -> None:
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(module(images), labels).backward()
            optimizer.step()

        step()
        rng, probe = numpy.random.default_rng(0), torch.randn(4, 3, 32, 32)
        steps, made, proved, stirred = [], [], [], 0
        for turn in range(given.n):
            children: list[ops.Child] = []
            made.append(timed(lambda: children.append(ops.propose(parent, rng))))  # noqa: B023
            certificates: list[ops.Certificate] = []
            proved.append(timed(lambda: certificates.append(ops.certify(parent, children[0], probe, seed=turn))))  # noqa: B023
            stirred += certificates[0].stirred
            steps.append(timed(step))
        print(f"{title}: {len(parent.graph.nodes)} nodes, {stirred} of {given.n} certificates on stirred weights")
        print(f"  training step   {spread(steps)}")
        for label, figures in (("child", made), ("certificate", proved)):
            ratio = statistics.median(a / b for a, b in zip(figures, steps, strict=True))
            print(f"  {label:15} {spread(figures)}   {ratio:.2f} training steps")


if __name__ == "__main__":
    main()
