"""A session that is interrupted between two epochs goes on to the same bits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from safetensors.torch import load, save

from graphs.errors import FormatError
from runners.recipe import Recipe
from runners.session import Session
from runners.task import Task
from runners.training import train
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


def test_the_pace_is_that_of_an_epoch_and_its_measurement(digits: Task) -> None:
    """Eight steps of 2 s each and 7 s of measuring, told by a clock that moves when something is done."""
    session, now = started(digits, {}), [0.0]
    learn, measure = session._learn, session._measure

    def slow_step(*arguments: Any) -> torch.Tensor:
        now[0] += 2
        return learn(*arguments)

    def slow_look() -> Any:
        now[0] += 7
        return measure()

    session._learn, session._measure = slow_step, slow_look  # type: ignore[method-assign]
    with torch.random.fork_rng():
        assert session.pace(lambda: now[0]) == 2 * -(-len(digits.train) // session.recipe.batch) + 7


def test_minutes_are_epochs_from_the_start_on(digits: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paces = iter([11.0, 30.0])
    monkeypatch.setattr(Session, "pace", lambda self: next(paces))
    genome, recipe, path = small(digits), Recipe(minutes=1), tmp_path / "checkpoint.safetensors"
    seen: list[int] = []

    def stop(entry: dict[str, Any]) -> None:
        seen.append(entry["epochs"])
        if len(seen) == 2:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        train(genome, recipe, digits, 4, threads=1, report=stop, checkpoint=path)
    found = train(genome, recipe, digits, 4, threads=1, report=stop, checkpoint=path)
    wanted = train(genome, Recipe(epochs=5), digits, 4, threads=1)
    assert seen == [5] * 5 and found.curves == wanted.curves  # another pace is not asked for on the way
    assert found.genome is not None and wanted.genome is not None and found.genome.digest == wanted.genome.digest
    assert next(paces) == 30.0


def test_measuring_the_pace_leaves_the_training_alone(digits: Task) -> None:
    genome, recipe = small(digits), Recipe(minutes=1e-6)
    found, wanted = (train(genome, each, digits, 4, threads=1) for each in (recipe, Recipe(epochs=1)))
    assert found.curves == wanted.curves and len(found.curves) == 1  # one epoch at least
    assert found.genome is not None and wanted.genome is not None and found.genome.digest == wanted.genome.digest


def test_a_checkpoint_of_other_further_labels_is_refused(digits: Task, tmp_path: Path) -> None:
    odd = {f"y_{split}_odd": digits.split(split).labels.numpy() % 2 for split in ("train", "test")}
    images = {f"x_{split}": digits.split(split).images[:, 0].numpy() for split in ("train", "test")}
    labels = {f"y_{split}": digits.split(split).labels.numpy() for split in ("train", "test")}
    checkpoint, recipe = tmp_path / "checkpoint.safetensors", Recipe(epochs=2, hydra={"tasks": ["labels", "odd"]})

    def task(further: dict[str, Any]) -> Task:
        numpy.savez(tmp_path / "digits.npz", **images, **labels, **further)
        return Task.named(str(tmp_path / "digits.npz"))

    def stop(entry: dict[str, Any]) -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        train(small(digits), recipe, task(odd), threads=1, report=stop, checkpoint=checkpoint)
    for other in ({name: 1 - values for name, values in odd.items()}, odd | {f"{name}_too": odd[name] for name in odd}):
        with pytest.raises(FormatError, match="the examples are others"):
            train(small(digits), recipe, task(other), threads=1, checkpoint=checkpoint)
    assert len(train(small(digits), recipe, task(odd), threads=1, checkpoint=checkpoint).curves) == 2
