"""Skips across strides and in front of norms, and their removal."""

from __future__ import annotations

from collections import Counter

import numpy
import pytest
import torch

from graphs.draft import Draft
from graphs.genome import Genome
from ops import MUTATIONS, Child, certify
from ops.matching import windows
from tests.strategies import lively, mapped, small


def made(parent: Genome, name: str, source: str, to: str) -> Child:
    place = next(
        site
        for site in MUTATIONS[name].sites(parent)
        if site.place["from"].startswith(f"{source}#") and site.place["to"].startswith(f"{to}#")
    )
    return MUTATIONS[name].apply(parent, place, numpy.random.default_rng(0))


def strided(size: int = 8, stride: int = 2) -> Genome:
    draft = Draft()
    stem = draft.add("relu", draft.add("conv2d", draft.input((3, size, size)), out=4), path="stem")
    down = draft.add("conv2d", stem, out=6, stride=stride, path="down")
    normed = draft.add("batch_norm", draft.add("relu", down, path="bent"), path="norm")
    last = draft.add("conv2d", draft.add("prelu", normed, path="slopes"), out=5, path="last")
    draft.head(draft.add("linear", draft.add("flatten", draft.add("relu", last)), out=3))
    return lively(draft.finish(), 1)


@pytest.mark.parametrize(("size", "stride"), [(8, 2), (7, 2), (9, 3), (8, 3)])
def test_a_larger_map_is_averaged_to_the_places_of_a_smaller_one(size: int, stride: int) -> None:
    parent = strided(size, stride)
    stem, bent = (next(id for id in parent.graph.nodes if id.startswith(f"{path}#")) for path in ("stem", "bent"))
    assert windows(parent.graph, stem, parent.graph.shapes[bent], 0) == (stride, stride)
    for name, to in (("skip", "norm"), ("add_skip", "bent")):
        child = made(parent, name, "stem", to)
        assert Counter(node.kind for node in child.genome.graph.nodes.values())["avg_pool2d"] == 1
        assert certify(parent, child).require().train.verdict == "pass"


def test_no_pool_over_more_than_four_places_and_none_upwards() -> None:
    parent = strided(12, 6)
    assert not [site for site in MUTATIONS["skip"].sites(parent) if site.place["from"].startswith("stem#")]
    bent = next(id for id in parent.graph.nodes if id.startswith("bent#"))
    assert windows(parent.graph, bent, parent.graph.shapes[parent.graph.nodes[bent].inputs[0]], 0) == (1, 1)
    assert windows(strided().graph, bent, (4, 8, 8), 0) is None


def test_a_norm_carries_the_new_channels_and_its_layer_does_not_read_them_yet() -> None:
    parent = strided()
    child = made(parent, "skip", "stem", "norm")
    weights = child.genome.weights
    assert weights["norm.running_var"].shape == weights["slopes.weight"].shape == (10,)
    assert not weights["last.weight"][:, 6:].any()
    back = [site for site in MUTATIONS["remove_skip"].sites(child.genome) if site.preserves == "exact"]
    assert [dict(site.place)["operand"] for site in back] == [1]
    returned = MUTATIONS["remove_skip"].apply(child.genome, back[0], numpy.random.default_rng(0)).genome
    assert returned.graph.fingerprint == parent.graph.fingerprint
    assert returned.weights.keys() == parent.weights.keys()
    assert all(torch.equal(tensor, returned.weights[name]) for name, tensor in parent.weights.items())


def test_what_dense_blocks_concatenate_can_be_dropped() -> None:
    parent = small("densenet")
    sites = MUTATIONS["remove_skip"].sites(parent)
    assert sites and {site.preserves for site in sites} == {"approximate"}
    child = MUTATIONS["remove_skip"].apply(parent, sites[0], numpy.random.default_rng(0))
    assert not certify(parent, child).broken


@pytest.mark.parametrize("places", [1, 2, 3])
def test_an_added_skip_is_removed_again_bit_for_bit(places: int) -> None:
    parent = mapped(places)
    for site in MUTATIONS["add_skip"].sites(parent)[::5]:
        child = MUTATIONS["add_skip"].apply(parent, site, numpy.random.default_rng(0)).genome
        place = next(id for id in child.graph.nodes if id not in parent.graph.nodes and id.startswith("add#"))
        (back,) = (
            found
            for found in MUTATIONS["remove_block"].sites(child)
            if dict(found.place) == {"keep": site.place["to"], "drop": place} and found.preserves == "exact"
        )
        returned = MUTATIONS["remove_block"].apply(child, back, numpy.random.default_rng(0)).genome
        assert returned.graph.fingerprint == parent.graph.fingerprint
        assert all(torch.equal(tensor, returned.weights[name]) for name, tensor in parent.weights.items())
