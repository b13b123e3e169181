"""Odds that follow a network, and the limits that proposals keep."""

from __future__ import annotations

import numpy
import pytest

import ops
from evolve.odds import ODDS, depth, networkcompress_odds, pools, widest
from graphs import zoo


@pytest.mark.parametrize(
    ("deep", "pooled", "weights"),
    [
        (2, 0, (20, 10, 10, 2, 2)),
        (3, 1, (17, 10, 10, 2, 2)),
        (4, 2, (14, 10, 10, 4, 4)),
        (6, 3, (0, 10, 10, 6, 6)),
        (10, 3, (0, 10, 10, 10, 10)),
        (20, 3, (0, 10, 10, 20, 20)),
    ],
)
def test_the_weights_are_those_of_networkcompress(deep: int, pooled: int, weights: tuple[int, ...]) -> None:
    assert tuple(networkcompress_odds(deep, pooled, 32).values()) == weights


@pytest.mark.parametrize(("side", "most"), [(32, 3), (28, 2), (8, 1), (4, 0), (1, 0)])
def test_as_many_pools_as_the_image_allows(side: int, most: int) -> None:
    allowed = [networkcompress_odds(2, pooled, side)["deepen+insert_pool"] > 0 for pooled in range(5)]
    assert sum(allowed) == most and allowed == sorted(allowed, reverse=True)


def test_what_is_counted() -> None:
    graph = zoo.create("networkcompress").graph
    assert (depth(graph), pools(graph), widest(graph)) == (2, 1, 128)
    vgg = zoo.create("vgg8").graph
    assert (depth(vgg), pools(vgg), widest(vgg)) == (8, 3, 256)
    assert depth(zoo.create("resnet", depth=8).graph) == 8  # the shortcuts of a residual network make it no deeper


@pytest.mark.parametrize("name", ODDS)
def test_a_rule_names_operators_and_follows_what_they_make(name: str) -> None:
    genome = zoo.create("networkcompress", width=8, input_shape=(3, 16, 16))
    for seed in range(10):
        child = ops.propose(genome, numpy.random.default_rng(seed), lambda graph: ODDS[name](graph, 20), steps=5)
        assert pools(child.genome.graph) <= 2
        ops.table.check_odds(ODDS[name](child.genome.graph, 20))
