"""Teachers are asked once where they always say the same, and may speak of images that nobody has labelled."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from graphs import zoo
from graphs.errors import EvolutionError
from runners import Recipe, Task, evaluate, teaching, train
from runners.arrays import DataError
from runners.losses import Targets, example_losses
from runners.objectives import UNLABELLED
from runners.settings_errors import SettingsError
from runners.task import Split
from runners.transfer import transfer_images
from tests.runners.test_training import small


@pytest.fixture(scope="module")
def digits() -> Task:
    return Task.named("digits", limit=150)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of examples in each question to a teacher; at first nobody remembers any answer."""
    found: list[int] = []
    ask = teaching.Teachers._ask
    monkeypatch.setattr(teaching.Teachers, "_ask", lambda *given: found.append(len(given[2])) or ask(*given))
    monkeypatch.setattr(teaching, "_kept", type(teaching._kept)())
    return found


def trained(digits: Task, seed: int = 0, **settings: Any) -> Any:
    outcome = train(
        small(digits),
        Recipe(epochs=3, **settings),
        digits,
        seed,
        teacher=[small(digits, seed=9), small(digits, seed=8)],
        threads=1,
    )
    assert outcome.genome is not None, outcome.failure
    return outcome


@pytest.mark.parametrize("settings", [{}, {"precision": "bfloat16"}, {"distill": {"how": "logits", "ramp": 0.5}}])
def test_remembering_changes_no_bit(
    settings: dict[str, Any], digits: Task, asked: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = trained(digits, **settings)
    assert sum(asked) == 2 * len(digits.train)
    trained(digits, seed=1, **settings)
    assert sum(asked) == 2 * len(digits.train)
    monkeypatch.setattr(teaching, "LARGEST", 0)
    asked.clear()
    forgotten = trained(digits, **settings)
    assert sum(asked) >= 2 * len(digits.train) * (3 if not settings.get("distill") else 1)
    assert kept.genome.digest == forgotten.genome.digest and kept.curves == forgotten.curves


@pytest.mark.parametrize("settings", [{"flip": True}, {"crop": 1}, {"cutout": 2}, {"mixup": 0.4}])
def test_a_teacher_sees_what_its_student_sees(settings: dict[str, Any], digits: Task, asked: list[int]) -> None:
    trained(digits, **settings)
    assert sum(asked) == 2 * 3 * len(digits.train)


def test_answers_belong_to_the_images_the_teacher_and_the_precision(digits: Task, asked: list[int]) -> None:
    inverted = Split(255 - digits.train.images, digits.train.labels)
    other = Task.of(**{name: getattr(digits, name) for name in Task.__dataclass_fields__} | {"train": inverted})
    trained(digits, precision="float32")
    trained(other, precision="float32")
    assert sum(asked) == 2 * (150 + 150)
    trained(digits, precision="bfloat16")
    assert sum(asked) == 2 * (150 + 150 + 150)
    assert len(teaching._kept) == 4


def test_mapped_images_are_remembered_without_being_read(
    digits: Task, asked: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inverted = Split(255 - digits.train.images, digits.train.labels)
    other = Task.of(**{name: getattr(digits, name) for name in Task.__dataclass_fields__} | {"train": inverted})
    paths = [tmp_path / f"{number}.safetensors" for number in range(2)]
    for task, path in zip((digits, other), paths, strict=True):
        task.save(path)
    here = trained(digits)
    asked.clear()
    monkeypatch.delattr("runners.teaching.hashlib.blake2b")
    one, two = (Task.named(str(path)) for path in paths)
    assert one.train.mapped and trained(one).genome.digest == here.genome.digest
    trained(one, seed=1)
    assert sum(asked) == 2 * len(digits.train)
    trained(two)
    assert sum(asked) == 2 * 2 * len(digits.train)


def images(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 8, 8), dtype=np.uint8)


def test_an_image_without_a_label_has_the_teachers_part_of_the_loss_alone() -> None:
    generator = torch.Generator().manual_seed(0)
    student, teacher = (torch.randn(3, 4, generator=generator) for _ in range(2))
    labels = torch.tensor([2, UNLABELLED, UNLABELLED])
    settings: dict[str, Any] = {"smoothing": 0.1, "weight": 0.3, "temperature": 2.0}
    found = example_losses(student, Targets(labels), teacher, **settings)
    whole = example_losses(student, Targets(torch.tensor([2, 0, 1])), teacher, **settings)
    alone = example_losses(student, Targets(labels), teacher, **(settings | {"weight": 1.0}))
    assert found[0] == whole[0]
    assert torch.allclose(found[1:], 0.3 * alone[1:], rtol=1e-6)
    mixed = Targets(labels, labels.flip(0), 0.7).losses(student)
    assert mixed[1] == 0 and torch.allclose(mixed[0], 0.7 * Targets(labels).losses(student)[0])


def test_a_student_learns_from_images_that_have_no_labels(digits: Task, tmp_path: Path) -> None:
    """With a taught teacher and thirty labelled images, images without labels teach much."""
    whole = Task.named("digits")
    master = train(zoo.create("convnet", input_shape=(1, 8, 8)), Recipe(epochs=8), whole, threads=1)
    assert master.genome is not None and (master.val_accuracy or 0) > 0.9
    few = Task.named("digits", limit=30)
    extra = whole.train.images[:600, 0].numpy()
    np.savez(tmp_path / "extra.npz", x_train=extra)
    accuracies = []
    for transfer in (None, str(tmp_path / "extra.npz")):
        distill = {"weight": 0.9, "transfer": transfer}
        recipe = Recipe(epochs=12, batch=32, distill=distill)
        outcome = train(small(few), recipe, few, teacher=master.genome, threads=1)
        assert outcome.genome is not None
        accuracies.append(evaluate(outcome.genome, whole, "test")["accuracy"])  # of few images few are for validation
    assert accuracies[1] > accuracies[0] + 0.1, accuracies


def test_without_a_teacher_nothing_of_it_is_seen(digits: Task, tmp_path: Path) -> None:
    np.savez(tmp_path / "extra.npz", x_train=images(50))
    with_it = Recipe(epochs=2, distill={"transfer": str(tmp_path / "extra.npz")})
    found = [train(small(digits), recipe, digits, threads=1).genome for recipe in (Recipe(epochs=2), with_it)]
    assert found[0] is not None and found[1] is not None and found[0].digest == found[1].digest


def test_images_that_validate_or_test_are_left_out(digits: Task, tmp_path: Path) -> None:
    mine = images(5)
    parts = [digits.validation.images[:7, 0].numpy(), mine, digits.test.images[:, 0].numpy()]
    np.savez(tmp_path / "extra.npz", x_train=np.concatenate(parts), y_train=np.zeros(3))
    found, _ = transfer_images(str(tmp_path / "extra.npz"), digits)
    assert found[:, 0].numpy().tolist() == mine.tolist()
    rest, _ = transfer_images("digits", digits)
    assert len(rest) <= 1437 - len(digits.validation)


def test_a_recipe_is_bound_to_the_images_of_its_start(digits: Task, tmp_path: Path) -> None:
    file = tmp_path / "extra.npz"
    np.savez(file, x_train=images(50))
    recipe = Recipe(distill={"transfer": str(file)}).resolved(digits)
    assert recipe.distill.transfer_digest is not None and recipe.resolved(digits) == recipe
    other = tmp_path / "other.npz"
    np.savez(other, x_train=images(50, seed=1))
    moved = recipe.changed(distill=recipe.distill.changed(transfer=str(other)))
    with pytest.raises(DataError, match="has changed"):
        moved.resolved(digits)


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"x_train": images(5)[:, :6]}, r"\(1, 6, 8\)"),
        ({"x_train": images(5).astype(float)}, "expected uint8"),
        ({"x": images(5)}, "no array x_train"),
        ({"x_train": images(0)}, "is empty"),
        (None, "validates or tests"),
    ],
)
def test_what_is_no_transfer_set_is_one_line(
    arrays: dict[str, Any] | None, words: str, digits: Task, tmp_path: Path
) -> None:
    file = tmp_path / "extra.npz"
    np.savez(file, **(arrays or {"x_train": digits.test.images[:3, 0].numpy()}))
    with pytest.raises(EvolutionError, match=words) as caught:
        Recipe(distill={"transfer": str(file)}).resolved(digits)
    assert "\n" not in str(caught.value)


def test_a_transfer_set_for_mapped_images_or_no_classes_is_refused(digits: Task, tmp_path: Path) -> None:
    np.savez(tmp_path / "extra.npz", x_train=images(50))
    recipe = Recipe(distill={"transfer": str(tmp_path / "extra.npz")})
    digits.save(tmp_path / "mapped.safetensors")
    rated = [(image, float(label)) for image, label in zip(digits.train.images, digits.train.labels, strict=True)]
    numbers = [(image.float(), label) for image, label in rated]
    for task, words in (
        (Task.named(str(tmp_path / "mapped.safetensors")), "are mapped from a file"),
        (Task(rated, loss="regression"), "a task of regression"),
        (Task(numbers, loss="regression"), "distill.transfer is for images"),
    ):
        with pytest.raises(SettingsError, match=words) as caught:
            recipe.resolved(task)
        assert "\n" not in str(caught.value)


def test_a_transfer_set_that_would_teach_nothing_is_refused() -> None:
    with pytest.raises(SettingsError, match="weight is 0"):
        Recipe(distill={"transfer": "mnist", "weight": 0})
