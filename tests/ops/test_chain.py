"""Chains: several mutations as one record, one transfer and one certificate."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy
import pytest
import torch

from graphs.draft import Draft
from graphs.errors import GraphError, UnknownName
from graphs.genome import Genome
from ops import MUTATIONS, NoSite, Record, certify, chain, propose, replay
from ops.axis_maps import AxisMap
from ops.mutation import Build, Site, Work
from ops.table import CHAIN, replay_child
from ops.transfer import Made, Mapped, Transfer
from tests.strategies import inputs, lively, small

CHAINS = {
    "wide and deep": ["widen", "widen", "widen", "deepen"],
    "new parts widened": ["deepen", "widen", "widen", "widen"],
    "a block, widened": ["insert_block", "widen", "widen"],
    "copies of copies": ["split_head", "widen", "widen"],
    "kernels and branches": ["grow_kernel", "branch", "widen"],
    "smaller and wider": ["narrow", "widen"],
}


def same(one: Genome, other: Genome) -> bool:
    return one.graph == other.graph and all(torch.equal(one.weights[name], other.weights[name]) for name in one.weights)


def one_by_one(parent: Genome, record: Record, tensors: dict[str, torch.Tensor]) -> Genome:
    """What the steps of a chain's record lead to, each on its own."""
    now = parent
    for number, (step, drawn) in enumerate(zip(record.site["steps"], record.choices["steps"], strict=True)):
        given = {name.partition("/")[2]: value for name, value in tensors.items() if name.startswith(f"{number}/")}
        part = replace(
            record, operator=step["operator"], site=step["site"], choices=drawn["choices"], seed=drawn["seed"]
        )
        mutation = MUTATIONS[part.operator]
        now = mutation.make(Work(now, part.site, part.choices, part.seed, part.born, None, given), "exact").genome
    return now


@pytest.mark.parametrize("model", ["resnet", "convnet", "densenet"])
@pytest.mark.parametrize("name", CHAINS)
def test_a_chain_is_its_steps_bit_for_bit_and_keeps_what_the_worst_of_them_promises(name: str, model: str) -> None:
    parent = lively(small(model).graph)
    for seed in range(2):
        draws = numpy.random.default_rng(seed)
        child = chain(parent, CHAINS[name], draws, inputs(parent.graph, 8)["x"].float(), born=5)
        record = Record.from_json(json.loads(json.dumps(child.record.to_json())))
        assert record.operator == "chain" and len(record.site["steps"]) == len(CHAINS[name])
        assert same(one_by_one(parent, record, dict(child.tensors)), child.genome)
        assert same(replay(parent, record, child.tensors), child.genome)
        assert same(replay_child(parent, record, child.tensors).genome, child.genome)
        assert {node.born for id, node in child.genome.graph.nodes.items() if id not in parent.graph.nodes} <= {5}
        certificate = certify(parent, child)
        expected = {"exact": ("pass", "pass"), "eval-exact": ("pass", "approximate")}
        verdicts = (certificate.eval.verdict, certificate.train.verdict)
        assert verdicts == expected.get(child.preserves, ("approximate", "approximate")), certificate


def test_a_chain_is_no_operator_that_is_proposed(parent: Genome) -> None:
    assert "chain" not in MUTATIONS and CHAIN.sites(parent) == []
    with pytest.raises(UnknownName, match="unknown operator 'chain'"):
        propose(parent, numpy.random.default_rng(0), {"chain": 1.0})


@pytest.fixture(scope="module")
def parent() -> Genome:
    return lively(small("convnet").graph)


def test_places_can_be_given(parent: Genome) -> None:
    site = MUTATIONS["widen"].sites(parent)[0]
    for place in (site, site.place, site.to_json()):
        child = chain(parent, [("widen", place), ("widen", None), ("widen", place)], numpy.random.default_rng(0))
        assert [step["site"] for step in child.record.site["steps"]][::2] == [site.place, site.place]
    mapped = [plan for plan in child.transfer.plans.values() if isinstance(plan, Mapped)]
    assert max(len(plan.axes) for plan in mapped) >= 2


def test_what_is_new_and_then_widened_is_made_and_then_mapped(parent: Genome) -> None:
    first = chain(parent, ["deepen"], numpy.random.default_rng(0))
    (layer,) = [id for id in first.genome.graph.nodes if id not in parent.graph.nodes and "conv" in id]
    space = next(space for space in first.genome.graph.spaces if any(use.node == layer for use in space.uses))
    place = first.record.site["steps"][0]["site"]
    child = chain(parent, [("deepen", place), ("widen", {"space": space.name})], numpy.random.default_rng(0))
    plan = child.transfer.plans[child.genome.graph[layer].tensors["weight"]]
    assert isinstance(plan, Made) and plan.later


def test_what_cannot_be_done_says_so(parent: Genome) -> None:
    draws = numpy.random.default_rng(0)
    with pytest.raises(UnknownName, match="unknown operator 'wide': did you mean 'widen'"):
        chain(parent, ["widen", "wide"], draws)
    with pytest.raises(NoSite, match=r"step 2 of the chain, 'widen', has no site \{'space': 'none'\}"):
        chain(parent, ["widen", ("widen", {"space": "none"})], draws)
    with pytest.raises(NoSite, match=r"step 1 of the chain, 'widen', has no site \{'space': 'none'\}"):
        chain(parent, [("widen", Site({"space": "none"}, "exact"))], draws)
    with pytest.raises(GraphError, match="a chain has no steps"):
        chain(parent, [], draws)


def broken_last(build: Build) -> Build:
    """The build with one share of a reader off by a millionth."""
    plans = dict(build.transfer.plans)
    for name, plan in plans.items():
        for number, axis in enumerate(plan.axes if isinstance(plan, Mapped) else ()):
            if axis.take is not None:
                take = axis.take.copy()
                take[numpy.flatnonzero(numpy.bincount(axis.index)[axis.index] > 1)[-1]] *= 1 + 1e-6
                wrong = AxisMap(axis.axis, axis.index, take, axis.gradient)
                plans[name] = Mapped(plan.source, (*plan.axes[:number], wrong, *plan.axes[number + 1 :]))
                return replace(build, transfer=Transfer(plans))
    raise AssertionError("no reader")


@pytest.mark.parametrize("first", ["widen", "deepen", "split_head"])
def test_a_fault_in_the_last_step_is_found_where_its_channel_is_dark_on_the_probe(
    monkeypatch: pytest.MonkeyPatch, first: str
) -> None:
    sound = MUTATIONS["widen"]
    parent = lively(small("convnet").graph)
    weights = dict(parent.weights)
    for node in parent.graph.nodes.values():  # the second half of each layer's channels is dark behind its ReLU
        if node.kind in ("conv2d", "batch_norm"):
            for role in {"weight", "bias"} & set(node.tensors):
                changed = weights[node.tensors[role]].clone()
                changed[len(changed) // 2 :] = 0.0 if role == "weight" else -1.0
                weights[node.tensors[role]] = changed
    dark = Genome(parent.graph, weights)
    fault = replace(sound, build=lambda work: broken_last(sound.build(work)))
    for real in (parent, dark):
        step = chain(real, [first], numpy.random.default_rng(1))
        place = step.record.site["steps"][0]["site"]
        for site in sound.sites(step.genome):
            steps = [(first, place), ("widen", site.place)]
            found = certify(real, chain(real, steps, numpy.random.default_rng(2)))
            assert found.eval.verdict == "pass" and found.train.verdict in ("pass", "approximate"), (site, found)
            with monkeypatch.context() as patch:
                patch.setitem(MUTATIONS, "widen", fault)
                found = certify(real, chain(real, steps, numpy.random.default_rng(2)))
            assert "broken" in (found.eval.verdict, found.train.verdict), (site, found)


@pytest.fixture(scope="module")
def smooth() -> Genome:
    """A network behind whose activation channels of zeros can learn."""
    draft = Draft()
    hidden = draft.add("gelu", draft.add("linear", draft.input((6,)), out=8))
    hidden = draft.add("gelu", draft.add("linear", hidden, out=8))
    draft.head(draft.add("linear", hidden, out=4))
    return lively(draft.finish())


@pytest.mark.parametrize("first", ["skip", "insert_block", "add_skip", "replicate_branch"])
def test_channels_of_zeros_that_are_added_to_what_is_new_hide_nothing(smooth: Genome, first: str) -> None:
    for seed in range(3):
        certificate = certify(smooth, chain(smooth, [first, "widen_gradmax"], numpy.random.default_rng(seed)))
        assert (certificate.eval.verdict, certificate.train.verdict) == ("pass", "pass"), certificate


def test_channels_of_zeros_that_a_later_step_copies_are_constants(smooth: Genome) -> None:
    """No weights of the parent make them anything else, so they show nothing on stirred ones either."""
    draws = numpy.random.default_rng(0)
    new = chain(smooth, ["insert_block"], draws)
    (site, *_) = [
        site
        for site in MUTATIONS["widen_gradmax"].sites(new.genome)
        if all(site not in MUTATIONS[name].sites(smooth) for name in ("widen", "widen_gradmax"))
    ]
    grown = [("insert_block", new.record.site["steps"][0]["site"]), ("widen_gradmax", site.place)]
    child = chain(smooth, [*grown, ("widen", site.place)], draws)
    certificate = certify(smooth, child)
    assert (certificate.eval.verdict, certificate.train.verdict) == ("pass", "pass"), certificate


@pytest.mark.parametrize("step", [None, 3, ("widen",), ("widen", 3), (None, None), ["widen", None]])
def test_a_step_that_is_none_is_refused(step: Any) -> None:
    with pytest.raises(GraphError, match="step 2 of the chain is"):
        chain(small("convnet"), ["widen", step], numpy.random.default_rng(0))
