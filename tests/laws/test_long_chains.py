"""A hundred exact mutations in a row, drawn at random, leave the function where it was.

On a network of the zoo and on two that were written elsewhere. No child may cost more than four times what the first
network did; one that would is drawn again.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy
import pytest
import torch
from torch import Tensor

import graphs
from evolve.vision import torchvision_models
from graphs.check import check
from graphs.execution import execute
from graphs.genome import Genome
from ops import MUTATIONS, Child
from ops.stirring import stir
from tests.strategies import inputs

LENGTH = 100
MOST = 4
"""How many times the first network's parameters and products a later one may have."""


def imported(module: torch.nn.Module, side: int) -> Genome:
    """A network that was written elsewhere."""
    return graphs.from_torch(module, torch.randn((4, 3, side, side), generator=torch.Generator().manual_seed(0)))


def vit() -> Genome:
    """Two layers of torchvision's vision transformer."""
    sizes = {"num_layers": 2, "num_heads": 2, "hidden_dim": 12, "mlp_dim": 16, "num_classes": 5}
    return imported(torchvision_models().VisionTransformer(image_size=16, patch_size=8, **sizes), 16)


def mobilenet() -> Genome:
    """MobileNetV3-Small of torchvision, a quarter as wide."""
    return imported(torchvision_models().mobilenet_v3_small(width_mult=0.25, num_classes=5), 32)


NETWORKS: dict[str, Callable[[], Genome]] = {
    "resnet": partial(graphs.zoo.create, "resnet", classes=5, input_shape=(3, 8, 8), depth=8),
    "vit": vit,
    "mobilenet": mobilenet,
}


@pytest.mark.parametrize("name", NETWORKS)
def test_a_hundred_exact_mutations_keep_the_function(name: str) -> None:
    first = bold(NETWORKS[name]())
    last, counts = grown(first, numpy.random.default_rng(11))
    assert sum(counts.values()) == LENGTH and len(counts) >= 8, counts
    check(last.graph)
    for training in (False, True):
        for head, (unit, error, floor) in moved(first, last, training).items():
            assert math.isfinite(unit) and unit > 0.01
            assert error <= max(1e-9, 20 * floor), (head, training, error, floor, counts)


def moved(first: Genome, last: Genome, training: bool) -> dict[str, tuple[float, float, float]]:
    """For each head its unit and, in units, how far it has moved, and how far rounding moves it in the last network."""
    before, after, rounded = values(first, training), values(last, training), values(last, training, 2.0**-52)
    assert before.keys() == after.keys()
    found = {}
    for head, value in before.items():
        unit = float(value.std(0, correction=0).square().mean().sqrt())
        error, floor = (float((after[head] - other[head]).abs().max()) / unit for other in (before, rounded))
        found[head] = (unit, error, floor)
    return found


def grown(first: Genome, draws: numpy.random.Generator) -> tuple[Genome, Counter[str]]:
    """What so many exact mutations lead to, and how often each was made."""
    most = [MOST * figure for figure in cost(first)]
    now, counts = first, Counter[str]()
    names = [name for name, mutation in MUTATIONS.items() if mutation.preserves == "exact"]
    for born in range(1, LENGTH + 1):
        child = None
        while child is None or any(figure > limit for figure, limit in zip(cost(child.genome), most, strict=True)):
            child = drawn(now, names, draws, born)
        counts[child.record.operator] += 1
        now = child.genome
    return now, counts


def drawn(now: Genome, names: list[str], draws: numpy.random.Generator, born: int) -> Child | None:
    """A child by one operator, at one of its sites that promise most; None if there is no such site."""
    mutation = MUTATIONS[names[int(draws.integers(len(names)))]]
    sites = [site for site in mutation.sites(now) if site.preserves == "exact"]
    return mutation.apply(now, sites[int(draws.integers(len(sites)))], draws, born=born) if sites else None


def cost(genome: Genome) -> tuple[int, int]:
    """Parameters and products."""
    return graphs.parameters(genome.graph), graphs.macs(genome.graph)


def bold(genome: Genome) -> Genome:
    """The network with weights that hide nothing, in float64: some operators round new numbers to the weights' type."""
    return stir(genome, inputs(genome.graph))


def values(genome: Genome, training: bool, size: float = 0.0) -> dict[str, Tensor]:
    """The outputs in float64, by head; all that is read is shaken by `size`."""
    generator = torch.Generator().manual_seed(0)

    def shaken(node: str, slot: int, value: Tensor) -> Tensor:
        if not size or not value.is_floating_point():
            return value
        return value * (1 + size * (torch.randint(0, 2, value.shape, generator=generator).double() * 2 - 1))

    weights: dict[str, Any] = {
        name: tensor.double() if tensor.is_floating_point() else tensor for name, tensor in genome.weights.items()
    }
    run = execute(genome.graph, weights, inputs(genome.graph), training=training, adjust=shaken)
    return {head.name: run.values[head.node] for head in genome.graph.heads}
