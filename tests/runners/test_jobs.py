"""A job and its outcome travel whole or not at all, and whatever goes wrong in a worker is a failure."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from dataclasses import replace
from typing import Any
from unittest import mock

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from graphs import Genome
from graphs.errors import EvolutionError, FormatError, GraphError, StorageFull, UnknownName
from runners import Failure, Job, Outcome, Recipe, Task
from runners.entry import EntryError, resolve
from runners.jobs import (
    decode_job,
    decode_outcome,
    encode_job,
    encode_outcome,
    guarded,
    peek,
    perform,
    serve,
)
from tests.runners.places import small

SPEC = {"name": "digits", "root": None, "limit": 50}


def make(**changes: Any) -> Job:
    return replace(Job(3, small(), Recipe(epochs=1), SPEC, 5, (small(1),), 12.5, 1, "evaluate-test"), **changes)


def same(one: Job, other: Job) -> bool:
    plain = ("id", "recipe", "seed", "deadline", "threads", "measure", "device")
    teachers = [[teacher.digest for teacher in job.teachers] for job in (one, other)]
    return (
        all(getattr(one, name) == getattr(other, name) for name in plain)
        and dict(one.task_spec) == dict(other.task_spec)
        and one.genome.digest == other.genome.digest
        and teachers[0] == teachers[1]
    )


def test_jobs_survive_the_wire() -> None:
    for job in (
        make(),
        make(teachers=()),
        make(teachers=[small(2), small(), small(1), small(2)]),
        make(device="cuda:1"),
    ):
        data = encode_job(job)
        assert same(decode_job(data), job)
        assert encode_job(decode_job(data)) == data


def test_a_teacher_that_equals_the_genome_is_sent_once() -> None:
    copy = Genome(small().graph, {name: tensor.clone() for name, tensor in small().weights.items()}, small().about)
    once, none = encode_job(make(teachers=[copy])), encode_job(make(teachers=()))
    assert abs(len(once) - len(none)) < 100
    assert len(encode_job(make())) > 1.5 * len(none)
    job = decode_job(once)
    assert job.teachers[0] is job.genome


def test_outcomes_survive_the_wire() -> None:
    curves = [{"epoch": 1, "train_loss": 0.1 + 0.2, "lr": float("inf")}]
    for outcome in (
        Outcome(small(), 0.1 + 0.2, 1 / 3, curves, seconds=1.25, worker="local-0"),
        Outcome(None, None, curves=curves, failure=Failure("diverged", "naïve")),
    ):
        found = decode_outcome(encode_outcome(outcome))
        assert replace(found, genome=outcome.genome) == outcome
        assert (found.genome and found.genome.digest) == (outcome.genome and outcome.genome.digest)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"id": -1}, "id is -1"),
        ({"id": True}, "id is True"),
        ({"seed": 1.5}, "seed is 1.5"),
        ({"threads": 0}, "threads is 0"),
        ({"deadline": 0}, "deadline is 0"),
        ({"deadline": float("nan")}, "deadline is nan"),
    ],
)
def test_jobs_that_make_no_sense_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(**change)


def test_an_unknown_measure_is_refused() -> None:
    with pytest.raises(UnknownName, match="evaluate-test"):
        make(measure="evaluate")


def rewritten(data: bytes, **changes: Any) -> bytes:
    """`data` with other values in its header."""
    (length,) = struct.unpack_from("<Q", data, 4)
    header = json.loads(data[12 : 12 + length]) | changes
    text = json.dumps({name: value for name, value in header.items() if value != "remove"}).encode()
    return data[:4] + struct.pack("<Q", len(text)) + text + data[12 + length :]


@pytest.mark.parametrize(
    "change",
    [{name: "remove"} for name in ("job", "recipe", "task", "seed", "teachers", "blobs", "device")]
    + [
        {"teachers": [2]},
        {"teachers": [True]},
        {"teachers": []},
        {"teachers": None},
        {"blobs": [-5]},
        {"blobs": [1 << 70]},
        {"blobs": "x"},
        {"recipe": {"lr": "x"}},
    ]
    + [{"recipe": 3}, {"recipe": {"no such setting": 1}}, {"job": "1"}, {"measure": "?"}, {"deadline": float("inf")}],
)
def test_headers_that_are_wrong_are_refused(change: dict[str, Any]) -> None:
    data = rewritten(encode_job(make()), **change)
    with pytest.raises(EvolutionError):
        decode_job(data)
    answer = decode_outcome(serve(data))
    assert answer.failure is not None and answer.failure.kind == "invalid"


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_damaged_messages_are_refused_and_nothing_else_happens(data: st.DataObject) -> None:
    good = encode_job(make())
    kind = data.draw(st.sampled_from(["cut", "flip", "grow"]))
    place = data.draw(st.integers(0, len(good) - 1) | st.integers(0, 600))
    if kind == "cut":
        bad = good[:place]
    elif kind == "flip":
        bad = good[:place] + bytes([good[place] ^ (1 << data.draw(st.integers(0, 7)))]) + good[place + 1 :]
    else:
        bad = good + data.draw(st.binary(min_size=1, max_size=20))
    try:
        found = decode_job(bad)
    except EvolutionError:
        return
    assert kind == "flip"
    assert [found.genome.digest, *(each.digest for each in found.teachers)] == [small().digest, small(1).digest]


@given(st.binary(max_size=200))
def test_noise_is_refused(noise: bytes) -> None:
    for decode in (decode_job, decode_outcome, peek):
        for data in (noise, b"HEv1" + noise, b"HEv1" + struct.pack("<Q", len(noise)) + noise):
            with pytest.raises(FormatError):
                decode(data)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (MemoryError(), "out-of-memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 4 bytes"), "out-of-memory"),
        (torch.OutOfMemoryError("CUDA out of memory."), "out-of-memory"),
        (GraphError("node 'x' is wrong"), "invalid"),
        (StorageFull("no room"), "crashed"),
        (ValueError("what"), "invalid"),
        (ZeroDivisionError("division by zero"), "crashed"),
        (SystemExit(3), "crashed"),
        (RecursionError("too deep"), "crashed"),
    ],
)
def test_each_exception_has_its_kind_of_failure(error: BaseException, kind: str) -> None:
    outcome = guarded(mock.Mock(side_effect=error))
    assert outcome.failure is not None
    assert outcome.failure.kind == kind
    assert str(error) in outcome.failure.message


def test_weights_that_are_not_finite_are_a_divergence() -> None:
    weights = dict(small().weights)
    name = next(name for name, tensor in weights.items() if tensor.is_floating_point())
    weights[name] = weights[name].clone().fill_(float("nan"))
    spoilt = Outcome(Genome(small().graph, weights), 0.1)
    task = Task.named("digits", limit=50)
    with mock.patch("runners.training.train", return_value=spoilt):
        outcome = perform(make(task_spec=task.spec))
    assert outcome.failure is not None and outcome.failure.kind == "diverged"
    assert name in outcome.failure.message


def test_the_test_split_is_measured_only_when_asked_for() -> None:
    task = Task.named("digits", limit=50)
    with mock.patch("runners.training.evaluate", side_effect=AssertionError("the test split was touched")):
        assert perform(make(task_spec=task.spec, measure="train")).test_accuracy is None
    outcome = decode_outcome(serve(encode_job(make(task_spec=task.spec))))
    assert outcome.test_accuracy is not None and 0 <= outcome.test_accuracy <= 1


@pytest.mark.parametrize("name", ["runners.jobs", "runners.jobs:", "os;x:y", "runners.jobs:nothing", "no_such:thing"])
def test_a_worker_function_that_does_not_exist_is_refused(name: str) -> None:
    with pytest.raises(EntryError):
        resolve(name)


def test_importing_the_package_is_cheap() -> None:
    heavy = "torch torchvision ray numpy networkx pydantic sklearn"
    code = (
        "import sys, runners; runners.Job, runners.Outcome, runners.POOLS, runners.open_pool; import runners.worker;"
        "import runners.local_pool, runners.ray_pool;"
        f"print([name for name in {heavy!r}.split() if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_public_name_is_there() -> None:
    import runners

    for name in runners.__all__:
        assert getattr(runners, name) is not None
    assert set(runners.__all__) <= set(dir(runners))
    with pytest.raises(AttributeError, match="nothing"):
        _ = runners.nothing
