"""Functions of the user's own: what tells two apart, and that the same source is the same in another process."""

from __future__ import annotations

import doctest
import functools
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from runners import likeness as module
from runners.likeness import likeness

SOURCE = """
import functools, types
import torch
from torch import nn
from torch.nn import functional as F

WEIGHT = torch.tensor([1.0, {number}])
SETTINGS = types.SimpleNamespace(power={number})
CRITERION = nn.CrossEntropyLoss(weight=WEIGHT, reduction="none")

def helper(difference):
    return difference.abs() ** {number} if difference.dim() in {{1, 2, 3}} else difference

def through_a_helper(outputs, targets):
    return helper(outputs - targets).mean(1)

def through_a_table(outputs, targets):
    return (outputs - targets).abs().pow(SETTINGS.power).mean(1)

def nested(outputs, targets):
    return torch.stack([(lambda x: x * {number})(each) for each in outputs]).mean(1)

def made(number):
    def inner(outputs, targets):
        return number * (outputs - targets).abs().mean(1)
    return inner

def with_default(outputs, targets, *, number={number}):
    return number * (outputs - targets).abs().mean(1)

class Own(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.SmoothL1Loss(reduction="none", beta={number})
    def forward(self, outputs, targets):
        return self.inner(outputs, targets).mean(1)

class Written(nn.Module):
    def forward(self, outputs, targets):
        return {number} * (outputs - targets).abs().mean(1)

class Called:
    __slots__ = ("number",)
    def __init__(self, number):
        self.number = number
    def __call__(self, outputs, targets):
        return self.number * (outputs - targets).abs().mean(1)
    def method(self, outputs, targets):
        return self(outputs, targets)

class Steps(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.sign()
    @staticmethod
    def backward(ctx, gradient):
        return {number} * gradient

FOUND = {{
    "module": nn.CrossEntropyLoss(weight=WEIGHT, reduction="none"),
    "attribute": nn.CrossEntropyLoss(label_smoothing={number} / 10, reduction="none"),
    "inside": Own(),
    "forward": Written(),
    "lambda": lambda outputs, targets: {number} * (outputs - targets).abs().mean(1),
    "global": lambda outputs, targets: CRITERION(outputs, targets),
    "helper": through_a_helper,
    "table": through_a_table,
    "nested": nested,
    "closure": made({number}),
    "default": with_default,
    "partial": functools.partial(with_default, number={number}),
    "function": functools.partial(F.huber_loss, reduction="none", delta={number}),
    "called": Called({number}),
    "method": Called({number}).method,
    "gradient": lambda outputs, targets: Steps.apply(outputs - targets).mean(1),
    "kept": functools.lru_cache(made({number})),
}}
"""
"""Losses that depend on a number, in each of the ways in which one may."""


def made(number: float) -> dict[str, Any]:
    space: dict[str, Any] = {"__name__": "losses"}
    exec(compile(SOURCE.format(number=number), "losses.py", "exec", dont_inherit=True), space)  # noqa: S102
    found: dict[str, Any] = space["FOUND"]
    return found


NAMES = list(made(2))


def test_doctests_hold() -> None:
    assert not doctest.testmod(module).failed


@pytest.mark.parametrize("name", NAMES)
def test_what_differs_in_a_number_is_told_apart(name: str) -> None:
    assert likeness(made(2)[name]) == likeness(made(2)[name])
    assert likeness(made(2)[name]) != likeness(made(3)[name])


def test_no_two_are_alike() -> None:
    assert len({likeness(each) for each in made(2).values()}) == len(NAMES)


@pytest.mark.parametrize("seed", ["1", "2"])
def test_the_same_source_is_the_same_in_another_process(seed: str, tmp_path: Path) -> None:
    """With other addresses and another order of sets; as a module of its own, further down in its file."""
    (tmp_path / "losses.py").write_text("\n\n" + SOURCE.format(number=2))
    program = """
        import sys
        spare = [object() for _ in range(1000)]
        sys.path.insert(0, sys.argv[1])
        import losses
        from runners.likeness import likeness
        print(*(likeness(each) for each in losses.FOUND.values()))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program), str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONDONTWRITEBYTECODE": "1"},
    )
    assert done.stdout.split() == [likeness(each) for each in made(2).values()]


def test_what_leads_back_to_itself_or_far_down_ends() -> None:
    class Linked:
        def __init__(self, behind: Any) -> None:
            self.behind = behind

        def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
            return outputs

    ring = Linked(None)
    ring.behind = {"ring": [ring]}
    chain: Any = None
    for _ in range(5000):
        chain = Linked(chain)
    assert likeness(ring) == likeness(ring) != likeness(chain)


def test_use_changes_nothing() -> None:
    """Caches, compiled forms and counters that come with use are no part of what a function is."""
    outputs, targets = torch.randn(3, 2), torch.randn(3, 2)
    called: Callable[..., Any]
    for name, called in made(2).items():
        before = likeness(called)
        if name in ("module", "attribute", "global"):
            called(outputs, torch.tensor([0, 1, 1]))
        elif name != "kept":
            called(outputs, targets)
        assert likeness(called) == before, name


@pytest.mark.parametrize(
    "make", [torch.no_grad(), functools.partial(torch.compile, backend="eager")], ids=["decorated", "compiled"]
)
def test_a_function_that_is_wrapped_is_known_by_what_is_inside(make: Any) -> None:
    def of(number: float) -> str:
        return likeness(make(lambda outputs, targets: number * (outputs - targets).abs()))

    def layer(number: float) -> str:
        return likeness(torch.compile(nn.SmoothL1Loss(beta=number), backend="eager"))

    assert of(2) == of(2) != of(3)
    assert layer(2) == layer(2) != layer(3)


def test_tensors_of_all_types_and_forms_are_taken() -> None:
    forms = [
        torch.zeros(()),
        torch.zeros(0, 3),
        torch.arange(6).view(3, 2).t(),
        torch.zeros(2, 3),
        torch.arange(6).view(2, 3),
        torch.zeros(2, 3, dtype=torch.bfloat16),
        torch.zeros(2, dtype=torch.bool),
        torch.zeros(2, dtype=torch.complex64).conj(),
        torch.zeros(3).to_sparse(),
        torch.zeros(3, device="meta"),
        np.zeros(3),
        np.float32(0),
        np.array([None]),
        torch.nested.nested_tensor([torch.zeros(2), torch.zeros(3)], layout=torch.jagged),
    ]
    found = [likeness(functools.partial(torch.add, each)) for each in forms]
    assert len(set(found)) == len(forms)
