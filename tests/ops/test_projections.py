"""Operators on the heads of an attention: by hand, on networks of others, and where they have no business."""

from __future__ import annotations

from math import sqrt

import numpy
import pytest
import torch
from torch import Tensor, nn

import graphs
from graphs.draft import Draft
from graphs.genome import Genome
from graphs.structure import Graph
from ops import MUTATIONS, Child, certify, chain, replay
from ops.projections import projections
from tests.strategies import lively, transformer


def only_child(name: str, parent: Genome, **choices: int) -> Child:
    (site,) = MUTATIONS[name].sites(parent)
    return MUTATIONS[name].apply(parent, site, numpy.random.default_rng(0), choices=choices)


def attention_of(graph: Graph) -> graphs.Node:
    return next(node for node in graph.nodes.values() if node.kind == "attention")


def test_new_keys_are_zero_and_all_else_is_where_it_was() -> None:
    parent = transformer()
    child = only_child("widen_keys", parent, width=12)
    before, after = parent.weights["linear_3.weight"], child.genome.weights["linear_3.weight"]
    assert after.shape == (12 + 12 + 8, 8)
    query, key, value = after.split([12, 12, 8])
    old_query, old_key, old_value = before.split(8)
    for found, old in ((query, old_query), (key, old_key)):
        assert torch.equal(found.reshape(2, 6, 8)[:, :4], old.reshape(2, 4, 8))
    assert not key.reshape(2, 6, 8)[:, 4:].any() and bool(query.reshape(2, 6, 8)[:, 4:].all())
    assert torch.equal(value, old_value)
    assert attention_of(child.genome.graph).settings["scale"] == 1 / sqrt(4)


def test_a_scale_that_is_written_down_stays() -> None:
    draft = Draft(transformer().graph)
    draft.set(attention_of(transformer().graph).id, scale=0.7)
    child = only_child("widen_keys", Genome(draft.finish(), transformer().weights))
    assert attention_of(child.genome.graph).settings["scale"] == 0.7


def test_a_new_head_is_last_and_nobody_reads_it() -> None:
    parent = transformer()
    child = only_child("add_heads", parent, more=2)
    before, after = parent.weights, child.genome.weights
    assert attention_of(child.genome.graph).settings["heads"] == 4
    for found, old in zip(after["linear_3.weight"].split(16), before["linear_3.weight"].split(8), strict=True):
        assert torch.equal(found[:8], old) and bool(found[8:].all())
    assert torch.equal(after["linear_8.weight"][:, :8], before["linear_8.weight"])
    assert not after["linear_8.weight"][:, 8:].any()
    certificate = certify(parent, child)
    assert (certificate.eval.verdict, certificate.train.verdict) == ("pass", "pass")


def test_a_head_in_the_middle_is_dropped() -> None:
    """The function is that of the parent in which the layer behind does not read the head."""
    parent = only_child("add_heads", transformer()).genome
    weights = {**parent.weights, "linear_8.weight": parent.weights["linear_8.weight"].clone()}
    weights["linear_8.weight"][:, 4:8] = 0
    deaf = Genome(parent.graph, weights)
    promises = {site.place["head"]: site.preserves for site in MUTATIONS["drop_heads"].sites(deaf)}
    assert promises == {0: "approximate", 1: "exact", 2: "exact"}
    for head in (1, 2):
        site = next(site for site in MUTATIONS["drop_heads"].sites(deaf) if site.place["head"] == head)
        child = MUTATIONS["drop_heads"].apply(deaf, site, numpy.random.default_rng(0))
        certificate = certify(deaf, child)
        assert (certificate.eval.verdict, certificate.train.verdict) == ("pass", "pass")


def test_the_only_head_stays() -> None:
    draft = Draft(transformer().graph)
    draft.set(attention_of(transformer().graph).id, heads=1)
    assert MUTATIONS["drop_heads"].sites(Genome(draft.finish(), transformer().weights)) == []


def test_dropout_of_the_attention_is_drawn_for_each_head() -> None:
    """A head more shifts the masks of the others; a wider key does not."""
    draft = Draft(transformer().graph)
    draft.set(attention_of(transformer().graph).id, dropout=0.3)
    parent = Genome(draft.finish(), transformer().weights)
    (site,) = MUTATIONS["add_heads"].sites(parent)
    assert site.preserves == "eval-exact"
    child = only_child("widen_keys", parent)
    assert child.preserves == "exact" and certify(parent, child).train.verdict == "pass"


def test_a_chain_of_them_has_one_transfer() -> None:
    parent = transformer()
    steps = ["add_heads", "widen_keys", "insert_transformer_layer", "add_heads", "widen", "widen_keys"]
    child = chain(parent, steps, numpy.random.default_rng(3))
    assert child.preserves == "exact" and replay(parent, child.record).digest == child.genome.digest
    certificate = certify(parent, child)
    assert (certificate.eval.verdict, certificate.train.verdict) == ("pass", "pass")


class Cross(nn.Module):
    """Queries from one input, keys and values from another: one packed weight at two nodes."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.fc = nn.Linear(8, 3)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self.fc(self.attention(x, y, y, need_weights=False)[0].mean(1))


@pytest.mark.parametrize("name", ["widen_keys", "add_heads", "drop_heads"])
def test_attention_across_two_values(name: str) -> None:
    given = (torch.randn(8, 5, 8), torch.randn(8, 3, 8))
    parent = graphs.from_torch(Cross(), given)
    child = MUTATIONS[name].apply(parent, MUTATIONS[name].sites(parent)[0], numpy.random.default_rng(0))
    certificate = certify(parent, child)
    expected = "approximate" if name == "drop_heads" else "pass"
    assert (certificate.eval.verdict, certificate.train.verdict) == (expected, expected)


# Where heads are not an attention's own -----------------------------------------------------------------------------


def built(how: str) -> Genome:
    draft = Draft()
    x = draft.input((4, 6))
    query, key, value = (draft.add("linear", x, out=6) for _ in range(3))
    operands = {
        "tied": [query, query, value],
        "all one": [query, query, query],
        "bare": [x, key, value],
        "bent": [draft.add("gelu", query), key, value],
        "read": [query, key, value],
        "output": [query, key, value],
        "twice": [query, key, value],
        "normed": [query, key, value],
    }[how]
    found = draft.add("attention", operands, heads=2)
    if how == "twice":
        other = draft.add("linear", x, out=6)
        found = draft.add("add", [found, draft.add("attention", [query, other, value], heads=2)])
    if how == "normed":
        found = draft.add("layer_norm", found, axes=1)
    draft.head(draft.add("linear", draft.add("average", found, axes=(0,)), out=3))
    if how == "read":
        draft.head(draft.add("linear", draft.add("average", query, axes=(0,)), out=3), "more")
    if how == "output":
        draft.head(query, "more")
    draft.prune()
    return lively(draft.finish())


NOT_OWN = ["tied", "all one", "bare", "bent", "read", "output", "twice"]


@pytest.mark.parametrize("how", NOT_OWN)
def test_queries_or_keys_that_something_else_sees_are_left_alone(how: str) -> None:
    parent = built(how)
    assert projections(parent.graph, attention_of(parent.graph).id) is None
    for name in ("widen_keys", "add_heads", "drop_heads"):
        assert MUTATIONS[name].sites(parent) == []


def test_values_that_a_norm_sees_keep_their_heads() -> None:
    parent = built("normed")
    assert len(MUTATIONS["widen_keys"].sites(parent)) == 1
    assert MUTATIONS["add_heads"].sites(parent) == MUTATIONS["drop_heads"].sites(parent) == []


@pytest.mark.parametrize("cosine", [False, True])
def test_attention_in_windows(cosine: bool) -> None:
    draft = Draft()
    x = draft.add("permute", draft.input((3, 4, 4)), order=(1, 2, 0))
    parts = [draft.add("linear", x, out=6) for _ in range(3)]
    parts.append(draft.add("parameter", (), shape=(1, 2, 4, 4), view=(2, 4, 4)))
    if cosine:
        parts.append(draft.add("parameter", (), shape=(1, 2, 1, 1), view=(2, 1, 1)))
    found = draft.add("window_attention", parts, heads=2, size=4, window=2, shift=1, scale=0.6, cosine=cosine)
    flat = draft.add("average", draft.add("linear", found, out=5), axes=(0, 1))
    draft.head(draft.add("linear", flat, out=3))
    parent = lively(draft.finish())
    assert MUTATIONS["add_heads"].sites(parent) == []
    assert len(MUTATIONS["widen_keys"].sites(parent)) == (0 if cosine else 1)
    for site in MUTATIONS["widen_keys"].sites(parent):
        certificate = certify(parent, MUTATIONS["widen_keys"].apply(parent, site, numpy.random.default_rng(0)))
        assert (certificate.eval.verdict, certificate.train.verdict) == ("pass", "pass")
