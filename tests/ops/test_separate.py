"""A convolution made depthwise and 1×1: against torch, how much fewer filters lose, and what goes on with it."""

from __future__ import annotations

from typing import Any

import numpy
import pytest
import torch
from torch.nn.functional import conv2d

import graphs
from graphs.draft import Draft
from graphs.genome import Genome
from ops import MUTATIONS, Child, certify, replay
from ops.optimizing import transfer_optimizer
from ops.transfer import Projected, shifts
from tests.strategies import lively, mapped, small

OPERATOR = MUTATIONS["dense_to_separable"]


def children(parent: Genome) -> list[Child]:
    return [OPERATOR.apply(parent, site, numpy.random.default_rng(0)) for site in OPERATOR.sites(parent)]


def one_layer(**settings: object) -> Genome:
    draft = Draft()
    draft.head(draft.add("conv2d", draft.input((3, 9, 8)), out=6, path="conv", **settings))
    return lively(draft.finish())


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"kernel": (2, 5), "stride": (2, 1), "padding": (0, 3)},
        {"dilation": (2, 1), "bias": False, "padding": (1, 2)},
    ],
)
def test_one_filter_for_each_place_computes_the_same_bits_of_weight(settings: dict[str, object]) -> None:
    parent = one_layer(**settings)
    child = children(parent)[-1]
    assert child.preserves == "exact"
    weight, old = child.genome.weights["conv.weight"], parent.weights["conv.weight"]
    assert torch.equal(weight.reshape(old.shape), old)
    images = torch.randn((4, 3, 9, 8), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    (expected,), (got,) = (graphs.to_torch(each).double()(images).unsqueeze(0) for each in (parent, child.genome))
    assert expected.shape == got.shape and float((expected - got).detach().abs().max()) < 1e-14


def test_each_filter_more_loses_less_and_none_is_better_placed() -> None:
    """The error of the weight is that of the best approximation of its rank, for each input channel."""
    weight = one_layer().weights["conv.weight"].double()
    left = []
    for child in children(one_layer())[:-1]:
        assert child.preserves == "approximate"
        (filters,) = child.tensors.values()
        rank = child.record.site["multiplier"]
        made = child.genome.weights["conv.weight"].double().reshape(6, 3, rank)
        again = torch.einsum("ocj,cjs->ocs", made, filters.double().reshape(3, rank, 9))
        missing = torch.linalg.vector_norm(weight.flatten(2) - again, dim=(0, 2))
        values = torch.linalg.svdvals(weight.flatten(2).movedim(1, 0))
        torch.testing.assert_close(missing, torch.linalg.vector_norm(values[:, rank:], dim=1), rtol=1e-5, atol=1e-6)
        left.append(float(missing.sum()))
    assert left == sorted(left, reverse=True) and left[-1] < 0.7 * left[0]


@pytest.mark.parametrize("parent", [small("resnext-like-3"), mapped(1), mapped(3)])
def test_what_is_made_replays_and_can_be_mutated_further(parent: Genome) -> None:
    for child in children(parent)[-4:]:
        assert replay(parent, child.record, child.tensors).digest == child.genome.digest
        for name in ("widen", "grow_kernel"):
            sites = MUTATIONS[name].sites(child.genome)
            grandchild = MUTATIONS[name].apply(child.genome, sites[-1], numpy.random.default_rng(1))
            certify(child.genome, grandchild).require()


def test_momentum_is_carried_as_gradients_change() -> None:
    """The 1×1 weight has the gradients that the parent's weight has."""
    parent = one_layer()
    child = children(parent)[-1]
    images = torch.randn((2, 3, 9, 8), generator=torch.Generator().manual_seed(0))
    state: dict[str, Any] = {}
    momenta = []
    for genome in (parent, child.genome):
        module = graphs.to_torch(genome)
        optimizer = torch.optim.SGD(module.named_parameters(), lr=0.0, momentum=0.9)
        if state:
            carried = transfer_optimizer(state, child, optimizer.state_dict())
            number = [name for name, _ in module.named_parameters()].index("conv.weight")
            momenta.append(carried["state"][number]["momentum_buffer"])
        module(images).square().sum().backward()
        optimizer.step()
        momenta.append(optimizer.state[module.get_parameter("conv.weight")]["momentum_buffer"])
        state = optimizer.state_dict()
    known, carried, measured = (tensor.flatten() for tensor in momenta)
    assert torch.equal(carried, known)
    torch.testing.assert_close(measured, known)


def test_where_there_is_nothing_to_separate_there_is_no_site() -> None:
    draft = Draft()
    x = draft.add("conv2d", draft.input((1, 6, 6)), out=4)
    x = draft.add("conv2d", draft.add("conv2d", x, out=4, groups=4), out=4, kernel=1)
    draft.head(x)
    assert not OPERATOR.sites(lively(draft.finish()))


def test_shifts_move_an_image_by_each_place_of_the_kernel() -> None:
    filters = shifts((2 * 6, 1, 2, 3))
    images = torch.arange(2 * 4 * 5.0).reshape(1, 2, 4, 5)
    moved = conv2d(images, filters, groups=2)
    for channel in range(2):
        for row in range(2):
            for column in range(3):
                expected = images[0, channel, row : row + 3, column : column + 3]
                assert torch.equal(moved[0, channel * 6 + row * 3 + column], expected)


def test_rates_are_those_of_the_weights_they_come_from() -> None:
    factor = torch.rand((4, 2, 3, 3))
    plan = Projected("w", shifts((18, 1, 3, 3)))
    assert torch.equal(plan.rate(factor, False).reshape(factor.shape), factor)
    even = Projected("w", torch.full((2, 1, 3, 3), 1 / 3))
    torch.testing.assert_close(even.rate(factor, False).flatten(), factor.mean((2, 3)).flatten())
