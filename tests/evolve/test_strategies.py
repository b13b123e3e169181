"""Strategies are pure decisions, and whoever has no finite accuracy is never chosen, by any of them."""

from __future__ import annotations

import copy
import math
import subprocess
import sys
from collections import Counter

import numpy
import pytest

from evolve.ranking import Scored, best, rank, sound
from evolve.settings import Settings
from evolve.strategies import STRATEGIES

UNSOUND = (None, math.nan, math.inf, -math.inf)


def random_history(rng: numpy.random.Generator) -> list[Scored]:
    """Up to 40 candidates in a random finishing order; many failed, one at least did not."""
    size = int(rng.integers(1, 41))
    share = rng.random()
    scores = [
        UNSOUND[int(rng.integers(len(UNSOUND)))] if rng.random() < share else round(float(rng.random()), 1)
        for _ in range(size)
    ]
    scores[int(rng.integers(size))] = float(rng.random())
    return [
        Scored(int(number), score, int(rng.integers(1, 4)))
        for number, score in zip(rng.permutation(size), scores, strict=True)
    ]


@pytest.mark.parametrize("name", sorted(STRATEGIES))
def test_only_finite_accuracies_are_chosen_or_best(name: str) -> None:
    strategy = STRATEGIES[name]
    for number in range(1000):
        rng = numpy.random.default_rng(number)
        history = random_history(rng)
        settings = Settings(population=int(rng.integers(1, 12)), sample=int(rng.integers(1, 6)), strategy=name)
        by_id = {one.id: one for one in history}
        alive = strategy.population(settings, history)
        chosen = strategy.choose(settings, history, rng)
        assert alive
        assert chosen in alive
        for member in alive:
            accuracy = by_id[member].val_accuracy
            assert accuracy is not None and math.isfinite(accuracy)
        first = best(history)
        assert first is not None and first.val_accuracy is not None and math.isfinite(first.val_accuracy)
        assert all(rank(one) <= rank(first) for one in sound(history))


@pytest.mark.parametrize("name", sorted(STRATEGIES))
def test_decisions_are_pure(name: str) -> None:
    strategy, settings = STRATEGIES[name], Settings(strategy=name)
    history = random_history(numpy.random.default_rng(5))
    before = copy.deepcopy(history)
    choices = {strategy.choose(settings, history, numpy.random.default_rng(9)) for _ in range(20)}
    assert len(choices) == 1
    assert history == before


def test_decisions_are_the_same_in_another_process() -> None:
    code = (
        "import numpy; from tests.evolve.test_strategies import random_history; from evolve.settings import Settings\n"
        "from evolve.strategies import STRATEGIES\n"
        "history = random_history(numpy.random.default_rng(5))\n"
        "print([STRATEGIES[name].choose(Settings(), history, numpy.random.default_rng(i)) "
        "for name in sorted(STRATEGIES) for i in range(50)])"
    )
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    history = random_history(numpy.random.default_rng(5))
    here = [
        STRATEGIES[name].choose(Settings(), history, numpy.random.default_rng(i))
        for name in sorted(STRATEGIES)
        for i in range(50)
    ]
    assert other.strip() == str(here)


def test_aging_forgets_the_oldest_even_if_it_is_the_best() -> None:
    history = [Scored(0, 0.99, 1), Scored(1, 0.1, 1), Scored(2, None, 1), Scored(3, 0.2, 1), Scored(4, 0.3, 1)]
    settings = Settings(population=3, sample=50)
    assert STRATEGIES["aging"].population(settings, history) == [1, 3, 4]
    assert STRATEGIES["aging"].choose(settings, history, numpy.random.default_rng(0)) == 4


def test_aging_counts_the_last_to_finish_not_the_last_to_be_proposed() -> None:
    history = [Scored(5, 0.5, 1), Scored(2, 0.4, 1), Scored(3, 0.6, 1)]
    assert STRATEGIES["aging"].population(Settings(population=2), history) == [2, 3]


def test_aging_holds_tournaments_with_replacement() -> None:
    history = [Scored(number, number / 10, 1) for number in range(4)]
    settings = Settings(population=4, sample=2)
    rng = numpy.random.default_rng(1)
    wins = Counter(STRATEGIES["aging"].choose(settings, history, rng) for _ in range(8000))
    expected = {0: 1 / 16, 1: 3 / 16, 2: 5 / 16, 3: 7 / 16}  # best of two draws with replacement
    assert all(abs(wins[one] / 8000 - share) < 0.02 for one, share in expected.items())


def test_the_best_of_whole_generations_survive() -> None:
    settings, plus = Settings(population=2, strategy="mu-plus-lambda"), STRATEGIES["mu-plus-lambda"]
    history = [Scored(0, 0.5, 1), Scored(1, 0.9, 1), Scored(2, None, 1)]
    assert plus.population(settings, history) == [0]  # the first generation is not whole: one of its two failed
    history += [Scored(3, 0.6, 1)]
    assert plus.population(settings, history) == [1, 3]
    history += [Scored(4, 0.95, 1)]
    assert plus.population(settings, history) == [1, 3]
    history += [Scored(5, 0.1, 1)]
    assert plus.population(settings, history) == [1, 4]  # parents live on beside their children, for ever
    draws = numpy.random.default_rng(0)
    assert {plus.choose(settings, history, draws) for _ in range(50)} == {1, 4}


def test_random_draws_among_all_that_are_sound() -> None:
    history = [Scored(0, 0.9, 1), Scored(1, math.nan, 1), Scored(2, 0.1, 1)]
    settings = Settings(strategy="random", population=1)
    rng = numpy.random.default_rng(2)
    drawn = Counter(STRATEGIES["random"].choose(settings, history, rng) for _ in range(2000))
    assert set(drawn) == {0, 2}
    assert 800 < drawn[0] < 1200


def test_ties_go_to_fewer_parameters_then_to_the_lower_id() -> None:
    assert best([Scored(1, 0.5, 9), Scored(2, 0.5, 8), Scored(3, 0.5, 8)]) == Scored(2, 0.5, 8)
    assert best([Scored(1, None, 9), Scored(2, math.nan, 8)]) is None
    with pytest.raises(ValueError, match="candidate 1"):
        rank(Scored(1, math.nan, 9))
