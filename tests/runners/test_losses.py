"""Losses against their formulae."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from runners.losses import TEACHINGS, Targets, candidate_loss, example_losses, soft_loss
from runners.recipe import Distillation


def logits(count: int, classes: int, seed: int) -> torch.Tensor:
    return torch.randn(count, classes, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_every_way_to_teach_is_in_the_table() -> None:
    assert set(Distillation.model_fields["how"].annotation.__args__) == set(TEACHINGS)  # type: ignore[union-attr]


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0, 50.0])
@pytest.mark.parametrize("how", ["soft", "logits"])
def test_the_gradient_towards_the_teacher_is_zero_where_the_student_equals_it(how: str, temperature: float) -> None:
    student = logits(6, 10, 0).requires_grad_()
    loss = TEACHINGS[how](student, student.detach().clone(), temperature)
    loss.sum().backward()  # type: ignore[no-untyped-call]
    assert loss.shape == (6,) and loss.abs().max() < 1e-12
    assert student.grad is not None and student.grad.abs().max() < 1e-12
    assert (TEACHINGS[how](student, logits(6, 10, 1), temperature) > 1e-3).all()


def test_the_gradient_keeps_its_size_when_the_temperature_changes() -> None:
    """For high T it tends to ((s - mean s) - (t - mean t)) / (N·classes), whatever T is."""
    wanted = logits(6, 10, 1)
    student = logits(6, 10, 0)
    limit = ((student - student.mean(1, keepdim=True)) - (wanted - wanted.mean(1, keepdim=True))) / (6 * 10)
    for temperature, tolerance in ((100.0, 0.03), (1000.0, 0.003)):
        leaf = student.clone().requires_grad_()
        soft_loss(leaf, wanted, temperature).mean().backward()  # type: ignore[no-untyped-call]
        assert leaf.grad is not None
        assert (leaf.grad - limit).norm() < tolerance * limit.norm()


def test_the_loss_is_the_formula() -> None:
    student, wanted, labels = logits(5, 4, 0), logits(5, 4, 1), torch.tensor([0, 1, 2, 3, 0])
    alpha, temperature = 0.3, 2.5
    hard = -torch.log_softmax(student, 1)[torch.arange(5), labels]
    p, q = torch.softmax(wanted / temperature, 1), torch.softmax(student / temperature, 1)
    taught = {
        "soft": temperature**2 * (p * (p / q).log()).sum(1),
        "logits": ((student - wanted) ** 2).sum(1) / 4,
        "hard": -torch.log_softmax(student, 1)[torch.arange(5), wanted.argmax(1)],
    }
    for how, other in taught.items():
        found = example_losses(student, Targets(labels), wanted, how=how, weight=alpha, temperature=temperature)
        assert torch.allclose(found, (1 - alpha) * hard + alpha * other)
    assert torch.allclose(example_losses(student, Targets(labels)), hard)
    smooth = 0.9 * hard + 0.1 * -torch.log_softmax(student, 1).mean(1)
    assert torch.allclose(example_losses(student, Targets(labels), smoothing=0.1), smooth)
    others = torch.tensor([1, 1, 0, 0, 2])
    mixed = 0.7 * hard + 0.3 * -torch.log_softmax(student, 1)[torch.arange(5), others]
    assert torch.allclose(example_losses(student, Targets(labels, others, 0.7)), mixed)


def test_heads_that_learn_the_same_are_averaged_and_others_are_added_up() -> None:
    one, two, three = (logits(6, 3, seed).square().sum(1) for seed in (0, 1, 2))
    assert torch.allclose(candidate_loss([one, two]), (one.mean() + two.mean()) / 2)
    weights = [torch.rand(6, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) for seed in (2, 3)]
    wanted = sum((w * loss).sum() / w.sum() for w, loss in zip(weights, (one, two), strict=True))
    assert torch.allclose(candidate_loss([one, two], weights, ["a", "b"]), torch.as_tensor(wanted))
    even = torch.ones(6, dtype=torch.float64)
    assert torch.allclose(candidate_loss([one, two], [even, even], ["a", "b"]), one.mean() + two.mean())
    mixed = candidate_loss([one, two, three], sets=["a", "b", "a"])
    assert torch.allclose(mixed, (one.mean() + three.mean()) / 2 + two.mean())


def test_the_gradient_of_distillation_from_an_equal_teacher_is_that_of_the_labels_alone() -> None:
    student, labels = logits(5, 4, 0).requires_grad_(), torch.tensor([0, 1, 2, 3, 0])
    example_losses(student, Targets(labels), student.detach(), weight=0.5, temperature=4).mean().backward()  # type: ignore[no-untyped-call]
    mixed = student.grad
    student.grad = None
    functional.cross_entropy(student, labels).backward()  # type: ignore[no-untyped-call]
    assert mixed is not None and student.grad is not None and torch.allclose(mixed, 0.5 * student.grad)


def test_a_ramp_falls_to_zero_along_a_line() -> None:
    ramp = Distillation(weight=0.8, ramp=0.5)
    assert [ramp.weight_at(progress) for progress in (0, 0.25, 0.5, 0.9)] == [0.8, 0.4, 0, 0]
    assert Distillation(weight=0.8).weight_at(1.0) == 0.8
