"""Recipes: defaults, ranges, and faults that are one line."""

from __future__ import annotations

import doctest
import json
from typing import Any

import pytest
import yaml

from graphs.errors import EvolutionError
from runners import precision, recipe, settings_errors
from runners.precision import fastest_precision
from runners.recipe import OWN_DEFAULTS, Recipe
from runners.settings_errors import CheckedModel, SettingsError
from runners.task import Task


def test_doctests_hold() -> None:
    for module in (recipe, precision, settings_errors):
        assert not doctest.testmod(module, optionflags=doctest.ELLIPSIS).failed


def test_defaults_follow_the_optimizer_unless_given() -> None:
    for name, own in OWN_DEFAULTS.items():
        made = Recipe(optimizer=name)  # type: ignore[arg-type]
        assert {key: getattr(made, key) for key in own} == own
    assert Recipe(optimizer="adamw", lr=0.5).lr == 0.5
    assert OWN_DEFAULTS["sgd"] != OWN_DEFAULTS["adamw"]


def test_json_and_yaml_give_the_same_recipe_back() -> None:
    made = Recipe(optimizer="adamw", epochs=7, flip=True, distill={"temperature": 2.5}, freezeout={"t0": 0.3})
    assert Recipe(**json.loads(json.dumps(made.model_dump(mode="json")))) == made
    assert Recipe(**yaml.safe_load("lr: 1e-3\nepochs: 2")).lr == 1e-3  # YAML 1.1 reads 1e-3 as a text


def test_a_recipe_is_frozen_and_changed_checks() -> None:
    made = Recipe()
    with pytest.raises(ValueError, match="frozen"):
        made.lr = 3.0  # type: ignore[misc]
    assert made.changed(epochs=9).epochs == 9
    assert made.epochs == Recipe().epochs
    with pytest.raises(SettingsError, match="epochs is 0"):
        made.changed(epochs=0)


def test_an_unknown_key_names_the_nearest() -> None:
    with pytest.raises(SettingsError) as caught:
        Recipe(momentom=0.9)  # type: ignore[call-arg]
    assert str(caught.value).startswith("recipe: unknown setting 'momentom': did you mean 'momentum'? Known: batch,")
    assert isinstance(caught.value, EvolutionError | ValueError)
    assert caught.value.exit_code == 2


FAULTS: dict[str, Any] = {
    "lr": [0, -1, float("nan"), float("inf"), "fast", None, True, [1]],
    "momentum": [-0.1, 1, float("nan")],
    "weight_decay": [-1e-9, 2],
    "epochs": [0, -3, 2.5, True, "many", 10**9],
    "batch": [1, 0, 10**9],
    "optimizer": ["adam", "", 3],
    "schedule": ["linear"],
    "crop": [-1, 0.5, 1000],
    "flip": ["maybe", 7],
    "label_smoothing": [1, -0.1],
    "cutout": [-1, 0.5],
    "mixup": [-1, float("inf")],
    "ema": [1, -0.1],
    "cycles": [0, 1.5],
    "milestones": [[0.5, 0.2], [0], [1], [0.2, 0.2], "soon"],
    "warmup": [1, -0.1],
    "shrink": [1.1],
    "precision": ["float16", 16],
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in FAULTS.items() for value in values])
def test_a_value_out_of_range_is_refused_in_one_line(name: str, value: Any) -> None:
    with pytest.raises(SettingsError) as caught:
        Recipe(**{name: value})
    message = str(caught.value)
    assert message.startswith(f"recipe: {name} is ") and "should" in message
    assert "\n" not in message and len(message) < 200


def test_parts_that_do_not_fit_together_are_refused() -> None:
    for given, words in (
        ({"snapshots": 3, "cycles": 2}, "recipe: snapshots is 3, should be at most the 2 cycles"),
        ({"freezeout": {}, "cycles": 2}, "recipe: freezeout sets the rates of each stage itself"),
        ({"freezeout": {}, "schedule": "constant"}, "recipe: freezeout sets the rates of each stage itself"),
        ({"freezeout": {}, "warmup": 0.1}, "recipe: freezeout sets the rates of each stage itself: warmup"),
        ({"hydra": {"frozen": 5}, "epochs": 4}, "recipe: hydra.frozen is 5, should be at most the 4 epochs"),
        ({"hydra": {"split_point": "abc"}}, "recipe: hydra: split_point is 'abc', should be a valid integer or 'auto'"),
        ({"hydra": {"split_point": 1.5}}, "recipe: hydra: split_point is 1.5, should be a valid integer or 'auto'"),
        ({"hydra": {"split_point": True}}, "recipe: hydra: split_point is True, should be a number"),
        ({"freezeout": {"t0": 2}}, "recipe: freezeout: t0 is 2, should be less than or equal to 1"),
        ({"distill": {"wieght": 1}}, "recipe: distillation: unknown setting 'wieght': did you mean 'weight'?"),
    ):
        with pytest.raises(SettingsError) as caught:
            Recipe(**given)  # type: ignore[arg-type]
        assert str(caught.value).startswith(words)


def test_every_fault_is_in_the_one_line() -> None:
    with pytest.raises(SettingsError) as caught:
        Recipe(lr=-1, epochs=0, colour="red", **{"crop": "x" * 1000})  # type: ignore[call-arg,arg-type]
    message = str(caught.value)
    assert all(part in message for part in ("lr is -1", "epochs is 0", "'colour'", "crop is 'xxx"))
    assert "\n" not in message and len(message) < 700


class _Outer(CheckedModel):
    what = "settings"
    recipe: Recipe = Recipe()
    seed: int = 0


def test_a_fault_in_nested_settings_keeps_its_own_words() -> None:
    with pytest.raises(SettingsError, match=r"^settings: recipe: unknown setting 'lrr': did you mean 'lr'\?") as caught:
        _Outer(recipe={"lrr": 1})  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
    with pytest.raises(SettingsError, match=r"^settings: seed is 'x', should be a valid integer"):
        _Outer(seed="x")  # type: ignore[arg-type]
    assert _Outer(recipe={"lr": 1}).recipe.lr == 1  # type: ignore[arg-type]


def test_resolving_leaves_nothing_open_and_is_idempotent() -> None:
    task = Task.named("digits")
    made = Recipe().resolved(task)
    assert made.flip is False and made.precision == fastest_precision()
    assert made.resolved(task) == made
    assert Recipe(flip=True, precision="bfloat16").resolved(task).flip is True
    assert Recipe(precision="bfloat16").resolved(task).precision == "bfloat16"


def test_bfloat16_is_chosen_where_the_processor_multiplies_it() -> None:
    for units in ({"amx_bf16": True}, {"avx512_bf16": True, "amx_bf16": False}):
        assert fastest_precision("cpu", units) == "bfloat16"
    for units in ({}, {"avx2": True}, {"avx512_f": True, "avx512_bf16": False}, {"amx_tile": True}):
        assert fastest_precision("cpu", units) == "float32"
