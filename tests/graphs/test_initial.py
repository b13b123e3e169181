"""Fresh weights: the same numbers on every machine and with every version, and spread as they should be."""

from __future__ import annotations

from math import sqrt

import numpy
import pytest
import torch

from graphs import zoo
from graphs.initial import CONSTANT, initial_weights, start_tensor, stream, uniform
from graphs.kinds import TensorSpec, tensors


def test_streams_give_these_numbers_for_ever() -> None:
    """Replayed records depend on them: a change here breaks every run that anybody has kept."""
    assert [float(each) for each in uniform(stream(0, "conv1.weight"), (4,), -1, 1)] == [
        0.6884014119421733,
        0.37041255157792596,
        -0.14254240687318798,
        0.4382904463711974,
    ]
    assert [float(each) for each in uniform(stream(7, "fc.bias"), (2,), 0, 1)] == [
        0.07823829870531285,
        0.29921068718898314,
    ]


def test_tensors_start_with_these_numbers_for_ever() -> None:
    assert start_tensor(TensorSpec((2, 3), "fan_in"), 0, "fc.weight").tolist() == [
        [-0.003058601403608918, 0.11615496873855591, -0.5165546536445618],
        [-0.4599608778953552, 0.2626785635948181, 0.38441723585128784],
    ]
    assert start_tensor(TensorSpec((1, 2, 1, 2), "kaiming"), 3, "stage1.conv.weight").flatten().tolist() == [
        -0.845084547996521,
        0.750926673412323,
        -0.6520106792449951,
        -0.44111308455467224,
    ]
    weights = zoo.create("resnet", depth=8, seed=0).weights
    assert weights["conv1.weight"].flatten()[:2].tolist() == [0.32451555132865906, 0.17461414635181427]
    assert weights["fc.weight"].flatten()[:2].tolist() == [-0.0006622066139243543, 0.025148287415504456]


@pytest.mark.parametrize("start", ["kaiming", "fan_in", *CONSTANT])
def test_a_scalar_starts_as_a_tensor_of_one_entry_does(start: str) -> None:
    scalar, entry = (start_tensor(TensorSpec(shape, start), 5, "scale") for shape in ((), (1,)))
    assert scalar.shape == () and scalar.dtype == torch.float32 and torch.equal(scalar[None], entry)


def test_each_tensor_has_a_stream_of_its_own() -> None:
    """What a tensor starts with depends on its name and the seed alone, not on what else there is."""
    small, large = zoo.create("convnet", seed=5), zoo.create("convnet", seed=5, classes=7)
    for name in small.weights.keys() - {"fc.weight", "fc.bias"}:
        assert torch.equal(small.weights[name], large.weights[name])
    other = zoo.create("convnet", seed=6)
    assert not torch.equal(small.weights["stage1.conv.weight"], other.weights["stage1.conv.weight"])
    assert not torch.equal(
        small.weights["stage2.conv.weight"].flatten()[:99], small.weights["stage3.conv.weight"].flatten()[:99]
    )


def test_the_global_generators_are_neither_used_nor_moved() -> None:
    state, numbers = torch.random.get_rng_state(), repr(numpy.random.get_state())
    first = zoo.create("convnet").weights["fc.weight"]
    torch.manual_seed(99)
    assert torch.equal(zoo.create("convnet").weights["fc.weight"], first)
    torch.random.set_rng_state(state)
    zoo.create("convnet")
    assert torch.equal(torch.random.get_rng_state(), state)
    assert repr(numpy.random.get_state()) == numbers


@pytest.mark.parametrize(
    ("start", "shape", "bound"), [("kaiming", (64, 50, 3, 3), sqrt(6 / 450)), ("fan_in", (99, 400), 0.05)]
)
def test_uniform_starts_fill_their_range(start: str, shape: tuple[int, ...], bound: float) -> None:
    drawn = start_tensor(TensorSpec(shape, start), 1, "w")
    assert drawn.dtype == torch.float32 and float(drawn.abs().max()) <= bound
    assert float(drawn.abs().max()) > 0.999 * bound and abs(float(drawn.mean())) < 0.02 * bound
    assert abs(float(drawn.std()) / (bound / sqrt(3)) - 1) < 0.02


def test_constant_starts() -> None:
    for start, value in (("zeros", 0.0), ("ones", 1.0), ("quarter", 0.25)):
        assert start_tensor(TensorSpec((3,), start), 1, "w").tolist() == [value] * 3
    assert start_tensor(TensorSpec((), "zeros", buffer=True, integer=True), 1, "n").dtype == torch.int64


def test_every_tensor_of_a_graph_gets_weights() -> None:
    graph = zoo.create("densenet", depth=10).graph
    weights = initial_weights(graph, 0)
    assert {name: tuple(tensor.shape) for name, tensor in weights.items()} == {
        name: spec.shape for name, spec in tensors(graph).items()
    }
