"""Presets: each is a recipe, and says what its system published."""

from __future__ import annotations

import doctest
from pathlib import Path

import pytest
import yaml

from graphs.errors import UnknownName
from runners import presets
from runners.presets import PRESETS, assigned, preset
from runners.recipe import Recipe
from runners.schedules import learning_rate
from runners.settings_errors import SettingsError


def test_doctests_hold() -> None:
    assert not doctest.testmod(presets).failed


def test_the_presets_are_the_files() -> None:
    assert {path.stem for path in Path(presets.__file__).parent.glob("*.yaml")} == set(PRESETS)
    assert preset("default") == Recipe()


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_and_its_file_are_the_same_recipe(name: str, tmp_path: Path) -> None:
    made = preset(name)
    copy = tmp_path / "mine.yaml"
    copy.write_text(yaml.safe_dump(made.model_dump(mode="json")))
    assert preset(copy) == made
    fewer = {"hydra": {"frozen": 2}} if made.hydra else {}
    assert preset(name, epochs=3, **fewer).epochs == 3


def test_what_the_founding_systems_published() -> None:
    freezeout, snapshot, hydranet = preset("freezeout"), preset("snapshot"), preset("hydranet")
    assert freezeout.freezeout is not None and hydranet.hydra is not None
    assert (freezeout.freezeout.t0, freezeout.freezeout.how, freezeout.freezeout.scale) == (0.8, "cubic", True)
    assert (freezeout.epochs, freezeout.batch, freezeout.lr, freezeout.weight_decay) == (100, 50, 0.1, 1e-4)
    assert (snapshot.epochs, snapshot.cycles, snapshot.snapshots, snapshot.lr, snapshot.batch) == (200, 5, 5, 0.2, 64)
    assert (hydranet.epochs, hydranet.batch, hydranet.lr, hydranet.weight_decay) == (64, 128, 0.01, 5e-4)
    assert (hydranet.hydra.heads, hydranet.hydra.frozen, hydranet.hydra.average) == (8, 55, "logits")
    assert not hydranet.nesterov
    theirs = preset("cifar10-experiments")
    assert (theirs.optimizer, theirs.lr, theirs.weight_decay, theirs.epochs) == ("adamw", 3e-3, 0.1, 100)
    assert not theirs.decay_all
    assert preset("networkcompress").distill.how == "logits"
    assert preset("networkcompress").gamma == pytest.approx(0.1**0.5)


@pytest.mark.parametrize(
    ("name", "rates"),
    [
        ("hydranet", {1: 0.01, 47: 0.01, 48: 0.001, 49: 0.001, 64: 0.001}),  # at the 48th epoch
        ("cifar10-experiments", {1: 3e-3, 50: 3e-3, 51: 3e-4, 75: 3e-4, 76: 3e-5, 100: 3e-5}),  # after 50 and after 75
    ],
)
@pytest.mark.parametrize("steps", [1, 3, 391])
def test_the_rate_falls_between_the_published_epochs(name: str, rates: dict[int, float], steps: int) -> None:
    recipe = preset(name)
    for epoch, rate in rates.items():
        for step in range((epoch - 1) * steps, epoch * steps):
            assert learning_rate(recipe, step, recipe.epochs * steps) == pytest.approx(rate)


def test_a_part_is_changed_and_not_replaced() -> None:
    changed = preset("hydranet", **assigned(["hydra.heads=2", "lr=0.5"])).hydra
    assert changed is not None and (changed.heads, changed.frozen) == (2, 55)
    made = preset("default", **assigned(["freezeout.t0=0.5"])).freezeout
    assert made is not None and made.t0 == 0.5


def test_what_is_wrong_is_one_line(tmp_path: Path) -> None:
    broken = tmp_path / "broken.yaml"
    broken.write_text("lr: [")
    odd = tmp_path / "odd.yaml"
    odd.write_text("- 1")
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text("lrr: 1")
    for name, words in ((broken, "cannot read"), (odd, "expected a mapping"), (wrong, "did you mean 'lr'")):
        with pytest.raises(SettingsError, match=words) as caught:
            preset(name)
        assert "\n" not in str(caught.value) and str(name) in str(caught.value)
    with pytest.raises(SettingsError, match="cannot read"):
        preset(tmp_path / "none.yaml")
    with pytest.raises(UnknownName, match="snapshot"):
        preset("snapshots")
    for text in ("lr", "=3", "lr.x=1"):
        with pytest.raises(SettingsError):
            preset("default", **assigned(["lr=1", text]))


def test_a_file_may_change_a_recipe_that_it_names(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("preset: snapshot\ncycles: 3\nsnapshots: 2\n")
    assert preset(tmp_path / "mine.yaml", lr=0.3) == preset("snapshot", cycles=3, snapshots=2, lr=0.3)
    (tmp_path / "mine.yaml").write_text("preset: snapshots\n")
    with pytest.raises(UnknownName, match="unknown recipe 'snapshots'"):
        preset(tmp_path / "mine.yaml")
