"""Groups of a convolution merged and split: by hand, against torch, and there and back."""

from __future__ import annotations

import numpy
import pytest
import torch
from torch.nn.functional import conv2d

from graphs.genome import Genome
from ops import MUTATIONS
from ops.transfer import Regrouped
from tests.laws.test_faults import mixed
from tests.strategies import mapped, small


def regrouped(weight: torch.Tensor, before: int, after: int) -> torch.Tensor:
    return Regrouped("w", (before, after)).apply({"w": weight})


def test_merging_and_splitting_by_hand() -> None:
    weight = torch.arange(1.0, 5.0).reshape(4, 1)
    assert regrouped(weight, 4, 1).tolist() == [[1, 0, 0, 0], [0, 2, 0, 0], [0, 0, 3, 0], [0, 0, 0, 4]]
    assert regrouped(weight, 4, 2).tolist() == [[1, 0], [0, 2], [3, 0], [0, 4]]
    dense = torch.arange(8.0).reshape(2, 4)
    assert regrouped(dense, 1, 2).tolist() == [[0, 1], [6, 7]]


@pytest.mark.parametrize(
    ("channels", "out", "before", "after"), [(6, 12, 6, 2), (6, 12, 6, 3), (8, 4, 4, 1), (4, 4, 2, 1)]
)
def test_merged_groups_compute_the_same(channels: int, out: int, before: int, after: int) -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn((3, channels, 5, 4), generator=generator, dtype=torch.float64)
    weight = torch.randn((out, channels // before, 3, 3), generator=generator, dtype=torch.float64)
    merged = regrouped(weight, before, after)
    difference = conv2d(images, merged, groups=after) - conv2d(images, weight, groups=before)
    assert float(difference.abs().max()) < 1e-14
    assert torch.equal(regrouped(merged, after, before), weight)


@pytest.mark.parametrize("parent", [small("resnext-like-3"), mixed(), mapped(1), mapped(3)])
def test_splitting_what_was_merged_gives_the_parent_back(parent: Genome) -> None:
    for site in MUTATIONS["group_to_dense"].sites(parent):
        child = MUTATIONS["group_to_dense"].apply(parent, site, numpy.random.default_rng(2)).genome
        assert child.digest != parent.digest
        place = {**site.place, "groups": parent.graph[site.place["node"]].settings["groups"]}
        (back,) = (found for found in MUTATIONS["dense_to_group"].sites(child) if dict(found.place) == place)
        assert back.preserves == "exact"
        returned = MUTATIONS["dense_to_group"].apply(child, back, numpy.random.default_rng(2))
        assert returned.genome.digest == parent.digest


def test_nothing_is_promised_where_a_weight_between_the_groups_is_not_zero() -> None:
    parent = small("resnext-like-3")
    site = MUTATIONS["group_to_dense"].sites(parent)[0]
    child = MUTATIONS["group_to_dense"].apply(parent, site, numpy.random.default_rng(2)).genome
    name = child.graph[site.place["node"]].tensors["weight"]
    promises = []
    for entry in (0.0, 1e-9):
        weight = child.weights[name].clone()
        weight[-1, 0, 0, 0] += entry
        found = MUTATIONS["dense_to_group"].sites(Genome(child.graph, {**child.weights, name: weight}))
        promises.append({each.preserves for each in found if each.place["node"] == site.place["node"]})
    assert "exact" in promises[0] and promises[1] == {"approximate"}


def test_what_is_merged_learns_between_the_groups() -> None:
    """From the first step: the gradient of a weight that is zero is not."""
    weight = torch.ones((4, 1, 1, 1))
    dense = regrouped(weight, 4, 1).requires_grad_()
    conv2d(torch.arange(1.0, 5.0).reshape(1, 4, 1, 1), dense).square().sum().backward()
    assert dense.grad is not None and bool((dense.grad != 0).all())


def test_a_convolution_whose_channels_have_no_common_divisor_is_no_site() -> None:
    parent = mixed()
    nodes = {site.place["node"] for site in MUTATIONS["dense_to_group"].sites(parent)}
    assert parent.graph.inputs[0].settings["shape"][0] == 3
    stem = next(node.id for node in parent.graph.nodes.values() if node.kind == "conv2d")
    assert stem not in nodes and nodes
