"""A session that is interrupted between two epochs goes on to the same bits."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from safetensors.torch import load, save

from runners.recipe import Recipe
from runners.session import Session
from runners.task import Task
from tests.runners.test_training import small

RECIPES: dict[str, dict[str, Any]] = {
    "sgd": {"mixup": 0.4, "cutout": 2, "crop": 1, "flip": True},
    "adamw": {"optimizer": "adamw", "ema": 0.8, "schedule": "one-cycle"},
    "plateau": {"schedule": "plateau", "patience": 0, "lr": 0.5},
    "freezeout": {"freezeout": {"t0": 0.4}},
    "snapshots": {"cycles": 4, "snapshots": 3},
    "bfloat16": {"precision": "bfloat16"},
    "distilled": {"distill": {"ramp": 0.8}},
}


@pytest.fixture(scope="module")
def digits() -> Task:
    return Task.named("digits", limit=150)


def started(digits: Task, settings: dict[str, Any]) -> Session:
    recipe = Recipe(epochs=5, **settings).resolved(digits)
    torch.manual_seed(3)
    return Session(small(digits), recipe, digits, [small(digits, seed=9)], "cpu", 1, 2)


@pytest.mark.parametrize("name", RECIPES)
def test_every_boundary_of_epochs_is_a_place_to_go_on(name: str, digits: Task) -> None:
    with torch.random.fork_rng():
        whole = started(digits, RECIPES[name])
        stops: list[tuple[bytes, str]] = []
        while len(whole.curves) < whole.recipe.epochs:
            tensors, text = whole.state()
            stops.append((save({key: value.contiguous() for key, value in tensors.items()}), text))
            whole.epoch()
        wanted = [genome.digest for genome in (*whole.kept, whole.trained())]
        for data, text in stops:
            other = started(digits, RECIPES[name])
            torch.randn(5)
            other.restore(load(data), text)
            while len(other.curves) < other.recipe.epochs:
                other.epoch()
            assert other.curves == whole.curves
            assert [genome.digest for genome in (*other.kept, other.trained())] == wanted


def test_the_last_cycles_are_kept(digits: Task) -> None:
    session = started(digits, {"cycles": 4, "snapshots": 3})
    with torch.random.fork_rng():
        while len(session.curves) < 5:
            session.epoch()
    assert len({genome.digest for genome in (*session.kept, session.trained())}) == 3
