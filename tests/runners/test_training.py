"""Training: laws of the loss, the schedule and the optimiser; repeatability; what is touched; failures as values."""

from __future__ import annotations

import doctest
import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from graphs import Draft, Genome, from_torch, initial_weights, to_torch, zoo
from graphs.errors import ShapeError, UnknownName
from graphs.kinds import KINDS, tensors
from ops.optimizing import decaying
from runners import faults, feeding, measuring, optimizers, session, training
from runners.faults import CandidateFault, candidate_faults
from runners.feeding import Feed, shuffled
from runners.measuring import evaluate
from runners.optimizers import OPTIMIZERS, make_optimizer, parameter_groups
from runners.outcome import Outcome
from runners.recipe import Distillation, Recipe
from runners.settings_errors import SettingsError
from runners.task import Split, Task
from runners.training import train


@pytest.fixture(scope="module")
def digits() -> Task:
    return Task.named("digits", limit=200)


def small(task: Task, **settings: Any) -> Genome:
    """A network with all that draws, remembers or must not decay: dropout, norms, a gate, a slope."""
    draft = Draft()
    x = draft.input(task.input_shape)
    x = draft.add("conv2d", x, path="conv", out=8, bias=True)
    x = draft.add("batch_norm", x, path="bn")
    y = draft.add("conv2d", draft.add("prelu", x, path="slope"), path="conv2", out=8, groups=2, bias=False)
    x = draft.add("gate", (x, draft.add("group_norm", y, path="gn", groups=2)), path="gate")
    x = draft.add("layer_norm", x, path="ln", axes=3)
    x = draft.add("dropout", draft.add("relu", x, path="relu"), path="drop", p=0.2)
    x = draft.add("flatten", draft.add("max_pool2d", x, path="pool", kernel=2), path="flat")
    draft.head(draft.add("linear", x, path="fc", out=settings.get("classes", task.classes)))
    graph = draft.finish()
    return Genome(graph, initial_weights(graph, settings.get("seed", 0)))


def digest(outcome: Outcome) -> str:
    assert outcome.failure is None, outcome.failure
    assert outcome.genome is not None
    return outcome.genome.digest + json.dumps([dict(entry) for entry in outcome.curves])


@pytest.mark.parametrize("module", [faults, feeding, measuring, optimizers, training])
def test_doctests_hold(module: Any) -> None:
    assert not doctest.testmod(module).failed


# --- the optimiser


def test_every_name_a_recipe_takes_is_in_the_tables() -> None:
    fields = Recipe.model_fields
    assert set(fields["optimizer"].annotation.__args__) == set(OPTIMIZERS)  # type: ignore[union-attr]


def test_biases_norms_gates_and_slopes_do_not_decay(digits: Task) -> None:
    genome = small(digits)
    module = to_torch(genome)
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    groups = parameter_groups(genome, module, 0.1)
    found = {group["weight_decay"]: {names[id(each)] for each in group["params"]} for group in groups}
    assert found[0.1] == {"conv.weight", "conv2.weight", "fc.weight"}
    assert found[0.0] == set(names.values()) - found[0.1]
    assert {"ln.weight", "bn.weight", "gn.bias", "conv.bias", "slope.weight"} < found[0.0]
    assert any("gate" in name for name in found[0.0])


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_step_without_gradient_moves_what_decays_and_nothing_else(name: str, digits: Task) -> None:
    genome = small(digits)
    module = to_torch(genome)
    optimizer = make_optimizer(genome, module, Recipe(optimizer=name, lr=0.1, weight_decay=0.5))  # type: ignore[arg-type]
    before = {key: value.detach().clone() for key, value in module.named_parameters()}
    for parameter in module.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    moved = {key for key, value in module.named_parameters() if not torch.equal(value, before[key])}
    assert moved == {"conv.weight", "conv2.weight", "fc.weight"}


def test_every_kind_with_weights_is_sorted_into_a_group() -> None:
    """What decays is decided by how a tensor starts; a new way to start would silently not decay."""
    starts = set()
    for name in zoo.ZOO:
        starts |= {spec.start for spec in tensors(zoo.create(name).graph).values() if not spec.buffer}
    assert starts <= {"kaiming", "fan_in", "ones", "zeros", "quarter"}
    assert KINDS


# --- batches


@pytest.mark.parametrize(
    ("count", "size"), [(1, 64), (2, 2), (3, 2), (5, 2), (64, 64), (65, 64), (129, 64), (1150, 64)]
)
def test_an_epoch_takes_each_example_once_and_no_batch_is_a_single_one(count: int, size: int) -> None:
    parts = shuffled(count, size, torch.Generator().manual_seed(0))
    assert sorted(torch.cat(parts).tolist()) == list(range(count))
    lengths = [len(part) for part in parts]
    assert max(lengths) - min(lengths) <= 1
    assert min(lengths) > 1 or count == 1
    assert max(lengths) <= size or (min(size, count), max(lengths)) == (2, 3)
    if count > 100:
        assert torch.cat(parts).tolist() != list(range(count))


def test_batches_are_normalised(digits: Task) -> None:
    feed = Feed(digits, digits.train, "cpu", torch.channels_last)
    every = torch.cat([pixels for pixels, _ in feed.batches(64)])
    assert abs(every.mean()) < 1e-5 and abs(every.std(correction=0) - 1) < 1e-5
    rows = torch.tensor([3, 1, 4])
    pixels, labels = feed.take(rows, False, 0, torch.Generator())
    assert torch.equal(pixels, every[rows]) and torch.equal(labels, digits.train.labels[rows])


# --- training


def test_digits_are_learned() -> None:
    task = Task.named("digits")
    outcome = train(zoo.create("convnet", input_shape=(1, 8, 8)), Recipe(), task, threads=1)
    assert outcome.failure is None and outcome.genome is not None
    assert outcome.val_accuracy is not None and outcome.val_accuracy > 0.88
    assert evaluate(outcome.genome, task, "test")["accuracy"] > 0.88
    again = train(outcome.genome, Recipe(), task, seed=1, threads=1)
    assert again.val_accuracy is not None and again.val_accuracy > 0.94


def test_the_outcome_says_what_was_measured(digits: Task) -> None:
    genome = small(digits)
    before = genome.digest
    reports: list[dict[str, Any]] = []
    outcome = train(genome, Recipe(epochs=3, lr=0.02), digits, seed=4, threads=1, report=reports.append)
    assert outcome.failure is None and outcome.genome is not None
    assert reports == [dict(entry) | {"epochs": 3} for entry in outcome.curves]
    assert [set(entry) for entry in outcome.curves] == [{"epoch", "train_loss", "val_loss", "val_accuracy", "lr"}] * 3
    assert [entry["epoch"] for entry in outcome.curves] == [1, 2, 3]
    assert outcome.curves[0]["lr"] == 0.02 > outcome.curves[1]["lr"] > outcome.curves[2]["lr"] > 0
    assert outcome.curves[2]["train_loss"] < outcome.curves[0]["train_loss"]
    measured = evaluate(outcome.genome, digits, "validation")
    assert outcome.val_accuracy == outcome.curves[-1]["val_accuracy"] == measured["accuracy"]
    assert measured["loss"] == outcome.curves[-1]["val_loss"] and measured["examples"] == len(digits.validation)
    assert outcome.test_accuracy is None and outcome.seconds > 0
    assert genome.digest == before, "the parent was changed"
    assert all(tensor.is_contiguous() for tensor in outcome.genome.weights.values())


REPEAT = """
import json, sys
import torch
from runners.recipe import Recipe
from runners.task import Task
from runners.training import train
from tests.runners.test_training import SEED, digest, small
torch.manual_seed(99)
task = Task.from_spec(json.loads(sys.argv[1]))
for recipe in map(json.loads, sys.argv[2:]):
    print(digest(train(small(task), Recipe(**recipe), task, SEED, teacher=small(task, seed=7), threads=1)))
"""
SEED = 12345678901234567890


def test_the_same_job_gives_the_same_bits_in_another_process(digits: Task) -> None:
    genome, teacher = small(digits), small(digits, seed=7)
    recipes = [Recipe(optimizer=name, epochs=2, flip=True, crop=1, batch=48) for name in OPTIMIZERS]  # type: ignore[arg-type]
    arguments = [json.dumps(dict(digits.spec)), *(recipe.model_dump_json() for recipe in recipes)]
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, "-c", REPEAT, *arguments], cwd=root, capture_output=True, text=True, check=True
    )
    torch.randn(3)  # the state of this process must not matter
    mine = [digest(train(genome, recipe, digits, SEED, teacher=teacher, threads=1)) for recipe in recipes]
    assert done.stdout.splitlines() == mine
    others = [
        train(genome, recipes[0], digits, SEED + 1, teacher=teacher, threads=1),
        train(genome, recipes[0], digits, SEED, threads=1),
    ]
    assert len({*mine, *map(digest, others)}) == len(mine) + 2


@pytest.mark.parametrize(
    "change",
    [
        {"flip": True},
        {"crop": 2},
        {"cutout": 3},
        {"mixup": 0.5},
        {"label_smoothing": 0.3},
        {"batch": 40},
        {"momentum": 0},
        {"nesterov": False},
        {"decay_all": True, "weight_decay": 0.1},
        {"schedule": "constant"},
        {"schedule": "multistep"},
        {"schedule": "multistep", "gamma": 0.3},
        {"schedule": "multistep", "milestones": [0.2]},
        {"schedule": "one-cycle"},
        {"warmup": 0.5},
        {"cycles": 2},
        {"ema": 0.9},
        {"shrink": 0.5},
        {"perturb": 0.1},
        {"freezeout": {}},
        {"freezeout": {"scale": False}},
        {"freezeout": {"how": "linear"}},
        {"freezeout": {"t0": 0.5}},
    ],
    ids=str,
)
def test_every_setting_counts(change: dict[str, Any], digits: Task) -> None:
    genome, recipe = small(digits), Recipe(epochs=1)
    assert digest(train(genome, recipe, digits, threads=1)) != digest(
        train(genome, recipe.changed(**change), digits, threads=1)
    )


def test_bfloat16_trains_too(digits: Task) -> None:
    genome = small(digits)
    half, full = (
        train(genome, Recipe(epochs=1, precision=precision), digits, threads=1)  # type: ignore[arg-type]
        for precision in ("bfloat16", "float32")
    )
    assert digest(half) != digest(full)
    assert half.genome is not None
    assert {tensor.dtype for tensor in half.genome.weights.values()} <= {torch.float32, torch.int64}
    assert abs(half.curves[0]["train_loss"] - full.curves[0]["train_loss"]) < 0.1


def test_the_state_of_the_process_is_put_back(digits: Task) -> None:
    torch.manual_seed(5)
    state, threads, seeds = torch.get_rng_state(), torch.get_num_threads(), np.random.get_state()[1]
    train(small(digits), Recipe(epochs=1), digits, threads=threads + 1)
    with pytest.raises(KeyboardInterrupt):
        train(small(digits), Recipe(epochs=1), digits, threads=threads + 1, report=_interrupt)
    assert torch.equal(state, torch.get_rng_state()) and torch.get_num_threads() == threads
    assert np.array_equal(seeds, np.random.get_state()[1])


def _interrupt(entry: dict[str, Any]) -> None:
    raise KeyboardInterrupt


def test_the_test_split_is_never_touched(digits: Task) -> None:
    """Neither its values nor its existence change a training."""

    class Poison:
        def __getattr__(self, name: str) -> Any:
            raise AssertionError(f"the test split was touched: {name}")

    poisoned = Task.of(
        **{
            name: getattr(digits, name)
            for name in ("name", "train", "validation", "classes", "labels", "mirror", "spec")
        },
        normalisation=digits.normalisation,
        test=Poison(),  # type: ignore[arg-type]
    )
    genome = small(digits)
    recipe = Recipe(epochs=1)
    assert digest(train(genome, recipe, poisoned, threads=1)) == digest(train(genome, recipe, digits, threads=1))


def test_the_validation_split_does_not_teach(digits: Task) -> None:
    empty = torch.zeros_like(digits.validation.images)
    fields = {name: getattr(digits, name) for name in Task.__dataclass_fields__}
    blind = Task.of(**fields | {"validation": Split(empty, digits.validation.labels)})
    seen, unseen = (train(small(digits), Recipe(epochs=2), task, threads=1) for task in (digits, blind))
    assert seen.genome is not None and unseen.genome is not None
    assert seen.genome.digest == unseen.genome.digest
    assert seen.curves[-1]["val_loss"] != unseen.curves[-1]["val_loss"]


def test_a_teacher_is_listened_to_and_left_alone(digits: Task) -> None:
    taught = train(zoo.create("convnet", input_shape=(1, 8, 8)), Recipe(epochs=8), digits, threads=1).genome
    assert taught is not None
    before = taught.digest
    student = zoo.create("convnet", input_shape=(1, 8, 8), seed=5)
    recipe = Recipe(epochs=4, distill=Distillation(weight=1.0, temperature=2.0))
    wrong = Task.of(
        **{name: getattr(digits, name) for name in Task.__dataclass_fields__}
        | {"train": Split(digits.train.images, (digits.train.labels + 3) % 10)}
    )
    heard = train(student, recipe, wrong, teacher=taught, threads=1)
    deaf = train(student, recipe.changed(distill=Distillation(weight=0.0)), wrong, teacher=taught, threads=1)
    assert heard.val_accuracy is not None and deaf.val_accuracy is not None
    assert heard.val_accuracy > 0.4 > 0.1 > deaf.val_accuracy, "labels alone are wrong on purpose"
    assert taught.digest == before


def test_several_heads_are_trained_and_measured_together(digits: Task) -> None:
    draft = Draft()
    x = draft.add("flatten", draft.input(digits.input_shape), path="flat")
    draft.head(draft.add("linear", x, path="one", out=10), "one")
    draft.head(draft.add("linear", x, path="two", out=10), "two")
    graph = draft.finish()
    genome = Genome(graph, initial_weights(graph, 0))
    outcome = train(genome, Recipe(epochs=2), digits, threads=1)
    assert outcome.genome is not None
    changed = [
        not torch.equal(outcome.genome.weights[f"{head}.weight"], genome.weights[f"{head}.weight"])
        for head in ("one", "two")
    ]
    assert changed == [True, True]
    module = to_torch(outcome.genome).eval()
    pixels = Feed(digits, digits.validation, "cpu", torch.contiguous_format)
    right = 0
    for each, labels in pixels.batches(50):
        chances = torch.stack([logits.softmax(1) for logits in module(each).values()]).mean(0)
        right += int((chances.argmax(1) == labels).sum())
    assert outcome.val_accuracy == right / len(digits.validation)
    assert evaluate(outcome.genome, digits, "validation")["accuracy"] == outcome.val_accuracy


@pytest.mark.parametrize("device", ["tpu", "", "CPU", "cpu:0", "cuda:x", "cuda:99"])
def test_a_device_that_is_not_there_is_refused(device: str, digits: Task) -> None:
    genome = zoo.create("convnet", input_shape=digits.input_shape)
    with pytest.raises(SettingsError, match="device: "):
        train(genome, Recipe(epochs=1), digits, device=device)


# --- failures


def failure(outcome: Outcome) -> tuple[str, str]:
    assert outcome.failure is not None and outcome.genome is None and outcome.val_accuracy is None
    assert "\n" not in outcome.failure.message
    return outcome.failure.kind, outcome.failure.message


def test_a_loss_that_is_not_finite_ends_training_at_once(digits: Task) -> None:
    draft = Draft()
    x = draft.add("flatten", draft.input(digits.input_shape), path="flat")
    for layer in range(3):
        x = draft.add("linear", x, path=f"fc{layer}", out=10)
    draft.head(x)
    steep = Genome(draft.finish(), initial_weights(draft.finish(), 0))
    reports: list[dict[str, Any]] = []
    outcome = train(steep, Recipe(lr=100, epochs=50), digits, threads=1, report=reports.append)
    kind, message = failure(outcome)
    assert kind == "diverged" and "the loss is" in message and "in epoch 1" in message
    assert reports == []
    genome = small(digits)
    spoiled = dict(genome.weights) | {"fc.bias": torch.full((10,), float("nan"))}
    outcome = train(Genome(genome.graph, spoiled), Recipe(), digits, threads=1)
    assert failure(outcome) == ("diverged", "the loss is nan after step 1 of 4 in epoch 1")
    assert outcome.curves == () and outcome.seconds > 0
    for name, words in (
        ("bn.running_mean", "the validation loss is nan"),
        ("bn.running_var", "tensor 'bn.running_var'"),
    ):
        hidden = dict(genome.weights) | {name: torch.full((8,), float("inf"))}
        outcome = train(Genome(genome.graph, hidden), Recipe(epochs=1), digits, threads=1)
        kind, message = failure(outcome)
        assert kind == "diverged" and words in message, message


def test_a_network_that_does_not_fit_is_invalid(digits: Task) -> None:
    kind, message = failure(train(zoo.create("convnet"), Recipe(), digits))
    assert kind == "invalid" and "(3, 32, 32)" in message and "(1, 8, 8)" in message
    kind, message = failure(train(small(digits, classes=7), Recipe(), digits))
    assert kind == "invalid" and "(7,)" in message and "10 classes" in message
    kind, message = failure(train(small(digits), Recipe(), digits, teacher=small(digits, classes=3)))
    assert kind == "invalid" and "teacher" in message


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (MemoryError(), "out-of-memory"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), "out-of-memory"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to"), "out-of-memory"),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), "invalid"),
        (ValueError("Expected more than 1 value per channel when training\nand so on"), "invalid"),
        (ShapeError("node 'x' cannot read (3,)"), "invalid"),
    ],
)
def test_what_a_bad_candidate_raises_becomes_a_failure(
    error: Exception, kind: str, digits: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*args: Any) -> Any:
        raise error

    monkeypatch.setattr(session, "candidate_loss", lambda *args, **settings: broken())
    assert failure(train(small(digits), Recipe(), digits, threads=1))[0] == kind


def test_a_fault_of_ours_is_not_blamed_on_the_candidate(digits: Task) -> None:
    with pytest.raises(TypeError), candidate_faults("this"):
        raise TypeError
    with pytest.raises(CandidateFault, match="this: RuntimeError: that"), candidate_faults("this"):
        raise RuntimeError("that")

    def failing(entry: dict[str, Any]) -> None:
        raise RuntimeError("the pipe is broken")

    with pytest.raises(RuntimeError, match="the pipe is broken"):
        train(small(digits), Recipe(epochs=1), digits, threads=1, report=failing)


def test_evaluate_refuses_what_does_not_fit(digits: Task) -> None:
    with pytest.raises(ShapeError, match=r"\(3, 32, 32\)"):
        evaluate(zoo.create("convnet"), digits, "test")
    with pytest.raises(UnknownName, match="did you mean 'validation'"):
        evaluate(small(digits), digits, "validate")
    whole = evaluate(small(digits), digits, digits.train)
    assert whole == evaluate(small(digits), digits, "train") and whole["examples"] == 200
    parts = evaluate(small(digits), digits, "train", batch=7)
    assert parts["accuracy"] == whole["accuracy"] and parts["loss"] == pytest.approx(whole["loss"])


def test_weights_do_not_depend_on_what_ran_before(digits: Task) -> None:
    genome, recipe = small(digits), Recipe(epochs=1)
    first = digest(train(genome, recipe, digits, 1, threads=1))
    train(genome, recipe, digits, 2, threads=1)
    assert (
        hashlib.sha256(first.encode()).digest()
        == hashlib.sha256(digest(train(genome, recipe, digits, 1, threads=1)).encode()).digest()
    )


class Scaled(torch.nn.Module):
    """Scales and shifts of channels beside layers and matrices, some of which have one long axis, too."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.point = torch.nn.Conv2d(1, 8, 1), torch.nn.Conv2d(8, 1, 1)
        self.gamma, self.shift = (torch.nn.Parameter(torch.randn(shape)) for shape in ((8, 1, 1), (1, 8, 1, 1)))
        self.place, self.last = torch.nn.Parameter(torch.randn(8, 8)), torch.nn.Linear(8, 1)
        self.times = torch.nn.Parameter(torch.randn(8, 8))
        self.row = torch.nn.Parameter(torch.randn(1, 8))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.point(self.first(x) * self.gamma + self.shift).flatten(2).mean(1).unflatten(1, (8, 8)) + self.place
        out: torch.Tensor = self.last((x.mean(1) @ self.times) * self.row)
        return out


def test_scales_and_shifts_of_channels_do_not_decay_whatever_axes_they_have() -> None:
    module = Scaled()
    genome = from_torch(module, torch.randn(2, 1, 8, 8))
    weights = {"first.weight", "point.weight", "last.weight"}
    assert decaying(genome.graph) == weights | {"place", "times"}
    assert {"gamma", "shift", "row"} < genome.weights.keys()


def test_the_average_of_the_weights_has_the_count_of_the_batches(digits: Task) -> None:
    genome, recipe = small(digits), Recipe(epochs=2, batch=32)
    plain, averaged = (train(genome, recipe.changed(ema=ema), digits, threads=1).genome for ema in (0.0, 0.9))
    assert plain is not None and averaged is not None
    count = 2 * len(shuffled(len(digits.train), 32, torch.Generator()))
    assert plain.weights["bn.num_batches_tracked"] == averaged.weights["bn.num_batches_tracked"] == count
    assert not torch.equal(plain.weights["bn.running_mean"], averaged.weights["bn.running_mean"])
