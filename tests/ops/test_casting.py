"""Where a network casts its values, no layer with weights of another type is put."""

from __future__ import annotations

from collections.abc import Callable

import numpy
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import graphs
from ops import MUTATIONS, certify


class Cast(nn.Module):
    """A part of it computes in another type."""

    def __init__(self, there: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.first, self.second, self.last = nn.Linear(8, 6), nn.Linear(6, 6), nn.Linear(6, 3)
        self.there = there

    def forward(self, x: Tensor) -> Tensor:
        hidden = functional.relu(self.first(x))
        out: Tensor = self.last(functional.gelu(self.there(self.second(hidden))).to(x.dtype))
        return out


class Turned(nn.Module):
    """A part of it computes with complex numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(8, 6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        value = torch.view_as_complex(self.first(x).relu().view(-1, 3, 2))
        out: Tensor = self.last(torch.view_as_real(value * value).flatten(1))
        return out


class Ids(nn.Module):
    """Rows of one table for several columns, as factorisation machines have it."""

    def __init__(self, there: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.rows, self.first, self.last = nn.Embedding(30, 4), nn.Linear(32, 6), nn.Linear(6, 3)
        self.there = there

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.last(functional.gelu(self.first(self.rows(self.there(x)).flatten(1))))
        return out


class Marks(nn.Module):
    """Truth values are added up."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(8, 6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        marks = (x > 0) + (x < -1)
        out: Tensor = self.last(functional.gelu(self.first(marks.float())))
        return out


ROWS = torch.randn((4, 8), generator=torch.Generator().manual_seed(0))
WORDS = torch.arange(32).reshape(4, 8) % 5

MODULES: dict[str, tuple[Callable[[], nn.Module], torch.dtype, int]] = {
    "half": (lambda: Cast(lambda y: y.half()), torch.float32, 2),
    "bfloat16": (lambda: Cast(lambda y: y.to(torch.bfloat16)), torch.float32, 2),
    "double": (lambda: Cast(lambda y: y.double()), torch.float32, 2),
    "up from bfloat16": (lambda: Cast(lambda y: y.float()).bfloat16(), torch.bfloat16, 2),
    "not at all": (lambda: Cast(lambda y: y.float()), torch.float32, 0),
    "complex": (Turned, torch.float32, 2),
    "whole numbers": (lambda: Ids(lambda x: x), torch.float32, 1),
    "sums of whole numbers": (lambda: Ids(lambda x: x + torch.arange(8) * 3), torch.float32, 3),
    "truth values": (Marks, torch.float32, 3),
}


@pytest.mark.parametrize("name", MODULES)
def test_every_child_runs_in_the_networks_own_types(name: str) -> None:
    make, dtype, cast = MODULES[name]
    rows = WORDS if "whole" in name else ROWS.to(dtype)
    parent = graphs.from_torch(make(), rows)
    assert len(parent.cast) == cast
    made = 0
    for mutation in MUTATIONS.values():
        for site in mutation.sites(parent):
            child = mutation.apply(parent, site, numpy.random.default_rng(0)).genome
            for training in (True, False):
                assert graphs.to_torch(child).train(training)(rows).dtype == dtype
            made += 1
    assert made > 5


def test_a_site_at_what_is_cast_is_none() -> None:
    rows = ROWS
    places = []
    for there in (lambda y: y, lambda y: y.half()):
        genome = graphs.from_torch(Cast(there), rows)
        places.append({genome.graph[site.place["after"]].kind for site in MUTATIONS["insert_block"].sites(genome)})
    assert "gelu" in places[0] and "gelu" not in places[1] and "relu" in places[1]


@pytest.mark.parametrize("name", ["half", "bfloat16", "double", "not at all"])
def test_channels_pass_through_casts(name: str) -> None:
    parent = graphs.from_torch(MODULES[name][0](), ROWS)
    assert "cast" in {node.kind for node in parent.graph.nodes.values()}
    for operator in ("widen", "widen_zero"):
        places = MUTATIONS[operator].sites(parent)
        assert len(places) == 2  # the first layer's channels, and those that are cast on their way to the last one
        for site in places:
            child = MUTATIONS[operator].apply(parent, site, numpy.random.default_rng(0))
            assert certify(parent, child).require().eval.verdict == "pass"
