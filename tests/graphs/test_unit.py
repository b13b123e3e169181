"""The units of networks: the tables of the founding systems, and what holds for every network."""

from math import prod

import pytest
import torch
from hypothesis import given

from graphs import Graph, Unit, from_torch, units, zoo
from ops import MUTATIONS
from tests.strategies import budget, graphs


def count(graph: Graph, unit: Unit) -> int:
    """Parameters of a unit."""
    specs = graph.tensors
    names = {name for node in unit.nodes for name in graph[node].tensors.values()}
    return sum(prod(specs[name].shape) for name in names if not specs[name].buffer)


def dense(channels: int) -> int:
    """Parameters of a dense layer of DenseNet-BC with growth 12 that reads `channels`."""
    return 50 * channels + 5280


RESNET = [432, 32, 0, *[4672] * 18, 14528, *[18560] * 17, 57728, *[73984] * 17, 0]
PRERESNET = [432, *[4672] * 18, 14432, *[18560] * 17, 57536, *[73984] * 17, 128, 0, 0]
DENSENET = [
    648,
    *map(dense, range(24, 205, 12)),
    23760,
    *map(dense, range(108, 289, 12)),
    45600,
    *map(dense, range(150, 331, 12)),
    684,
    0,
    0,
]


@pytest.mark.parametrize(
    ("name", "body", "classifier"),
    [
        ("resnet-110", RESNET, {10: 650, 100: 6500}),
        ("preresnet-110", PRERESNET, {10: 650, 100: 6500}),
        ("densenet-bc-100-12", DENSENET, {10: 3430, 100: 34300}),
    ],
)
@pytest.mark.parametrize("classes", [10, 100])
def test_the_units_of_hydranets_networks(name: str, body: list[int], classifier: dict[int, int], classes: int) -> None:
    graph = zoo.create(name, classes=classes).graph
    assert [count(graph, unit) for unit in units(graph)] == [*body, classifier[classes]]
    assert [unit.position for unit in units(graph)] == list(range(len(body) + 1))


def check_division(graph: Graph) -> None:
    """Each node is in one unit, names are unique, and one value at most leads from the units so far to the rest."""
    found = units(graph)
    assert sorted(node for unit in found for node in unit.nodes) == sorted(graph.nodes)
    assert len({unit.name for unit in found}) == len(found)
    if len(graph.heads) > 1:
        return
    varying = graph.downstream(node.id for node in graph.inputs)
    inside: set[str] = set()
    for unit in found[:-1]:
        inside |= set(unit.nodes)
        crossing = {
            node for node in inside & varying if any(reader not in inside for reader, _ in graph.consumers[node])
        }
        assert len(crossing) == 1, unit.name
        assert graph.upstream(inside) == inside


@pytest.mark.parametrize("name", zoo.ZOO)
def test_every_network_of_the_zoo_is_divided_at_cuts(name: str) -> None:
    check_division(zoo.create(name).graph)


@budget(40)
@given(graphs())
def test_random_networks_are_divided_at_cuts(graph: Graph) -> None:
    check_division(graph)


def test_a_layer_that_a_mutation_adds_is_a_unit_of_its_own_and_young() -> None:
    import numpy

    genome = zoo.create("resnet", depth=8)
    operator = MUTATIONS["insert_block"]
    site = operator.sites(genome)[0]
    child = operator.apply(genome, site, numpy.random.default_rng(0), born=7).genome
    young = [unit for unit in units(child.graph) if unit.born == 7]
    assert len(young) == 1
    assert all(unit.born == 0 for unit in units(child.graph) if unit not in young)


class Branching(torch.nn.Module):
    """A body of two blocks with an output behind each."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = torch.nn.Conv2d(3, 8, 3, padding=1)
        self.blocks = torch.nn.ModuleList(torch.nn.Conv2d(8, 8, 3, padding=1) for _ in range(2))
        self.near, self.far = torch.nn.Linear(8, 4), torch.nn.Linear(8, 5)

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        first = torch.relu(self.stem(images))
        second = first + self.blocks[0](first).relu()
        third = second + self.blocks[1](second).relu()
        return {"far": self.far(third.mean((2, 3))), "near": self.near(second.mean((2, 3)))}


def test_heads_that_leave_the_body_at_a_place_count_on_from_there() -> None:
    graph = from_torch(Branching(), torch.randn(2, 3, 8, 8)).graph
    positions = {node.partition("#")[0]: unit.position for unit in units(graph) for node in unit.nodes}
    assert positions["stem"] == 0
    assert positions["blocks.1"] == positions["blocks.0"] + 1
    assert positions["near"] == positions["far"] - 1
    check_division(graph)
