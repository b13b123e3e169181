"""Dropout drops features one by one, channels whole, and nothing twice."""

from __future__ import annotations

import numpy
import torch

from graphs.execution import execute
from ops import MUTATIONS
from tests.strategies import inputs, small


def test_channels_of_maps_and_single_features_are_dropped() -> None:
    parent = small("vgg8")
    seen = set()
    for site in MUTATIONS["insert_dropout"].sites(parent):
        child = MUTATIONS["insert_dropout"].apply(parent, site, numpy.random.default_rng(0))
        (new,) = child.genome.graph.nodes.keys() - parent.graph.nodes.keys()
        run = execute(
            child.genome.graph, child.genome.weights, inputs(parent.graph, 64, dtype=torch.float32), training=True
        )
        # Features are maps of one place.
        before, after = (run.values[id][..., None, None].flatten(2) for id in (site.place["after"], new))
        rate = child.record.choices["p"]
        kept = torch.isclose(after, before / (1 - rate))
        dropped = after == 0
        assert bool((kept | dropped).all()) and bool((dropped & (before != 0)).any())
        # A channel is dropped whole.
        assert bool((dropped.all(2) | kept.all(2)).all())
        seen.add(child.genome.graph[new].kind)
    assert seen == {"dropout", "dropout2d"}


def test_none_beside_another() -> None:
    parent = small("vgg8")
    (site, *_) = MUTATIONS["insert_dropout"].sites(parent)
    child = MUTATIONS["insert_dropout"].apply(parent, site, numpy.random.default_rng(0)).genome
    assert site not in MUTATIONS["insert_dropout"].sites(child)
