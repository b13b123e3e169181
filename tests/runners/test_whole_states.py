"""Networks that hold more than their function needs: frozen and unused parameters, constants, shared tensors."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from graphs import Genome, from_torch, to_torch
from runners.hydra import split
from runners.recipe import Recipe
from runners.task import Task
from runners.training import train


class Whole(nn.Module):
    """A frozen layer, one that nothing uses, and positions that are data."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(1, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.held, self.spare = nn.Conv2d(6, 6, 1), nn.Linear(3, 2)
        self.register_buffer("places", torch.linspace(-1, 1, 8).reshape(1, 1, 1, 8))
        self.fc = nn.Linear(6, 10)
        self.held.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.stem(x))) + self.get_buffer("places")
        return self.fc(torch.relu(self.held(x)).mean((2, 3)))


@pytest.fixture(scope="module")
def digits() -> Task:
    return Task.named("digits", limit=100)


@pytest.fixture(scope="module")
def whole() -> Genome:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return from_torch(Whole(), torch.randn(4, 1, 8, 8))


STAY = ("held.weight", "held.bias", "spare.weight", "spare.bias", "places")

RECIPES: dict[str, dict[str, Any]] = {
    "plain": {},
    "freezeout": {"freezeout": {"t0": 0.5}},
    "warm start": {"shrink": 0.5, "perturb": 0.1},
    "average": {"ema": 0.9, "optimizer": "adamw"},
    "hydra": {"hydra": {"heads": 2, "split_point": 3, "start": "copied", "frozen": 1}},
}


@pytest.mark.parametrize("name", RECIPES)
def test_what_is_not_trained_stays_bit_for_bit(name: str, digits: Task, whole: Genome) -> None:
    outcome = train(whole, Recipe(epochs=3, **RECIPES[name]), digits, threads=1)
    assert outcome.genome is not None, outcome.failure
    assert all(torch.equal(outcome.genome.weights[key], whole.weights[key]) for key in STAY)
    assert not torch.equal(outcome.genome.weights["fc.weight"], whole.weights["fc.weight"])
    assert to_torch(outcome.genome).state_dict().keys() >= Whole().state_dict().keys()


@pytest.mark.parametrize("start", ["fresh", "copied"])
def test_heads_keep_constants_and_what_nothing_uses(start: str, whole: Genome) -> None:
    made = split(whole, 3, 1, start)
    places = [name for name in made.weights if name.endswith("places")]
    assert len(places) == 3 and all(torch.equal(made.weights[name], whole.weights["places"]) for name in places)
    assert torch.equal(made.weights["spare.weight"], whole.weights["spare.weight"])
    assert made.state.frozen >= {"held.weight", "head1.held.weight", "head2.held.weight"}
    assert torch.equal(made.weights["head1.fc.weight"], whole.weights["fc.weight"]) is (start == "copied")
