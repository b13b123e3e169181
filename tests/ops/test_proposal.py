"""Picking a mutation, the records it leaves, and what happens where none can be made."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import numpy
import pytest

from graphs.draft import Draft
from graphs.errors import FormatError, GraphError, UnknownName
from graphs.genome import Genome
from graphs.initial import initial_weights
from graphs.structure import Graph
from ops import MUTATIONS, NoSite, Record, ReplayError, Site, certify, chain, propose, replay
from ops.errors import BadChoice
from tests.strategies import inputs, lively, small


@pytest.fixture(scope="module")
def parent() -> Genome:
    return small("resnet")


@pytest.fixture(scope="module")
def bare() -> Genome:
    """One linear layer, which is the output and makes one number: nothing can be changed."""
    draft = Draft()
    draft.head(draft.add("linear", draft.input((3,)), out=1))
    graph = draft.finish()
    return Genome(graph, initial_weights(graph, 0))


def test_what_an_operator_needs_is_said_where_it_has_no_site(parent: Genome, bare: Genome) -> None:
    assert len({mutation.needs for mutation in MUTATIONS.values()}) == len(MUTATIONS)
    for genome in (parent, bare):
        for name, mutation in MUTATIONS.items():
            said = mutation.refusal(genome)
            if mutation.sites(genome):
                assert said is None
            else:
                assert said == f"'{name}' has no site in this network: it needs {mutation.needs}"
    assert "compares no cosines" in str(MUTATIONS["widen_keys"].refusal(parent))


def test_a_head_is_split_behind_what_an_output_for_training_reads() -> None:
    draft = Draft()
    early = draft.add("relu", draft.add("linear", draft.input((6,)), path="early", out=8))
    middle = draft.add("relu", draft.add("linear", early, path="middle", out=8))
    late = draft.add("relu", draft.add("linear", middle, path="late", out=8))
    draft.head(draft.add("linear", late, path="main", out=3), "main")
    draft.head(draft.add("linear", middle, path="aside", out=3), "aside", training_only=True)
    parent = lively(draft.finish())
    sites = MUTATIONS["split_head"].sites(parent)
    assert [(site.to_json(), site.preserves) for site in sites] == [({"cut": at}, "exact") for at in (middle, late)]
    for site in sites:
        child = MUTATIONS["split_head"].apply(parent, site, numpy.random.default_rng(0))
        certificate = certify(parent, child)
        assert (certificate.eval.verdict, certificate.train.verdict) == ("pass", "pass")
        assert sum("aside" in id for id in child.genome.graph.nodes) == 1


def test_the_same_generator_proposes_the_same_child(parent: Genome) -> None:
    children = [propose(parent, numpy.random.default_rng(11)) for _ in range(2)]
    assert children[0].record == children[1].record
    assert children[0].genome.digest == children[1].genome.digest


def test_all_operators_are_proposed_about_equally_often(parent: Genome) -> None:
    draws = numpy.random.default_rng(0)
    able = {name for name, mutation in MUTATIONS.items() if mutation.sites(parent)}
    counts = Counter(propose(parent, draws).record.operator for _ in range(50 * len(able)))
    assert counts.keys() == able
    assert all(25 <= count <= 80 for count in counts.values()), counts


def test_odds_are_kept(parent: Genome) -> None:
    draws = numpy.random.default_rng(0)
    odds = {"widen": 3.0, "skip": 1.0, "branch": 0.0}
    counts = Counter(propose(parent, draws, odds).record.operator for _ in range(200))
    assert counts.keys() == {"widen", "skip"} and 120 <= counts["widen"] <= 180


def test_operators_in_a_row_are_one_mutation_at_what_the_first_has_made(parent: Genome) -> None:
    odds = {"deepen+split_branch": 1.0}
    for seed in range(5):
        child = propose(parent, numpy.random.default_rng(seed), odds)
        made = child.genome.graph.nodes.keys() - parent.graph.nodes.keys()
        first, second = child.record.site["steps"]
        assert (first["operator"], second["operator"]) == ("deepen", "split_branch")
        assert first["site"]["after"] in parent.graph.nodes and second["site"]["node"] not in parent.graph.nodes
        assert made and certify(parent, child).eval.verdict == "pass"
        assert replay(parent, child.record, child.tensors).digest == child.genome.digest
    with pytest.raises(NoSite):
        propose(parent, numpy.random.default_rng(0), {"widen+split_branch": 1.0})  # widening makes no node
    with pytest.raises(UnknownName, match="did you mean 'split_branch'"):
        propose(parent, numpy.random.default_rng(0), {"deepen+split_brunch": 1.0})


def test_odds_may_follow_the_network_from_step_to_step(parent: Genome) -> None:
    seen = []

    def odds(graph: Graph) -> dict[str, float]:
        seen.append(len(graph.nodes))
        return {"deepen": 1.0} if len(seen) % 2 else {"widen": 1.0}

    child = propose(parent, numpy.random.default_rng(0), odds, steps=4)
    assert [step["operator"] for step in child.record.site["steps"]] == ["deepen", "widen", "deepen", "widen"]
    assert seen[0] == len(parent.graph.nodes) < seen[1] == seen[2] < seen[3]
    assert certify(parent, child).eval.verdict == "pass" and child.genome.graph.fingerprint == child.record.child
    assert {node.born for node in child.genome.graph.nodes.values()} == {0, 1}


def test_an_operator_without_a_site_gives_way_to_the_others(bare: Genome) -> None:
    parent = small("vgg8")
    assert MUTATIONS["split_head"].sites(parent)
    draft = Draft()
    hidden = draft.add("tanh", draft.add("linear", draft.input((3,)), out=4))
    draft.head(draft.add("linear", hidden, out=2))
    graph = draft.finish()
    genome = Genome(graph, initial_weights(graph, 0))
    assert not MUTATIONS["grow_kernel"].sites(genome)
    draws = numpy.random.default_rng(0)
    found = {propose(genome, draws, {"grow_kernel": 100.0, "widen": 0.01}).record.operator for _ in range(20)}
    assert found == {"widen"}


def test_where_nothing_can_be_changed_there_is_no_site(bare: Genome) -> None:
    assert all(not mutation.sites(bare) for mutation in MUTATIONS.values())
    with pytest.raises(NoSite, match=r"none of the operators .* can be applied to this network"):
        propose(bare, numpy.random.default_rng(0))
    with pytest.raises(NoSite, match="none of the operators"):
        propose(bare, numpy.random.default_rng(0), {"widen": 0.0})


def test_an_unknown_operator_is_named_with_the_nearest(parent: Genome) -> None:
    with pytest.raises(UnknownName, match="unknown operator 'widn': did you mean 'widen'"):
        propose(parent, numpy.random.default_rng(0), {"widn": 1.0})


def test_a_site_of_another_network_is_refused(parent: Genome) -> None:
    site = MUTATIONS["widen"].sites(parent)[0]
    for wrong in (Site({"space": "nowhere#1:0"}, "exact"), Site(site.place, "eval-exact"), Site({}, "exact")):
        with pytest.raises(NoSite, match="'widen' has no site"):
            MUTATIONS["widen"].apply(parent, wrong, numpy.random.default_rng(0))


def test_sites_are_json_and_can_be_made_from_it(parent: Genome) -> None:
    for mutation in MUTATIONS.values():
        for site in mutation.sites(parent):
            assert Site(site.to_json(), site.preserves) == site
    with pytest.raises(GraphError, match="a site promises one of"):
        Site({}, "perhaps")


def test_choices_can_be_given(parent: Genome) -> None:
    """What is left out is drawn as ever, and what no operator chooses is refused."""
    widen = MUTATIONS["widen"]
    site = widen.sites(parent)[0]
    drawn, given = (
        widen.apply(parent, site, numpy.random.default_rng(4), choices=choices).record
        for choices in (None, {"split": "even"})
    )
    assert given.choices == {**drawn.choices, "split": "even"} and given.seed == drawn.seed
    with pytest.raises(UnknownName, match="unknown choice of 'widen' 'spilt': did you mean 'split'"):
        widen.apply(parent, site, numpy.random.default_rng(4), choices={"spilt": "even"})
    with pytest.raises(BadChoice, match=r"split = 'odd' at .* expected 'uneven' or 'even'"):
        widen.apply(parent, site, numpy.random.default_rng(4), choices={"split": "odd"})


def test_new_nodes_are_born_when_we_say(parent: Genome) -> None:
    site = MUTATIONS["branch"].sites(parent)[0]
    for given, born in ((None, 1), (42, 42)):
        child = MUTATIONS["branch"].apply(parent, site, numpy.random.default_rng(0), born=given)
        new = [node for id, node in child.genome.graph.nodes.items() if id not in parent.graph.nodes]
        assert {node.born for node in new} == {born} == {child.record.born}
    again = MUTATIONS["branch"].apply(child.genome, site, numpy.random.default_rng(0))
    assert again.record.born == 43


def test_the_facts_about_a_network_stay_with_it(parent: Genome) -> None:
    told = Genome(parent.graph, parent.weights, {"labels": ["a", "b"]})
    assert propose(told, numpy.random.default_rng(0)).genome.about == told.about


def test_records_are_checked(parent: Genome) -> None:
    record = propose(parent, numpy.random.default_rng(3)).record
    data = record.to_json()
    assert Record.from_json(data) == record
    for wrong in ({**data, "more": 1}, {key: value for key, value in data.items() if key != "seed"}):
        with pytest.raises(FormatError, match="a mutation's record has the fields"):
            Record.from_json(wrong)
    for name in ("operator", "site", "seed"):
        with pytest.raises(FormatError, match=f"field '{name}' of a mutation's record"):
            Record.from_json({**data, name: 1.5})


def test_records_of_other_networks_and_changed_ones_are_refused(parent: Genome) -> None:
    site = MUTATIONS["widen"].sites(parent)[0]
    record = MUTATIONS["widen"].apply(parent, site, numpy.random.default_rng(0)).record
    data = record.to_json()
    with pytest.raises(ReplayError, match="replay it on its own parent"):
        replay(small("vgg8"), record)
    wider = {**record.choices, "width": record.choices["width"] + 1}
    for changed in ({"choices": wider}, {"child": "0" * 64}):
        with pytest.raises(ReplayError, match="it was changed, or made by another version"):
            replay(parent, Record.from_json({**data, **changed}))
    for name, wrong in (("choices", {}), ("site", {"room": 3})):
        with pytest.raises(ReplayError, match="does not fit this network"):
            replay(parent, Record.from_json({**data, name: wrong}))
    with pytest.raises(GraphError, match="no channel space"):
        replay(parent, Record.from_json({**data, "site": {"space": "nowhere#1:0"}}))
    with pytest.raises(UnknownName, match="unknown operator"):
        replay(parent, Record.from_json({**data, "operator": "shrivel"}))


def test_a_record_that_promises_what_its_site_does_not_is_refused(parent: Genome) -> None:
    draws = numpy.random.default_rng(0)
    widened, shrunk = (MUTATIONS[name].apply(parent, MUTATIONS[name].sites(parent)[0], draws) for name in SOUND)
    for child in (
        widened,
        shrunk,
        chain(parent, ["widen", "narrow"], draws),
        chain(parent, ["deepen", "widen"], draws),
    ):
        assert replay(parent, child.record).digest == child.genome.digest
        for promise in {"exact", "eval-exact", "approximate"} - {child.preserves}:
            with pytest.raises(ReplayError, match=f"promises '{promise}', but its site in this network '"):
                replay(parent, replace(child.record, preserves=promise))
    data = widened.record.to_json()
    for name, wrong in (("preserves", "perfect"), ("born", -1), ("seed", -1), ("seed", True), ("seed", 2**63)):
        with pytest.raises(FormatError, match="a mutation's record"):
            Record.from_json({**data, name: wrong})


SOUND = ("widen", "narrow")


@pytest.mark.parametrize("rng", [None, 3, numpy.random.RandomState(0)], ids=["none", "a number", "an old one"])
def test_what_is_no_generator_is_refused(parent: Genome, rng: Any) -> None:
    site = MUTATIONS["widen"].sites(parent)[0]
    for call in (
        lambda: MUTATIONS["widen"].apply(parent, site, rng),
        lambda: propose(parent, rng),
        lambda: chain(parent, ["widen"], rng),
    ):
        with pytest.raises(GraphError, match=r"expected a generator such as numpy\.random\.default_rng\(0\)"):
            call()


def test_arguments_of_other_types_are_refused_by_one_line(parent: Genome) -> None:
    draws, widen = numpy.random.default_rng(0), MUTATIONS["widen"]
    site = widen.sites(parent)[0]
    with pytest.raises(GraphError, match=r"the site is .* expected one of `sites`"):
        widen.apply(parent, site.to_json(), draws)  # type: ignore[arg-type]
    for born in ("a", 1.5, -1, True):
        for call in (widen.apply, lambda genome, _, rng, born: propose(genome, rng, born=born)):
            with pytest.raises(GraphError, match=r"born is .* expected a whole number from 0"):
                call(parent, site, draws, born=born)  # type: ignore[operator]
    for steps in (0, -1, 1.5, None):
        with pytest.raises(GraphError, match=r"steps is .* expected a whole number from 1"):
            propose(parent, draws, steps=steps)  # type: ignore[arg-type]


def test_a_batch_that_does_not_fit_is_refused_by_one_line() -> None:
    import torch

    draft = Draft()
    hidden = draft.add("gelu", draft.add("batch_norm", draft.add("linear", draft.input((6,)), out=8)))
    draft.head(draft.add("linear", hidden, out=4))
    parent, draws = lively(draft.finish()), numpy.random.default_rng(0)
    x, classes = torch.randn(5, 6), torch.arange(5) % 4
    (grad,) = MUTATIONS["widen_gradmax"].sites(parent)
    (deep,) = [site for site in MUTATIONS["deepen"].sites(parent) if site.place["norm"]]
    for targets in (classes, classes.to(torch.uint8), torch.randn(5, 4), None):
        MUTATIONS["widen_gradmax"].apply(parent, grad, draws, x if targets is None else (x, targets))
    for wrong, message in (
        ((x, classes + 3), "class numbers from 3 to 6; output 'logits' has those from 0 to 3"),
        ((x, classes - 1), "class numbers from -1 to 2"),
        ((x, classes[:4]), r"class numbers of shape \(4,\); expected \(5,\)"),
        ((x, torch.randn(5, 3)), r"targets of shape \(5, 3\); output 'logits' has \(5, 4\)"),
        ((x, [0, 1, 2, 3, 0]), "targets of type list; expected a tensor"),
        (x[:0], r"the batch for input 'x' has shape \(0, 6\); expected \(1 or more, \*\(6,\)\)"),
        (x[:, :5], r"the batch for input 'x' has shape \(5, 5\)"),
        (x.long(), r"the batch for input 'x' holds numbers of type torch\.int64; expected float ones"),
        (x.numpy(), "the batch for input 'x' is a ndarray; expected a tensor"),
        (x * float("nan"), "the batch for input 'x' holds NaN"),
    ):
        with pytest.raises(GraphError, match=message):
            MUTATIONS["widen_gradmax"].apply(parent, grad, draws, wrong)
        if not isinstance(wrong, tuple):
            with pytest.raises(GraphError, match=message):
                MUTATIONS["deepen"].apply(parent, deep, draws, wrong)


def test_statistics_taken_from_data_are_stored_beside_the_record() -> None:
    import torch

    parent = small("convnet")
    batch = inputs(parent.graph, 32, dtype=torch.float32)["x"]
    site = next(site for site in MUTATIONS["deepen"].sites(parent) if site.place["norm"])
    child = MUTATIONS["deepen"].apply(parent, site, numpy.random.default_rng(0), batch)
    plain = MUTATIONS["deepen"].apply(parent, site, numpy.random.default_rng(0))
    assert len(child.tensors) == 4
    assert replay(parent, child.record, child.tensors).digest == child.genome.digest != plain.genome.digest


@pytest.mark.parametrize("weight", ["1", None, -1.0, float("nan"), float("inf")])
def test_a_weight_that_is_no_number_from_zero_is_named(parent: Genome, weight: object) -> None:
    with pytest.raises(BadChoice, match="odds: the weight of 'widen' is"):
        propose(parent, numpy.random.default_rng(0), {"widen": weight})  # type: ignore[dict-item]
