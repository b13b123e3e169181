"""FreezeOut: the published tables, and what frozen means."""

from __future__ import annotations

import doctest

import numpy
import pytest
import torch
from hypothesis import given

from graphs import Graph, macs, to_torch, zoo
from graphs.cost import macs_by_node
from ops import MUTATIONS
from runners import freezeout
from runners.freezeout import FreezeOut, published_speedup, speedup
from runners.freezing import Freezer
from runners.recipe import Recipe
from runners.task import Task
from runners.training import train
from tests.strategies import budget, graphs, inputs, networks

TABLE = {
    (76, "linear"): (31.48, 22.49, 17.99, 13.49, 9.00, 4.50, 0),
    (76, "squared"): (35.60, 28.05, 23.49, 18.40, 12.79, 6.66, 0),
    (76, "cubic"): (41.26, 34.84, 30.27, 24.63, 17.78, 9.61, 0),
    (100, "linear"): (31.13, 22.24, 17.79, 13.34, 8.90, 4.45, 0),
    (100, "squared"): (35.29, 27.78, 23.25, 18.21, 12.66, 6.59, 0),
    (100, "cubic"): (40.97, 34.55, 30.00, 24.39, 17.60, 9.51, 0),
}

SHARES = {
    "densenet-bc-76-12": (
        39,
        {
            0: (0.5120, 0.1953),
            1: (0.5219, 0.1916),
            12: (0.6395, 0.1564),
            13: (0.6510, 0.1536),
            26: (0.8130, 0.1230),
            27: (0.8265, 0.1210),
            38: (0.9847, 0.1016),
            39: (1, 0.1),
        },
    ),
    "densenet-bc-100-12": (51, {0: (0.5120, 0.1953), 51: (1, 0.1)}),
    "wrn-40-4": (
        19,
        {
            0: (0.5120, 0.1953),
            1: (0.5325, 0.1878),
            6: (0.6431, 0.1555),
            7: (0.6669, 0.1499),
            12: (0.7948, 0.1258),
            13: (0.8222, 0.1216),
            18: (0.9688, 0.1032),
            19: (1, 0.1),
        },
    ),
    "vgg-freezeout": (
        13,
        {0: (0.5120, 0.1953), 1: (0.5421, 0.1845), 6: (0.7105, 0.1408), 12: (0.9546, 0.1048), 13: (1, 0.1)},
    ),
}


def test_doctests_hold() -> None:
    assert not doctest.testmod(freezeout).failed


@pytest.mark.parametrize(("depth", "how"), TABLE)
def test_the_published_speedups(depth: int, how: str) -> None:
    found = [100 * published_speedup(depth, 12, FreezeOut(t0=t0, how=how)) for t0 in (0.3, 0.5, 0.6, 0.7, 0.8, 0.9, 1)]  # type: ignore[arg-type]
    assert found == pytest.approx(TABLE[depth, how], abs=0.005)


@pytest.mark.parametrize("name", SHARES)
def test_the_published_iterations_and_rates(name: str) -> None:
    stages = FreezeOut().stages(zoo.create(name).graph)
    last, table = SHARES[name]
    assert len(stages) == last + 1
    for place, (share, rate) in table.items():
        assert stages[place].share == pytest.approx(share, abs=5e-5)
        assert 0.1 * stages[place].rate == pytest.approx(rate, abs=5e-5)


@pytest.mark.parametrize(
    ("t0", "how", "share", "rate"),
    [
        (0.8, "linear", 0.8, 0.125),
        (0.8, "squared", 0.64, 0.15625),
        (0.5, "linear", 0.5, 0.2),
        (0.5, "squared", 0.25, 0.4),
        (0.5, "cubic", 0.125, 0.8),
    ],
)
def test_the_first_stage_for_other_settings(t0: float, how: str, share: float, rate: float) -> None:
    first = FreezeOut(t0=t0, how=how).stages(zoo.create("vgg-freezeout").graph)[0]  # type: ignore[arg-type]
    assert (first.share, 0.1 * first.rate) == (pytest.approx(share), pytest.approx(rate))
    assert FreezeOut(t0=t0, how=how, scale=False).stages(zoo.create("vgg-freezeout").graph)[0].rate == 1  # type: ignore[arg-type]


@pytest.mark.parametrize("steps", [1, 7, 900, 1000])
def test_each_rate_ends_at_zero_and_covers_the_same_area(steps: int) -> None:
    for stage in FreezeOut().stages(zoo.create("wrn-40-4").graph):
        assert stage.factor(steps, steps) == pytest.approx(0, abs=1e-12)
        fine = [stage.factor(step, 100_000) for step in range(100_000)]
        assert sum(fine) / 100_000 == pytest.approx(0.5, rel=1e-3)


@budget(40)
@given(graphs())
def test_nothing_freezes_before_what_it_reads(graph: Graph) -> None:
    stages = FreezeOut(t0=0.3).stages(graph)
    share = {node: stage.share for stage in stages for node in stage.nodes}
    assert sorted(share) == sorted(graph.nodes)
    assert all(share[source] <= share[node.id] for node in graph.nodes.values() for source in node.inputs)
    assert max(share.values()) == 1


def test_what_the_newest_mutation_added_learns_to_the_end() -> None:
    genome = zoo.create("resnet", depth=14)
    site = MUTATIONS["insert_block"].sites(genome)[0]
    graph = MUTATIONS["insert_block"].apply(genome, site, numpy.random.default_rng(0), born=5).genome.graph
    share = {node: stage.share for stage in FreezeOut().stages(graph, newest=5) for node in stage.nodes}
    young = [node.id for node in graph.nodes.values() if node.born == 5]
    assert young and all(share[node] == 1 for node in graph.downstream(young))
    older = {node: stage.share for stage in FreezeOut().stages(graph, newest=6) for node in stage.nodes}
    assert all(older[node] < 1 for node in young)


@budget(30)
@given(networks())
def test_what_is_frozen_is_left_alone(genome) -> None:  # type: ignore[no-untyped-def]
    """No gradient, no decay, no statistics: bit for bit, while the rest learns."""
    stages = FreezeOut().stages(genome.graph)
    half = stages[: len(stages) // 2]
    frozen = {node for stage in half for node in stage.nodes}
    module = to_torch(genome).double()
    freezer = Freezer(genome, module)
    freezer.freeze(frozen)
    freezer.train()
    names = {name for node in frozen for name in genome.graph[node].tensors.values()}
    names -= {name for node in genome.graph.nodes.values() if node.id not in frozen for name in node.tensors.values()}
    before = {name: value.clone() for name, value in module.state_dict().items()}
    optimizer = torch.optim.SGD(module.parameters(), 0.1, momentum=0.9, weight_decay=0.1)
    for _ in range(2):
        output = module(**inputs(genome.graph))
        values = output.values() if isinstance(output, dict) else [output]
        loss = sum(value.square().sum() for value in values)
        if isinstance(loss, torch.Tensor) and loss.requires_grad:
            loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    after = module.state_dict()
    assert all(torch.equal(after[name], before[name]) for name in names & after.keys())
    freezer.freeze(())
    assert all(parameter.requires_grad for parameter in module.parameters())


def test_training_freezes_stage_by_stage() -> None:
    digits = Task.named("digits", limit=200)
    genome = zoo.create("convnet", input_shape=(1, 8, 8))
    seen: list[int] = []
    outcome = train(
        genome,
        Recipe(epochs=10, freezeout=FreezeOut(t0=0.5)),
        digits,
        threads=1,
        report=lambda entry: seen.append(entry["frozen"]),
    )
    stages = FreezeOut(t0=0.5).stages(genome.graph)
    assert outcome.genome is not None
    assert seen == [sum(epoch / 10 > stage.share for stage in stages) for epoch in range(1, 11)]
    assert seen[0] == 0 and seen[-1] == len(stages) - 1


def test_freezing_can_buy_epochs() -> None:
    digits = Task.named("digits", limit=100)
    genome = zoo.create("convnet", input_shape=(1, 8, 8))
    settings = FreezeOut(t0=0.3, const_time=True)
    saved = speedup(genome.graph, settings)
    assert 0.1 < saved < 2 / 3
    outcome = train(genome, Recipe(epochs=6, freezeout=settings), digits, threads=1)
    assert len(outcome.curves) == round(6 / (1 - saved)) > 6


@pytest.mark.parametrize("name", ["resnet-110", "densenet-bc-76-12", "vgg8", "resnext-like-3"])
def test_the_estimate_adds_up(name: str) -> None:
    graph = zoo.create(name).graph
    assert sum(macs_by_node(graph).values()) == macs(graph)
    assert speedup(graph, FreezeOut(t0=1)) == 0
    savings = [speedup(graph, FreezeOut(t0=t0)) for t0 in (0.9, 0.8, 0.5, 0.1)]
    assert savings == sorted(savings) and 0 < savings[0] and savings[-1] < 2 / 3
