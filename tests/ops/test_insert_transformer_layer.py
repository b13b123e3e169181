"""A layer of a transformer that adds nothing: bit for bit, where it belongs, and like the layers around it."""

from __future__ import annotations

from typing import Any

import numpy
import torch

from graphs.draft import Draft
from graphs.execution import execute
from graphs.genome import Genome
from ops import MUTATIONS, Child, certify
from tests.strategies import inputs, lively, transformer

INSERT = MUTATIONS["insert_transformer_layer"]


def children(parent: Genome) -> list[Child]:
    return [INSERT.apply(parent, site, numpy.random.default_rng(0)) for site in INSERT.sites(parent)]


def altered(heads: int = 2, **settings: Any) -> Genome:
    """The transformer with another number of heads and other settings of its attention."""
    draft = Draft(transformer().graph)
    for node in transformer().graph.nodes.values():
        if node.kind == "attention":
            draft.set(node.id, **settings)
        elif node.kind == "reshape" and len(node.settings["shape"]) == 3:
            draft.set(node.id, shape=(6, heads, 8 // heads))
    return Genome(draft.finish(), transformer().weights)


def test_every_output_is_the_same_bit_for_bit() -> None:
    parent = transformer()
    found = children(parent)
    assert len(found) == 2
    for child in found:
        for training in (False, True):
            before, after = (
                execute(each.graph, each.weights, inputs(each.graph, dtype=torch.float32), training=training)
                for each in (parent, child.genome)
            )
            (head,) = parent.graph.heads
            assert torch.equal(before.values[head.node], after.values[child.genome.graph.heads[0].node])


def test_it_looks_where_the_attention_around_it_looks() -> None:
    for parent, causal, heads in (
        (transformer(), False, 2),
        (altered(causal=True), True, 2),
        (altered(heads=4), False, 4),
    ):
        for child in children(parent):
            fresh = [node for id, node in child.genome.graph.nodes.items() if id not in parent.graph.nodes]
            (attention,) = [node for node in fresh if node.kind == "attention"]
            assert attention.settings["causal"] == causal
            assert child.genome.graph.shapes[attention.id] == (heads, 6, 8 // heads)


def test_its_norms_are_those_in_front_of_it() -> None:
    first, last = (
        {node.kind for id, node in child.genome.graph.nodes.items() if id not in transformer().graph.nodes}
        for child in children(transformer())
    )
    assert "layer_norm" in first and "rms_norm" not in first
    assert "rms_norm" in last and "layer_norm" not in last


def test_the_halves_are_blocks_that_can_be_removed_again() -> None:
    for child in children(transformer()):
        now = child.genome
        for _ in range(2):
            sites = [site for site in MUTATIONS["remove_block"].sites(now) if site.preserves == "exact"]
            now = MUTATIONS["remove_block"].apply(now, sites[-1], numpy.random.default_rng(0)).genome
        assert now.graph.fingerprint == transformer().graph.fingerprint
        assert all(torch.equal(tensor, transformer().weights[name]) for name, tensor in now.weights.items())


def test_not_without_attention_and_not_where_tokens_are_no_rows() -> None:
    draft = Draft()
    x = draft.input((4, 6))
    total = draft.add("add", [draft.add("linear", x, out=5), draft.add("linear", x, out=5)])
    draft.head(draft.add("linear", draft.add("average", total, axes=(0,)), out=3))
    assert INSERT.sites(lively(draft.finish())) == []
    parts = [draft.add("linear", total, out=4) for _ in range(3)]
    mixed = draft.add("average", draft.add("attention", parts), axes=(0,))
    flat = draft.add("add", [mixed, draft.add("relu", mixed)])
    draft.head(draft.add("linear", flat, out=3), "more")
    sites = INSERT.sites(lively(draft.finish()))
    assert [site.place["after"] for site in sites] == [total]


def test_an_image_whose_channels_come_last_is_attended_to_as_a_whole() -> None:
    parent = image(3)
    (site,) = INSERT.sites(parent)
    child = INSERT.apply(parent, site, numpy.random.default_rng(0))
    (attention,) = [node.id for id, node in child.genome.graph.nodes.items() if node.kind == "attention"]
    assert child.genome.graph.shapes[attention] == (2, 9, 3)
    assert certify(parent, child).eval.verdict == "pass"
    assert INSERT.sites(image(33)) == []


def image(size: int) -> Genome:
    """Attention along rows alone, of an image whose channels come last."""
    draft = Draft()
    stem = draft.add("conv2d", draft.input((2, size, size)), out=6)
    last = draft.add("permute", stem, order=(1, 2, 0))
    scores = draft.add("softmax", draft.add("permute", draft.add("linear", last, out=2), order=(2, 0, 1)), axis=2)
    back = draft.add("linear", draft.add("permute", scores, order=(1, 2, 0)), out=6)
    total = draft.add("add", [last, back])
    draft.head(draft.add("linear", draft.add("average", total, axes=(0, 1)), out=3))
    return lively(draft.finish())
