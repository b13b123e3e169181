"""Settings say in one line what is wrong with them, and are decided once."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import evolve
from evolve import presets
from evolve.presets import SEARCHES, search_preset
from evolve.settings import Settings
from evolve.starting import StartError, starting_network, starting_task
from graphs import save, zoo
from graphs.errors import EvolutionError, UnknownName
from runners import Task
from runners.presets import preset
from runners.settings_errors import SettingsError


@pytest.fixture(scope="module")
def digits() -> Task:
    return Task.named("digits", limit=40)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"candidate": 3}, "'candidate': did you mean 'candidates'"),
        ({"candidates": 0}, "candidates is 0"),
        ({"candidates": "many"}, "candidates is 'many'"),
        ({"candidates": True}, "candidates is True"),
        ({"strategy": "agin"}, "did you mean 'aging'"),
        ({"pool": "rya"}, "did you mean 'ray'"),
        ({"order": "arival"}, "order is 'arival'"),
        ({"recipe": {"lrr": 1}}, "lrr"),
        ({"recipe": {"lr": -1}}, "lr is -1"),
        ({"growth": float("nan")}, "growth is nan"),
        ({"odds": {"widen": -1}}, "odds"),
        ({"odds": {"widen": 0}}, "odds"),
        ({"odds": "networkcompres"}, "did you mean 'networkcompress'"),
        ({"steps": 0}, "steps is 0"),
        ({"steps": (3, 2)}, "the smaller one first"),
        ({"recipe": "snapshots"}, "did you mean 'snapshot'"),
        ({"recipe": {"preset": "snapshot", "lrr": 1}}, "lrr"),
        ({"order": "strict", "recipe": {"minutes": 2}}, "give epochs, or take order arrival"),
        ({"recipe": {"minutes": 0}}, "minutes is 0"),
        ({"recipe": {"minutes": 2, "freezeout": {"const_time": True}}}, "does not go with minutes"),
        ({"seed": -1}, "seed is -1"),
        ({"seed": 2**63}, "seed is"),
        ({"device": "gpu"}, "expected cpu, cuda"),
        ({"deadline": 0}, "deadline is 0"),
    ],
)
def test_a_wrong_setting_is_one_line(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(EvolutionError, match=message) as caught:
        Settings(**wrong)
    assert caught.value.exit_code == 2 and "\n" not in str(caught.value)


def test_a_file_is_read_and_flags_win(tmp_path: Path) -> None:
    path = tmp_path / "search.yaml"
    path.write_text("candidates: 5\nrecipe:\n  lr: 0.2\nodds: {widen: 2.0}\n")
    settings = Settings.from_yaml(path, {"candidates": 7})
    assert (settings.candidates, settings.recipe.lr, settings.odds) == (7, 0.2, {"widen": 2.0})
    assert Settings.read(path, seed=3).candidates == 5
    assert Settings.read(None, seed=3) == Settings(seed=3)


def test_settings_of_the_recipe_win_over_whichever_it_is(tmp_path: Path) -> None:
    path = tmp_path / "search.yaml"
    path.write_text("recipe: {preset: snapshot, lr: 0.3}\n")
    changes = {"cycles": 2, "snapshots": 2, "distill": {"weight": 0.2}}
    assert Settings.read(path, recipe_changes=changes).recipe == preset("snapshot", lr=0.3, **changes)
    assert Settings.read(path, recipe_changes={"lr": 0.5}, recipe="freezeout").recipe == preset("freezeout", lr=0.5)
    assert Settings.read(None, recipe_changes={"lr": 0.5}).recipe == preset("default", lr=0.5)
    for name in SEARCHES:
        whole = Settings.read(None, name).recipe
        assert Settings.read(None, name, {"lr": 0.5}).recipe == whole.changed(lr=0.5)
    path.write_text("")
    assert Settings.from_yaml(path) == Settings()


def test_a_preset_is_where_a_file_and_flags_start_from(tmp_path: Path) -> None:
    assert set(SEARCHES) == {path.stem for path in Path(presets.__file__).parent.glob("*.yaml")}
    for name in SEARCHES:
        assert Settings.read(None, name) == Settings(**search_preset(name))
    path = tmp_path / "search.yaml"
    path.write_text("candidates: 5\nwidest: 64\n")
    settings = Settings.read(path, "networkcompress", widest=32)
    assert (settings.candidates, settings.widest, settings.deepest, settings.population) == (5, 32, 20, 4)
    assert settings.odds == "networkcompress"
    assert settings.recipe == preset("networkcompress", distill={"weight": 0})
    assert Settings.read(None, "networkcompress-chains").steps == (3, 7)
    with pytest.raises(UnknownName, match="did you mean 'networkcompress'"):
        Settings.read(None, "networkcompres")


def test_epochs_win_over_minutes_of_the_recipe(digits: Task) -> None:
    minutes = Settings(recipe={"minutes": 2}).resolved(digits)
    assert (minutes.epochs, minutes.recipe.minutes) == (None, 2) and Settings(**minutes.model_dump()) == minutes
    epochs = Settings(recipe={"minutes": 2}, epochs=3, order="strict").resolved(digits)
    assert (epochs.epochs, epochs.recipe.epochs, epochs.recipe.minutes) == (3, 3, None)


def test_a_recipe_can_be_named_and_changed() -> None:
    assert Settings(recipe="snapshot").recipe == preset("snapshot")
    assert Settings(recipe={"preset": "snapshot", "lr": 0.3}).recipe == preset("snapshot", lr=0.3)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("candidtes: 5", "did you mean 'candidates'"),
        ("- 1\n- 2", "expected a mapping"),
        ("a: [", "expected a YAML file"),
        ("1: 2", "expected a mapping"),
        ("!!python/object/apply:os.system ['true']", "expected a YAML file"),
    ],
)
def test_a_wrong_file_is_one_line_that_names_it(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "search.yaml"
    path.write_text(text)
    with pytest.raises(SettingsError, match=message) as caught:
        Settings.from_yaml(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    with pytest.raises(SettingsError, match="No such file"):
        Settings.from_yaml(tmp_path / "none.yaml")


def test_everything_is_decided_at_the_start(digits: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    settings = Settings(data="sets/some.npz", data_root="sets", model="net.safetensors", epochs=5)
    found = settings.resolved(digits)
    assert found.data == str(tmp_path / "sets" / "some.npz") and found.data_root == str(tmp_path / "sets")
    assert found.model == str(tmp_path / "net.safetensors")
    assert found.epochs == found.recipe.epochs == 5
    assert found.threads == 1 and found.workers == len(os.sched_getaffinity(0)) and found.device == "cpu"
    assert found.recipe.flip is not None and found.recipe.precision is not None
    assert found.resolved(digits) == found
    assert Settings(**found.model_dump(mode="json")) == found
    assert Settings(gpus_per_worker=0.5, recipe={"precision": "float32"}).resolved(digits).device == "cuda"
    with pytest.raises(UnknownName, match="did you mean 'widen'"):
        Settings(odds={"widn": 1}).resolved(digits)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"odds": 3}, "odds is 3, should be a valid dictionary or a valid string"),
        ({"odds": {"widen": "x"}}, "odds.widen is 'x', should be a valid number, unable to parse string as a number"),
        ({"steps": "a"}, "steps is 'a', should be a valid integer or a valid tuple"),
        ({"steps": [1, "a"]}, "steps.1 is 'a', should be a valid integer, unable to parse string as an integer"),
        ({"steps": True}, "steps is True, should be a number"),
    ],
)
def test_a_setting_of_several_types_has_one_fault(given: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingsError) as caught:
        Settings(**given)
    assert str(caught.value) == f"settings: {said}"


def test_an_ensemble_teaches_classes_alone() -> None:
    rows = [(torch.rand(4), float(number)) for number in range(30)]
    task = Task(rows, loss="regression")
    with pytest.raises(SettingsError, match="choose parent, best or none"):
        Settings(teacher="ensemble").resolved(task)
    assert Settings(teacher="best").resolved(task).recipe.distill.how == "logits"


def test_the_starting_network_fits_its_task(digits: Task, tmp_path: Path) -> None:
    genome = starting_network(Settings(seed=3), digits)
    assert genome.about["normalisation"]["mean"] == tuple(digits.normalisation["mean"])
    assert genome.about["labels"] == tuple(digits.labels)
    assert genome.digest == starting_network(Settings(seed=3), digits).digest
    assert genome.digest != starting_network(Settings(seed=4), digits).digest
    path = tmp_path / "net.safetensors"
    save(genome, path)
    settings = Settings(model=str(path))
    assert starting_network(settings, digits).digest == genome.digest
    with pytest.raises(StartError, match="model_settings"):
        starting_network(settings.changed(model_settings={"a": 1}), digits)
    for other, message in (
        (zoo.create("convnet", classes=10, input_shape=(3, 8, 8)), "3×8×8, expected 1×8×8"),
        (zoo.create("convnet", classes=4, input_shape=(1, 8, 8)), "4, expected 10"),
    ):
        save(other, path)
        with pytest.raises(StartError, match=message):
            starting_network(settings, digits)
    with pytest.raises(UnknownName, match="did you mean 'convnet'"):
        starting_network(Settings(model="convne"), digits)
    with pytest.raises(EvolutionError, match="no_such"):
        starting_network(Settings(model=str(tmp_path / "no_such.safetensors")), digits)
    with pytest.raises(UnknownName, match="no_such"):
        starting_network(Settings(model_settings={"no_such": 1}), digits)


def test_other_data_than_at_the_start_is_refused() -> None:
    spec = starting_task(Settings(limit=40)).spec
    assert starting_task(Settings(limit=40), spec).spec == spec
    with pytest.raises(StartError, match="not the one that this run started with"):
        starting_task(Settings(limit=40), {**spec, "digest": "0" * 64})


def test_importing_the_package_is_cheap() -> None:
    heavy = ("torch", "numpy", "networkx", "pydantic", "ray", "sklearn", "sqlite3", "yaml")
    code = f"import sys, evolve; print([name for name in {heavy!r} if name in sys.modules], dir(evolve))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert found.startswith("[] ")
    assert all(repr(name) in found for name in evolve.__all__)


def test_public_names_are_what_they_say_however_often() -> None:
    for _ in range(2):
        assert all(getattr(evolve, name) is not None for name in evolve.__all__)
        assert callable(evolve.search) and callable(evolve.open_run) and callable(evolve.export)
    with pytest.raises(AttributeError, match="no_such"):
        evolve.no_such  # noqa: B018


def test_a_key_that_is_given_twice_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "twice.yaml"
    path.write_text("population: 3\nseed: 1\npopulation: 4\n")
    with pytest.raises(SettingsError, match="'population' is given twice"):
        Settings.from_yaml(path)
