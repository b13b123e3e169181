"""`evolve train`: a folder with all of it, that goes on after a kill; ensembles; and one line for what is wrong."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy
import pytest

from evolve.starting import named_network
from evolve.trainings import FolderTaken, TrainingFailed, train_into
from graphs import load, save, zoo
from graphs.errors import FormatError
from runners.datasets import DATASETS
from runners.ensembles import head_logits, report
from runners.label_sets import split_by_labels
from runners.presets import preset
from runners.recipe import Recipe
from runners.task import Task
from runners.training import evaluate, train
from tests.evolve.conftest import Evolve, one_line
from tests.evolve.pools import beyond_a_table

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def digits() -> Task:
    return Task.named("digits", limit=150)


def process(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "evolve", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "XDG_CACHE_HOME": f"{folder}/cache"}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)


def test_the_folder_holds_all_of_it(tmp_path: Path, digits: Task) -> None:
    genome = zoo.create("convnet", input_shape=digits.input_shape)
    recipe = Recipe(epochs=3)
    result = train_into(tmp_path / "out", genome, recipe, digits, threads=1)
    wanted = train(genome, recipe, digits, threads=1)
    assert wanted.genome is not None
    made = load(tmp_path / "out" / "model.safetensors")
    assert made.digest == wanted.genome.digest
    assert result == json.loads((tmp_path / "out" / "result.json").read_text())
    assert result["val_accuracy"] == wanted.val_accuracy
    assert result["test_accuracy"] == evaluate(made, digits, "test")["accuracy"]
    with (tmp_path / "out" / "curves.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [float(row["val_loss"]) for row in rows] == [entry["val_loss"] for entry in wanted.curves]
    assert not (tmp_path / "out" / "checkpoint.safetensors").exists()


def test_a_training_that_was_killed_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    arguments = ["train", "convnet", "--limit", "150", "--epochs", "40", "--threads", "1", "--out", "out"]
    command = [sys.executable, "-m", "evolve", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    checkpoint = tmp_path / "out" / "checkpoint.safetensors"
    with subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.DEVNULL) as running:
        deadline = time.monotonic() + 120
        while not checkpoint.exists() and running.poll() is None and time.monotonic() < deadline:
            time.sleep(0.005)
        running.send_signal(signal.SIGKILL)
    assert running.returncode == -signal.SIGKILL and checkpoint.exists() and (tmp_path / "out" / "lock").exists()
    refused = process(*arguments, "--set", "lr=0.05", folder=tmp_path)
    assert refused.returncode == 2 and "recipe.lr was 0.1 and is 0.05" in refused.stderr and checkpoint.exists()
    done = process(*arguments, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "epoch 1/40" not in done.stdout and "epoch 40/40" in done.stdout
    assert process(*arguments[:-1], "whole", folder=tmp_path).returncode == 0
    whole, found = (load(tmp_path / name / "model.safetensors") for name in ("whole", "out"))
    assert found.digest == whole.digest
    assert (tmp_path / "out" / "curves.csv").read_text() == (tmp_path / "whole" / "curves.csv").read_text()


def test_a_second_process_does_not_train_in_the_same_folder(tmp_path: Path, digits: Task) -> None:
    genome, out = zoo.create("convnet", input_shape=digits.input_shape), tmp_path / "out"
    refused: list[subprocess.CompletedProcess[str]] = []

    def look(entry: Any) -> None:
        if entry["epoch"] == 2:
            for seed in ("0", "1"):
                refused.append(process("train", "convnet", "--limit", "150", "--seed", seed, folder=tmp_path))

    result = train_into(tmp_path / "trained", genome, Recipe(epochs=3), digits, threads=1, report=look)
    for done in refused:
        assert done.returncode == 2 and done.stdout == "" and len(done.stderr.splitlines()) == 1
        assert f"trained is in use by another training (process {os.getpid()}); wait until it ends" in done.stderr
    assert len(refused) == 2 and result == json.loads((tmp_path / "trained" / "result.json").read_text())
    assert train_into(out, genome, Recipe(epochs=3), digits, threads=1)["val_accuracy"] == result["val_accuracy"]
    curves = [(folder / "curves.csv").read_text() for folder in (out, tmp_path / "trained")]
    assert curves[0] == curves[1]


def test_curves_are_there_after_each_epoch_and_go_on(tmp_path: Path, digits: Task) -> None:
    """Also where the process ends between the checkpoint of an epoch and its line of the curves."""
    genome, recipe, file = (
        zoo.create("convnet", input_shape=digits.input_shape),
        Recipe(epochs=4),
        tmp_path / "curves.csv",
    )
    seen: list[list[str]] = []

    def look(entry: Any) -> None:
        seen.append(file.read_text().splitlines())
        if len(seen) == 2:
            file.write_text("\n".join(seen[0]) + "\n")
            raise InterruptedError

    with pytest.raises(InterruptedError):
        train_into(tmp_path, genome, recipe, digits, threads=1, report=look)
    train_into(tmp_path, genome, recipe, digits, threads=1, report=look)
    whole = file.read_text().splitlines()
    assert [line.split(",")[0] for line in whole] == ["epoch", "1", "2", "3", "4"]
    assert seen == [whole[:count] for count in (2, 3, 4, 5)]


def test_a_checkpoint_that_is_damaged_is_refused(tmp_path: Path, digits: Task) -> None:
    genome = zoo.create("convnet", input_shape=digits.input_shape)

    class Stop(Exception):
        pass

    def stop(entry: Any) -> None:
        raise Stop

    with pytest.raises(Stop):
        train_into(tmp_path, genome, Recipe(epochs=2), digits, threads=1, report=stop)
    checkpoint = tmp_path / "checkpoint.safetensors"
    content = bytearray(checkpoint.read_bytes())
    for damaged in (bytes(content[:-100]), b"", bytes([*content[:-9], content[-9] ^ 1, *content[-8:]])):
        checkpoint.write_bytes(damaged)
        with pytest.raises(FormatError, match="checkpoint"):
            train_into(tmp_path, genome, Recipe(epochs=2), digits, threads=1)


def test_snapshots_are_an_ensemble_and_can_be_distilled_back(tmp_path: Path) -> None:
    done = process(
        *("train", "convnet", "--limit", "150", "--recipe", "snapshot", "--epochs", "4", "--threads", "1"),
        *("--set", "cycles=2", "--set", "snapshots=2", "--distill-into", "self", "--out", "out", "--json"),
        folder=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    ensemble = result["ensemble"]
    assert len(ensemble["members"]) == len(ensemble["weights"]) == 2 and sum(ensemble["weights"]) == pytest.approx(1)
    assert ensemble["members"][-1] == result["test_accuracy"] == ensemble["last"][0]
    assert ensemble["oracle"] >= max(ensemble["members"])
    assert (tmp_path / "out" / "member-0.safetensors").exists()
    assert (tmp_path / "out" / "distilled" / "model.safetensors").exists() and "test_accuracy" in result["distilled"]


def test_heads_are_an_ensemble_too(tmp_path: Path, digits: Task) -> None:
    genome = zoo.create("convnet", input_shape=digits.input_shape)
    recipe = preset("hydranet", epochs=2, hydra={"heads": 3, "frozen": 1})
    result = train_into(tmp_path, genome, recipe, digits, threads=1)
    assert len(result["ensemble"]["members"]) == 3
    assert result["test_accuracy"] == result["ensemble"]["test_accuracy"]


def with_label_sets(folder: Path, *options: str) -> tuple[subprocess.CompletedProcess[str], dict[str, Any], Task]:
    """A HydraNet on digits that are also odd or even: what the command printed, its result, and the data."""
    given = DATASETS["digits"].source()  # type: ignore[operator]
    odd = {f"y_{split}_odd": given[f"y_{split}"] % 2 for split in ("train", "test")}
    numpy.savez(folder / "digits.npz", **given, **odd)
    done = process(
        *("train", "convnet", "--data", "digits.npz", "--limit", "150", "--epochs", "2", "--recipe", "hydranet"),
        *("--threads", "1", *options),
        folder=folder,
    )
    assert done.returncode == 0, done.stderr
    result = json.loads((folder / "out" / "result.json").read_text())
    return done, result, Task.named(str(folder / "digits.npz"), limit=150)


def test_heads_with_label_sets_of_their_own_are_no_ensemble(tmp_path: Path) -> None:
    done, result, task = with_label_sets(
        tmp_path, "--set", "hydra.tasks=[labels, odd]", "--set", "hydra.frozen=1", "--out", "out"
    )
    assert "ensemble" not in result and result["test_accuracy"] == result["tasks"]["labels"]
    logits = head_logits(load(tmp_path / "out" / "model.safetensors"), task, "test")
    right = (logits["odd"].argmax(1) == task.test.labels % 2).double().mean().item()
    assert result["tasks"]["odd"] == right and f"odd          {100 * right:.2f} %" in done.stdout
    with (tmp_path / "out" / "curves.csv").open() as file:
        assert {"val_accuracy_labels", "val_accuracy_odd"} <= set(next(csv.DictReader(file)))


def test_snapshots_are_an_ensemble_for_each_label_set_and_teach_one_head(tmp_path: Path) -> None:
    done, result, task = with_label_sets(
        tmp_path,
        *("--set", "hydra.tasks=[odd, labels]", "--set", "hydra.frozen=0", "--set", "cycles=2", "--set", "snapshots=2"),
        *("--distill-into", "self", "--out", "out"),
    )
    assert "ensemble" not in result and [*result["ensembles"]] == ["odd", "labels"]
    networks = [load(tmp_path / "out" / f"{name}.safetensors") for name in ("member-0", "model")]
    for name, labels in {"odd": task.test.labels % 2, "labels": task.test.labels}.items():
        said = [head_logits(each, task, "test")[name] for each in networks]
        wanted = report(said, labels, of="logits")
        found = result["ensembles"][name]
        assert found["test_accuracy"] == wanted["accuracy"] and found["members"] == wanted["members"]
        assert result["tasks"][name] == wanted["members"][-1] and len(found["weights"]) == 2
        assert f"ensemble     {100 * wanted['accuracy']:.2f} % on test, 2 members for {name}\n" in done.stdout
    assert result["test_accuracy"] == result["tasks"]["odd"]
    assert [head.name for head in load(tmp_path / "out" / "distilled" / "model.safetensors").graph.heads] == ["logits"]


def test_an_ensemble_that_cannot_teach_is_refused_before_it_is_trained(
    tmp_path: Path, evolve: Evolve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    given = DATASETS["digits"].source()  # type: ignore[operator]
    names = {"odd": 2, "third": 3}
    more = {f"y_{split}_{name}": given[f"y_{split}"] % by for split in ("train", "test") for name, by in names.items()}
    numpy.savez(tmp_path / "digits.npz", **given, **more)
    task = Task.named(str(tmp_path / "digits.npz"))
    save(split_by_labels(zoo.create("convnet", input_shape=task.input_shape), names), tmp_path / "net.safetensors")
    snapshots = ("--epochs", "2", "--set", "cycles=2", "--set", "snapshots=2", "--distill-into", "convnet")
    for model, settings in (
        ("convnet", ("--recipe", "hydranet", "--set", "hydra.tasks=[odd, third]", "--set", "hydra.frozen=0")),
        ("net.safetensors", ()),
    ):
        code, _, errors = evolve("train", model, "--data", "digits.npz", *settings, *snapshots)
        assert code == 2 and "apart: its heads are odd, third; give it one for 'labels' too" in one_line(errors)
        assert not (tmp_path / "trained").exists()


def test_a_figure_that_is_not_finite_is_null(tmp_path: Path) -> None:
    """The r2 of a constant target, of which JSON has no minus infinity."""
    import torch
    from torch.utils.data import TensorDataset

    from graphs import Genome, initial_weights, save
    from graphs.draft import Draft

    rows = TensorDataset(torch.randn(40, 6, generator=torch.Generator().manual_seed(0)), torch.full((40,), 3.0))
    Task(rows, loss="regression").save(tmp_path / "rows.safetensors")
    draft = Draft()
    draft.head(draft.add("linear", draft.input((6,)), out=1))
    graph = draft.finish()
    save(Genome(graph, initial_weights(graph, 0)), tmp_path / "net.safetensors")
    done = process(
        *("train", "net.safetensors", "--data", "rows.safetensors", "--epochs", "1", "--threads", "1", "--json"),
        *("--out", "out"),
        folder=tmp_path,
    )
    assert done.returncode == 0, done.stderr

    def refused(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    epoch, told = (json.loads(line, parse_constant=refused) for line in done.stdout.splitlines())
    assert epoch["val_r2"] is None and epoch["val_accuracy"] == 0
    assert told["test_r2"] is None and told["test_accuracy"] == 0
    assert json.loads((tmp_path / "out" / "result.json").read_text(), parse_constant=refused) == told
    with (tmp_path / "out" / "curves.csv").open() as file:
        assert [row["val_r2"] for row in csv.DictReader(file)] == [""]


def test_a_network_is_a_name_a_file_or_a_candidate(tmp_path: Path, digits: Task) -> None:
    genome = zoo.create("convnet", input_shape=digits.input_shape)
    train_into(tmp_path, genome, Recipe(epochs=1), digits, threads=1)
    file = str(tmp_path / "model.safetensors")
    inherited, scratch = named_network(file, digits, 0), named_network(file, digits, 0, scratch=True)
    assert all(inherited.weights[name].equal(tensor) for name, tensor in load(file).weights.items())
    assert scratch.graph == inherited.graph and scratch.digest != inherited.digest
    assert named_network("convnet", digits, 3).graph.inputs[0].settings["shape"] == digits.input_shape


def test_a_failure_says_why_and_leaves_the_folder_usable(tmp_path: Path, digits: Task) -> None:
    genome = zoo.create("vgg8", input_shape=digits.input_shape)
    with pytest.raises(TrainingFailed, match="diverged"):
        train_into(tmp_path, genome, Recipe(epochs=3, lr=100, momentum=0.99), digits, threads=1)
    good = zoo.create("convnet", input_shape=digits.input_shape)
    assert train_into(tmp_path, good, Recipe(epochs=1), digits, threads=1)["val_accuracy"] is not None


def test_what_does_not_go_together_is_the_caller_s_mistake(tmp_path: Path, digits: Task) -> None:
    genome = zoo.create("convnet", input_shape=digits.input_shape)
    for recipe, words in (
        (preset("hydranet", epochs=1, hydra={"split_point": 99, "frozen": 0}), "behind unit 99"),
        (Recipe(epochs=1, batch=512, cycles=9), "9 cycles need as many steps"),
    ):
        with pytest.raises(TrainingFailed, match=words) as caught:
            train_into(tmp_path, genome, recipe, digits, threads=1)
        assert caught.value.exit_code == 2


def test_a_test_split_that_the_network_cannot_read_is_the_caller_s_mistake(tmp_path: Path) -> None:
    """Whole numbers that index a table behind arithmetic, of which nothing tells how far they may reach."""
    genome, task = beyond_a_table()
    for cycles in (1, 2):
        recipe, out = Recipe(epochs=2, crop=0, cycles=cycles, snapshots=cycles), tmp_path / str(cycles)
        with pytest.raises(TrainingFailed, match=r"\(invalid\): .*, which is saved, on the test split: ") as caught:
            train_into(out, genome, recipe, task, threads=1)
        assert caught.value.exit_code == 2 and "\n" not in str(caught.value)
        assert load(out / "model.safetensors").graph.inputs and (out / "curves.csv").exists()


def test_a_training_that_is_over_is_neither_done_again_nor_replaced(tmp_path: Path, digits: Task) -> None:
    genome = zoo.create("convnet", input_shape=digits.input_shape)
    recipe = Recipe(epochs=2, cycles=2, snapshots=2)
    result = train_into(tmp_path, genome, recipe, digits, threads=1)
    files = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    seen: list[Any] = []
    assert train_into(tmp_path, genome, recipe, digits, threads=1, report=seen.append) == result
    another = zoo.create("convnet", input_shape=digits.input_shape, seed=1)
    others: list[tuple[str, dict[str, Any]]] = [
        ("recipe", {"recipe": recipe.changed(lr=0.05)}),
        ("seed", {"seed": 1}),
        ("network", {"genome": another}),
        ("teachers", {"teachers": [another]}),
        ("data", {"task": Task.named("digits", limit=100)}),
    ]
    for what, change in others:
        given: dict[str, Any] = {"genome": genome, "recipe": recipe, "task": digits, "report": seen.append} | change
        with pytest.raises(FolderTaken, match=f"another {what}; name another folder"):
            train_into(tmp_path, **given, threads=1)
    assert not seen and files == {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}


def test_an_untrained_body_that_is_frozen_is_warned_of(tmp_path: Path) -> None:
    options = ("--recipe", "hydranet", "--epochs", "1", "--set", "hydra.frozen=1", "--limit", "100", "--threads", "1")
    done = process("train", "convnet", *options, "--out", "one", folder=tmp_path)
    assert done.returncode == 0 and "warning: the body is untrained, and frozen" in one_line(done.stderr)
    body = ("--body", "one/model.safetensors")
    done = process("train", "convnet", *options, *body, "--out", "two", folder=tmp_path)
    assert done.returncode == 0 and done.stderr == ""
    assert "body         frozen in all 1 epochs, as hydra.frozen is 1\n" in done.stdout
    done = process("train", "two/model.safetensors", *options, "--set", "hydra.heads=3", "--out", "x", folder=tmp_path)
    assert done.returncode == 2 and "has 8 outputs already" in one_line(done.stderr)


def test_minutes_that_are_too_few_for_a_body_to_thaw_are_warned_of(tmp_path: Path) -> None:
    options = ("--set", "minutes=0.0001", "--set", "hydra.heads=2", "--limit", "100", "--threads", "1")
    process("train", "convnet", "--epochs", "1", "--limit", "100", "--out", "first", folder=tmp_path)
    for frozen in (0, 1, 500):
        name, setting = f"{frozen}", f"hydra.frozen={frozen}"
        done = process("train", "first/model.safetensors", *options, "--set", setting, "--out", name, folder=tmp_path)
        said = "0.0001 minutes are 1 epochs here, and hydra.frozen is"
        assert done.returncode == 0 and (said in done.stderr) is (frozen > 0), done.stderr
        assert ("frozen in all 1 epochs" in done.stdout) is (frozen > 0)
        assert not done.stderr or one_line(done.stderr)


def test_a_folder_of_images_is_trained_on_and_searched(tmp_path: Path) -> None:
    import numpy as np
    from PIL import Image

    for name, level in (("dark", 40), ("light", 200)):
        (tmp_path / "marks" / name).mkdir(parents=True)
        for place in range(30):
            noise = np.random.default_rng(place + level).integers(0, 40, (12, 12, 3))
            Image.fromarray((level + noise).astype(np.uint8)).save(tmp_path / "marks" / name / f"{place}.png")
    data = ("--data", "marks", "--image-size", "8")
    done = process("train", "convnet", *data, "--epochs", "1", "--out", "out", "--json", folder=tmp_path)
    assert done.returncode == 0 and done.stderr == "decoding images: 60 of 60\n"
    assert json.loads(done.stdout.splitlines()[-1])["data"]["size"] == 8
    made = load(tmp_path / "out" / "model.safetensors")
    assert made.about["labels"] == ("dark", "light") and made.graph.inputs[0].settings["shape"] == (3, 8, 8)
    options = ("--candidates", "2", "--epochs", "1", "--pool", "local", "--workers", "1", "--run", "run")
    done = process("search", *data, *options, folder=tmp_path)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    assert done.stdout.splitlines()[0] == "run" and "complete" not in done.stderr
    (tmp_path / "marks" / "dark" / "0.png").write_bytes(b"no image")
    done = process("train", "convnet", *data, folder=tmp_path)
    assert done.returncode == 2 and "marks/dark/0.png: broken" in done.stderr and done.stderr.count("\n") == 1


def test_examples_of_one_s_own_are_trained_on_from_a_file(tmp_path: Path) -> None:
    import torch
    from torch import nn
    from torch.utils.data import TensorDataset

    from graphs import from_torch, save

    inputs = torch.randn(120, 4, generator=torch.Generator().manual_seed(0))
    Task(TensorDataset(inputs, inputs.sum(1)), loss="regression").save(tmp_path / "sums.safetensors")
    save(
        from_torch(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1)), inputs[:2]), tmp_path / "net.safetensors"
    )
    arguments = ("train", "net.safetensors", "--data", "sums.safetensors")
    done = process(*arguments, "--epochs", "3", "--set", "lr=0.05", folder=tmp_path)
    assert done.returncode == 0 and ", r2 " in done.stdout.splitlines()[2], done.stderr
    result = json.loads((tmp_path / "trained" / "result.json").read_text())
    assert result["test_accuracy"] == pytest.approx(1 / (2 - result["test_r2"]))
    assert load(tmp_path / "trained" / "model.safetensors").about["normalisation"] is None
    done = process("train", "convnet", "--data", "sums.safetensors", folder=tmp_path)
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1, done.stderr
    done = process(*arguments, "--set", "flip=true", "--out", "other", folder=tmp_path)
    assert done.returncode == 2 and "flip is for images" in done.stderr


def test_a_network_of_torchvision_starts_from_weights_with_a_last_layer_for_the_classes(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    from evolve.settings import Settings
    from evolve.starting import starting_network
    from evolve.vision import torchvision_models

    module = torchvision_models().get_model("squeezenet1_1")
    state = module.state_dict()
    save_file(state, tmp_path / "trained.safetensors")
    task = Task.from_arrays(**_coloured())
    file = str(tmp_path / "trained.safetensors")
    found = named_network("torchvision:squeezenet1_1", task, 5, weights=file)
    assert found.graph.shapes[found.graph.heads[0].node] == (3,) and found.about["labels"] == ()
    assert found.weights.keys() == state.keys()
    new = {name for name, tensor in found.weights.items() if not tensor.equal(state[name])}
    assert new == {name for name in state if found.weights[name].shape != state[name].shape} and len(new) == 2
    settings = Settings(model="torchvision:squeezenet1_1", weights=file)
    searched = starting_network(settings, task)
    assert all(searched.weights[name].equal(tensor) for name, tensor in state.items() if name not in new)
    trained = train(found, Recipe(epochs=1, lr=0.01), task, threads=1)
    assert trained.failure is None and trained.genome is not None
    fresh = named_network("torchvision:squeezenet1_1", task, 5, weights=file, scratch=True)
    assert not any(fresh.weights[name].equal(tensor) for name, tensor in state.items() if name.endswith("3.weight"))


def _coloured() -> dict[str, Any]:
    import numpy as np

    images = np.random.default_rng(0).integers(0, 256, (30, 32, 32, 3), dtype=np.uint8)
    labels = np.arange(30) % 3
    return {"x_train": images, "y_train": labels, "x_test": images[:6], "y_test": labels[:6]}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["train", "convnet", "--set", "lrr=1"], "did you mean 'lr'"),
        (["train", "convnet", "--set", "lr"], "expected key=value"),
        (["train", "convnet", "--recipe", "snapshots"], "unknown recipe 'snapshots'"),
        (["train", "nonet"], "nonet"),
        (["train", "none.safetensors"], "none.safetensors"),
        (["train", "runs/0001:3"], "runs/0001"),
        (["train", "convnet", "--from", "parent"], "expected inherited or scratch"),
        (["train", "convnet", "--distill-into", "self"], "keeps no snapshots"),
        (["train", "convnet", "--weights", "DEFAULT"], "weights are for torchvision:NAME, and convnet has its own"),
        (["train", "runs/1:3", "--weights", "DEFAULT"], "weights are for torchvision:NAME"),
        (["search", "--weights", "DEFAULT"], "weights are for torchvision:NAME, and convnet has its own"),
        (["train", "torchvision:resnet17"], "did you mean 'resnet1"),
        (["train", "torchvision:resnet18", "--weights", "a.pth"], "only .safetensors files"),
        (["train", "torchvision:resnet18"], "torchvision:resnet18 does not fit inputs of 1×8×8"),
        (["search", "--model", "torchvision:resnet18"], "torchvision:resnet18 does not fit inputs of 1×8×8"),
        (["train", "convnet", "--set", "distill.transfer=mnist"], "add --distill-from"),
        (["train", "convnet", "--set", "distill.weight=0", "--distill-from", "convnet"], "leave out --distill-from"),
        (
            ["train", "convnet", "--recipe", "snapshot", "--set", "distill.weight=0", "--distill-into", "self"],
            "distill.weight is 0, so nothing would be distilled",
        ),
        (["search", "--data", "digits", "--preset", "networkcompress", "--teacher", "best"], "distill.weight is 0"),
        (["train", "convnet", "--set", "hydra.tasks=[labels, colour]"], "unknown label set 'colour'"),
        (["train", "convnet", "--device", "tpu"], "expected cpu, cuda or cuda:N"),
        (["train", "convnet", "--data", ""], "unknown data set ''"),
        (["train", "convnet", "--recipe", "hydranet", "--epochs", "3"], "should be at most the 3 epochs"),
        (["train", "convnet", "--recipe", "snapshot", "--distill-into", "nonet"], "nonet"),
        (["freezeout-speedup", "convnet", "--how", "cubed"], "'linear', 'squared' or 'cubic'"),
        (["freezeout-speedup", "convnet", "--published"], "for a densenet of the zoo"),
        (["freezeout-speedup", "convnet", "--t0", "0"], "t0 is 0"),
    ],
)
def test_what_is_wrong_is_one_line(
    arguments: list[str], words: str, evolve: Evolve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    code, _, errors = evolve(*arguments)
    assert code == 2 and words in one_line(errors)
    assert list(tmp_path.iterdir()) == []


def test_the_estimate_of_the_original(tmp_path: Path) -> None:
    done = process(
        "freezeout-speedup", "densenet-bc-76-12", "--t0", "0.8", "--how", "cubic", "--published", folder=tmp_path
    )
    assert done.returncode == 0 and done.stdout.startswith("17.78 %")


@pytest.mark.parametrize(
    ("recipe", "more"),
    [
        (Recipe(epochs=2), ()),
        (Recipe(epochs=2, hydra={"heads": 2}), ("heads/0", "heads/1", "oracle", "disagreement")),
    ],
    ids=["plain", "heads"],
)
def test_curves_go_to_tensorboard_where_that_is_installed(
    recipe: Recipe, more: tuple[str, ...], tmp_path: Path, digits: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    noted: list[tuple[str, float, int]] = []
    closed: list[str] = []

    class SummaryWriter:
        def __init__(self, folder: str) -> None:
            self.folder = folder

        def add_scalar(self, name: str, value: float, epoch: int) -> None:
            noted.append((name, value, epoch))

        def close(self) -> None:
            closed.append(self.folder)

    genome = zoo.create("convnet", input_shape=digits.input_shape)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)  # as where it is not installed
    train_into(tmp_path / "without", genome, recipe, digits, threads=1)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", SimpleNamespace(SummaryWriter=SummaryWriter))
    train_into(tmp_path / "with", genome, recipe, digits, threads=1)
    assert closed == [str(tmp_path / "with" / "tensorboard")]
    with (tmp_path / "with" / "curves.csv").open() as file:
        rows = list(csv.DictReader(file))
    wanted = []
    for row in rows:
        for name in row.keys() - {"epoch"}:
            value = json.loads(row[name])
            figures = (
                {f"{name}/{place}": each for place, each in enumerate(value)} if name == "heads" else {name: value}
            )
            wanted += [(tag, figure, int(row["epoch"])) for tag, figure in figures.items()]
    assert sorted(noted) == sorted(wanted)
    assert {name for name, _, _ in noted} == {"train_loss", "val_loss", "val_accuracy", "lr", *more}
    assert (tmp_path / "without" / "curves.csv").read_text() == (tmp_path / "with" / "curves.csv").read_text()
