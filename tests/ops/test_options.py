"""What may be chosen at a site: whatever is drawn fits, and nothing that does not fit is done or recorded."""

from __future__ import annotations

import numpy
import pytest

from graphs.draft import Draft
from ops import MUTATIONS, certify, replay
from ops.errors import BadChoice
from ops.options import GROWTH
from tests.strategies import SMALL_ZOO, lively, small

WILD = (None, True, -1, 0, 10**9, 2.5, float("nan"), float("inf"), "a", "", [], [-1], [10**6], {"a": 1}, {})


@pytest.mark.parametrize("model", SMALL_ZOO)
@pytest.mark.parametrize("name", MUTATIONS)
def test_each_choice_has_its_options_and_refuses_all_else(name: str, model: str) -> None:
    genome, mutation = small(model), MUTATIONS[name]
    sites = mutation.sites(genome)
    for site in sites[:: max(1, len(sites) // 2)][:2]:
        options = mutation.options(genome, site.place)
        child = mutation.apply(genome, site, numpy.random.default_rng(0))
        assert options.keys() == child.record.choices.keys()
        for choice, option in options.items():
            assert option.allows(child.record.choices[choice])
            for value in (each for each in WILD if not option.allows(each)):
                with pytest.raises(BadChoice, match=choice):
                    mutation.apply(genome, site, numpy.random.default_rng(0), choices={choice: value})


@pytest.mark.parametrize("name", [name for name in MUTATIONS if name.startswith("widen")])
def test_a_width_that_is_recorded_is_the_width(name: str) -> None:
    for model in SMALL_ZOO:
        genome = small(model)
        for site in MUTATIONS[name].sites(genome)[:2]:
            option = MUTATIONS[name].options(genome, site.place)["width"]
            for width in (option.low, option.low + option.step):
                child = MUTATIONS[name].apply(genome, site, numpy.random.default_rng(0), choices={"width": width})
                spaces = {space.name: space.width for space in child.genome.graph.spaces}
                if "space" in site.place:
                    assert spaces[site.place["space"]] == width
                assert replay(genome, child.record, child.tensors).graph == child.genome.graph
            with pytest.raises(BadChoice, match="width"):
                MUTATIONS[name].apply(
                    genome, site, numpy.random.default_rng(0), choices={"width": option.low - option.step}
                )


def test_a_kernel_that_is_chosen_for_a_branch_brings_its_padding() -> None:
    """Also as the list that a record's JSON has, whatever else is drawn."""
    genome = lively(small("convnet").graph)
    (site, *_) = MUTATIONS["branch"].sites(genome)
    (option,) = MUTATIONS["branch"].options(genome, site.place).values()
    assert {(1, 1), (3, 3), (5, 5)} <= set(option.values)
    for kernel in (*option.values, [5, 5]):
        for seed in range(3):
            draws = numpy.random.default_rng(seed)
            child = MUTATIONS["branch"].apply(genome, site, draws, choices={"kernel": kernel})
            new = [node for id, node in child.genome.graph.nodes.items() if id not in genome.graph.nodes]
            assert new[0].settings["kernel"] == tuple(kernel) == child.record.choices["kernel"]
    assert certify(genome, child).eval.verdict == "pass"


@pytest.mark.parametrize("name", ["widen", "widen_zero"])
def test_the_largest_width_is_made_at_once_and_a_larger_one_refused_before_any_work(name: str) -> None:
    draft = Draft()
    hidden = draft.add("gelu", draft.add("linear", draft.input((6,)), out=8))
    draft.head(draft.add("linear", hidden, out=4))
    genome = lively(draft.finish())
    (site,) = MUTATIONS[name].sites(genome)
    option = MUTATIONS[name].options(genome, site.place)["width"]
    assert option.high == 8 * GROWTH
    draws = numpy.random.default_rng(0)
    child = MUTATIONS[name].apply(genome, site, draws, choices={"width": option.high})
    assert certify(genome, child).eval.verdict == "pass"
    for width in (option.high + 1, 10**6):
        with pytest.raises(BadChoice, match=f"a whole number from 9 to {option.high}"):
            MUTATIONS[name].apply(genome, site, draws, choices={"width": width})
