"""Certificates: verdicts, probes, what they leave alone, and what they remember."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy
import pytest
import torch

import graphs
from graphs import files
from graphs.draft import Draft
from graphs.errors import GraphError
from graphs.genome import Genome
from graphs.initial import initial_weights
from graphs.kinds import tensors
from ops import MUTATIONS, BrokenPromise, Child, ReplayError, certificate, certify, probe
from ops.certificate import VERDICTS, Certificate, Mode
from ops.differences import unit
from ops.mutation import Build, Mutation, Work
from ops.stirring import stir
from ops.table import replay_child
from ops.transfer import Transfer
from tests.strategies import inputs, lively, mapped, small, transformer


def child_of(parent: Genome, name: str = "widen", place: int = 0, seed: int = 0) -> Child:
    mutation = MUTATIONS[name]
    return mutation.apply(parent, mutation.sites(parent)[place], numpy.random.default_rng(seed))


@pytest.fixture(scope="module")
def parent() -> Genome:
    return lively(small("convnet").graph)


def tampered(child: Child, by: float = 1e-3) -> Child:
    weights = dict(child.genome.weights)
    weights["fc.bias"] = weights["fc.bias"] + by
    return replace(child, genome=Genome(child.genome.graph, weights))


def test_a_sound_child_passes_in_both_modes(parent: Genome) -> None:
    certificate = certify(parent, child_of(parent))
    for mode in (certificate.eval, certificate.train):
        assert mode.verdict == "pass"
        assert mode.error <= mode.tolerance and mode.power >= 1e6 * mode.tolerance
        assert mode.tolerance == max(1e-12, 20 * mode.floor)
    assert not certificate.broken and not certificate.stirred and certificate.require() is certificate


def test_a_tampered_child_is_broken(parent: Genome) -> None:
    certificate = certify(parent, tampered(child_of(parent)))
    assert certificate.broken and (certificate.eval.verdict, certificate.train.verdict) == ("broken", "broken")
    with pytest.raises(BrokenPromise, match="in eval mode the child is broken: it differs by"):
        certificate.require()


def test_a_child_with_nan_is_broken(parent: Genome) -> None:
    certificate = certify(parent, tampered(child_of(parent), math.nan))
    assert certificate.broken and certificate.eval.error == math.inf
    assert certificate.to_json()["eval"]["error"] is None


def test_a_batch_norm_that_is_inserted_promises_eval_mode_only(parent: Genome) -> None:
    (place,) = [n for n, site in enumerate(MUTATIONS["deepen"].sites(parent)) if site.preserves == "eval-exact"][:1]
    certificate = certify(parent, child_of(parent, "deepen", place))
    assert (certificate.eval.verdict, certificate.train.verdict) == ("pass", "approximate")
    assert certificate.train.error > 1e-3


def test_shrinking_promises_nothing(parent: Genome) -> None:
    certificate = certify(parent, child_of(parent, "narrow"))
    assert (certificate.eval.verdict, certificate.train.verdict) == ("approximate", "approximate")
    assert not certificate.broken and not certificate.stirred and certificate.require() is certificate


def test_what_leads_to_no_output_in_eval_mode_is_unreached_there() -> None:
    draft = Draft()
    image = draft.add("relu", draft.add("conv2d", draft.input((2, 5, 5)), out=4))
    draft.head(draft.add("linear", draft.add("flatten", image), out=3))
    side = draft.add("relu", draft.add("linear", draft.add("flatten", image), out=6))
    draft.head(draft.add("linear", side, out=2), "auxiliary", training_only=True)
    parent = lively(draft.finish())
    (place,) = [n for n, site in enumerate(MUTATIONS["widen"].sites(parent)) if "linear" in site.place["space"]]
    certificate = certify(parent, child_of(parent, "widen", place))
    assert (certificate.eval.verdict, certificate.train.verdict) == ("unreached", "pass")


@pytest.mark.parametrize("name", ["insert_block", "deepen", "insert_se"])
def test_what_is_cut_away_behind_is_unreached(name: str) -> None:
    """Both signs of a value side by side, of which the first alone is read."""
    draft = Draft()
    image = draft.add("conv2d", draft.input((2, 5, 5)), out=4)
    turned = draft.add("pointwise", image, program=[["operator.neg", [{"in": 0}], {}]])
    one, other = draft.add("relu", image), draft.add("relu", turned)
    kept = draft.add("slice", draft.add("concat", [one, other]), start=0, stop=4)
    draft.head(draft.add("linear", draft.add("flatten", kept), out=3))
    parent = lively(draft.finish())
    sites = MUTATIONS[name].sites(parent)
    (lost,) = [n for n, site in enumerate(sites) if site.place.get("after") == other]
    (seen,) = [n for n, site in enumerate(sites) if site.place.get("after") == one]
    for place, verdict in ((lost, "unreached"), (seen, "pass")):
        certificate = certify(parent, child_of(parent, name, place))
        assert certificate.eval.verdict == certificate.train.verdict == verdict


def test_a_zero_head_shows_nothing_and_is_stirred(parent: Genome) -> None:
    weights = {name: tensor * 0 if name.startswith("fc.") else tensor for name, tensor in parent.weights.items()}
    blind = Genome(parent.graph, weights)
    certificate = certify(blind, child_of(blind))
    assert certificate.stirred and (certificate.eval.verdict, certificate.train.verdict) == ("pass", "pass")


def test_a_table_whose_entries_are_all_negative_is_stirred_above_zero() -> None:
    draft = Draft()
    words = draft.add("input", (), name="words", shape=(), dtype="integer", most=4)
    row = draft.add("embedding", words, path="table", entries=4, out=5)
    draft.head(draft.add("linear", draft.add("relu", row), out=3))
    known = lively(draft.finish())
    dead = Genome(known.graph, {**known.weights, "table.weight": -known.weights["table.weight"].abs() - 0.1})
    for seed in range(3):
        certificate = certify(dead, child_of(dead), seed=seed)
        assert certificate.stirred and certificate.eval.verdict == certificate.train.verdict == "pass"


def test_a_token_that_is_below_zero_everywhere_is_stirred_above_it() -> None:
    draft = Draft()
    image = draft.input((2, 5))
    token = draft.add("expand", [draft.add("parameter", (), path="token", shape=(1, 5), view=(1, 5)), image], rank=2)
    parts = [draft.add("relu", token), draft.add("linear", image, out=5)]
    draft.head(draft.add("linear", draft.add("flatten", draft.add("concat", parts)), out=3))
    known = lively(draft.finish())
    dead = Genome(known.graph, {**known.weights, "token.value": -known.weights["token.value"].abs() - 0.1})
    places = [n for n, site in enumerate(MUTATIONS["deepen"].sites(dead)) if site.place["after"] == parts[0]]
    assert places
    for place in places:
        certificate = certify(dead, child_of(dead, "deepen", place))
        assert certificate.stirred and certificate.eval.verdict == "pass"


def test_weights_on_which_a_network_does_not_compute_are_left_out() -> None:
    """What a sigmoid gives is an index: behind a gate that is half open, it is out of range."""
    draft = Draft()
    image = draft.input((6, 4))
    mean = draft.add("sigmoid", draft.add("average", image, axes=(0, 1)))
    steps = [["operator.mul", [{"in": 0}, 6], {}], ["method.long", [{"step": 0}], {}]]
    place = draft.add("opaque", mean, program=steps, reads=((),), shape=())
    row = draft.add("pick", [draft.add("linear", image, out=5), place], axis=0, size=6)
    draft.head(draft.add("linear", row, out=3))
    parent = lively(draft.finish())
    sites = [n for n, site in enumerate(MUTATIONS["blend_activation"].sites(parent)) if site.place["at"] == mean]
    for place_of in sites:
        assert not certify(parent, child_of(parent, "blend_activation", place_of)).broken
    assert sites


def test_the_cube_of_a_wide_example_does_not_drown_what_is_beside_it() -> None:
    draft = Draft()
    image = draft.input((4, 7, 5))
    largest = draft.add("adaptive_max_pool2d", image, size=(1, 1))
    cube = draft.add("multiply", [draft.add("multiply", [largest, largest]), largest])
    conv = draft.add("conv2d", draft.add("avg_pool2d", image, kernel=(3, 3), stride=(1, 1), padding=(1, 1)), out=4)
    mean = draft.add("adaptive_avg_pool2d", draft.add("hardsigmoid", conv), size=(1, 1))
    both = draft.add("concat", [draft.add("flatten", mean), draft.add("flatten", cube)])
    draft.head(draft.add("linear", both, out=4))
    parent = lively(draft.finish())
    for seed in range(3):
        found = certify(parent, child_of(parent, "branch"), seed=seed)
        assert found.eval.verdict == found.train.verdict == "pass"


def test_a_network_that_is_a_constant_stays_blind() -> None:
    """Each channel normalised by itself and then averaged: whatever the input, the output is the same."""
    draft = Draft()
    image = draft.add("relu", draft.add("conv2d", draft.input((2, 5, 5)), out=4))
    pooled = draft.add("adaptive_avg_pool2d", draft.add("group_norm", image, groups=4))
    draft.head(draft.add("linear", draft.add("flatten", pooled), out=3))
    parent = lively(draft.finish())
    certificate = certify(parent, child_of(parent, "grow_kernel"))
    assert certificate.stirred and certificate.eval.verdict == certificate.train.verdict == "blind"
    assert not certificate.broken
    with pytest.raises(BrokenPromise, match="blind"):
        certificate.require()


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_what_varies_by_roundings_alone_does_not_vary(dtype: torch.dtype, scale: float) -> None:
    """A norm over equal numbers gives a constant but for rounding, of which nothing can be measured in parts."""
    last = torch.finfo(dtype).eps
    signs = torch.tensor([[1.0, -1.0], [-1.0, 1.0]], dtype=dtype).repeat(8, 1)
    assert unit(scale * (1 + 8 * last * signs)) is None
    assert unit(scale * (1 + 1000 * last * signs)) == pytest.approx(1000 * last * scale, rel=0.01)
    assert unit(scale * signs) == pytest.approx(scale)
    assert unit(0 * signs) is None


@pytest.mark.parametrize("shown", [True, False])
def test_a_network_may_read_and_give_one_number_for_each_example(shown: bool) -> None:
    draft = Draft()
    one = draft.add("reshape", draft.input(()), shape=(1,))
    hidden = draft.add("relu", draft.add("linear", one, path="body", out=8))
    draft.head(draft.add("reshape", draft.add("linear", hidden, path="fc", out=1), shape=()))
    known = lively(draft.finish())
    parent = Genome(known.graph, {name: tensor * shown for name, tensor in known.weights.items()})
    for name in ("widen", "deepen", "insert_block", "split_head"):
        certificate = certify(parent, child_of(parent, name))
        assert certificate.stirred is not shown and certificate.eval.verdict == certificate.train.verdict == "pass"


def test_only_what_the_changed_nodes_read_is_shaken() -> None:
    """A layer behind a closed gate is hidden, though others that read the same value are not."""
    draft = Draft()
    x = draft.add("conv2d", draft.input((2, 5, 5)), out=4)
    y = draft.add("conv2d", x, path="hidden", out=4)
    both = draft.add("gate", [x, y], path="gate")
    draft.head(draft.add("linear", draft.add("flatten", both), out=3))
    open_one = lively(draft.finish())
    (place,) = [n for n, site in enumerate(MUTATIONS["grow_kernel"].sites(open_one)) if "hidden" in site.place["node"]]
    closed = Genome(open_one.graph, {**open_one.weights, "gate.gate": torch.tensor(0.0)})
    assert not certify(open_one, child_of(open_one, "grow_kernel", place)).stirred
    certificate = certify(closed, child_of(closed, "grow_kernel", place))
    assert certificate.stirred and certificate.eval.verdict == "pass"


def test_the_probe_is_checked(parent: Genome) -> None:
    child = child_of(parent)
    for shape in ((3, 3, 8, 8), (8, 1, 8, 8), (8, 3, 8, 9), (8, 3, 8)):
        with pytest.raises(
            GraphError, match=r"the probe for input 'x' has shape .*; expected \(4 or more, \*\(3, 8, 8\)"
        ):
            certify(parent, child, torch.zeros(shape))
    with pytest.raises(GraphError, match="the probe for input 'x' has shape None"):
        certify(parent, child, {"y": torch.zeros(8, 3, 8, 8)})


def test_what_is_written_down(parent: Genome) -> None:
    probe = torch.randn(5, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    drawn, given = certify(parent, child_of(parent), seed=4), certify(parent, child_of(parent), probe, seed=2)
    assert drawn.probe == {"batch": 39, "source": "random", "seed": 4}
    found = json.loads(json.dumps(given.to_json(), allow_nan=False))
    assert found["dtype"] == "float64" and found["probe"] == {"batch": 5, "source": "data", "seed": 2}
    assert found.keys() == {"dtype", "probe", "stirred", "eval", "train"} and found["stirred"] is False
    for mode in ("eval", "train"):
        assert found[mode].keys() == {"error", "floor", "tolerance", "power", "verdict"}
        assert found[mode]["verdict"] in VERDICTS


def test_more_examples_are_drawn_where_they_are_small_and_some_are_wide() -> None:
    found = {name: certify(small(name), child_of(small(name))).batch for name in ("networkcompress", "resnet")}
    assert found == {"networkcompress": 58, "resnet": 8}
    (drawn,) = certificate._inputs(small("resnet"), None, 0).values()
    deviations = drawn.flatten(1).std(1)
    wide = [number for number, each in enumerate(deviations) if each > 4]
    assert wide == [3, 7] and deviations[[0, 1, 2, 4, 5, 6]].max() < 1.5


@pytest.fixture(scope="module")
def plain() -> Genome:
    """Linear layers and ReLUs, without places: a weight shows where both of its ends are alive in one example."""
    draft = Draft()
    hidden = draft.input((8,))
    for _ in range(2):
        hidden = draft.add("relu", draft.add("linear", hidden, out=16))
    draft.head(draft.add("linear", hidden, path="last", out=10))
    graph = draft.finish()
    return Genome(graph, initial_weights(graph, 0))


def test_each_single_weight_of_a_network_without_places_shows(plain: Genome) -> None:
    name = [node.tensors["weight"] for node in plain.graph.nodes.values() if node.kind == "linear"][1]
    child = child_of(plain)
    assert name in child.transfer.plans and certify(plain, child).eval.verdict == "pass"
    weight = child.genome.weights[name]
    for number in range(0, weight.numel(), 5):
        wrong = weight.clone()
        wrong.view(-1)[number] += 0.5
        other = Genome(child.genome.graph, {**child.genome.weights, name: wrong})
        assert certify(plain, replace(child, genome=other), seed=number).broken, number


@pytest.mark.parametrize(("was", "becomes"), [("relu", "relu6"), ("relu6", "relu")])
def test_an_activation_that_differs_far_from_zero_only_is_found(
    was: str, becomes: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    draft = Draft()
    image = draft.input((3, 8, 8))
    for _ in range(2):
        image = draft.add(was, draft.add("batch_norm", draft.add("conv2d", image, out=6)))
    draft.head(draft.add("linear", draft.add("flatten", draft.add("average", image, axes=(1, 2))), out=5))
    parent = lively(draft.finish())

    def swapped(work: Work) -> Build:
        child = Draft(work.graph, work.born)
        old = work.graph[work.place["at"]]
        new = child.add(becomes, old.inputs, after=old.id)
        child.redirect(old.id, new, [reader for reader, _ in work.graph.consumers[old.id]])
        child.remove([old.id])
        return Build(child.finish(), Transfer())

    places = [node.id for node in parent.graph.nodes.values() if node.kind == was]
    swap = Mutation("swap", "exact", "", "", lambda _: [], lambda *_: {}, swapped)
    monkeypatch.setitem(MUTATIONS, "swap", swap)
    for place in places:
        child = swap.make(Work(parent, {"at": place}, {}, 0, 1), "exact")
        assert certify(parent, child).broken, place


@pytest.mark.parametrize("activation", ["tanh", "sigmoid", "hardswish"])
def test_wide_examples_do_not_blind_what_saturates(activation: str) -> None:
    draft = Draft()
    hidden = draft.input((6,))
    for _ in range(3):
        hidden = draft.add(activation, draft.add("linear", hidden, out=12))
    draft.head(draft.add("linear", hidden, out=4))
    parent = lively(draft.finish())
    for place in range(len(MUTATIONS["widen"].sites(parent))):
        found = certify(parent, child_of(parent, place=place))
        assert (found.eval.verdict, found.train.verdict, found.stirred) == ("pass", "pass", False)


def test_a_probe_or_seed_of_another_type_is_refused_by_one_line(parent: Genome) -> None:
    child, probe = child_of(parent), torch.randn(4, 3, 8, 8)
    for wrong, message in (
        (probe.numpy(), "the probe for input 'x' is a ndarray; expected a tensor"),
        (probe.long(), r"holds numbers of type torch\.int64; expected float ones"),
        (probe.to(torch.complex64), "holds numbers of type torch.complex64"),
        (probe * math.nan, "holds NaN"),
    ):
        with pytest.raises(GraphError, match=message):
            certify(parent, child, wrong)
    for seed in (1.5, None, -1, 2**70, True):
        with pytest.raises(GraphError, match=r"the certificate's seed is .*; expected a whole number from 0"):
            certify(parent, child, seed=seed)  # type: ignore[arg-type]


def test_a_network_of_nan_is_blind_not_broken(parent: Genome) -> None:
    """Nothing can be measured on it, and the child is what the record leads to."""
    weights = {name: tensor * math.nan if name == "fc.weight" else tensor for name, tensor in parent.weights.items()}
    sick = Genome(parent.graph, weights)
    for name in ("widen", "widen_zero"):
        found = certify(sick, child_of(sick, name))
        assert (found.eval.verdict, found.train.verdict) == ("blind", "blind")


def test_a_probe_of_any_float_type_gives_the_same_certificate(parent: Genome) -> None:
    probe = torch.randn(6, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    child = child_of(parent)
    assert (
        certify(parent, child, probe) == certify(parent, child, probe.double()) == certify(parent, child, {"x": probe})
    )


def test_certifying_leaves_everything_as_it_was(parent: Genome) -> None:
    """Parent, child, their buffers, the probe and the global generator."""
    child, probe = child_of(parent), torch.randn(8, 3, 8, 8)
    copy = probe.clone()
    before = files.digest(parent), files.digest(child.genome), torch.random.get_rng_state()
    certify(parent, child, probe)
    assert (files.digest(parent), files.digest(child.genome)) == before[:2]
    assert torch.equal(torch.random.get_rng_state(), before[2]) and torch.equal(probe, copy)
    assert int(parent.weights["stage1.bn.num_batches_tracked"]) == 3


def test_what_is_remembered_does_not_leak_into_other_parents_and_probes(parent: Genome) -> None:
    """Whatever was certified before, a certificate is what it is alone."""
    other = lively(parent.graph, 9)
    probes = [torch.randn(8, 3, 8, 8, generator=torch.Generator().manual_seed(seed)) for seed in range(2)]
    cases = [
        (genome, child_of(genome, seed=seed), probe, seed)
        for genome in (parent, other)
        for probe in probes
        for seed in (0, 1)
    ]
    alone = [certify(*case) for case in cases]
    assert len({certificate.eval.power for certificate in alone}) == len(cases)
    again = [certify(*case) for case in reversed(cases)]
    assert again[::-1] == alone
    probe = probes[0].clone()
    first = certify(parent, cases[0][1], probe)
    probe += 1
    assert certify(parent, cases[0][1], probe) != first
    assert certify(parent, cases[0][1], probes[0]) == first


@pytest.mark.parametrize("name", ["widen", "insert_block", "split_head", "narrow", "remove_block"])
def test_runs_that_are_too_large_to_be_remembered_give_the_same(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a certificate does not ask for is then neither kept nor computed."""
    parent = lively(small("resnet").graph)
    for place in (0, -1):
        child = child_of(parent, name, place)
        with monkeypatch.context() as patch:
            whole = certify(parent, child)
            patch.setattr(probe, "_REMEMBERED", 0)
            assert certify(parent, child) == whole


def test_a_child_of_another_parent_is_not_certified_by_its_record(parent: Genome) -> None:
    other = lively(parent.graph, 9)
    assert certify(other, child_of(parent)).broken
    stranger = lively(small("vgg8").graph)
    weights = {name: tensor * 0 if name.startswith("fc2.") else tensor for name, tensor in stranger.weights.items()}
    with pytest.raises(ReplayError, match="made from a network of another structure"):
        certify(Genome(stranger.graph, weights), child_of(parent))


def test_dropout_elsewhere_does_not_matter() -> None:
    """New random layers do not shift the masks of the others: each draws from its own stream."""
    draft = Draft()
    image = draft.add("relu", draft.add("conv2d", draft.input((2, 5, 5)), out=4))
    more = draft.add("relu", draft.add("conv2d", draft.add("dropout", image), out=4))
    draft.head(draft.add("linear", draft.add("dropout", draft.add("flatten", more)), out=3))
    parent = lively(draft.finish())
    for name in ("insert_block", "branch", "grow_kernel"):
        for place, site in enumerate(MUTATIONS[name].sites(parent)):
            certificate = certify(parent, child_of(parent, name, place))
            assert (certificate.eval.verdict, certificate.train.verdict) == ("pass", "pass"), site
    promises = [site.preserves for site in MUTATIONS["widen"].sites(parent)]
    assert promises == ["eval-exact", "eval-exact"]


def test_norms_with_shared_statistics_are_compared_whole() -> None:
    """A norm used twice updates its statistics twice, before and behind the change."""
    draft = Draft()
    one = draft.add("batch_norm", draft.add("conv2d", draft.input((2, 5, 5)), out=4))
    middle = draft.add("conv2d", draft.add("relu", one), out=4)
    two = draft.add("relu", draft.add("batch_norm", middle, tensors=draft.nodes[one].tensors))
    draft.head(draft.add("linear", draft.add("flatten", two), out=3))
    parent = lively(draft.finish())
    for name, mutation in MUTATIONS.items():
        for place, site in enumerate(mutation.sites(parent)):
            certificate = certify(parent, child_of(parent, name, place))
            expected = {"exact": "pass", "eval-exact": "approximate", "approximate": "approximate"}[site.preserves]
            assert certificate.train.verdict == expected, (name, site)
    split = MUTATIONS["split_head"].sites(parent)
    assert [site.preserves for site in split] == ["eval-exact", "exact"]


def test_stirring_makes_every_channel_vary_in_both_modes() -> None:
    """Also where a head, half of the filters and all scales are zero."""
    parent = small("resnet")
    weights = {
        name: tensor * 0 if name.startswith(("fc", "layer")) else tensor for name, tensor in parent.weights.items()
    }
    examples = inputs(parent.graph)
    bold = stir(Genome(parent.graph, weights), examples)
    from graphs.execution import execute

    for training in (False, True):
        run = execute(bold.graph, bold.weights, examples, training=training)
        for id, value in run.values.items():
            assert float(value.movedim(1, 0).flatten(1).std(1).min()) > 0.01, id
    assert all(torch.equal(tensor, weights[name]) for name, tensor in Genome(parent.graph, weights).weights.items())


def test_what_is_kept_stays_and_what_is_behind_it_is_shaped_for_it(parent: Genome) -> None:
    """A closed gate lets more through than one that is half open."""
    from graphs.execution import execute

    child = child_of(parent, "branch").genome
    gate = next(node for node in child.graph.nodes.values() if node.kind == "gate")
    name, examples = gate.tensors["gate"], inputs(parent.graph)
    bold = stir(child, examples, keep=[name])
    assert float(child.weights[name]) == float(bold.weights[name]) == 0
    run = execute(bold.graph, bold.weights, examples, training=False)
    behind = child.graph.consumers[gate.id][0][0]
    deviations = run.values[behind].movedim(1, 0).flatten(1).std(1, correction=0)
    assert child.graph[behind].kind == "batch_norm"
    assert 0.69 < float(deviations.min()) and float(deviations.max()) < 1.31


def test_the_worst_mode_makes_a_certificate_broken() -> None:
    good, bad = Mode(0.0, 0.0, 1e-12, 1.0, "pass"), Mode(1.0, 0.0, 1e-12, 1.0, "broken")
    assert Certificate("float64", 8, "random", 0, False, good, bad).broken
    assert not Certificate("float64", 8, "random", 0, False, good, good).broken


def test_an_output_for_training_only_is_dropped_where_nobody_sees_it() -> None:
    draft = Draft()
    hidden = draft.add("relu", draft.add("linear", draft.input((6,)), path="body", out=8))
    draft.head(draft.add("linear", hidden, path="one", out=3), "one")
    draft.head(draft.add("linear", hidden, path="two", out=3), "two", training_only=True)
    parent = lively(draft.finish())
    (site,) = MUTATIONS["remove_head"].sites(parent)
    assert site.to_json() == {"head": "two"} and site.preserves == "eval-exact"
    child = MUTATIONS["remove_head"].apply(parent, site, numpy.random.default_rng(0))
    assert child.genome.digest == parent.for_inference().digest
    certificate = certify(parent, child)
    assert (certificate.eval.verdict, certificate.train.verdict) == ("unreached", "approximate")
    assert certificate.train.error == math.inf


def test_a_child_that_has_lost_an_output_or_has_one_more_is_broken() -> None:
    draft = Draft()
    hidden = draft.add("relu", draft.add("linear", draft.input((6,)), path="body", out=8))
    draft.head(draft.add("linear", hidden, path="one", out=3), "one")
    draft.head(draft.add("linear", hidden, path="two", out=3), "two")
    parent = lively(draft.finish())
    child = child_of(parent)
    for training_only in (False, True):
        less = Draft(child.genome.graph)
        less.heads = [less.heads[0], *([replace(less.heads[1], training_only=True)] if training_only else [])]
        less.prune()
        graph = less.finish()
        weights = {name: child.genome.weights[name] for name in tensors(graph)}
        certificate = certify(parent, replace(child, genome=Genome(graph, weights)))
        assert certificate.eval.verdict == "broken"


def test_columns_that_are_zero_are_stirred_too() -> None:
    """As `skip` leaves them: what comes through them cannot be seen before they have learnt."""
    draft = Draft()
    image = draft.input((3, 6, 6))
    one = draft.add("relu", draft.add("conv2d", image, path="one", out=4))
    other = draft.add("relu", draft.add("conv2d", image, path="other", out=4))
    both = draft.add("conv2d", draft.add("concat", [one, other]), path="both", out=4, kernel=1)
    draft.head(draft.add("linear", draft.add("flatten", both), path="fc", out=5))
    genome = lively(draft.finish())
    weight = genome.weights["both.weight"].clone()
    weight[:, 4:] = 0
    parent = Genome(genome.graph, {**genome.weights, "both.weight": weight})
    for name, place in (("grow_kernel", "other"), ("insert_block", "relu#4"), ("branch", "other")):
        sites = [site for site in MUTATIONS[name].sites(parent) if place in str(site.to_json())]
        child = MUTATIONS[name].apply(parent, sites[0], numpy.random.default_rng(0))
        certificate = certify(parent, child)
        assert certificate.stirred and (certificate.eval.verdict, certificate.train.verdict) == ("pass", "pass")


DEAD = 2


def with_a_dead_channel() -> Genome:
    """Of what the first ReLU lets through, one channel is zero whatever the input."""
    draft = Draft()
    image = draft.add("relu", draft.add("conv2d", draft.input((3, 6, 6)), path="first", out=5))
    middle = draft.add("relu", draft.add("batch_norm", draft.add("conv2d", image, path="middle", out=4)))
    last = draft.add("relu", draft.add("conv2d", middle, path="last", out=4, kernel=1))
    draft.head(draft.add("linear", draft.add("flatten", draft.add("concat", [last, image])), path="fc", out=3))
    genome = lively(draft.finish())
    bias = genome.weights["first.bias"].clone()
    bias[DEAD] = -100
    return Genome(genome.graph, {**genome.weights, "first.bias": bias}, genome.about)


@pytest.mark.parametrize(
    ("name", "place", "tensor"),
    [
        ("skip", {"from": "relu#2", "to": "last"}, "last.weight"),
        ("split_branch", {"node": "middle"}, "middle.weight"),
        ("replicate_branch", {"layer": "middle"}, "middle.weight"),
        ("grow_kernel", {"node": "middle"}, "middle.weight"),
        ("split_head", {"cut": "relu#2"}, "middle.weight"),
        ("widen_zero", {"space": "middle"}, "middle.weight"),
    ],
)
def test_a_wrong_weight_for_a_channel_that_is_zero_does_not_pass(name: str, place: dict[str, str], tensor: str) -> None:
    """On the probe, and on any input, the child computes the same; it was made wrong nevertheless."""
    parent = with_a_dead_channel()
    (site,) = [
        site
        for site in MUTATIONS[name].sites(parent)
        if all(str(site.place.get(key, "")).startswith(value) for key, value in place.items())
    ]
    child = MUTATIONS[name].apply(parent, site, numpy.random.default_rng(0))
    certificate = certify(parent, child)
    assert certificate.stirred and (certificate.eval.verdict, certificate.train.verdict) == ("pass", "pass")
    made = [
        made
        for made, plan in child.transfer.plans.items()
        if getattr(plan, "source", None) == tensor and child.genome.weights[made].ndim == 4
    ]
    for changed in made:
        weight = child.genome.weights[changed].clone()
        weight[0, -5 + DEAD] += 0.5
        wrong = replace(child, genome=Genome(child.genome.graph, {**child.genome.weights, changed: weight}))
        assert certify(parent, wrong).broken, changed
    assert made


def test_a_wrong_filter_of_a_channel_that_moves_nothing_does_not_pass() -> None:
    parent = with_a_dead_channel()
    for name in ("split_branch", "replicate_branch", "grow_kernel"):
        child = child_of(parent, name)
        assert "first" in str(child.record.site) and certify(parent, child).eval.verdict == "pass"
        for changed, plan in child.transfer.plans.items():
            weight = child.genome.weights[changed].clone()
            if weight.ndim != 4:
                continue
            weight[DEAD % len(weight)] *= 2
            wrong = replace(child, genome=Genome(child.genome.graph, {**child.genome.weights, changed: weight}))
            assert certify(parent, wrong).broken, (name, changed, plan)


def with_choices() -> Genome:
    """Logits, and two outputs that hold no floating-point numbers: which are above a bound, and which is largest."""
    draft = Draft()
    hidden = draft.add("relu", draft.add("linear", draft.input((6,)), path="body", out=8))
    logits = draft.add("linear", hidden, path="fc", out=5)
    above = ["operator.gt", [{"in": 0}, 0.1], {}]
    best = ["method.argmax", [{"in": 0}, 1], {}]
    draft.head(logits, "logits")
    draft.head(draft.add("opaque", logits, program=[above], reads=[[5]], shape=[5], held=[]), "above")
    draft.head(draft.add("opaque", logits, program=[best], reads=[[5]], shape=[], held=[]), "best")
    return lively(draft.finish())


def test_outputs_that_are_no_floating_point_numbers_must_be_equal() -> None:
    parent = with_choices()
    child = child_of(parent)
    certificate = certify(parent, child)
    assert (certificate.eval.verdict, certificate.train.verdict) == ("pass", "pass")
    above = next(id for id in parent.graph.nodes if parent.graph[id].settings.get("shape") == (5,))
    node = child.genome.graph[above]
    settings = {**node.settings, "program": (("operator.gt", ({"in": 0}, 0.3), {}),)}
    nodes = {**child.genome.graph.nodes, above: replace(node, settings=settings)}
    graph = replace(child.genome.graph, nodes=nodes)
    other = certify(parent, replace(child, genome=Genome(graph, child.genome.weights)))
    assert (other.eval.verdict, other.eval.error) == ("broken", math.inf) and other.train.verdict == "broken"


def test_a_change_that_only_choices_depend_on_is_blind() -> None:
    """Equal they are; but a fault of one per cent would not have been seen."""
    draft = Draft()
    image = draft.input((6,))
    draft.head(draft.add("linear", image, path="fc", out=5), "logits")
    side = draft.add("linear", draft.add("relu", draft.add("linear", image, path="side", out=8)), out=5)
    best = ["method.argmax", [{"in": 0}, 1], {}]
    draft.head(draft.add("opaque", side, program=[best], reads=[[5]], shape=[], held=[]), "best")
    parent = lively(draft.finish())
    (place,) = [n for n, site in enumerate(MUTATIONS["widen"].sites(parent)) if "side" in str(site.to_json())]
    certificate = certify(parent, child_of(parent, "widen", place))
    assert certificate.eval.verdict == certificate.train.verdict == "blind" and certificate.eval.error == 0


def test_an_output_that_is_a_constant_shows_nothing_beside_one_that_varies() -> None:
    draft = Draft()
    hidden = draft.add("relu", draft.add("linear", draft.input((6,)), path="body", out=8))
    draft.head(draft.add("linear", hidden, path="fc", out=5), "logits")
    flat = draft.add("layer_norm", draft.add("linear", hidden, path="one", out=1), axes=1)
    draft.head(flat, "constant")
    parent = lively(draft.finish())
    certificate = certify(parent, child_of(parent))
    assert certificate.stirred and certificate.eval.verdict == certificate.train.verdict == "blind"


def test_on_stirred_weights_what_could_be_anything_does_not_count() -> None:
    """A norm over one element gives a constant, whatever its weights: nothing behind it can be seen, nor be wrong."""
    draft = Draft()
    hidden = draft.add("relu", draft.add("linear", draft.input((6,)), path="body", out=8))
    lone = draft.add("layer_norm", draft.add("linear", hidden, path="lone", out=1), axes=1)
    shown = draft.add("linear", hidden, path="shown", out=4)
    draft.head(draft.add("linear", draft.add("concat", [shown, lone]), path="fc", out=5))
    parent = lively(draft.finish())
    (place,) = [n for n, site in enumerate(MUTATIONS["widen"].sites(parent)) if "body" in str(site.to_json())]
    certificate = certify(parent, child_of(parent, "widen", place))
    assert certificate.stirred and (certificate.eval.verdict, certificate.train.verdict) == ("pass", "pass")


def test_masks_that_drop_everything_are_drawn_again() -> None:
    """The branch is dropped as a whole, more often than not; some of the further draws keep it."""
    draft = Draft()
    image = draft.input((6,))
    branch = draft.add("linear", draft.add("relu", draft.add("linear", image, path="inner", out=8)), out=6)
    dropped = draft.add("stochastic_depth", branch, p=0.6, mode="batch")
    draft.head(draft.add("linear", draft.add("add", [image, dropped]), out=5))
    parent = lively(draft.finish())
    (place,) = [n for n, site in enumerate(MUTATIONS["widen"].sites(parent)) if "inner" in str(site.to_json())]
    stirred = 0
    for seed in range(8):
        certificate = certify(parent, child_of(parent, "widen", place), seed=seed)
        assert certificate.eval.verdict == "pass" and certificate.train.verdict in ("pass", "blind")
        stirred += certificate.stirred and certificate.train.verdict == "pass"
    assert stirred


def test_settings_of_the_process_have_no_say_and_are_left_alone(parent: Genome) -> None:
    """TF32 on a GPU, precision of products, default type, deterministic algorithms, threads, gradients, generators."""
    child = child_of(parent)
    expected = certify(parent, child)
    was = torch.get_default_dtype(), torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_default_dtype(torch.float16)
    torch.set_float32_matmul_precision("medium")
    torch.backends.cudnn.allow_tf32 = True
    try:
        before = settings_of_torch()
        assert certify(parent, child) == expected
        assert settings_of_torch() == before
    finally:
        torch.set_default_dtype(was[0])
        torch.set_float32_matmul_precision(was[1])
        torch.backends.cudnn.allow_tf32 = was[2]


def settings_of_torch() -> tuple[object, ...]:
    return (
        torch.backends.cuda.matmul.allow_tf32,
        torch.backends.cudnn.allow_tf32,
        torch.get_float32_matmul_precision(),
        torch.get_default_dtype(),
        torch.are_deterministic_algorithms_enabled(),
        torch.get_num_threads(),
        torch.is_grad_enabled(),
        torch.is_inference_mode_enabled(),
        torch.random.get_rng_state().tolist(),
    )


# Promises that rest on some weights ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def residual() -> Genome:
    return lively(small("resnet").graph)


def without_head(genome: Genome) -> Genome:
    """With a zero head, so that nothing can be seen but on stirred weights."""
    end = genome.graph[genome.graph.heads[0].node]
    last = [genome.graph[id] for id in end.inputs] if end.kind == "gate" else [end]
    names = {name for node in last for name in node.tensors.values()}
    weights = {name: tensor * 0 if name in names else tensor for name, tensor in genome.weights.items()}
    return Genome(genome.graph, weights)


def undone(name: str, parent: Genome) -> Genome:
    """A network in which there is something for an operator to undo: this one, or another where it has to be."""
    mutation = MUTATIONS[MUTATIONS[name].undoes or ""]
    parent = next(each for each in (parent, transformer(), mapped(2)) if mutation.sites(each))
    return mutation.apply(parent, mutation.sites(parent)[0], numpy.random.default_rng(1)).genome


UNDOING = [name for name, mutation in MUTATIONS.items() if mutation.undoes]


@pytest.mark.parametrize("name", UNDOING)
def test_stirring_leaves_the_ground_of_a_promise(name: str, residual: Genome) -> None:
    genome = without_head(undone(name, residual))
    sites = [site for site in MUTATIONS[name].sites(genome) if site.preserves == "exact"]
    assert sites
    for site in sites:
        child = MUTATIONS[name].apply(genome, site, numpy.random.default_rng(0))
        assert child.ground.plans
        certificate = certify(genome, child)
        assert certificate.stirred and (certificate.eval.verdict, certificate.train.verdict) == ("pass", "pass")


@pytest.mark.parametrize("name", UNDOING)
@pytest.mark.parametrize("hidden", [False, True])
def test_a_parent_that_does_not_stand_on_the_ground_is_found_out(name: str, hidden: bool, residual: Genome) -> None:
    """The same record, promised for weights that have learnt since."""
    once = undone(name, residual)
    genome = lively(once.graph, 5)
    genome = without_head(genome) if hidden else genome
    sites = [site for site in MUTATIONS[name].sites(once) if site.preserves == "exact"]
    for site in sites:
        record = MUTATIONS[name].apply(once, site, numpy.random.default_rng(0)).record
        certificate = certify(genome, replay_child(genome, record))
        assert certificate.stirred == hidden and certificate.broken


def test_an_operator_that_names_no_ground_is_found_out(residual: Genome, monkeypatch: pytest.MonkeyPatch) -> None:
    mutation = MUTATIONS["merge_twins"]
    genome = without_head(undone("merge_twins", residual))
    groundless = replace(mutation, build=lambda work: replace(mutation.build(work), ground=Transfer()))
    monkeypatch.setitem(MUTATIONS, "merge_twins", groundless)
    assert certify(genome, child_of(genome, "merge_twins")).broken


def test_a_tensor_without_a_plan_is_the_parents_however_little_of_it_shows() -> None:
    """A bias so low that its channel is dark on the probe."""
    module = torch.nn.Sequential(
        torch.nn.Linear(6, 8), torch.nn.ReLU(), torch.nn.Linear(8, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3)
    )
    module[0].bias.data[2] = -9.0
    genome = graphs.from_torch(module, torch.randn(2, 6))
    for name in ("deepen", "insert_block", "branch"):
        site = MUTATIONS[name].sites(genome)[1]
        child = MUTATIONS[name].apply(genome, site, numpy.random.default_rng(0))
        assert not certify(genome, child).broken
        bias = child.genome.weights["0.bias"].clone()
        bias[2] = -5.4
        bent = Genome(child.genome.graph, {**child.genome.weights, "0.bias": bias}, child.genome.about)
        assert certify(genome, replace(child, genome=bent)).broken
