"""A HydraNet of a trained network, and candidates of a run as an ensemble."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy
import pytest
import torch

import evolve as package
from evolve import search
from evolve.runs import Run
from graphs import Genome, load, save, to_torch, units, zoo
from graphs.errors import EvolutionError, GraphError
from runners import Recipe, Task, ensembles, evaluate, train
from runners.datasets import DATASETS
from runners.hydra import body, split, with_body
from runners.presets import preset
from tests.evolve.conftest import Evolve, one_line
from tests.evolve.pools import FakePool, small


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    yield search(small(candidates=5, run=str(tmp_path_factory.mktemp("runs") / "one")), through=FakePool())


def answers(genome: Genome) -> list[torch.Tensor]:
    images = torch.randn(5, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        found = to_torch(genome).eval()(images)
    return [found] if isinstance(found, torch.Tensor) else list(found.values())


def test_copied_heads_say_what_the_network_said(run: Run) -> None:
    best = run.best()
    assert best is not None
    wanted = answers(best.genome())[0]
    for made in (package.hydra(run, heads=3), package.hydra(run.path, best.id, heads=3), package.hydra(best.genome())):
        heads = answers(made)
        assert len(heads) in (3, 4) and all(head.equal(wanted) for head in heads)
    fresh = answers(package.hydra(run, 0, heads=2, start="fresh", split_point=1, seed=4))
    assert not fresh[0].equal(fresh[1])
    with pytest.raises(EvolutionError, match="a genome has no candidates"):
        package.hydra(best.genome(), 1)


def test_the_command_that_branches(run: Run, evolve: Evolve, tmp_path: Path) -> None:
    to = tmp_path / "hydra.safetensors"
    code, output, _ = evolve("hydra", f"{run.path}:1", "--heads", 3, "--to", to)
    assert code == 0 and "3 heads" in output
    assert load(to).digest == package.hydra(run, 1, heads=3).digest
    for wrong, words in (
        (["--split-point", "middle"], "expected auto or a number"),
        (["--split-point", "99"], "expected 1 to"),
        (["--start", "warm"], "start is 'warm'"),
        ([], "add --force"),
    ):
        place = to if not wrong else tmp_path / "other.safetensors"
        code, _, errors = evolve("hydra", f"{run.path}:1", "--to", place, *wrong)
        assert code == 2 and words in one_line(errors)
    assert not (tmp_path / "other.safetensors").exists()


def test_an_ensemble_is_weighted_by_validation_alone(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    look = ensembles.head_logits
    monkeypatch.setattr(
        ensembles, "head_logits", lambda g, t, split, **more: seen.append(split) or look(g, t, split, **more)
    )
    found = package.ensemble(run, top=3)
    assert set(seen) == {"validation"} and set(found) == {"candidates", "weights", "validation"}
    ranked = sorted(run.candidates(), key=lambda one: (one.val_accuracy, -one.parameters), reverse=True)
    assert found["candidates"] == [one.id for one in ranked[:3]]
    task = Task.from_spec(run.lineage.snapshot().meta["task"])
    genomes = [run.candidate(number).genome() for number in (4, 2)]
    found = package.ensemble(run.path, [4, 2], test=True)
    members = [look(each, task, "validation")["logits"] for each in genomes]
    assert found["weights"] == ensembles.fitted_weights(members, task.validation.labels)
    for part in ("validation", "test"):
        accuracies = [evaluate(each, task, part)["accuracy"] for each in genomes]
        assert found[part]["members"] == pytest.approx(accuracies)
        assert found[part]["oracle"] >= max(accuracies)
    weighted = ensembles.together([look(each, task, "test")["logits"] for each in genomes], found["weights"])
    right = (weighted.argmax(1) == task.test.labels).double().mean().item()
    assert found["test"]["weighted_accuracy"] == right
    assert json.loads(json.dumps(found)) == found


def test_an_ensemble_is_one_for_each_label_set(evolve: Evolve, tmp_path: Path) -> None:
    given = DATASETS["digits"].source()  # type: ignore[operator]
    odd = {f"y_{split}_odd": given[f"y_{split}"] % 2 for split in ("train", "test")}
    numpy.savez(tmp_path / "digits.npz", **given, **odd)
    recipe = {"epochs": 1, "hydra": {"tasks": ["odd", "labels"], "frozen": 0}}
    settings = small(candidates=2, data=str(tmp_path / "digits.npz"), recipe=recipe, run=str(tmp_path / "run"))
    made = search(settings, through=FakePool())
    found = package.ensemble(made, [0, 1], test=True)
    task = Task.from_spec(made.lineage.snapshot().meta["task"])
    assert [*found["tasks"]] == ["odd", "labels"]
    assert {name: found[name] for name in ("weights", "validation", "test")} == found["tasks"]["odd"]
    for part in ("validation", "test"):
        said = [ensembles.head_logits(made.candidate(number).genome(), task, part) for number in (0, 1)]
        labels = task.split(part).labels
        for name, own in {"odd": labels % 2, "labels": labels}.items():
            wanted = ensembles.report([each[name] for each in said], own)
            assert {key: found["tasks"][name][part][key] for key in wanted} == wanted
    code, output, _ = evolve("ensemble", made.path, 0, 1)
    assert code == 0 and "label set odd" in output and "label set labels" in output


def test_an_ensemble_is_of_classes(tmp_path: Path) -> None:
    rows = [(torch.rand(1, 8, 8), float(number)) for number in range(30)]
    Task(rows, loss="regression").save(tmp_path / "rows.safetensors")
    settings = small(candidates=2, data=str(tmp_path / "rows.safetensors"), run=str(tmp_path / "run"), limit=None)
    made = search(settings, through=FakePool())
    with pytest.raises(EvolutionError, match="a task of regression"):
        package.ensemble(made)


def test_the_command_that_assembles(run: Run, evolve: Evolve) -> None:
    code, output, _ = evolve("ensemble", run.path, 0, 1, "--json")
    assert code == 0 and json.loads(output) == package.ensemble(run, [0, 1])
    code, output, _ = evolve("ensemble", run.path, "--top", 2, "--test")
    assert code == 0 and all(word in output for word in ("together", "weighted", "oracle", "test"))
    for wrong, words in (([1], "two different candidates"), ([1, 1], "two different"), ([0, 77], "no candidate 77")):
        code, _, errors = evolve("ensemble", run.path, *wrong)
        assert code == 2 and words in one_line(errors)


def test_a_body_comes_from_a_trained_network(tmp_path: Path) -> None:
    digits = Task.named("digits", limit=150)
    genome, donor = (zoo.create("convnet", input_shape=(1, 8, 8), seed=seed) for seed in (0, 1))
    found = with_body(genome, donor, 2)
    first = {
        name for unit in units(genome.graph)[:2] for node in unit.nodes for name in genome.graph[node].tensors.values()
    }
    assert first and first < set(genome.weights)
    for name, tensor in found.weights.items():
        assert tensor is (donor if name in first else genome).weights[name]
    recipe = preset("hydranet", epochs=1, hydra={"heads": 2, "split_point": 2, "frozen": 1})
    trained = train(found, recipe, digits, threads=1).genome
    assert trained is not None and all(trained.weights[name].equal(donor.weights[name]) for name in first)
    again = with_body(genome, trained, 2)
    assert all(again.weights[name].equal(donor.weights[name]) for name in first)


@pytest.mark.parametrize("split_up", [False, True], ids=["one-head", "heads"])
@pytest.mark.parametrize("point", [1, 2, "auto"])
def test_what_a_donor_gives_is_what_is_frozen(point: int | Literal["auto"], split_up: bool) -> None:
    genome, donor = (zoo.create("convnet", input_shape=(1, 8, 8), seed=seed) for seed in (0, 1))
    if split_up:
        genome, donor = (split(each, 3, 1, "fresh", seed) for each, seed in ((genome, 7), (donor, 8)))
    frozen = {name for node in body(genome.graph, point) for name in genome.graph[node].tensors.values()}
    found = with_body(genome, donor, point)
    assert frozen and all(found.weights[name] is donor.weights[name] for name in frozen)
    assert all(found.weights[name] is genome.weights[name] for name in genome.weights.keys() - frozen)


def test_a_body_of_another_structure_is_refused(evolve: Evolve, tmp_path: Path) -> None:
    genome = zoo.create("convnet", input_shape=(1, 8, 8))
    wide = zoo.create("convnet", input_shape=(1, 8, 8), width=24)
    with pytest.raises(GraphError, match=r"node 'stage1\.conv#1'"):
        with_body(genome, wide, 2)
    save(genome, tmp_path / "it.safetensors")
    arguments = ("train", "convnet", "--limit", 150, "--epochs", 1, "--body", tmp_path / "it.safetensors")
    code, _, errors = evolve(*arguments, "--out", tmp_path / "out")
    assert code == 2 and "add --recipe hydranet" in one_line(errors)
    few = ("--recipe", "hydranet", "--set", "hydra.heads=2", "--set", "hydra.frozen=1")
    code, _, errors = evolve(*arguments, "--out", tmp_path / "out", *few)
    assert code == 0, errors
    code, _, errors = evolve(*arguments, "--out", tmp_path / "two", "--recipe", "hydranet", "--from", "nowhere")
    assert code == 2


def test_a_candidate_is_a_network_to_start_from(run: Run, evolve: Evolve, tmp_path: Path) -> None:
    pool = FakePool()
    settings = small(candidates=1, model=f"{run.path}:1", model_settings={}, run=str(tmp_path / "two"))
    search(settings, through=pool)
    weights = run.candidate(1).genome().weights
    assert all(pool.jobs[0].genome.weights[name].equal(tensor) for name, tensor in weights.items())
    assert numpy.isfinite(json.loads(evolve("freezeout-speedup", f"{run.path}:1", "--json")[1])["speedup"])
    assert Recipe().hydra is None
