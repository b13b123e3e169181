"""When the next candidate is proposed, and what it may know."""

from __future__ import annotations

import math

import pytest

from evolve.decisions import family_line, is_broken, next_history, unkept, winner
from evolve.lineage import Result
from evolve.seeds import PURPOSES, seed_of
from evolve.settings import Settings
from tests.evolve.lineages import proposal, result


def results(*finished: int) -> dict[int, Result]:
    """Outcomes of candidates, in this finishing order."""
    made = {}
    for number, candidate in enumerate(finished):
        one = result(candidate, 0.1 * candidate)
        made[candidate] = Result(one.candidate, one.val_accuracy, one.weights, finished=number)
    return made


def known(settings: Settings, candidates: int, *finished: int) -> list[int] | None:
    found = next_history(settings, [proposal(number) for number in range(candidates)], results(*finished))
    return None if found is None else [one.id for one in found]


def test_nothing_is_proposed_before_the_starting_network_has_finished() -> None:
    for order in ("strict", "arrival"):
        settings = Settings(workers=4, order=order, candidates=9)
        assert known(settings, 1) is None
        assert known(settings, 1, 0) == [0]


def test_arrival_order_knows_all_that_is_in_and_keeps_every_worker_busy() -> None:
    settings = Settings(workers=2, order="arrival", candidates=9)
    assert known(settings, 2, 0) == [0]
    assert known(settings, 3, 0) is None  # two are under way
    assert known(settings, 3, 0, 2) == [0, 2]
    assert known(settings, 5, 0, 3, 1, 2) == [0, 3, 1, 2]
    assert known(settings, 9, 0, 1, 2, 3, 4, 5, 6, 7, 8) is None


def test_strict_order_knows_the_same_however_fast_the_others_were() -> None:
    settings = Settings(workers=3, order="strict", candidates=9)
    assert known(settings, 2, 0) == known(settings, 2, 0, 1) == [0]
    assert known(settings, 3, 0) == [0]
    assert known(settings, 4, 0) is None
    assert known(settings, 4, 0, 3, 2) is None
    assert known(settings, 4, 0, 1) == known(settings, 4, 0, 1, 2, 3) == [0, 1]


def test_one_worker_is_strict_in_any_order() -> None:
    for candidates in range(1, 9):
        for finished in range(candidates + 1):
            found = [
                known(Settings(workers=1, order=order, candidates=8), candidates, *range(finished))
                for order in ("strict", "arrival")
            ]
            assert found[0] == found[1]


def test_the_winner_has_an_accuracy_and_a_line() -> None:
    proposals = [proposal(0), proposal(1, parent=0), proposal(2, parent=1), proposal(3, parent=1)]
    found = results(0, 1, 2, 3)
    assert winner(proposals, found) == 3
    found[3] = Result(3, math.nan, finished=3)
    assert winner(proposals, found) == 2
    assert winner(proposals, {0: result(0, None)}) is None
    assert family_line(proposals, 2) == [0, 1, 2]
    assert family_line(proposals, 0) == [0]


@pytest.mark.parametrize("mode", ["eval", "train"])
@pytest.mark.parametrize("verdict", ["broken", "blind"])
def test_a_promise_is_unkept_that_is_broken_or_not_proven_in_either_mode(mode: str, verdict: str) -> None:
    one = proposal(1)
    assert one.certificate is not None and not is_broken(one) and not is_broken(proposal(0))
    worse = {**one.certificate, mode: {**one.certificate[mode], "verdict": verdict}}
    assert is_broken(proposal(1, certificate=worse)) and unkept(proposal(1, certificate=worse)) == [mode]


def test_seeds_differ_by_run_candidate_and_purpose() -> None:
    found = [seed_of(run, one, purpose) for run in range(5) for one in range(20) for purpose in PURPOSES]
    assert len(set(found)) == len(found)
    assert seed_of(3, 7) == 1112030651  # part of the meaning of every lineage that exists
