"""Data sets, losses and metrics of one's own: what is learnt, what is measured, how it travels, and what is refused."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn import metrics
from torch import Tensor, nn
from torch.utils.data import Dataset, TensorDataset

import graphs
from graphs import zoo
from graphs.errors import EvolutionError, FormatError, ShapeError, UnknownName
from runners import Metric, Recipe, Task, evaluate, train
from runners.arrays import DataError
from runners.examples import fingerprint
from runners.normalising import moments
from runners.objectives import METRICS, OBJECTIVES, ObjectiveError
from runners.prepared import SPLITS
from runners.presets import PRESETS, assigned, preset
from runners.settings_errors import SettingsError
from tests.runners.places import said_elsewhere


def numbers(count: int = 300, seed: int = 0) -> TensorDataset:
    """Two numbers to be told from six."""
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(count, 6, generator=generator)
    return TensorDataset(inputs, inputs @ torch.randn(6, 2, generator=torch.Generator().manual_seed(9)) + 0.5)


def several(count: int = 240) -> TensorDataset:
    """Images of uint8, of which each third is bright or not."""
    generator = torch.Generator().manual_seed(1)
    held = torch.randint(0, 2, (count, 3), generator=generator)
    images = torch.randint(0, 60, (count, 3, 6, 6), generator=generator) + 150 * held[:, :, None, None]
    return TensorDataset(images.to(torch.uint8), held)


def perceptron(inputs: int = 6, outputs: int = 2) -> graphs.Genome:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(inputs, 16), nn.ReLU(), nn.Linear(16, outputs))
    return graphs.from_torch(module, torch.randn(2, inputs))


def told(genome: graphs.Genome, inputs: Tensor) -> Tensor:
    with torch.no_grad():
        return graphs.to_torch(genome).eval()(inputs)


PLAIN = Recipe(epochs=8, lr=0.05, batch=32)


# --- metrics


@pytest.mark.parametrize("seed", range(3))
def test_metrics_are_those_that_others_compute(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    outputs = torch.randn(50, 4, generator=generator)
    classes, held = torch.randint(0, 4, (50,), generator=generator), torch.randint(0, 2, (50, 4), generator=generator)
    wanted = outputs * 0.7 + 0.3 * torch.randn(50, 4, generator=generator)
    named = (outputs > 0).int()
    expected = {
        "accuracy": (classes, metrics.accuracy_score(classes, outputs.argmax(1))),
        "labels": (held.float(), 1 - metrics.hamming_loss(held, named)),
        "exact": (held.float(), metrics.accuracy_score(held, named)),
        "f1": (held.float(), metrics.f1_score(held, named, average="micro")),
        "r2": (wanted, metrics.r2_score(wanted, outputs)),
        "mae": (wanted, metrics.mean_absolute_error(wanted, outputs)),
    }
    assert expected.keys() == METRICS.keys()
    for name, (targets, value) in expected.items():
        score, found = METRICS[name].of(outputs, targets)
        assert found == pytest.approx(value, abs=1e-6), name
        assert 0 <= score <= 1


@pytest.mark.parametrize("name", METRICS)
def test_a_better_network_has_the_higher_score(name: str) -> None:
    """From outputs that are right to outputs that are wrong, step by step."""
    generator = torch.Generator().manual_seed(3)
    classes = name == "accuracy"
    targets = torch.randint(0, 3, (400,), generator=generator) if classes else torch.rand(400, 3, generator=generator)
    if name in ("labels", "exact", "f1"):
        targets = targets.round()
    right = nn.functional.one_hot(targets, 3).float() if classes else targets - (name in ("labels", "exact", "f1")) / 2
    noise = torch.randn(400, 3, generator=generator)
    scores = [METRICS[name].of(right + level * noise, targets)[0] for level in (0, 0.5, 1, 3, 100)]
    assert scores[0] == 1.0 and scores == sorted(scores, reverse=True) and len(set(scores)) > 3


def test_a_constant_target_and_an_infinite_error_are_numbers_too() -> None:
    constant = torch.ones(4, 1)
    assert METRICS["r2"].of(constant, constant) == (1.0, 1.0)
    assert METRICS["r2"].of(constant + 1, constant)[0] == 0.0
    mean = torch.arange(4.0)[:, None]
    assert METRICS["r2"].of(mean.mean().expand(4, 1), mean) == (0.5, 0.0)


# --- what is learnt


def test_numbers_are_learnt_and_measured(tmp_path: Path) -> None:
    task = Task(numbers(), loss="regression", name="numbers")
    assert (task.classes, task.input_shape, dict(task.normalisation)) == (2, (6,), {})
    assert [len(task.split(split)) for split in SPLITS] == [192, 48, 60]
    before = task.train.images.clone()
    outcome = train(perceptron(), PLAIN, task)
    assert outcome.failure is None and outcome.genome is not None
    assert torch.equal(task.train.images, before), "training has written into the examples"
    last = outcome.curves[-1]
    guess = told(outcome.genome, task.validation.images)
    assert last["val_loss"] == pytest.approx((guess - task.validation.labels).square().mean().item(), rel=1e-5)
    assert last["val_r2"] == pytest.approx(metrics.r2_score(task.validation.labels, guess), abs=1e-6)
    assert last["val_r2"] > 0.9 and outcome.val_accuracy == pytest.approx(1 / (2 - last["val_r2"]))
    found = evaluate(outcome.genome, task, "test")
    assert found["r2"] > 0.9 and found["accuracy"] == pytest.approx(1 / (2 - found["r2"]))
    own = Task(numbers(), loss=lambda outputs, targets: (outputs - targets).square().mean(1), metric="r2")
    again = train(perceptron(), PLAIN, own)
    assert again.genome is not None and again.genome.digest == outcome.genome.digest


def test_several_labels_of_an_image_are_learnt() -> None:
    task = Task(several(), loss="multilabel", labels=("red", "green", "blue"))
    pixels = task.train.images.double() / 255
    assert torch.allclose(torch.tensor(task.normalisation["mean"]).double(), pixels.mean((0, 2, 3)))
    genome = zoo.create("convnet", classes=3, input_shape=task.input_shape)
    outcome = train(genome, Recipe(epochs=4, crop=1), task)
    assert outcome.failure is None and outcome.genome is not None
    scale, shift = task.scale_and_shift()
    outputs = told(outcome.genome, task.validation.images * scale - shift)
    loss = nn.functional.binary_cross_entropy_with_logits(outputs, task.validation.labels).item()
    assert outcome.curves[-1]["val_loss"] == pytest.approx(loss, rel=1e-4)
    assert outcome.val_accuracy == outcome.curves[-1]["val_f1"] > 0.95


def test_classes_of_an_own_data_set_are_what_arrays_are() -> None:
    """The same examples and splits learn to the same bits as those of `from_arrays`."""
    digits = Task.named("digits", limit=200)
    own = Task(*(TensorDataset(*pair(digits, split)) for split in SPLITS), labels=digits.labels)
    genome = zoo.create("convnet", input_shape=digits.input_shape)
    one, other = (train(genome, Recipe(epochs=1), task) for task in (digits, own))
    assert one.genome is not None and other.genome is not None and one.genome.digest == other.genome.digest
    assert one.val_accuracy == other.val_accuracy and "val_r2" not in other.curves[0]


def pair(task: Task, split: str) -> tuple[Tensor, Tensor]:
    return task.split(split).images, task.split(split).labels


def test_a_split_that_is_given_is_taken_and_one_that_is_not_is_cut() -> None:
    task = Task(numbers(100), test=numbers(30, seed=5), loss="regression")
    assert [len(task.split(split)) for split in SPLITS] == [80, 20, 30]
    assert torch.equal(task.test.images, numbers(30, seed=5).tensors[0])
    rows = {tuple(row.tolist()) for split in ("train", "validation") for row in task.split(split).images}
    assert rows == {tuple(row.tolist()) for row in numbers(100).tensors[0]}


def test_a_teacher_s_numbers_are_met_and_not_its_probabilities() -> None:
    """One output has the same softmax whatever it is, so that soft targets would teach nothing."""
    single = TensorDataset(numbers().tensors[0], numbers().tensors[1][:, :1])
    task = Task(single, loss="regression")
    teacher = train(perceptron(outputs=1), PLAIN, task).genome
    assert teacher is not None
    recipe = Recipe(epochs=6, lr=0.05, batch=32, distill={"weight": 1.0})
    assert recipe.resolved(task).distill.how == "logits"
    student = train(perceptron(outputs=1), recipe, task, teacher=teacher).genome
    assert student is not None
    apart = told(student, task.test.images) - told(teacher, task.test.images)
    assert apart.square().mean() < 0.05 * task.test.labels.var()
    with pytest.raises(ObjectiveError, match="several teachers"):
        train(perceptron(outputs=1), recipe, task, teacher=[teacher, teacher])


class Rows(nn.Module):
    """Looks columns up in a table each, of 5 and of 9 rows, and computes with a third one."""

    def __init__(self) -> None:
        super().__init__()
        self.five, self.nine, self.layer = nn.Embedding(5, 4), nn.Embedding(9, 4), nn.Linear(4, 2)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.layer(self.five(rows[:, 0]) + self.nine(rows[:, 1]) + rows[:, 2:].float())
        return found


class Words(nn.Module):
    """Looks words up in a table of 5 rows, after `change`, which no one knows to be looked up."""

    def __init__(self, change: int | None = None) -> None:
        super().__init__()
        self.table, self.layer, self.change = nn.Embedding(5, 4), nn.Linear(4, 2), change

    def forward(self, words: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.layer(self.table(words if self.change is None else words + self.change).mean(1))
        return found


@pytest.mark.parametrize(
    ("module", "split", "row", "said"),
    [
        (Rows(), "train", [4, 8, 1000], None),
        (Rows(), "train", [5, 8, 0], r"from 0 to 4 at place 0 .* the split train of dataset has 5; number them from 0"),
        (Rows(), "validation", [4, 9, 0], "from 0 to 8 at place 1 .* the split validation of dataset has 9"),
        (Rows(), "test", [-1, 0, -7], "from 0 to 4 at place 0 .* the split test of dataset has -1"),
        (Words(), "test", [4, 4, 5], "from 0 to 4, but the split test of dataset has 5"),
        (Words(), "train", [-2, 0, 0], "from 0 to 4, but the split train of dataset has -2"),
        (Words(0), "train", [0, 0, 7], "epoch 1: IndexError: index out of range"),
    ],
)
def test_numbers_that_a_table_has_no_row_for_are_refused(
    module: nn.Module, split: str, row: list[int], said: str | None
) -> None:
    rows = {name: torch.arange(12).reshape(4, 3) % 4 for name in SPLITS}
    genome = graphs.from_torch(module, rows["train"])
    rows[split] = torch.cat([rows[split], torch.tensor([row])])
    task = Task(*(TensorDataset(each, torch.arange(len(each)) % 2) for each in rows.values()))
    failure = train(genome, Recipe(epochs=1), task).failure
    if said is None:
        assert failure is None
        return
    assert failure is not None and failure.kind == "invalid" and re.search(said, failure.message), failure
    if "split" in said:
        with pytest.raises(ShapeError, match=said):
            evaluate(genome, task, "train")


def test_numbers_of_words_go_to_an_embedding() -> None:
    class Bag(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table, self.last = nn.Embedding(5, 8), nn.Linear(8, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.table(x).mean(1))

    words = torch.randint(0, 5, (200, 4), generator=torch.Generator().manual_seed(0))
    task = Task(TensorDataset(words, (words == 2).any(1).long()))
    torch.manual_seed(0)
    outcome = train(graphs.from_torch(Bag(), words[:2]), Recipe(epochs=24), task)
    assert outcome.val_accuracy is not None and outcome.val_accuracy > 0.8
    wrong = train(perceptron(4), Recipe(epochs=1), task)
    assert (
        wrong.failure is not None and "reads float numbers, but inputs of dataset are integer" in wrong.failure.message
    )


# --- a file


@pytest.mark.parametrize("data", ["numbers", "several"])
def test_a_file_trains_to_the_same_bits_here_and_in_another_process(data: str, tmp_path: Path) -> None:
    loss, dataset = {"numbers": ("regression", numbers()), "several": ("multilabel", several())}[data]
    task = Task(dataset, loss=loss, metric="mae" if data == "numbers" else "exact")
    task.save(tmp_path / "own.safetensors")
    named = Task.named(str(tmp_path / "own.safetensors"))
    assert (named.name, named.classes, named.labels) == ("own", task.classes, task.labels)
    assert named.normalisation == task.normalisation and named.objective == task.objective
    genome = perceptron() if data == "numbers" else zoo.create("convnet", classes=3, input_shape=task.input_shape)
    one, other = train(genome, PLAIN, task), train(genome, PLAIN, named)
    assert one.genome is not None and other.genome is not None and one.genome.digest == other.genome.digest
    assert one.val_accuracy == other.val_accuracy
    what = "[task.objective.name, task.objective.metric.name, task.train.images.double().sum().item()]"
    total = task.train.images.double().sum().item()
    assert said_elsewhere(named, what) == [loss, task.objective.metric.name, total]


def test_a_limit_of_a_file_takes_a_part_and_its_own_moments(tmp_path: Path) -> None:
    Task(several(), loss="multilabel").save(tmp_path / "own.safetensors")
    whole, part = (Task.named(str(tmp_path / "own.safetensors"), limit=limit) for limit in (None, 20))
    assert [len(part.split(split)) for split in SPLITS] == [20, 20, len(whole.test)]
    assert (
        part.normalisation["mean"] == pytest.approx((part.train.images.double().mean((0, 2, 3)) / 255).tolist())
        and part.normalisation != whole.normalisation
    )


def test_a_file_that_has_changed_or_is_another_one_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "own.safetensors"
    Task(numbers(), loss="regression").save(path)
    spec = Task.named(str(path)).spec
    Task(numbers(seed=4), loss="regression").save(path)
    with pytest.raises(DataError, match="has changed"):
        Task.from_spec(spec)
    graphs.save(perceptron(), path)
    with pytest.raises(DataError, match="no file of examples"):
        Task.named(str(path))
    with pytest.raises(DataError, match="no such file"):
        Task.named(str(tmp_path / "none.safetensors"))
    with pytest.raises(DataError, match=r"task[.]save"):
        Task.from_spec(Task(numbers(), loss="regression").spec)


def test_what_a_file_cannot_hold_is_refused(tmp_path: Path) -> None:
    own = Task(numbers(), loss=nn.SmoothL1Loss(reduction="none"), metric="r2")
    with pytest.raises(ObjectiveError, match=r"cannot hold a loss or a metric of your own \(SmoothL1Loss, r2\)"):
        own.save(tmp_path / "own.safetensors")
    lookalike = Task(numbers(), loss="regression", metric=Metric("r2", lambda outputs, targets: 0.5))
    with pytest.raises(ObjectiveError, match="cannot hold"):
        lookalike.save(tmp_path / "own.safetensors")
    with pytest.raises(DataError, match="does not end in"):
        Task(numbers(), loss="regression").save(tmp_path / "own.npz")
    assert list(tmp_path.iterdir()) == []


# --- what is refused


class Listed(Dataset[Any]):
    def __init__(self, *examples: Any) -> None:
        self.examples = examples

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, row: int) -> Any:
        return self.examples[row]


ROW = torch.zeros(3)
WRONG: dict[str, tuple[Any, dict[str, Any], str]] = {
    "empty": (Listed(), {}, "is empty"),
    "endless": (iter([]), {}, "has no length"),
    "alone": (Listed(ROW), {}, "example 0 is a Tensor; expected .input, target."),
    "object": (Listed((object(), 1)), {}, "input of example 0 is a object"),
    "shapes": (Listed((ROW, 1), (torch.zeros(4), 1)), {}, "input of example 1 is torch.float32 of shape .4,."),
    "infinite": (Listed((ROW, 1), (ROW / 0, 1)), {}, "input of example 1 holds a number that is not finite"),
    "float-classes": (Listed((ROW, 1.5)), {}, "loss='regression'"),
    "negative": (Listed((ROW, 1), (ROW, -1)), {}, "target of example 1 is -1"),
    "flat-bytes": (Listed((torch.zeros(3, dtype=torch.uint8), 1)), {}, "images of shape"),
    "few": (Listed((ROW, 1.0), (ROW, 2.0)), {"loss": "regression"}, "too few"),
    "nan-target": (Listed(*[(ROW, float("nan"))] * 9), {"loss": "regression"}, "target of example 0 holds"),
    "deep-target": (Listed(*[(ROW, torch.zeros(2, 2))] * 9), {"loss": "regression"}, "a number or a row"),
    "beyond": (Listed(*[(ROW, torch.tensor([0.0, 2.0]))] * 9), {"loss": "multilabel"}, "lie from 0 to 1, got 0 to 2"),
    "complex": (Listed((ROW, 1), (ROW * 1j, 1)), {}, "input of example 1 is of torch.complex64; expected real numbers"),
    "complex-target": (Listed((ROW, 1 + 2j)), {"loss": "regression"}, "target of example 0 is of torch.complex"),
    "labels": (Listed(*[(ROW, [0, 1])] * 9), {"loss": "multilabel", "labels": ("a",)}, "1 labels for 2 outputs"),
    "loss": (Listed((ROW, 1)), {"loss": "regresion"}, "did you mean 'regression'"),
    "metric": (Listed((ROW, 1)), {"metric": "r3"}, "unknown metric 'r3'"),
    **{
        f"metric-{name}": (
            Listed((ROW, 1)),
            {"metric": Metric(name, METRICS["accuracy"].measure)},
            f"a metric of your own is called '{name}', .*; call it otherwise",
        )
        for name in ("accuracy", "loss", "examples")
    },
    "no-metric": (Listed((ROW, 1)), {"loss": nn.MSELoss(reduction="none")}, "needs a metric beside it"),
    "forms": (numbers(9), {"loss": "regression", "test": several(9)}, "different forms"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_one_line(name: str) -> None:
    dataset, settings, words = WRONG[name]
    with pytest.raises((DataError, ObjectiveError, UnknownName), match=words) as caught:
        Task(dataset, **settings)
    assert "\n" not in str(caught.value) and isinstance(caught.value, EvolutionError) and caught.value.exit_code == 2


@pytest.mark.parametrize("loss", ["classification", "regression"])
def test_examples_that_require_gradients_are_examples_like_others(loss: str) -> None:
    inputs, targets = numbers().tensors
    if loss == "classification":
        targets = (targets[:, 0] > 0).long()
    task = Task(TensorDataset(inputs.clone(), targets.clone()), loss=loss)
    for tensor in (inputs, targets):
        tensor.requires_grad_(tensor.is_floating_point())
    again = Task(TensorDataset(inputs, targets), loss=loss)
    assert again.spec == task.spec and not again.train.images.requires_grad
    assert train(perceptron(), Recipe(epochs=1), again).failure is None


def test_a_loss_and_a_metric_that_are_none_are_the_candidate_s_failure() -> None:
    mean = train(perceptron(), PLAIN, Task(numbers(), loss=nn.MSELoss(), metric="r2"))
    assert mean.failure is not None and "one number for each" in mean.failure.message
    error = Metric("error", lambda outputs, targets: (outputs - targets).abs().mean().item() + 2)
    cost = train(perceptron(), PLAIN, Task(numbers(), loss="regression", metric=error))
    assert cost.failure is not None and "a fraction from 0 to 1" in cost.failure.message
    mended = Metric("error", error.measure, lambda value: 1 / (1 + value))
    fine = train(perceptron(), PLAIN, Task(numbers(), loss="regression", metric=mended))
    assert fine.val_accuracy == pytest.approx(1 / (1 + fine.curves[-1]["val_error"]))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"crop": 2}, "crop is for images"),
        ({"mixup": 0.2}, "mixup is for images"),
        ({"snapshots": 2, "cycles": 2}, "snapshots averages probabilities"),
        ({"hydra": {}}, "hydra averages probabilities"),
    ],
)
def test_a_recipe_for_images_or_classes_is_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        train(perceptron(), Recipe(**settings), Task(numbers(), loss="regression"))


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("also", [{}, {"flip": True, "cutout": 2, "mixup": 0.2}], ids=["as-it-is", "moved"])
def test_the_line_says_how_a_preset_for_images_is_one_for_others(name: str, also: dict[str, Any]) -> None:
    inputs, targets = numbers().tensors
    task = Task(TensorDataset(inputs, (targets[:, 0] > 0).long()), name="numbers")
    recipe = preset(name, **also)
    if recipe.crop or also:
        with pytest.raises(SettingsError, match="for images, and inputs of numbers are none") as caught:
            recipe.resolved(task)
        recipe = preset(name, **{**also, **assigned(re.findall(r"--set (\S+)", str(caught.value)))})
    assert recipe.resolved(task).changed(precision=None, flip=None) == recipe.changed(flip=None)


def test_objectives_state_what_they_are() -> None:
    for name, each in OBJECTIVES.items():
        outputs = torch.randn(7, 4)
        targets = torch.randint(0, 4, (7,)) if each.classes else torch.rand(7, 4)
        assert each.name == name and each.losses(outputs, targets, 0.1).shape == (7,)
        assert METRICS[each.metric.name] is each.metric
    one = {split: (torch.zeros(2, 3), torch.zeros(2)) for split in SPLITS}
    assert fingerprint(one, "a") != fingerprint(one, "b")
    assert moments(torch.zeros(1, 256, dtype=torch.int64).index_fill(1, torch.tensor([255]), 3))["mean"] == [1.0]
    assert np.isfinite([metric.score(0.5) for metric in METRICS.values()]).all()


def test_a_loss_that_leads_nowhere_is_named() -> None:
    for loss, words in (
        (lambda outputs, targets: (outputs - targets).square().mean(1).detach(), "the loss has no gradient"),
        (lambda outputs, targets: outputs.detach().numpy()[:, 0], "expected a tensor"),
    ):
        outcome = train(perceptron(), PLAIN, Task(numbers(), loss=loss, metric="r2"), threads=1)
        assert outcome.failure is not None and words in outcome.failure.message


# --- going on with a loss or a metric of one's own


def squared(factor: float) -> Any:
    return lambda outputs, targets: factor * (outputs - targets).square().mean(1)


def error(outputs: Tensor, targets: Tensor) -> float:
    return (outputs - targets).abs().mean().item()


def worse(outputs: Tensor, targets: Tensor) -> float:
    return 2 * (outputs - targets).abs().mean().item()


def scored(measure: Any, factor: float = 1.0) -> Metric:
    return Metric("error", measure, lambda value: 1 / (1 + factor * value))


OTHERS: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "closure": ({"loss": squared(1.0)}, {"loss": squared(2.0)}, "the loss is another one"),
    "lambda": (
        {"loss": lambda outputs, targets: (outputs - targets).square().mean(1)},
        {"loss": lambda outputs, targets: (outputs - targets).abs().mean(1)},
        "the loss is another one",
    ),
    "measure": ({"metric": scored(error)}, {"metric": scored(worse)}, "the metric is another one"),
    "score": ({"metric": scored(error)}, {"metric": scored(error, 2)}, "the metric is another one"),
    "both": (
        {"loss": squared(1.0), "metric": scored(error)},
        {"loss": squared(2.0), "metric": scored(worse)},
        "the loss and the metric are others",
    ),
    "known": ({"loss": squared(1.0)}, {"loss": "regression"}, "the loss is another one"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_a_training_does_not_go_on_with_another_loss_or_metric(name: str, tmp_path: Path) -> None:
    before, after, words = OTHERS[name]
    usual: dict[str, Any] = {"loss": "regression", "metric": "mae"}
    one, same, other = (Task(numbers(), **{**usual, **settings}) for settings in (before, before, after))
    assert one.spec == same.spec and one.spec["digest"] != other.spec["digest"]
    path, recipe = tmp_path / "t.safetensors", Recipe(epochs=1)
    first = train(perceptron(), recipe, one, checkpoint=path)
    again = train(perceptron(), recipe, same, checkpoint=path)
    assert first.genome is not None and again.genome is not None and again.genome.digest == first.genome.digest
    with pytest.raises(FormatError, match=f"of another training: {words};"):
        train(perceptron(), recipe, other, checkpoint=path)


def test_a_training_does_not_go_on_with_other_weights_of_the_classes(tmp_path: Path) -> None:
    inputs, targets = numbers().tensors
    dataset = TensorDataset(inputs, (targets[:, 0] > 0).long())

    def task(*weights: float) -> Task:
        loss = nn.CrossEntropyLoss(weight=torch.tensor(weights), reduction="none")
        return Task(dataset, loss=loss, metric="accuracy", by_class=True)

    path = tmp_path / "t.safetensors"
    assert train(perceptron(), Recipe(epochs=1), task(1.0, 2.0), checkpoint=path).failure is None
    assert train(perceptron(), Recipe(epochs=1), task(1.0, 2.0), checkpoint=path).failure is None
    with pytest.raises(FormatError, match="the loss is another one"):
        train(perceptron(), Recipe(epochs=1), task(1.0, 3.0), checkpoint=path)


def test_what_has_a_name_is_known_by_its_name_alone() -> None:
    """The digests of tasks, and so the checkpoints of earlier versions, stay as they are."""
    task = Task(numbers(), loss="regression", metric="mae")
    parts = {split: (task.split(split).images, task.split(split).labels) for split in SPLITS}
    assert task.objective.own == {} and task.spec["digest"] == fingerprint(parts, "regression mae")


# --- one number for each example, and few examples


class Lifted(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(1, 8), nn.ReLU(), nn.Linear(8, 1))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layers(x.unsqueeze(1))
        return out


def test_one_number_for_each_example_is_what_the_module_gets(tmp_path: Path) -> None:
    inputs = torch.randn(30)
    task = Task(TensorDataset(inputs, 2 * inputs), loss="regression", name="line")
    assert task.input_shape == () and task.train.images.shape == (20,)
    outcome = train(graphs.from_torch(Lifted(), inputs[:2]), Recipe(epochs=1), task)
    assert outcome.failure is None and outcome.genome is not None
    task.save(tmp_path / "line.safetensors")
    named = Task.named(str(tmp_path / "line.safetensors"))
    again = train(graphs.from_torch(Lifted(), inputs[:2]), Recipe(epochs=1), named)
    assert again.failure is None and named.input_shape == ()
    rows = train(graphs.from_torch(nn.Linear(1, 1), inputs[:2, None]), Recipe(epochs=1), task)
    assert rows.failure is not None and "add an axis to the inputs with unsqueeze(1)" in rows.failure.message
    with pytest.raises(DataError, match="of example 1 holds a number that is not finite"):
        Task(TensorDataset(torch.tensor([0.0, torch.inf, 1, 2]), torch.zeros(4)), loss="regression")


@pytest.mark.parametrize(("given", "least"), [((), 4), (("test",), 3), (("validation",), 3), (SPLITS[1:], 1)])
def test_the_fewest_examples_are_as_many_as_the_message_says(given: tuple[str, ...], least: int) -> None:
    def of(count: int) -> Task:
        rows = TensorDataset(torch.zeros(count, 3), torch.zeros(count))
        return Task(rows, loss="regression", **{split: rows for split in given})  # type: ignore[arg-type]

    assert len(of(least).train) == (2 if least > 1 else 1)
    if least > 1:
        with pytest.raises(DataError, match=f"{least - 1} training examples are too few .* expected {least} or more"):
            of(least - 1)
