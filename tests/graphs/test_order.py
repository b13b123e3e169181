"""The order of a module's tensors, by which an optimiser's state knows its parameters, is kept on every way."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path

import numpy
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import evolve
import graphs
from ops import MUTATIONS


class ByHand(nn.Module):
    """Parameters of its own, whose names are in another order than their roles."""

    def __init__(self) -> None:
        super().__init__()
        self.scale, self.add = nn.Parameter(torch.rand(8) + 0.5), nn.Parameter(torch.randn(8))
        self.out = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.out(functional.layer_norm(x, (8,), self.scale, self.add))
        return out


class Recurrent(nn.Module):
    """A layer with more than ten tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.out = nn.LSTM(8, 6, 2, bidirectional=True, batch_first=True), nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.out(self.layer(x[:, None].repeat(1, 4, 1))[0].mean(1))
        return out


class Frozen(nn.Module):
    """A norm that stays in eval mode, and layers that are called in another order than they are made."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.last, self.first = nn.Linear(4, 3), nn.Linear(8, 64)

    def train(self, mode: bool = True) -> Frozen:
        super().train(mode)
        self.norm.eval()
        return self

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.last(self.norm(self.conv(self.first(x).view(-1, 1, 8, 8))).mean((2, 3)))
        return out


class Deep(nn.Module):
    """Parts at several depths."""

    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Linear(8, 8)
        self.down = nn.ModuleList([nn.Sequential(nn.Linear(8, 8), nn.ReLU()) for _ in range(3)])
        self.weight, self.bias = nn.Parameter(torch.randn(3, 8)), nn.Parameter(torch.randn(3))

    def forward(self, x: Tensor) -> Tensor:
        for part in self.down:
            x = part(x)
        return functional.linear(self.up(x), self.weight, self.bias)


MODULES: dict[str, Callable[[], nn.Module]] = {
    "bare": lambda: nn.Linear(8, 3),
    **{each.__name__: each for each in (ByHand, Recurrent, Frozen, Deep)},
}

ROWS = torch.randn((4, 8), generator=torch.Generator().manual_seed(0))


def names(module: nn.Module) -> tuple[list[str], list[str]]:
    return [name for name, _ in module.named_parameters()], list(module.state_dict())


def exported(folder: Path) -> nn.Module:
    spec = importlib.util.spec_from_file_location("exported_in_order", folder / "model.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    made: nn.Module = module.Model()
    return made


@pytest.mark.parametrize("name", MODULES)
def test_it_is_the_modules_after_import_storing_and_export(name: str, tmp_path: Path) -> None:
    module = MODULES[name]()
    genome = graphs.from_torch(module, ROWS)
    graphs.save(genome, tmp_path / "stored.safetensors")
    evolve.export(genome, tmp_path / "exported")
    expected = names(module)
    assert names(graphs.to_torch(genome)) == expected
    assert names(graphs.to_torch(graphs.load(tmp_path / "stored.safetensors"))) == expected
    assert names(exported(tmp_path / "exported")) == expected


@pytest.mark.parametrize("name", MODULES)
def test_storing_a_child_changes_nothing(name: str, tmp_path: Path) -> None:
    parent = graphs.from_torch(MODULES[name](), ROWS)
    graphs.save(parent, tmp_path / "parent.safetensors")
    again = graphs.load(tmp_path / "parent.safetensors")
    for number, operator in enumerate(("widen", "deepen", "insert_block", "split_head")):
        for site in MUTATIONS[operator].sites(parent)[:1]:
            one, other = (
                MUTATIONS[operator].apply(each, site, numpy.random.default_rng(0)) for each in (parent, again)
            )
            path = tmp_path / f"{number}.safetensors"
            graphs.save(one.genome, path)
            known = names(graphs.to_torch(one.genome))
            assert names(graphs.to_torch(other.genome)) == names(graphs.to_torch(graphs.load(path))) == known
            evolve.export(one.genome, tmp_path / f"exported{number}")
            assert names(exported(tmp_path / f"exported{number}")) == known
