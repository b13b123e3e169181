"""A residual block learns wherever it is put, small ones without norms behind one-sided values too."""

from __future__ import annotations

import numpy
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

import graphs
from ops import MUTATIONS


class Squeezed(nn.Module):
    """Squeeze and excitation with two channels in its middle, behind a ReLU."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.down, self.up, self.out = nn.Linear(8, 2), nn.Linear(2, 8), nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.conv(x))
        gate = torch.sigmoid(self.up(torch.relu(self.down(x.mean((2, 3))))))
        return self.out((x * gate[:, :, None, None]).mean((2, 3)))


@pytest.mark.parametrize("inner", [1, 2])
def test_no_block_is_dead(inner: int) -> None:
    torch.manual_seed(0)
    genome = graphs.from_torch(Squeezed(), torch.randn(2, 3, 6, 6))
    images, labels = torch.randn(64, 3, 6, 6), torch.arange(64) % 3
    block = MUTATIONS["insert_block"]
    for site in block.sites(genome):
        for seed in range(12):
            child = block.apply(genome, site, numpy.random.default_rng(seed), choices={"inner": inner})
            module = graphs.to_torch(child.genome)
            new = [each for name, each in module.named_parameters() if name not in genome.weights]
            optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
            learnt = [False] * len(new)
            for _ in range(2):
                optimizer.zero_grad()
                cross_entropy(module(images), labels).backward()
                learnt = [before or bool(each.grad.any()) for before, each in zip(learnt, new, strict=True)]
                optimizer.step()
            assert all(learnt), (site.to_json(), seed)
