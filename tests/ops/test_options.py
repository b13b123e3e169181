"""What may be chosen at a site: whatever is drawn fits, and nothing that does not fit is done or recorded."""

from __future__ import annotations

import numpy
import pytest

from ops import MUTATIONS, replay
from ops.errors import BadChoice
from tests.strategies import SMALL_ZOO, small

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
