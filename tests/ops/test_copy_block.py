"""The copy of a block has its tensors, and reads what the block gives."""

from __future__ import annotations

import numpy
import torch

from graphs.draft import Draft
from graphs.execution import Run, execute
from ops import MUTATIONS
from tests.strategies import inputs, lively, small


def test_a_residual_block_is_applied_twice() -> None:
    """The child computes block(block(x)) where the parent computes block(x)."""
    draft = Draft()
    stem = draft.add("relu", draft.add("conv2d", draft.input((3, 6, 6)), out=4))
    inner = draft.add("relu", draft.add("batch_norm", draft.add("conv2d", stem, out=5)))
    end = draft.add("relu", draft.add("add", [draft.add("conv2d", inner, out=4), stem]))
    draft.head(draft.add("linear", draft.add("flatten", draft.add("adaptive_avg_pool2d", end)), out=3))
    parent = lively(draft.finish())
    site = next(site for site in MUTATIONS["copy_block"].sites(parent) if site.place == {"start": stem, "end": end})
    child = MUTATIONS["copy_block"].apply(parent, site, numpy.random.default_rng(0)).genome
    examples = inputs(parent.graph, dtype=torch.float32)
    once = execute(parent.graph, parent.weights, examples, training=False).values
    # The block again, where its input is what it gave.
    known = Run({"input#0": once["input#0"], stem: once[end]}, {})
    twice = execute(parent.graph, parent.weights, examples, training=False, known=known, keep=[end]).values[end]
    found = execute(child.graph, child.weights, examples, training=False).values
    last = next(node.inputs[0] for node in child.graph.nodes.values() if node.kind == "adaptive_avg_pool2d")
    assert last != end and torch.equal(found[last], twice)
    assert not torch.equal(found[last], found[end])


def test_copies_are_the_blocks_of_the_network() -> None:
    """A sum of a value and of what is made from it; a layer that keeps the shape; and nothing that changes it."""
    parent = small("resnet")
    shapes, kinds = parent.graph.shapes, set()
    for site in MUTATIONS["copy_block"].sites(parent):
        child = MUTATIONS["copy_block"].apply(parent, site, numpy.random.default_rng(0))
        fresh = [child.genome.graph[id] for id in child.genome.graph.nodes if id not in parent.graph.nodes]
        kinds.add(tuple(node.kind for node in fresh))
        assert shapes[site.place["start"]] == shapes[site.place["end"]]
        for node in fresh:
            for name in node.tensors.values():
                assert torch.equal(child.genome.weights[name], parent.weights[child.transfer.plans[name].source])
    assert ("conv2d", "batch_norm", "relu") in kinds
    assert any("add" in found for found in kinds)
