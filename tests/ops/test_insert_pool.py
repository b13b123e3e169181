"""A pool is inserted wherever the network can read what it gives, and nowhere else."""

from __future__ import annotations

import numpy
import pytest
from hypothesis import given

from graphs.draft import Draft
from graphs.errors import GraphError
from graphs.genome import Genome
from graphs.kinds import KINDS, tensors
from graphs.structure import Graph
from ops import MUTATIONS
from tests.strategies import SMALL_ZOO, budget, networks, small


def pooled(graph: Graph, node: str) -> Graph | None:
    """The graph with a pool behind a node; None if it does not compute the same shapes from the same tensors."""
    draft = Draft(graph)
    pool = draft.add(f"max_pool{len(graph.shapes[node]) - 1}d", node, after=node, kernel=2)
    draft.redirect(node, pool, [reader for reader, _ in graph.consumers[node]])
    try:
        made = draft.finish()
        same = tensors(made) == tensors(graph)
    except GraphError:
        return None
    heads = [(made.shapes[head.node], graph.shapes[head.node]) for head in graph.heads]
    return made if same and all(new == old for new, old in heads) else None


def check(genome: Genome) -> int:
    graph = genome.graph
    outputs = {head.node for head in graph.heads}
    activations = [node.id for node in graph.nodes.values() if KINDS[node.kind].activation and node.id not in outputs]
    maps = [id for id in activations if graph.channel_axes.get(id) == 0 and 2 <= len(graph.shapes[id]) <= 4]
    expected = [id for id in maps if pooled(graph, id) is not None]
    found = [site.place["after"] for site in MUTATIONS["insert_pool"].sites(genome)]
    assert found == expected
    return len(found)


@pytest.mark.parametrize("model", SMALL_ZOO)
def test_sites_in_the_zoo(model: str) -> None:
    check(small(model))


@budget(100)
@given(networks())
def test_sites_in_random_networks(parent: Genome) -> None:
    check(parent)


def test_a_map_is_halved() -> None:
    parent = small("resnet")
    site = MUTATIONS["insert_pool"].sites(parent)[0]
    child = MUTATIONS["insert_pool"].apply(parent, site, numpy.random.default_rng(0))
    (pool,) = child.genome.graph.nodes.keys() - parent.graph.nodes.keys()
    channels, height, width = parent.graph.shapes[site.place["after"]]
    assert child.genome.graph.shapes[pool] == (channels, height // 2, width // 2)


def test_not_within_a_residual_branch_and_not_before_a_flattening() -> None:
    draft = Draft()
    stem = draft.add("relu", draft.add("conv2d", draft.input((3, 8, 8)), out=4))
    inner = draft.add("relu", draft.add("conv2d", stem, out=4))
    whole = draft.add("relu", draft.add("add", [draft.add("conv2d", inner, out=4), stem]))
    down = draft.add("adaptive_avg_pool2d", whole, size=2)
    last = draft.add("relu", draft.add("conv2d", down, out=4))
    draft.head(draft.add("linear", draft.add("flatten", last), out=3))
    graph = draft.finish()
    assert [node for node in (stem, inner, whole, last) if pooled(graph, node)] == [stem, whole]
