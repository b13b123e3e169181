"""Operators on the heads of an attention: by hand, on networks of others, and where they have no business."""

from __future__ import annotations

from math import sqrt

import numpy
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import graphs
from graphs.draft import Draft
from graphs.genome import Genome
from graphs.structure import Graph
from ops import MUTATIONS, Child, certify, chain, replay
from ops.add_heads import head_spaces
from ops.projections import projections
from ops.width import changeable
from tests.strategies import lively, transformer, written_out


def only_child(name: str, parent: Genome, **choices: int) -> Child:
    (site,) = MUTATIONS[name].sites(parent)
    return MUTATIONS[name].apply(parent, site, numpy.random.default_rng(0), choices=choices)


def attention_of(graph: Graph) -> graphs.Node:
    return next(node for node in graph.nodes.values() if node.kind == "attention")


def test_new_keys_are_zero_and_all_else_is_where_it_was() -> None:
    parent = transformer()
    child = only_child("widen_keys", parent, width=6)
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
    assert child.genome.graph.shapes[attention_of(child.genome.graph).id] == (4, 6, 4)
    for found, old in zip(after["linear_3.weight"].split(16), before["linear_3.weight"].split(8), strict=True):
        assert torch.equal(found[:8], old) and bool(found[8:].all())
    assert torch.equal(after["linear_16.weight"][:, :8], before["linear_16.weight"])
    assert not after["linear_16.weight"][:, 8:].any()
    certificate = certify(parent, child)
    assert (certificate.eval.verdict, certificate.train.verdict) == ("pass", "pass")


def test_a_head_in_the_middle_is_dropped() -> None:
    """The function is that of the parent in which the layer behind does not read the head."""
    parent = only_child("add_heads", transformer()).genome
    weights = {**parent.weights, "linear_16.weight": parent.weights["linear_16.weight"].clone()}
    weights["linear_16.weight"][:, 4:8] = 0
    deaf = Genome(parent.graph, weights)
    promises = {site.place["head"]: site.preserves for site in MUTATIONS["drop_heads"].sites(deaf)}
    assert promises == {0: "approximate", 1: "exact", 2: "exact"}
    for head in (1, 2):
        site = next(site for site in MUTATIONS["drop_heads"].sites(deaf) if site.place["head"] == head)
        child = MUTATIONS["drop_heads"].apply(deaf, site, numpy.random.default_rng(0))
        certificate = certify(deaf, child)
        assert (certificate.eval.verdict, certificate.train.verdict) == ("pass", "pass")


def test_the_last_head_stays() -> None:
    parent = transformer()
    first = next(site for site in MUTATIONS["drop_heads"].sites(parent))
    alone = MUTATIONS["drop_heads"].apply(parent, first, numpy.random.default_rng(0)).genome
    assert MUTATIONS["drop_heads"].sites(alone) == []


def test_copied_heads_share_what_is_read_of_them() -> None:
    """Heads are channels: `widen` copies them, and `merge_twins` gives the parent back."""
    parent = transformer()
    (heads,) = head_spaces(parent.graph)
    site = next(site for site in MUTATIONS["widen"].sites(parent) if site.place["space"] == heads.name)
    child = MUTATIONS["widen"].apply(parent, site, numpy.random.default_rng(0))
    certificate = certify(parent, child)
    assert (certificate.eval.verdict, certificate.train.verdict) == ("pass", "pass")
    back = only_child("merge_twins", child.genome).genome
    assert all(torch.equal(tensor, parent.weights[name]) for name, tensor in back.weights.items())


def test_values_are_widened_in_every_head() -> None:
    parent = transformer()
    values = next(space for space in changeable(parent.graph) if space.name.endswith(":16/1"))
    site = next(site for site in MUTATIONS["widen_zero"].sites(parent) if site.place["space"] == values.name)
    child = MUTATIONS["widen_zero"].apply(parent, site, numpy.random.default_rng(0), choices={"width": 5})
    before, after = parent.weights["linear_16.weight"], child.genome.weights["linear_16.weight"]
    assert torch.equal(after.reshape(8, 2, 5)[:, :, :4], before.reshape(8, 2, 4))
    assert not after.reshape(8, 2, 5)[:, :, 4].any()
    assert certify(parent, child).eval.verdict == "pass"


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


class Grouped(nn.Module):
    """Four heads of queries, of which two each share keys and values."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value = nn.Linear(6, 12), nn.Linear(6, 6), nn.Linear(6, 10)
        self.out, self.fc = nn.Linear(20, 6), nn.Linear(6, 3)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        q = self.query(x).view(*x.shape[:2], 4, 3).transpose(1, 2)
        k, v = (layer(y).unflatten(-1, (2, -1)).transpose(1, 2) for layer in (self.key, self.value))
        found = functional.scaled_dot_product_attention(q, k, v, enable_gqa=True)
        return self.fc((x + self.out(found.transpose(1, 2).flatten(2))).mean(1))


@pytest.mark.parametrize("make", [Cross, Grouped])
@pytest.mark.parametrize("name", ["widen_keys", "add_heads", "drop_heads"])
def test_attention_across_two_values(name: str, make: type[nn.Module]) -> None:
    width = 8 if make is Cross else 6
    parent = graphs.from_torch(make(), (torch.randn(8, 5, width), torch.randn(8, 3, width)))
    child = MUTATIONS[name].apply(parent, MUTATIONS[name].sites(parent)[0], numpy.random.default_rng(0))
    certificate = certify(parent, child)
    expected = "approximate" if name == "drop_heads" else "pass"
    assert (certificate.eval.verdict, certificate.train.verdict) == (expected, expected)


def test_a_group_of_queries_comes_with_its_keys() -> None:
    parent = graphs.from_torch(Grouped(), (torch.randn(8, 5, 6), torch.randn(8, 3, 6)))
    child = only_child("add_heads", parent)
    assert {name: tuple(tensor.shape) for name, tensor in child.genome.weights.items() if "weight" in name} == {
        "query.weight": (18, 6),
        "key.weight": (9, 6),
        "value.weight": (15, 6),
        "out.weight": (6, 30),
        "fc.weight": (3, 6),
    }


# Where they are not an attention's own ------------------------------------------------------------------------------


def built(how: str) -> Genome:
    draft = Draft()
    x = draft.input((4, 6))
    query, key, value = (draft.add("linear", x, out=6) for _ in range(3))
    laid = {each: _laid(draft, each) for each in (x, query, key, value)}
    operands = {
        "tied": [query, query, value],
        "all one": [query, query, query],
        "bare": [x, key, value],
        "bent": [query, key, value],
        "read": [query, key, value],
        "output": [query, key, value],
        "twice": [query, key, value],
        "normed": [query, key, value],
    }[how]
    parts = [laid[each] for each in operands]
    if how == "bent":
        parts[0] = draft.add("gelu", parts[0])
    found = _flat(draft, draft.add("attention", parts))
    if how == "twice":
        other = _laid(draft, draft.add("linear", x, out=6))
        found = draft.add("add", [found, _flat(draft, draft.add("attention", [laid[query], other, laid[value]]))])
    if how == "normed":
        found = draft.add("layer_norm", found, axes=1)
    draft.head(draft.add("linear", draft.add("average", found, axes=(0,)), out=3))
    if how == "read":
        draft.head(draft.add("linear", draft.add("average", query, axes=(0,)), out=3), "more")
    if how == "output":
        draft.head(query, "more")
    draft.prune()
    return lively(draft.finish())


def _laid(draft: Draft, value: str) -> str:
    return draft.add("permute", draft.add("reshape", value, shape=(4, 2, 3)), order=(1, 0, 2))


def _flat(draft: Draft, value: str) -> str:
    return draft.add("reshape", draft.add("permute", value, order=(1, 0, 2)), shape=(4, 6))


NOT_OWN = ["tied", "all one", "bare", "bent", "read", "output", "twice"]


@pytest.mark.parametrize("how", NOT_OWN)
def test_queries_or_keys_that_something_else_sees_are_left_alone(how: str) -> None:
    parent = built(how)
    assert projections(parent.graph, attention_of(parent.graph).id) is None
    assert MUTATIONS["widen_keys"].sites(parent) == []


@pytest.mark.parametrize("how", ["tied", "all one", "bent", "read", "twice"])
def test_heads_are_channels_whoever_else_sees_them(how: str) -> None:
    parent = built(how)
    for name in ("add_heads", "widen"):
        for site in MUTATIONS[name].sites(parent):
            certificate = certify(parent, MUTATIONS[name].apply(parent, site, numpy.random.default_rng(0)))
            assert (certificate.eval.verdict, certificate.train.verdict) == ("pass", "pass")
    assert len(MUTATIONS["add_heads"].sites(parent)) == 1


@pytest.mark.parametrize(
    ("how", "why"), [("bare", "pairs them with what is not known to be channels"), ("output", "the output 'more'")]
)
def test_heads_that_cannot_change_say_why(how: str, why: str) -> None:
    parent = built(how)
    assert MUTATIONS["add_heads"].sites(parent) == MUTATIONS["drop_heads"].sites(parent) == []
    assert why in graphs.explain(parent.graph, attention_of(parent.graph).id)


def test_heads_that_a_norm_sees_stay_as_many() -> None:
    parent = built("normed")
    assert len(MUTATIONS["widen_keys"].sites(parent)) == 1
    assert MUTATIONS["add_heads"].sites(parent) == MUTATIONS["drop_heads"].sites(parent) == []


@pytest.mark.parametrize("cosine", [False, True])
def test_attention_that_is_written_out(cosine: bool) -> None:
    """A new head has a column of its own in the table of biases, and a temperature of its own."""
    parent = written_out(cosine)
    assert len(MUTATIONS["widen_keys"].sites(parent)) == (0 if cosine else 1)
    for name in ("widen_keys", "add_heads", "widen", "widen_zero"):
        for site in MUTATIONS[name].sites(parent):
            certificate = certify(parent, MUTATIONS[name].apply(parent, site, numpy.random.default_rng(0)))
            assert (certificate.eval.verdict, certificate.train.verdict) == ("pass", "pass")
    child = only_child("add_heads", parent)
    table = next(name for name, tensor in parent.weights.items() if tensor.shape == (3, 2))
    assert torch.equal(child.genome.weights[table][:, :2], parent.weights[table])
    assert bool(child.genome.weights[table][:, 2].all())
    (last,) = [site for site in MUTATIONS["drop_heads"].sites(child.genome) if site.preserves == "exact"]
    back = MUTATIONS["drop_heads"].apply(child.genome, last, numpy.random.default_rng(0)).genome
    assert back.graph.fingerprint == parent.graph.fingerprint
    assert all(torch.equal(tensor, parent.weights[name]) for name, tensor in back.weights.items())
