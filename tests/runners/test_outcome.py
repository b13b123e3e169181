"""An outcome is a success or a failure, and no number in it is anything but finite."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphs.errors import FormatError, UnknownName
from runners import FAILURES, Failure, Outcome
from tests.runners.places import small

BAD = [math.nan, math.inf, -math.inf]


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("name", ["val_accuracy", "test_accuracy"])
def test_an_accuracy_that_is_not_finite_is_a_divergence(name: str, bad: float) -> None:
    numbers = {"val_accuracy": 0.5, "test_accuracy": 0.5} | {name: bad}
    outcome = Outcome(small(), **numbers)
    assert outcome.failure is not None and outcome.failure.kind == "diverged"
    assert (outcome.genome, outcome.val_accuracy, outcome.test_accuracy) == (None, None, None)


def test_a_failure_carries_no_result() -> None:
    outcome = Outcome(small(), 0.9, 0.8, failure=Failure("timed-out", "too long"))
    assert (outcome.genome, outcome.val_accuracy, outcome.test_accuracy) == (None, None, None)
    assert outcome.failure == Failure("timed-out", "too long")


@pytest.mark.parametrize(
    "arguments",
    [
        {"genome": None, "val_accuracy": None},
        {"genome": None, "val_accuracy": 0.5},
        {"genome": "a genome", "val_accuracy": None},
        {"genome": "a genome", "val_accuracy": 1.5},
        {"genome": "a genome", "val_accuracy": 0.5, "test_accuracy": -0.1},
        {"genome": "a genome", "val_accuracy": 0.5, "seconds": math.nan},
        {"genome": "a genome", "val_accuracy": 0.5, "seconds": -1.0},
    ],
)
def test_what_makes_no_sense_is_refused(arguments: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="outcome: "):
        Outcome(**arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", FAILURES)
def test_each_kind_of_failure_survives_json(kind: str) -> None:
    failure = Failure(kind, "two\n  lines")
    assert failure.message == "two lines"
    assert Failure.from_json(json.loads(json.dumps(failure.to_json()))) == failure


def test_failures_have_known_kinds_and_short_messages() -> None:
    with pytest.raises(UnknownName, match="did you mean 'crashed'"):
        Failure("crash", "")
    with pytest.raises(FormatError, match="unknown kind 'crash'"):
        Failure.from_json({"kind": "crash", "message": ""})
    assert len(Failure("crashed", "x" * 100_000).message) <= 2000


numbers = st.none() | st.floats() | st.integers(-5, 5)


@given(st.lists(st.dictionaries(st.text(max_size=5), numbers | st.lists(numbers, max_size=2), max_size=4), max_size=4))
def test_curves_survive_json_without_nan(curves: list[dict[str, object]]) -> None:
    outcome = Outcome(None, None, curves=curves, failure=Failure("diverged", "loss is nan"), seconds=1.5, worker="w")
    text = json.dumps(outcome.to_json(), allow_nan=False)
    assert Outcome.from_json(json.loads(text)) == outcome


@pytest.mark.parametrize(
    "change",
    [
        {"seconds": "1"},
        {"seconds": True},
        {"curves": {}},
        {"curves": [1]},
        {"failure": {}},
        {"val_accuracy": 2, "failure": None},
    ],
)
def test_damaged_json_is_refused(change: dict[str, object]) -> None:
    good = Outcome.failed("crashed", "x").to_json()
    with pytest.raises(FormatError):
        Outcome.from_json(good | change)
    for name in good:
        with pytest.raises(FormatError, match=name):
            Outcome.from_json({key: value for key, value in good.items() if key != name})
    with pytest.raises(FormatError):
        Outcome.from_json([good])
