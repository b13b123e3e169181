"""What a module that came in and went out again costs beside the original.

Claim: forward plus backward of `to_torch(from_torch(m))` takes at most 1.05 times what `m` takes on a ResNet-110 with
4x4 images, where Python weighs most, and what `m` takes beside itself on larger networks.
Environment: a CPU; printed with the versions and the threads. n = --n rounds of three steps each, m, the other, m
again: the ratio of a round is the second step over the mean of the other two, that of m to itself the third over the
first. Printed are the medians and the quartiles.

    python benchmarks/module_overhead.py [--n 40] [--threads 2] [--only resnet110,resnet18]
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

import graphs


class Block(nn.Module):
    """A basic block of a residual network."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.shortcut = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, H, W) -> (N, outputs, H', W')."""
        y = self.relu(self.bn1(self.conv1(x)))
        return self.relu(self.bn2(self.conv2(y)) + self.shortcut(x))


class ResNet110(nn.Module):
    """The residual network of 110 layers for small images (He et al., 2016, arXiv 1512.03385)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn, self.relu = nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU(inplace=True)
        widths = [(16, 16, 1), (16, 32, 2), (32, 64, 2)]
        self.blocks = nn.Sequential(
            *(
                Block(before if number == 0 else after, after, stride if number == 0 else 1)
                for before, after, stride in widths
                for number in range(18)
            )
        )
        self.pool, self.fc = nn.AdaptiveAvgPool2d(1), nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) -> (N, 10)."""
        x = self.pool(self.blocks(self.relu(self.bn(self.conv(x)))))
        return self.fc(torch.flatten(x, 1))


def vision(name: str) -> Callable[[], nn.Module]:
    """A network of torchvision with fresh weights."""

    def make() -> nn.Module:
        from evolve.vision import torchvision_models

        made: nn.Module = torchvision_models().get_model(name, weights=None)
        return made

    return make


NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "resnet110": (ResNet110, (8, 3, 4, 4)),
    "resnet18": (vision("resnet18"), (2, 3, 224, 224)),
    "densenet121": (vision("densenet121"), (2, 3, 224, 224)),
    "mobilenet_v3_large": (vision("mobilenet_v3_large"), (2, 3, 224, 224)),
    "vit_b_16": (vision("vit_b_16"), (2, 3, 224, 224)),
}


def step(module: nn.Module, images: Tensor) -> float:
    """Seconds of a forward and a backward pass in train mode."""
    begin = time.perf_counter()
    module(images).sum().backward()
    return time.perf_counter() - begin


def main() -> None:
    """Prints a line for each network."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=40, help="rounds")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--only", default=",".join(NETWORKS), help="names, with commas between them")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    print(
        f"{platform.processor() or platform.machine()}, torch {torch.__version__}, {given.threads} threads, n={given.n}"
    )
    print(f"{'network':<20}{'ratio':>8}{'quartiles':>18}{'to itself':>12}{'quartiles':>18}")
    for name in given.only.split(","):
        make, shape = NETWORKS[name]
        torch.manual_seed(0)
        module, images = make(), torch.randn(shape)
        again = graphs.to_torch(graphs.from_torch(module, images))
        for each in (module, again, module, again):
            step(each, images)
        ratios, same = [], []
        for _ in range(given.n):
            first, other, last = step(module, images), step(again, images), step(module, images)
            ratios.append(2 * other / (first + last))
            same.append(last / first)
        print(f"{name:<20}{_median(ratios)}{_median(same, 12)}", flush=True)


def _median(numbers: list[float], width: int = 8) -> str:
    low, middle, high = statistics.quantiles(numbers)
    return f"{middle:>{width}.3f}{f'{low:.3f} to {high:.3f}':>18}"


if __name__ == "__main__":
    main()
