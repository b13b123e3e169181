"""What happens to tensors: shares add up bit for bit, copies are copies, and what is new starts as it should."""

from __future__ import annotations

import numpy
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from graphs.kinds import TensorSpec
from ops.axis_maps import AxisMap, AxisSum
from ops.transfer import Extended, Given, Mapped, New, Plan, Transfer
from tests.strategies import budget, small


def shares(seed: int, width: int, wider: int) -> AxisMap:
    """A random map from `width` to `wider` channels; copies take between half and all of what is left, the last all."""
    draws = numpy.random.default_rng(seed)
    index = numpy.concatenate([numpy.arange(width), draws.integers(width, size=wider - width)]).astype(numpy.int64)
    take = draws.uniform(0.5, 1, size=wider)
    for source in range(width):
        take[numpy.flatnonzero(index == source)[-1]] = 1.0
    return AxisMap(1, index, take)


def merged(child: Tensor, index: numpy.ndarray, width: int) -> Tensor:
    """The parent's tensor: the copies of each channel added up, the last first."""
    parts = []
    for source in range(width):
        places = numpy.flatnonzero(index == source)[::-1]
        total = child[:, int(places[0])].clone()
        for place in places[1:]:
            total = total + child[:, int(place)]
        parts.append(total)
    return torch.stack(parts, 1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize(("width", "wider"), [(1, 2), (2, 9), (7, 10), (5, 40)])
def test_widening_and_merging_gives_every_weight_back(dtype: torch.dtype, width: int, wider: int) -> None:
    for seed in range(20):
        generator = torch.Generator().manual_seed(seed)
        scale = 10.0 ** torch.randint(-6, 6, (30, width, 3), generator=generator)
        weight = (torch.randn((30, width, 3), generator=generator) * scale).to(dtype)
        axis = shares(seed, width, wider)
        assert torch.equal(merged(axis.apply(weight), axis.index, width), weight)


@budget(300)
@given(
    st.floats(width=32, allow_nan=False, allow_infinity=False),
    st.lists(st.floats(0.5, 1), min_size=1, max_size=6),
)
def test_what_is_left_is_exact(weight: float, parts: list[float]) -> None:
    """Sterbenz: where a part is between half and all of what is left, the difference of the two is exact."""
    tensor = torch.tensor([[weight]], dtype=torch.float32)
    axis = AxisMap(1, numpy.zeros(len(parts) + 1, dtype=numpy.int64), numpy.array([*parts, 1.0]))
    child = axis.apply(tensor)
    assert torch.equal(merged(child, axis.index, 1), tensor)
    assert bool((child * weight >= 0).all()), "shares have the sign of the whole"


@budget(50)
@given(st.integers(0, 2**32))
def test_the_default_widening_can_be_merged_back(seed: int) -> None:
    """Not only the shares above: those that `widen` draws."""
    from ops import MUTATIONS

    parent = small("convnet")
    mutation = MUTATIONS["widen"]
    child = mutation.apply(parent, mutation.sites(parent)[0], numpy.random.default_rng(seed))
    plan = child.transfer.plans["stage2.conv.weight"]
    assert isinstance(plan, Mapped)
    axis = plan.axes[0]
    weight = child.genome.weights["stage2.conv.weight"]
    assert torch.equal(merged(weight, axis.index, 4), parent.weights["stage2.conv.weight"])
    assert axis.take is not None and not numpy.any(numpy.abs(axis.take - 0.5) < 0.04), "no even split"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_sums_of_shares_are_the_parent_in_every_bit(dtype: torch.dtype) -> None:
    """Copies of copies, and zeros of either sign."""
    weight = torch.randn((9, 5, 2), generator=torch.Generator().manual_seed(2)).to(dtype)
    weight[0], weight[1] = -0.0, 0.0
    once, twice = shares(1, 5, 12), shares(2, 12, 40)
    child = twice.apply(once.apply(weight))
    back = AxisSum(1, once.index[twice.index]).apply(child)
    assert back.dtype == dtype and torch.equal(back.view(torch.uint8), weight.view(torch.uint8))


def test_sums_by_hand() -> None:
    axis = AxisSum(1, numpy.array([0, 1, 0, 0]))
    assert axis.apply(torch.tensor([[4.0, 3.0, 3.0, 1.0]])).tolist() == [[8.0, 3.0]]


def test_extended_tensors() -> None:
    weight = torch.ones(2, 2)
    axes = (AxisMap(0, numpy.array([0, 1, -1])), AxisMap(1, numpy.array([0, 1, -1])))
    plan = Extended("w", axes, 0)
    spec = TensorSpec((3, 3), "kaiming")
    made = plan.apply({"w": weight}, spec, 4, "w")
    assert made[:2].tolist() == [[1.0, 1.0, 0.0]] * 2
    assert torch.equal(made[2], New("kaiming").apply(spec, 4, "w")[2]) and bool((made[2] != 0).all())


def test_extended_tensors_with_new_entries_that_are_zero() -> None:
    plan = Extended("w", (AxisMap(0, numpy.array([0, -2, 1, -1])),), 0)
    spec = TensorSpec((4, 2), "kaiming")
    made = plan.apply({"w": torch.ones(2, 2)}, spec, 4, "w")
    assert made[:3].tolist() == [[1.0, 1.0], [0.0, 0.0], [1.0, 1.0]]
    assert torch.equal(made[3], New("kaiming").apply(spec, 4, "w")[3])


def test_uneven_shares_by_hand() -> None:
    axis = AxisMap(1, numpy.array([0, 1, 0, 0]), numpy.array([0.5, 1.0, 0.75, 1.0]))
    assert axis.apply(torch.tensor([[8.0, 3.0]])).tolist() == [[4.0, 3.0, 3.0, 1.0]]


def test_even_shares_by_hand() -> None:
    axis = AxisMap(1, numpy.array([0, 1, 0, 0]), numpy.array([1 / 3, 1.0, 1 / 2, 1.0]))
    assert axis.apply(torch.tensor([[9.0, 3.0]], dtype=torch.float64)).tolist() == [[3.0, 3.0, 3.0, 3.0]]


def test_copies_and_new_entries_by_hand() -> None:
    weight = torch.arange(6.0).reshape(2, 3)
    assert AxisMap(1, numpy.array([2, -1, 0, 2])).apply(weight).tolist() == [[2, 0, 0, 2], [5, 0, 3, 5]]
    assert AxisMap(0, numpy.array([1, -1])).apply(weight).tolist() == [[3, 4, 5], [0, 0, 0]]
    assert weight.tolist() == [[0, 1, 2], [3, 4, 5]]


def test_channels_that_are_not_copied_keep_their_weights_whatever_their_share() -> None:
    axis = AxisMap(1, numpy.array([0, 1]), numpy.array([0.6, 0.7]))
    assert axis.apply(torch.tensor([[8.0, 3.0]])).tolist() == [[8.0, 3.0]]


def test_axes_are_mapped_one_after_the_other() -> None:
    weight = torch.arange(4.0).reshape(2, 2)
    plan = Mapped(
        "w", (AxisMap(0, numpy.array([1, 0])), AxisMap(1, numpy.array([0, 0, 1]), numpy.array([0.5, 1.0, 1.0])))
    )
    assert plan.apply({"w": weight}).tolist() == [[1.0, 1.0, 3.0], [0.0, 0.0, 1.0]]


def test_new_tensors() -> None:
    assert New(0.25).apply(TensorSpec((), "zeros"), 0, "gate").item() == 0.25
    eye = New("identity").apply(TensorSpec((2, 2, 3, 1), "kaiming"), 0, "w")
    assert eye.sum().item() == 2 and eye[0, 0, 1, 0] == eye[1, 1, 1, 0] == 1
    spec = TensorSpec((4, 3), "kaiming")
    assert torch.equal(New("kaiming").apply(spec, 1, "w"), New("kaiming").apply(spec, 1, "w"))
    assert not torch.equal(New("kaiming").apply(spec, 1, "w"), New("kaiming").apply(spec, 2, "w"))
    assert not torch.equal(New("kaiming").apply(spec, 1, "w"), New("kaiming").apply(spec, 1, "v"))


def test_a_transfer_shares_what_it_leaves_alone_and_keeps_the_type() -> None:
    parent = small("convnet")
    weights = {
        name: tensor.double() if tensor.is_floating_point() else tensor for name, tensor in parent.weights.items()
    }
    plans: dict[str, Plan] = {"fc.bias": New("zeros"), "fc.weight": Given("there")}
    made = Transfer(plans).apply(weights, parent.graph, 0, {"there": torch.ones(5, 16)})
    assert made["stage1.conv.weight"] is weights["stage1.conv.weight"]
    assert made["fc.weight"].dtype == made["fc.bias"].dtype == torch.float64
    assert made["fc.weight"].tolist() == torch.ones(5, 16).tolist() and made["fc.bias"].tolist() == [0.0] * 5
    assert made.keys() == weights.keys()
