"""Fingerprints: the same for the same structure, whatever it is called; different for any other."""

from __future__ import annotations

import itertools
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import networkx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphs import zoo
from graphs.draft import Draft
from graphs.errors import GraphError
from graphs.identity import fingerprint
from graphs.kinds import KINDS
from graphs.structure import Graph, Head, Node
from tests.graphs.drawing import graphs

ROOT = Path(__file__).parents[2]

Edge = tuple[int, int]


def relabelled(graph: Graph, seed: int) -> Graph:
    """The same structure under other names, in another execution order, with other birthdays."""
    chance = random.Random(seed)  # noqa: S311
    waiting = {node.id: set(node.inputs) for node in graph.nodes.values()}
    order: list[str] = []
    while waiting:
        ready = [id for id, missing in waiting.items() if missing.issubset(order)]
        order.append(chance.choice(ready))
        del waiting[order[-1]]
    names = {id: f"n{number}" for number, id in enumerate(chance.sample(order, len(order)))}
    nodes = {}
    for id in order:
        node = graph.nodes[id]
        inputs = [names[source] for source in node.inputs]
        if KINDS[node.kind].commutative:
            chance.shuffle(inputs)
        tensors = {role: f"renamed.{name}" for role, name in node.tensors.items()}
        nodes[names[id]] = Node(names[id], node.kind, node.settings, tuple(inputs), tensors, chance.randrange(9))
    heads = [Head(head.name, names[head.node], head.training_only) for head in graph.heads]
    return Graph(nodes, tuple(chance.sample(heads, len(heads))), chance.randrange(1000))


def isomorphic(one: Graph, other: Graph) -> bool:
    """What networkx says, from a translation of its own."""

    def translated(graph: Graph) -> networkx.DiGraph:
        found = networkx.DiGraph()
        uses: dict[str, list[tuple[str, str]]] = {}
        joined: dict[tuple[str, str], list[str]] = {}
        for id, node in graph.nodes.items():
            values = {**node.settings, "shape": node.settings.get("shape", ())[:1]}
            heads = sorted((head.name, head.training_only) for head in graph.heads if head.node == id)
            found.add_node(id, what=(node.kind, sorted(values.items()), heads))
            for position, source in enumerate(node.inputs):
                role = "any" if KINDS[node.kind].commutative else str(position)
                joined.setdefault((source, id), []).append(role)
            for role, name in node.tensors.items():
                uses.setdefault(name, []).append((id, role))
        for name, users in uses.items():
            if len(users) > 1:
                found.add_node(("tensor", name), what="tensor")
                for id, role in users:
                    joined.setdefault((("tensor", name), id), []).append(role)  # type: ignore[arg-type]
        for (source, id), roles in joined.items():
            found.add_edge(source, id, how=sorted(roles))
        return found

    return networkx.is_isomorphic(
        translated(one),
        translated(other),
        node_match=lambda a, b: a["what"] == b["what"],
        edge_match=lambda a, b: a["how"] == b["how"],
    )


def network(vertices: int, edges: Sequence[Edge]) -> Graph:
    """An undirected graph as a network: a node for each vertex, and for each edge a sum that reads its two ends."""
    draft = Draft()
    x = draft.input((4,))
    ends = [draft.add("relu", x) for _ in range(vertices)]
    sums = [draft.add("add", (ends[one], ends[other])) for one, other in edges]
    draft.head(draft.add("add", sums))
    return draft.finish()


def ring(size: int, start: int = 0) -> list[Edge]:
    return [(start + place, start + (place + 1) % size) for place in range(size)]


def cfi(corners: int, twisted: bool) -> Graph:
    """A network over the graph of Cai, Fürer and Immerman (1992) for the complete graph: its twin is hard to tell."""
    base = list(itertools.combinations(range(corners), 2))
    numbers: dict[object, int] = {}
    edges: list[Edge] = []

    def number(what: object) -> int:
        return numbers.setdefault(what, len(numbers))

    for corner in range(corners):
        around = [edge for edge in base if corner in edge]
        for size in range(0, len(around) + 1, 2):
            for chosen in itertools.combinations(around, size):
                edges += [(number((corner, chosen)), number((corner, edge, edge in chosen))) for edge in around]
    for edge in base:
        for side in (False, True):
            turned = side ^ (twisted and edge == base[0])
            edges.append((number((edge[0], edge, side)), number((edge[1], edge, turned))))
    return network(len(numbers), edges)


@settings(deadline=None)
@given(graphs(), st.integers())
def test_names_and_order_do_not_count(graph: Graph, seed: int) -> None:
    assert fingerprint(relabelled(graph, seed)) == fingerprint(graph)


@settings(deadline=None, max_examples=200)
@given(st.data())
def test_it_agrees_with_isomorphism(data: st.DataObject) -> None:
    """A graph against a copy in which one operand was led elsewhere, which often gives an isomorphic one again."""
    chosen = st.sampled_from(["relu", "add", "concat"])
    draft = Draft()
    values = [draft.input((2,))]
    for kind in data.draw(st.lists(chosen, min_size=2, max_size=7)):
        count = 1 if kind == "relu" else 2
        values.append(draft.add(kind, [data.draw(st.sampled_from(values)) for _ in range(count)]))
    one = Graph(draft.nodes, (Head("logits", values[-1]),), draft.counter)
    node = data.draw(st.sampled_from(values[1:]))
    position = data.draw(st.integers(0, len(draft.nodes[node].inputs) - 1))
    draft.rewire(node, position, data.draw(st.sampled_from(values[: values.index(node)])))
    other = relabelled(Graph(draft.nodes, one.heads, draft.counter), data.draw(st.integers()))
    assert (fingerprint(one) == fingerprint(other)) == isomorphic(one, other)


@settings(deadline=None, max_examples=50)
@given(graphs(largest=7), graphs(largest=7))
def test_different_graphs_differ(one: Graph, other: Graph) -> None:
    assert (fingerprint(one) == fingerprint(other)) == isomorphic(one, other)


def copies(depth: int, shared: bool) -> Graph:
    """Below `depth` convolutions, a ReLU that a sum reads twice, or two ReLUs that it reads once each."""
    draft = Draft()
    x = draft.input((4, 8, 8))
    one = draft.add("relu", x)
    other = one if shared else draft.add("relu", x)
    ends = [one, other]
    for level in range(depth):
        ends = [draft.add("conv2d", end, path=f"side{side}.{level}", out=4) for side, end in enumerate(ends)]
    draft.head(draft.add("add", ends))
    return draft.finish()


@pytest.mark.parametrize("depth", [0, 1, 30])
def test_a_node_read_twice_is_not_two_equal_nodes(depth: int) -> None:
    """What a hash from the inputs upwards gets wrong."""
    assert fingerprint(copies(depth, shared=True)) != fingerprint(copies(depth, shared=False))


def test_regular_graphs_are_told_apart() -> None:
    """Every vertex of these looks alike to colour refinement."""
    hexagon, triangles = network(6, ring(6)), network(6, ring(3) + ring(3, 3))
    assert fingerprint(hexagon) != fingerprint(triangles)
    places = range(16)
    pairs = list(itertools.combinations(places, 2))
    rook = network(16, [(a, b) for a, b in pairs if a // 4 == b // 4 or a % 4 == b % 4])
    steps = {(0, 1), (0, 3), (1, 0), (3, 0), (1, 1), (3, 3)}
    shrikhande = network(16, [(a, b) for a, b in pairs if ((a // 4 - b // 4) % 4, (a - b) % 4) in steps])
    assert len(rook.nodes) == len(shrikhande.nodes)
    assert fingerprint(rook) != fingerprint(shrikhande)
    for graph in (hexagon, triangles, rook, shrikhande):
        assert {fingerprint(relabelled(graph, seed)) for seed in range(3)} == {fingerprint(graph)}


def test_twins_that_local_views_cannot_tell_apart() -> None:
    plain, twisted = cfi(4, twisted=False), cfi(4, twisted=True)
    assert fingerprint(plain) != fingerprint(twisted)
    for graph in (plain, twisted):
        assert fingerprint(relabelled(graph, 1)) == fingerprint(graph)


def blocks(count: int, branches: int, odd: int | None = None) -> Graph:
    """A chain of blocks of equal branches; in block `odd` one branch has another kernel."""
    draft = Draft()
    x = draft.input((4, 8, 8))
    for block in range(count):
        ends = []
        for branch in range(branches):
            kernel = 1 if block == odd and branch == 0 else 3
            ends.append(draft.add("relu", draft.add("conv2d", x, out=4, kernel=kernel)))
        x = draft.add("add", ends)
    draft.head(x)
    return draft.finish()


@pytest.mark.parametrize(("count", "branches"), [(20, 2), (3, 12), (1, 100), (60, 2)])
def test_equal_branches_cost_little(count: int, branches: int) -> None:
    """Linear work where a search over all orders of the branches would never end."""
    graph = blocks(count, branches)
    steps = 20 * count * branches * len(graph.nodes)
    assert fingerprint(relabelled(graph, 3), budget=steps) == fingerprint(graph, budget=steps)
    assert fingerprint(blocks(count, branches, odd=0)) != fingerprint(graph)


def test_where_the_odd_block_stands_counts() -> None:
    found = Counter(fingerprint(blocks(8, 2, odd=place)) for place in range(8))
    assert len(found) == 8


def test_chains_cost_little() -> None:
    """A long chain takes one pass, not as many as it is long."""
    draft = Draft()
    x = draft.input((4,))
    for _ in range(2000):
        x = draft.add("relu", x)
    draft.head(x)
    assert fingerprint(draft.finish(), budget=20_000)


def test_what_defeats_it_is_refused() -> None:
    with pytest.raises(GraphError, match="too symmetric for a fingerprint within a budget of 1000 steps"):
        fingerprint(cfi(4, twisted=False), budget=1000)
    many = network(600, [edge for start in range(0, 600, 3) for edge in ring(3, start)])
    with pytest.raises(GraphError, match="too symmetric"):
        fingerprint(many, budget=300_000)


def one_layer(**settings: object) -> Draft:
    draft = Draft()
    x = draft.input((4, 8, 8))
    y = draft.add("conv2d", x, out=4, **settings)
    draft.head(draft.add("concat", (x, y)))
    return draft


def test_settings_count() -> None:
    plain = fingerprint(one_layer().finish())
    for changed in ({"kernel": 1}, {"bias": False}, {"groups": 2}, {"dilation": 2}, {"kernel": (1, 3)}):
        assert fingerprint(one_layer(**changed).finish()) != plain, changed


def test_the_order_of_operands_counts_where_it_matters() -> None:
    found = {}
    for kind in ("add", "multiply", "mean", "concat", "gate", "by_mode"):
        for turned in (False, True):
            draft = Draft()
            x = draft.input((4, 8, 8))
            ends = (x, draft.add("relu", x))
            draft.head(draft.add(kind, ends[::-1] if turned else ends))
            found[kind, turned] = fingerprint(draft.finish())
    equal = {kind for kind, turned in found if found[kind, False] == found[kind, True]}
    assert equal == {"add", "multiply", "mean"} == {name for name, kind in KINDS.items() if kind.commutative}
    assert len(set(found.values())) == 9


def test_heads_count() -> None:
    found = set()
    for name, training_only in (("logits", False), ("other", False), ("other", True)):
        draft = one_layer()
        draft.head(draft.heads[0].node, "second", False)
        draft.heads[0] = replace(draft.heads[0], name=name, training_only=training_only)
        found.add(fingerprint(draft.finish()))
        draft.heads.reverse()
        found.add(fingerprint(draft.finish()))
    assert len(found) == 3


def two_inputs(names: tuple[str, str], shapes: tuple[tuple[int, ...], tuple[int, ...]]) -> Graph:
    draft = Draft()
    ends = [draft.input(shape, name) for shape, name in zip(shapes, names, strict=True)]
    draft.head(draft.add("concat", ends))
    return draft.finish()


def test_of_an_input_its_name_and_channels_count() -> None:
    plain = fingerprint(two_inputs(("a", "b"), ((3, 8, 8), (1, 8, 8))))
    assert fingerprint(two_inputs(("a", "b"), ((3, 5, 9), (1, 5, 9)))) == plain
    assert fingerprint(two_inputs(("a", "c"), ((3, 8, 8), (1, 8, 8)))) != plain
    assert fingerprint(two_inputs(("b", "a"), ((3, 8, 8), (1, 8, 8)))) != plain
    assert fingerprint(two_inputs(("a", "b"), ((3, 8, 8), (2, 8, 8)))) != plain


def tied(partners: Sequence[int], roles: Sequence[str] = ("weight",)) -> Graph:
    """A chain of four convolutions; each shares the tensors of these roles with the one at its partner's place."""
    draft = Draft()
    x = draft.input((4, 8, 8))
    for place, partner in enumerate(partners):
        own = {role: f"conv{place}.{role}" for role in ("weight", "bias")}
        own.update({role: f"conv{partner}.{role}" for role in roles})
        x = draft.add("relu", draft.add("conv2d", x, out=4, tensors=own))
    draft.head(x)
    return draft.finish()


def test_tying_counts() -> None:
    ways = [
        (0, 1, 2, 3),
        (0, 0, 2, 2),
        (0, 1, 0, 1),
        (0, 1, 1, 0),
        (0, 0, 0, 0),
        (0, 0, 2, 3),
        (0, 1, 2, 2),
        (0, 0, 0, 3),
    ]
    found = [fingerprint(tied(way)) for way in ways]
    found += [fingerprint(tied(way, ("weight", "bias"))) for way in ways[1:]]
    found += [fingerprint(tied((0, 0, 2, 3), ("bias",)))]
    assert len(set(found)) == len(found) == 16


def test_zoo_networks_differ_and_weights_do_not_count() -> None:
    found = {name: fingerprint(zoo.create(name, seed=1).graph) for name in zoo.ZOO}
    assert len(set(found.values())) == len(zoo.ZOO)
    assert found == {name: fingerprint(zoo.create(name, seed=2, input_shape=(3, 48, 48)).graph) for name in zoo.ZOO}


def test_it_is_the_same_in_another_process() -> None:
    line = "from graphs import zoo, fingerprint; print(fingerprint(zoo.ZOO['densenet'](10, (3, 32, 32), depth=10)))"
    found = {
        subprocess.run(
            [sys.executable, "-c", line],
            check=True,
            capture_output=True,
            text=True,
            cwd=ROOT,
            env={"PYTHONHASHSEED": seed},
        ).stdout
        for seed in ("1", "2")
    }
    assert found == {fingerprint(zoo.ZOO["densenet"](10, (3, 32, 32), depth=10)) + "\n"}
