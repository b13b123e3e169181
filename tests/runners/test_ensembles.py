"""Ensembles: what they say together, weights from validation data, and what the report counts."""

from __future__ import annotations

import doctest

import pytest
import torch

from graphs import zoo
from runners import ensembles
from runners.ensembles import AVERAGES, fitted_weights, head_logits, report, together
from runners.hydra import split
from runners.measuring import evaluate
from runners.task import Task


def drawn(count: int, classes: int, seed: int) -> torch.Tensor:
    return torch.randn(count, classes, generator=torch.Generator().manual_seed(seed))


def test_doctests_hold() -> None:
    assert not doctest.testmod(ensembles).failed


@pytest.mark.parametrize("of", AVERAGES)
def test_members_are_averaged(of: str) -> None:
    one, two = drawn(5, 3, 0), drawn(5, 3, 1)
    found = together([one, two], [0.25, 0.75], of)
    if of == "logits":
        wanted = (0.25 * one.double() + 0.75 * two.double()).softmax(1)
    else:
        wanted = 0.25 * one.double().softmax(1) + 0.75 * two.double().softmax(1)
    assert torch.allclose(found, wanted)
    assert torch.allclose(together([one, one], None, of), one.double().softmax(1))


def test_the_fitted_weights_are_the_best_ones() -> None:
    labels = torch.randint(0, 4, (300,), generator=torch.Generator().manual_seed(3))
    good = 2.0 * torch.nn.functional.one_hot(labels, 4) + drawn(300, 4, 0)
    fair = 1.0 * torch.nn.functional.one_hot(labels, 4) + drawn(300, 4, 1)
    noise = 3 * drawn(300, 4, 2)
    members = [good, fair, noise]
    weights = fitted_weights(members, labels)
    assert sum(weights) == pytest.approx(1) and min(weights) >= 0
    best = report(members, labels, weights)["loss"]
    generator = torch.Generator().manual_seed(5)
    for _ in range(200):
        other = torch.rand(3, generator=generator)
        assert report(members, labels, (other / other.sum()).tolist())["loss"] >= best - 1e-6
    assert weights[0] > weights[1] > weights[2]


def test_the_report_counts() -> None:
    labels = torch.tensor([0, 1, 1, 0])
    one = torch.tensor([[2.0, 0], [2, 0], [0, 2], [0, 2]])
    two = torch.tensor([[2.0, 0], [0, 2], [2, 0], [0, 2]])
    found = report([one, two, two], labels)
    assert found["members"] == [0.5, 0.5, 0.5]
    assert found["oracle"] == 0.75
    assert found["pairs"] == [[0, 1, 0.5], [0, 2, 0.5], [1, 2, 0.0]]
    assert found["disagreement"] == pytest.approx(1 / 3)
    assert found["last"] == [0.5, 0.5, 0.5] and found["accuracy"] == 0.5
    assert report([one], labels)["disagreement"] == 0


def test_the_logits_of_heads_are_those_that_are_measured() -> None:
    task = Task.named("digits", limit=100)
    base = zoo.create("resnet", depth=8, input_shape=(1, 8, 8))
    heads = head_logits(split(base, 2, start="copied"), task, "validation")
    assert list(heads) == ["head0", "head1"]
    found = evaluate(base, task, "validation")
    for logits in heads.values():
        assert report([logits], task.validation.labels)["accuracy"] == pytest.approx(found["accuracy"])
        assert report([logits], task.validation.labels)["loss"] == pytest.approx(found["loss"], rel=1e-5)
