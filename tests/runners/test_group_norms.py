"""Group norms that learn behind what does not: training comes through, with the right gradients, in any layout."""

from __future__ import annotations

import copy
import subprocess
import sys
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from graphs import from_torch, to_torch
from runners.freezing import Freezer
from runners.group_norms import guarded


def layers(*front: nn.Module) -> nn.Sequential:
    block = [nn.Conv2d(12, 12, 3, padding=1), nn.GroupNorm(4, 12), nn.ReLU()]
    return nn.Sequential(*front, *block, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 10))


class Tied(nn.Module):
    """Two group norms share their parameters with a third one: they are calls of a function."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.conv, self.out = nn.GroupNorm(1, 1), nn.Conv2d(1, 4, 3), nn.Linear(4, 10)

    def forward(self, x: Tensor) -> Tensor:
        y = functional.group_norm(x, 1, self.norm.weight.clone(), self.norm.bias)
        y = functional.group_norm(self.norm(x) + y, 1, self.norm.weight, self.norm.bias)
        return self.out(self.conv(y).mean((2, 3)))


class Moved(nn.Module):
    """A view lies channels last in a network that does not."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.out = nn.GroupNorm(2, 8), nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.norm(x.permute(0, 3, 1, 2)).mean((2, 3)))


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "first": lambda: layers(nn.GroupNorm(1, 1), nn.Conv2d(1, 12, 3, padding=1)),
    "behind a convolution": lambda: layers(nn.Conv2d(1, 12, 3, padding=1), nn.GroupNorm(4, 12), nn.ReLU()),
    "tied": Tied,
    "moved": Moved,
}

RECIPES = {
    "default": {},
    "frozen body": {"hydra": {"heads": 2, "frozen": 1, "split_point": 1}},
    "frozen stages": {"freezeout": {"t0": 0.3, "how": "linear"}},
    "averaged": {"ema": 0.5, "precision": "bfloat16"},
}


def trains() -> None:
    """Trains each network by each recipe, and tells which ones came through."""
    from runners import Recipe, Task, train

    digits = Task.named("digits", limit=60)
    for name, build in NETWORKS.items():
        genome = from_torch(build(), torch.randn(2, 1, 8, 8))
        for how, settings in RECIPES.items():
            found = train(genome, Recipe(**{"epochs": 3, "precision": "float32", **settings}), digits, threads=1)
            assert found.failure is None, (name, how, found.failure)
            print(name, how, sep=", ", flush=True)


def test_training_comes_through() -> None:
    """In a process of its own, which torch's fault would end."""
    call = f"import {__name__} as tests; tests.trains()"
    done = subprocess.run([sys.executable, "-c", call], capture_output=True, text=True)
    wanted = [f"{name}, {how}" for name in NETWORKS for how in RECIPES]
    assert (done.returncode, done.stdout.splitlines()) == (0, wanted), done.stderr


@pytest.mark.parametrize("name", NETWORKS)
def test_the_gradients_are_those_of_the_layout_of_the_shape(name: str) -> None:
    torch.manual_seed(1)
    genome = from_torch(NETWORKS[name](), torch.randn(2, 1, 8, 8))
    x = torch.randn(6, 1, 8, 8, dtype=torch.float64)
    plain, safe = to_torch(genome).double(), to_torch(genome).double()
    Freezer(genome, safe)
    plain(x.clone().requires_grad_()).square().sum().backward()  # torch computes all gradients, which is sound
    last = torch.empty(x.shape, dtype=x.dtype, memory_format=torch.channels_last).copy_(x)
    for module in (safe.to(memory_format=torch.channels_last), copy.deepcopy(safe)):
        module.zero_grad()
        module(last).square().sum().backward()
        for one, other in zip(plain.parameters(), module.parameters(), strict=True):
            torch.testing.assert_close(one.grad, other.grad)
    assert list(safe.state_dict()) == list(plain.state_dict())


def test_nothing_is_copied_where_nothing_learns_or_all_does() -> None:
    module = to_torch(from_torch(layers(nn.Conv2d(1, 12, 3)), torch.randn(2, 1, 8, 8)))
    guarded(module)
    seen: list[Tensor] = []
    norm = next(each for each in module.modules() if isinstance(each, nn.GroupNorm))
    norm.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    x = torch.randn(3, 1, 8, 8).to(memory_format=torch.channels_last)
    module.to(memory_format=torch.channels_last)(x)
    with torch.no_grad():
        module(x)
    module.requires_grad_(False)(x)
    assert [each.is_contiguous(memory_format=torch.channels_last) for each in seen] == [True] * 3
