"""Laws of inverse pairs: there and back is the parent again, its structure and every tensor bit for bit.

Which operator undoes which is said once, on the operator (`Mutation.undoes`).
"""

from __future__ import annotations

from dataclasses import replace

import numpy
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from graphs import to_torch
from graphs.genome import Genome
from ops import MUTATIONS, Child, Site, certify, optimizer_factors, replay, transfer_optimizer
from ops.composition import compose
from ops.mutation import PROMISES
from ops.widen import copied
from tests.strategies import MADE, SMALL_ZOO, budget, networks, small

BACK = {mutation.undoes: name for name, mutation in MUTATIONS.items() if mutation.undoes}
"""For each operator that another one undoes, the other one."""


def proven(genome: Genome, back: str) -> list[Site]:
    """The sites at which an operator promises something."""
    return [site for site in MUTATIONS[back].sites(genome) if site.preserves != "approximate"]


def same(one: Genome, other: Genome) -> bool:
    """Whether two networks have one structure, and tensors of the same names that are equal in every bit."""
    return one.graph.fingerprint == other.graph.fingerprint and bits(one) == bits(other)


def bits(genome: Genome) -> dict[str, tuple[str, bytes]]:
    return {name: (str(tensor.dtype), tensor.numpy().tobytes()) for name, tensor in genome.weights.items()}


def check_there_and_back(parent: Genome, there: str, site: Site, seed: int) -> None:
    back = BACK[there]
    already = MUTATIONS[back].sites(parent)
    if any(found.place == site.place and found.preserves != "approximate" for found in already):
        # Twins that the parent has already would be merged too.
        return
    draws = numpy.random.default_rng(seed)
    child = MUTATIONS[there].apply(parent, site, draws)
    fresh = [each for each in proven(child.genome, back) if each not in already]
    returned = [MUTATIONS[back].apply(child.genome, each, draws) for each in fresh]
    found = [each for each in returned if same(parent, each.genome)]
    # Back can be more exact than there: a copied norm has statistics of its own, which are dropped again.
    assert any(PROMISES.index(each.preserves) <= PROMISES.index(child.preserves) for each in found), site
    for each in returned:
        check_promise(child.genome, each)
    for each in found:
        check_training_goes_on(child, each)


def check_training_goes_on(there: Child, back: Child) -> None:
    """Moments and rates come back too: as numbers, since shares of a gradient are no shares of bits."""
    parent = there.parent
    whole = replace(back, parent=parent, transfer=compose(parent.graph, [there, back]))
    for adaptive in (False, True):
        factors = optimizer_factors(whole, adaptive)
        assert all(isinstance(factor, float) and abs(factor - 1) <= 1e-12 for factor in factors.values()), factors
    module, other = to_torch(parent), to_torch(back.genome)
    state, expected = torch.optim.Adam(module.named_parameters()).state_dict(), {}
    for number, (name, parameter) in enumerate(module.named_parameters()):
        moment = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(number), dtype=torch.float64)
        state["state"][number] = expected[name] = {"exp_avg": moment, "exp_avg_sq": moment**2}
    target = torch.optim.Adam(other.named_parameters()).state_dict()
    found = transfer_optimizer(state, whole, target)["state"]
    for number, (name, _) in enumerate(other.named_parameters()):
        for key, value in expected[name].items():
            assert torch.allclose(found[number][key], value, rtol=1e-12, atol=0), (whole.record, name, key)


def check_promise(parent: Genome, child: Child) -> None:
    assert replay(parent, child.record).digest == child.genome.digest
    certificate = certify(parent, child)
    assert certificate.eval.verdict in ("pass", "unreached"), certificate
    expected = {"exact": ("pass", "unreached"), "eval-exact": ("approximate",)}[child.preserves]
    assert certificate.train.verdict in expected, certificate


@pytest.mark.parametrize("there", BACK)
@pytest.mark.parametrize("model", SMALL_ZOO)
def test_zoo(there: str, model: str) -> None:
    parent = small(model)
    sites = MUTATIONS[there].sites(parent)
    for site in sites[:: max(1, len(sites) // 4)]:
        check_there_and_back(parent, there, site, 3)


@pytest.mark.parametrize("there", BACK)
@pytest.mark.parametrize("model", MADE)
def test_made_networks(there: str, model: str) -> None:
    parent = MADE[model]()
    sites = MUTATIONS[there].sites(parent)
    for site in sites[:: max(1, len(sites) // 6)]:
        check_there_and_back(parent, there, site, 3)


@budget(60)
@given(networks(largest=10), st.integers(0, 2**32))
def test_random_networks(parent: Genome, seed: int) -> None:
    for there in BACK:
        sites = MUTATIONS[there].sites(parent)
        if sites:
            check_there_and_back(parent, there, sites[seed % len(sites)], seed)


@pytest.mark.parametrize("model", ["convnet", "resnet", "densenet"])
def test_widening_again_and_again_is_merged_at_once(model: str) -> None:
    """Copies of copies are twins too, and their shares add up."""
    parent = small(model)
    wide = parent
    place = MUTATIONS["widen"].sites(parent)[-1].place
    for seed in range(3):
        (site,) = [site for site in MUTATIONS["widen"].sites(wide) if site.place == place]
        wide = MUTATIONS["widen"].apply(wide, site, numpy.random.default_rng(seed)).genome
    (site,) = MUTATIONS["merge_twins"].sites(wide)
    merged = MUTATIONS["merge_twins"].apply(wide, site, numpy.random.default_rng(0))
    assert same(parent, merged.genome)
    check_promise(wide, merged)


@pytest.mark.parametrize("model", ["convnet", "resnet", "densenet"])
def test_of_several_widenings_the_last_is_undone_by_its_record(model: str) -> None:
    wide, widen, place = small(model), MUTATIONS["widen"], MUTATIONS["widen"].sites(small(model))[-1].place
    for seed in range(3):
        (site,) = [site for site in widen.sites(wide) if site.place == place]
        parent, child = wide, widen.apply(wide, site, numpy.random.default_rng(seed))
        wide = child.genome
    (site,) = MUTATIONS["merge_twins"].sites(wide)
    merged = MUTATIONS["merge_twins"].apply(
        wide, site, numpy.random.default_rng(0), choices={"into": copied(parent, child.record)}
    )
    assert same(parent, merged.genome)
    check_promise(wide, merged)
    check_training_goes_on(child, merged)


def test_twins_whose_weights_do_not_add_up_are_merged_without_a_promise() -> None:
    """Once the readers have learnt, their sums have to be rounded."""
    parent = small("convnet")
    wide = MUTATIONS["widen"].apply(parent, MUTATIONS["widen"].sites(parent)[0], numpy.random.default_rng(0)).genome
    (site,) = MUTATIONS["merge_twins"].sites(wide)
    assert site.preserves == "exact"
    weights = {**wide.weights, "stage2.conv.weight": wide.weights["stage2.conv.weight"] * 0.7}
    learnt = Genome(wide.graph, weights)
    (site,) = MUTATIONS["merge_twins"].sites(learnt)
    assert site.preserves == "approximate"
    merged = MUTATIONS["merge_twins"].apply(learnt, site, numpy.random.default_rng(0))
    assert 1e-12 < certify(learnt, merged).eval.error < 1e-6
