"""Narrowing: what is left fits."""

from __future__ import annotations

import numpy
import torch

from graphs.check import check
from graphs.draft import Draft
from graphs.execution import execute
from ops import MUTATIONS
from tests.strategies import inputs, lively


def test_a_parameter_can_be_left_with_one_channel() -> None:
    """Also where other axes of it have one entry from the start."""
    draft = Draft()
    layer = draft.add("conv2d", draft.input((2, 4, 4)), path="layer", out=2)
    scale = draft.add("parameter", [], shape=(1, 2, 1, 1), view=(2, 1, 1))
    draft.head(draft.add("linear", draft.add("flatten", draft.add("multiply", [layer, scale])), out=3))
    parent = lively(draft.finish())
    (site,) = MUTATIONS["narrow"].sites(parent)
    child = MUTATIONS["narrow"].apply(parent, site, numpy.random.default_rng(0)).genome
    check(child.graph)
    assert child.graph.shapes[layer] == (1, 4, 4) and child.graph.shapes[scale] == (1, 1, 1)
    (name,) = child.graph[scale].tensors.values()
    assert child.weights[name].shape == (1, 1, 1, 1)
    run = execute(child.graph, child.weights, inputs(child.graph, 4, dtype=torch.float32), training=False)
    assert run.values[child.graph.heads[0].node].shape == (4, 3)
