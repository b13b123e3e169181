"""What opens with a gate: with the gate at 1, the child computes what its new part does."""

from __future__ import annotations

import numpy
import pytest
import torch
from torch import Tensor
from torch.nn.functional import gelu, hardswish, silu

from graphs.draft import Draft
from graphs.execution import execute
from graphs.genome import Genome
from ops import MUTATIONS, Child, certify
from tests.strategies import inputs, lively, small


def opened(name: str, parent: Genome, seed: int = 0) -> tuple[Child, dict[str, Tensor]]:
    """A child at the first site, and its values in eval mode with its gate open."""
    site = MUTATIONS[name].sites(parent)[0]
    child = MUTATIONS[name].apply(parent, site, numpy.random.default_rng(seed))
    (gate,) = [node for node in child.genome.graph.nodes.values() if node.kind == "gate"]
    weights = {**child.genome.weights, gate.tensors["gate"]: torch.ones(())}
    run = execute(child.genome.graph, weights, inputs(parent.graph, dtype=torch.float32), training=False)
    return child, {"gate": run.values[gate.id], **run.values}


def test_squeeze_and_excitation() -> None:
    child, values = opened("insert_se", small("resnet"))
    x = values[child.record.site["after"]]
    one, two = [
        child.genome.graph[id]
        for id in child.genome.graph.nodes
        if child.genome.graph[id].born == child.record.born and child.genome.graph[id].kind == "conv2d"
    ]
    weights = child.genome.weights
    squeezed = x.mean((2, 3)) @ weights[one.tensors["weight"]].flatten(1).T + weights[one.tensors["bias"]]
    excited = silu(squeezed) @ weights[two.tensors["weight"]].flatten(1).T + weights[two.tensors["bias"]]
    expected = x * torch.sigmoid(excited)[:, :, None, None]
    assert torch.allclose(values["gate"], expected, atol=1e-6)
    assert not torch.allclose(values["gate"], x, atol=1e-2)


@pytest.mark.parametrize("seed", range(8))
def test_another_activation(seed: int) -> None:
    child, values = opened("blend_activation", small("resnet"), seed)
    functions = {"gelu": gelu, "silu": silu, "hardswish": hardswish, "tanh": torch.tanh}
    x = values[child.genome.graph[child.record.site["at"]].inputs[0]]
    assert torch.allclose(values["gate"], functions[child.record.choices["other"]](x), atol=1e-6)


@pytest.mark.parametrize("norm", ["group_norm", "layer_norm", "rms_norm", "frozen_batch_norm", "batch_norm"])
def test_a_layer_is_replicated_with_its_norm_whichever_that_is(norm: str) -> None:
    settings = {"group_norm": {"groups": 2}, "layer_norm": {"axes": 3}, "rms_norm": {"axes": 3}}.get(norm, {})
    draft = Draft()
    normed = draft.add(norm, draft.add("conv2d", draft.input((2, 5, 5)), path="first", out=4), **settings)
    image = draft.add("relu", normed)
    draft.head(draft.add("linear", draft.add("flatten", draft.add("conv2d", image, out=4)), out=3))
    parent = lively(draft.finish())
    (site,) = MUTATIONS["replicate_branch"].sites(parent)
    child = MUTATIONS["replicate_branch"].apply(parent, site, numpy.random.default_rng(0))
    kinds = [node.kind for node in child.genome.graph.nodes.values()]
    assert kinds.count(norm) == kinds.count("relu") == 2
    certificate = certify(parent, child)
    assert (certificate.eval.verdict, certificate.train.verdict) == ("pass", "pass")
