"""Networks that are hard to measure: of other types, with draws in eval mode, with constants among the outputs."""

from __future__ import annotations

from collections.abc import Callable

import numpy
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import graphs
import ops
from graphs.genome import Genome


class Body(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.out = nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(torch.relu(self.second(torch.relu(self.first(x)))))


class Bytes(Body):
    """Integers that become numbers by a cast, and by a division."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.float() / 255 + x / 255)


class Signs(Body):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward((x > 0).float() + x)


class Classes(Body):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(functional.one_hot(x, 6).float())


class Mixed(Body):
    """A part of it is of less precision."""

    def __init__(self) -> None:
        super().__init__()
        self.second.bfloat16()
        self.before = nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.before(x))
        y = self.second(torch.relu(self.first(x)).to(torch.bfloat16))
        return self.out(torch.relu(y.to(x.dtype)))


class Always(Body):
    """It drops in eval mode, too."""

    def forward(self, x: Tensor) -> Tensor:
        y = functional.dropout(torch.relu(self.first(x)), 0.3, True)
        return self.out(torch.relu(self.second(y)))


class Masked(Body):
    """One output is zero for all examples, and one is one."""

    def forward(self, x: Tensor) -> Tensor:
        found = super().forward(x) * torch.tensor([1.0, 1.0, 0.0])
        return torch.cat([found, torch.ones_like(found[:, :1])], 1)


HARD: dict[str, tuple[Callable[[], nn.Module], Callable[[], Tensor]]] = {
    "integers": (Bytes, lambda: torch.randint(0, 256, (4, 6), dtype=torch.uint8)),
    "truth values": (Signs, lambda: torch.randn(4, 6)),
    "classes": (Classes, lambda: torch.randint(0, 6, (4,))),
    "mixed precision": (Mixed, lambda: torch.randn(4, 6)),
    "a dropout that always drops": (Always, lambda: torch.randn(4, 6)),
    "outputs that are constant": (Masked, lambda: torch.randn(4, 6)),
}


def taken_in(make: Callable[[], nn.Module], example: Callable[[], Tensor]) -> Genome:
    torch.manual_seed(1)
    return graphs.from_torch(make(), example())


@pytest.mark.parametrize("operator", ["widen", "deepen", "insert_block"])
@pytest.mark.parametrize("name", HARD)
def test_hard_networks_are_certified(name: str, operator: str) -> None:
    genome = taken_in(*HARD[name])
    sites = ops.MUTATIONS[operator].sites(genome)
    assert sites
    for site in sites:
        child = ops.MUTATIONS[operator].apply(genome, site, numpy.random.default_rng(2))
        certificate = ops.certify(genome, child).require()
        assert certificate.eval.verdict == "pass"


def test_a_fault_in_one_output_beside_constants_is_seen() -> None:
    genome = taken_in(*HARD["outputs that are constant"])
    (site, *_) = ops.MUTATIONS["widen"].sites(genome)
    child = ops.MUTATIONS["widen"].apply(genome, site, numpy.random.default_rng(2))
    for name, row in (("out.weight", 0), ("out.weight", 1)):
        weights = dict(child.genome.weights)
        weights[name] = weights[name].clone()
        weights[name][row] *= 1.001
        bent = Genome(child.genome.graph, weights, child.genome.about)
        assert ops.certify(genome, type(child)(**{**_fields(child), "genome": bent})).broken


def _fields(child: ops.Child) -> dict[str, object]:
    return {name: getattr(child, name) for name in child.__slots__}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("measured", [False, True])
def test_an_inserted_norm_is_the_identity_in_every_type(dtype: torch.dtype, measured: bool) -> None:
    torch.manual_seed(1)
    layers = (nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    module = nn.Sequential(*layers, nn.Linear(6, 3)).to(dtype)
    genome = graphs.from_torch(module, torch.randn(4, 3, 5, 5, dtype=dtype))
    site = next(site for site in ops.MUTATIONS["deepen"].sites(genome) if site.place["norm"])
    batch = 3 * torch.randn(8, 3, 5, 5, dtype=dtype) if measured else None
    child = ops.MUTATIONS["deepen"].apply(genome, site, numpy.random.default_rng(2), batch)
    assert ops.certify(genome, child).require().eval.verdict == "pass"


def test_one_number_for_each_example_is_an_input() -> None:
    class Number(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(4, 3)

        def forward(self, x: Tensor, scale: Tensor) -> Tensor:
            return self.fc(x) * scale.unsqueeze(1)

    genome = graphs.from_torch(Number(), (torch.randn(4, 4), torch.randn(4)))
    child = ops.propose(genome, numpy.random.default_rng(0))
    assert not ops.certify(genome, child).broken
