"""Several label sets of the same images, and a body with a head for each."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from graphs import from_torch, to_torch, zoo
from graphs.errors import GraphError, ShapeError, UnknownName
from runners import Recipe, Task, evaluate, train
from runners.arrays import OUTPUTS, DataError, checked
from runners.datasets import DATASETS
from runners.ensembles import head_logits
from runners.hydra import body, split
from runners.label_sets import split_by_labels
from runners.presets import preset
from runners.settings_errors import SettingsError
from tests.runners.test_training import small


def parity(labels: Any) -> Any:
    return np.asarray(labels) % 2


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Digits with two further label sets: whether a digit is odd, and its third."""
    given = DATASETS["digits"].source()  # type: ignore[operator]
    more = {f"y_{split}_odd": parity(given[f"y_{split}"]) for split in ("train", "test")}
    more |= {f"y_{split}_third": given[f"y_{split}"] // 4 for split in ("train", "test")}
    path = tmp_path_factory.mktemp("data") / "digits.npz"
    np.savez(path, **given, **more)
    return path


@pytest.fixture(scope="module")
def task(file: Path) -> Task:
    return Task.named(str(file), limit=300)


def test_every_split_has_every_label_of_its_images(task: Task, file: Path) -> None:
    assert {name: each.classes for name, each in task.others.items()} == {"odd": 2, "third": 3}
    for name in ("train", "validation", "test"):
        split = task.split(name)
        assert torch.equal(split.others["odd"], split.labels % 2) and torch.equal(
            split.others["third"], split.labels // 4
        )
    again = Task.from_spec(task.spec)
    assert torch.equal(again.train.others["odd"], task.train.others["odd"])
    with pytest.raises(DataError, match="has changed"):
        Task.from_spec({**task.spec, "others": "0" * 64})
    plain = Task.named("digits", limit=300)
    assert plain.spec["digest"] == task.spec["digest"] and not plain.others and plain.train.others == {}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"y_train_odd": np.zeros(7, int)}, "7 labels, but y_train 60"),
        ({"y_test_odd": np.full(12, 2)}, "y_test_odd has a label 2"),
        ({"y_train_odd": np.zeros(60, int)}, "every label in y_train_odd is 0"),
        ({"y_train_odd": np.ones(60)}, "y_train_odd is of type float64"),
        ({"y_test_odd": None}, "there is no y_test_odd"),
        *(
            ({f"y_{split}_{name}": np.arange(60 if split == "train" else 12) % 3 for split in ("train", "test")}, words)
            for name, words in {
                "labels": "it: y_train_labels .*'labels', a name that y_train has itself",
                "logits": "it: y_train_logits .*'logits', a name that networks give .*; give the arrays another name",
                "head0": "y_train_head0 .* networks",
                "output_1": "y_train_output_1 .* networks",
                **{
                    name: f"it: the array 'y_train_{re.escape(name)}' would be the label set '.*'; .* a to z"
                    for name in ("Odd", "oDD", "größe", "is odd", "is.odd", "is-odd", "2", "", "_odd")
                },
                "odd\n": r"it: the array 'y_train_odd\\n' would be",
            }.items()
        ),
    ],
)
def test_a_label_set_that_does_not_fit_is_refused(change: dict[str, Any], words: str, tmp_path: Path) -> None:
    given: dict[str, Any] = {
        "x_train": np.zeros((60, 4, 4), np.uint8),
        "x_test": np.zeros((12, 4, 4), np.uint8),
        "y_train": np.arange(60) % 3,
        "y_test": np.arange(12) % 3,
        "y_train_odd": np.arange(60) % 2,
        "y_test_odd": np.arange(12) % 2,
    } | change
    given = {name: value for name, value in given.items() if value is not None}
    with pytest.raises(DataError, match=words) as caught:
        checked(given, "it")
    assert "\n" not in str(caught.value)
    np.savez(tmp_path / "it", **given)
    with pytest.raises(DataError, match=words.removeprefix("it: ")):
        Task.named(str(tmp_path / "it.npz"))


def test_what_outputs_are_called_by_themselves_is_no_label_set() -> None:
    plain, images = zoo.create("convnet", input_shape=(1, 8, 8)), torch.randn(2, 1, 8, 8)

    class Outputs(nn.Module):
        def __init__(self, *form: Any) -> None:
            super().__init__()
            self.layer, self.form = nn.Linear(8, 3), form

        def forward(self, images: Any) -> Any:
            told = self.layer(images).mean((1, 2))
            return (told, {"one": told + 1, "two": (told + 2, told + 3)}) if self.form else told

    networks = (plain, split(plain, 3), from_torch(Outputs(), images), from_torch(Outputs(1), images))
    names = {head.name for network in networks for head in network.graph.heads}
    assert names > {"logits", "head2", "output_0"} and all(map(OUTPUTS.fullmatch, names))


def test_cifar_100_has_its_coarse_classes(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    source: Any = DATASETS["cifar100"].source
    assert source.others == ("coarse",) and len(DATASETS["cifar100"].others["coarse"]) == 20
    folder = tmp_path / source.folder
    folder.mkdir()
    rows = rng.integers(0, 256, (200, 2 + 3072), dtype=np.uint8)
    rows[:, 0], rows[:, 1] = np.arange(200) % 20, np.arange(200) % 100
    for name in ("train.bin", "test.bin"):
        rows.tofile(folder / name)
    found = checked(replace(source, rows=(200, 200)).read(tmp_path), "cifar100", classes=100)
    assert found.y_train.tolist() == (np.arange(200) % 100).tolist()
    assert found.others["coarse"][0].tolist() == (np.arange(200) % 20).tolist()


@pytest.mark.parametrize("name", [name for name in zoo.ZOO if "110" not in name and "100" not in name])
def test_any_network_gets_a_head_for_each_label_set(name: str) -> None:
    base = zoo.create(name, classes=100)
    made = split_by_labels(base, {"fine": 100, "coarse": 20}, start="copied", seed=3)
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        found, wanted = to_torch(made).eval()(images), to_torch(base).eval()(images)
    assert {head: tuple(value.shape) for head, value in found.items()} == {"fine": (2, 100), "coarse": (2, 20)}
    assert found["fine"].equal(wanted)


def test_each_head_learns_its_own_labels(task: Task) -> None:
    recipe = preset(
        "hydranet", epochs=8, lr=0.05, batch=32, crop=0, hydra={"tasks": ["labels", "odd", "third"], "frozen": 0}
    )
    outcome = train(small(task), recipe, task, threads=1)
    assert outcome.genome is not None, outcome.failure
    heads = head_logits(outcome.genome, task, "validation")
    assert {name: head.shape[1] for name, head in heads.items()} == {"labels": 10, "odd": 2, "third": 3}
    split, last = task.validation, outcome.curves[-1]
    own = {"labels": split.labels, "odd": split.labels % 2, "third": split.labels // 4}
    for name, head in heads.items():
        assert last[f"val_accuracy_{name}"] == pytest.approx((head.argmax(1) == own[name]).double().mean().item())
        assert last[f"val_accuracy_{name}"] > {"labels": 0.5, "odd": 0.7, "third": 0.6}[name]
    losses = [functional.cross_entropy(head, own[name]).item() for name, head in heads.items()]
    assert last["val_loss"] == pytest.approx(sum(losses))
    assert outcome.val_accuracy == last["val_accuracy_labels"]
    assert evaluate(outcome.genome, task, "validation")["accuracy"] == pytest.approx(outcome.val_accuracy)


def test_the_first_head_is_measured_by_its_own_labels(task: Task) -> None:
    recipe = preset("hydranet", epochs=2, batch=32, hydra={"tasks": ["odd", "labels"], "frozen": 0})
    outcome = train(small(task), recipe, task, threads=1)
    assert outcome.genome is not None
    assert outcome.val_accuracy == outcome.curves[-1]["val_accuracy_odd"]
    assert evaluate(outcome.genome, task, "validation")["accuracy"] == pytest.approx(outcome.val_accuracy)
    on = train(outcome.genome, Recipe(epochs=1), task, threads=1)
    assert on.genome is not None and "val_accuracy_labels" in on.curves[0]


@pytest.mark.parametrize("name", ["default", "hydranet"])
@pytest.mark.parametrize(
    ("settings", "weights"),
    [
        ({"tasks": ["a", "b"]}, "even"),
        ({"tasks": ["a", "b"], "weights": "sample"}, "sample"),
        ({"heads": 2}, "sample"),
    ],
)
def test_examples_weigh_the_same_for_tasks_unless_asked(name: str, settings: dict[str, Any], weights: str) -> None:
    assert preset(name, hydra=settings).hydra.weights == weights  # type: ignore[union-attr]


def test_without_hydra_label_sets_are_added_up_too(task: Task) -> None:
    base = zoo.create("convnet", input_shape=(1, 8, 8))
    made = split_by_labels(base, {"labels": 10, "odd": 2, "third": 3})
    settings: dict[str, Any] = {"epochs": 1, "batch": 32, "lr": 1e-3}
    plain = train(made, Recipe(**settings), task, threads=1).curves[0]
    named = train(made, Recipe(**settings, hydra={"tasks": ["labels", "odd", "third"]}), task, threads=1).curves[0]
    assert plain["train_loss"] == pytest.approx(named["train_loss"], rel=1e-3)
    assert plain["val_loss"] == pytest.approx(named["val_loss"], rel=1e-3)
    shared = split_by_labels(base, {"one": 10, "odd": 2, "two": 10})
    outcome = train(shared, Recipe(**settings), task, threads=1)
    assert outcome.genome is not None
    heads, split = head_logits(outcome.genome, task, "validation"), task.validation
    one, odd, two = (functional.cross_entropy(head, split.labels_of(name)).item() for name, head in heads.items())
    assert outcome.curves[0]["val_loss"] == pytest.approx((one + two) / 2 + odd)


def test_a_teacher_speaks_of_the_main_classes_alone(task: Task) -> None:
    recipe = preset("hydranet", epochs=1, batch=32, hydra={"tasks": ["labels", "odd"], "frozen": 0})
    master = small(task, seed=5)
    plain, taught = (
        train(small(task), recipe, task, threads=1),
        train(small(task), recipe, task, teacher=master, threads=1),
    )
    assert plain.genome is not None and taught.genome is not None
    two = train(small(task), recipe, task, teacher=taught.genome, threads=1)
    assert len({each.genome.digest for each in (plain, taught, two) if each.genome is not None}) == 3


def test_what_does_not_fit_is_said(task: Task) -> None:
    with pytest.raises(UnknownName, match=r"label set 'colour'.*labels"):
        train(small(task), Recipe(hydra={"tasks": ["labels", "colour"]}), task)
    for tasks in (["odd"], ["odd", "odd"]):
        with pytest.raises(SettingsError, match="two label sets or more"):
            Recipe(hydra={"tasks": tasks})
    base = zoo.create("convnet", input_shape=(1, 8, 8))
    made = split_by_labels(base, {"labels": 10, "odd": 3})
    with pytest.raises(ShapeError, match=r"head 'odd' of the network gives .*2 classes"):
        evaluate(made, task, "test")
    assert body(made.graph)
    alone = split_by_labels(base, {"odd": 2, "third": 3})
    refused = train(small(task), Recipe(epochs=1), task, teacher=alone).failure
    assert refused is not None and "no head of a teacher" in refused.message
    with pytest.raises(GraphError, match="expected 1 to"):
        split_by_labels(base, {"labels": 10, "odd": 2}, point=77)
