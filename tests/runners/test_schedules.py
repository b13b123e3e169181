"""Schedules: published samples, and where each of them starts and ends."""

from __future__ import annotations

import doctest
import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runners import schedules
from runners.recipe import Recipe
from runners.schedules import SCHEDULES, cycle, drops, learning_rate
from tests.strategies import budget


def test_doctests_hold() -> None:
    assert not doctest.testmod(schedules).failed


def test_every_schedule_is_in_the_table() -> None:
    assert set(Recipe.model_fields["schedule"].annotation.__args__) == set(SCHEDULES)  # type: ignore[union-attr]


def test_the_cosine_ends_at_zero_and_falls_all_the_way() -> None:
    recipe = Recipe(lr=0.3)
    rates = [learning_rate(recipe, step, 40) for step in range(41)]
    assert rates[0] == 0.3 and rates[40] == 0 and 0 < rates[39] < 0.001
    assert all(later < earlier for earlier, later in itertools.pairwise(rates))
    assert {learning_rate(recipe.changed(schedule="constant"), step, 40) for step in range(41)} == {0.3}


@pytest.mark.parametrize(
    ("epoch", "rate"), [(1, 0.2), (11, 0.17071), (21, 0.1), (31, 0.02929), (40, 0.00031), (41, 0.2)]
)
def test_the_samples_of_snapshot_ensembles(epoch: int, rate: float) -> None:
    assert learning_rate(Recipe(lr=0.2, cycles=5), epoch - 1, 200) == pytest.approx(rate, abs=5e-6)


@budget(60)
@given(st.integers(1, 400), st.integers(1, 12))
def test_every_cycle_goes_through_the_whole_schedule(steps: int, cycles: int) -> None:
    """Also where the number of cycles does not divide that of the steps."""
    recipe = Recipe(lr=1.0, cycles=cycles)
    places = [cycle(step, steps, cycles) for step in range(steps)]
    starts = [step for step, (done, _) in enumerate(places) if done == 0]
    assert starts[0] == 0 and len(starts) == min(cycles, steps)
    lengths = {end - start for start, end in itertools.pairwise([*starts, steps])}
    assert lengths <= {max(1, steps // cycles), math.ceil(steps / cycles)}
    for start, end in itertools.pairwise([*starts, steps]):
        length = end - start
        assert places[start:end] == [(done, length) for done in range(length)]
        rates = [learning_rate(recipe, step, steps) for step in range(start, end)]
        assert rates[0] == 1
        assert rates[-1] == pytest.approx(0.5 * (1 + math.cos(math.pi * (length - 1) / length)))
    assert learning_rate(recipe, steps, steps) == pytest.approx(0, abs=1e-15)


def test_steps_fall_at_the_milestones_of_each_cycle() -> None:
    recipe = Recipe(lr=1.0, schedule="multistep", milestones=[0.5, 0.75], gamma=0.1)  # type: ignore[arg-type]
    assert [learning_rate(recipe, step, 8) for step in range(8)] == pytest.approx([1] * 4 + [0.1] * 2 + [0.01] * 2)
    twice = recipe.changed(cycles=2)
    assert [learning_rate(twice, step, 8) for step in range(8)] == pytest.approx([1, 1, 0.1, 0.01] * 2)


def test_one_cycle_rises_and_falls_to_zero() -> None:
    rates = [learning_rate(Recipe(lr=1.0, schedule="one-cycle"), step, 100) for step in range(101)]
    assert rates[0] == pytest.approx(1 / 25) and rates[30] == 1 and rates[100] == 0
    assert rates[:31] == sorted(rates[:31]) and rates[30:] == sorted(rates[30:], reverse=True)


def test_a_warm_up_is_a_line_up_to_the_schedule() -> None:
    recipe = Recipe(lr=1.0, schedule="constant", warmup=0.1)
    rates = [learning_rate(recipe, step, 100) for step in range(100)]
    assert rates[:10] == pytest.approx([step / 10 for step in range(1, 11)]) and set(rates[10:]) == {1.0}


def test_a_plateau_drops_the_rate_after_patience_epochs_without_gain() -> None:
    recipe = Recipe(lr=1.0, schedule="plateau", gamma=0.5, patience=2)
    losses = [3.0, 2.0, 2.5, 2.1, 2.0]
    assert [drops(losses[:count], 2) for count in range(6)] == [0, 0, 0, 0, 0, 1]
    assert learning_rate(recipe, 0, 10, losses) == 0.5
    assert learning_rate(recipe, 0, 10, [*losses, 1.0, 1.0, 1.0, 1.0]) == 0.25
    assert learning_rate(recipe, 0, 10, [3.0, 2.0, 1.0]) == 1
    assert drops([-1.0, -1.0, -1.0], 0) == 2 and drops([-1.0, -2.0, -3.0], 0) == 0
