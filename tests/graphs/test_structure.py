"""The values: nodes, graphs, drafts and genomes are frozen, checked, and say what is wrong."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import FrozenInstanceError, replace
from typing import Any

import networkx
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from graphs.check import check
from graphs.draft import Draft
from graphs.errors import GraphError, ShapeError, UnknownName
from graphs.genome import Genome
from graphs.initial import initial_weights
from graphs.structure import Graph, Head, Node, frozen
from tests.strategies import budget, graphs


def diamond() -> Graph:
    """Input → conv → (relu, tanh) → add → flatten → fc."""
    draft = Draft(born=2)
    x = draft.input((2, 4, 4))
    conv = draft.add("conv2d", x, path="conv", out=3)
    both = draft.add("add", [draft.add("relu", conv), draft.add("tanh", conv)])
    draft.head(draft.add("linear", draft.add("flatten", both), path="fc", out=2))
    return draft.finish()


def test_nodes_are_frozen_to_the_depth() -> None:
    settings: dict[str, Any] = {"shape": [3, 4, 4], "more": {"deep": [1]}}
    node = Node("x#0", "input", settings)
    settings["shape"].append(5)
    assert node.settings["shape"] == (3, 4, 4) and node.settings["more"]["deep"] == (1,)
    with pytest.raises(FrozenInstanceError):
        node.kind = "relu"  # type: ignore[misc]
    with pytest.raises(TypeError):
        node.settings["shape"] = (1,)  # type: ignore[index]
    with pytest.raises(TypeError):
        node.settings["more"]["deep"] = 2
    assert frozen({"a": [1, {"b": 2}]}) == {"a": (1, {"b": 2})}


def test_graphs_are_frozen_and_equal_by_content_and_order() -> None:
    graph, same = diamond(), diamond()
    assert graph == same and hash(graph) == hash(same) and graph is not same
    assert graph != Graph(graph.nodes, graph.heads, graph.counter + 1) and graph != "graph"
    swapped = list(graph.nodes.items())
    swapped[2], swapped[3] = swapped[3], swapped[2]
    assert graph != Graph(dict(swapped), graph.heads, graph.counter)
    with pytest.raises(TypeError):
        graph.nodes["new"] = graph["relu#2"]  # type: ignore[index]
    with pytest.raises(FrozenInstanceError):
        graph.counter = 3  # type: ignore[misc]
    with pytest.raises(GraphError, match="there is no node 'relu' in this graph of 7 nodes"):
        graph["relu"]


def test_who_reads_whom() -> None:
    graph = diamond()
    assert graph.consumers["conv#1"] == (("relu#2", 0), ("tanh#3", 0))
    assert graph.consumers["tanh#3"] == (("add#4", 1),) and graph.consumers["fc#6"] == ()
    assert graph.downstream(["tanh#3"]) == {"tanh#3", "add#4", "flatten#5", "fc#6"}
    assert graph.upstream(["tanh#3"]) == {"tanh#3", "conv#1", "input#0"}
    assert [node.id for node in graph.inputs] == ["input#0"]
    assert graph.shapes["flatten#5"] == (48,)


def test_the_networkx_graph_is_held_and_cannot_be_changed() -> None:
    graph = diamond()
    assert set(graph.dag.edges) == {(source, node.id) for node in graph.nodes.values() for source in node.inputs}
    assert networkx.is_directed_acyclic_graph(graph.dag)
    with pytest.raises(networkx.NetworkXError):
        graph.dag.add_node("more")


@budget(60)
@given(graphs(), st.data())
def test_streams_are_those_of_networkx(graph: Graph, data: st.DataObject) -> None:
    node = data.draw(st.sampled_from(list(graph.nodes)))
    assert graph.downstream([node]) == networkx.descendants(graph.dag, node) | {node}
    assert graph.upstream([node]) == networkx.ancestors(graph.dag, node) | {node}
    for id, readers in graph.consumers.items():
        assert all(graph[reader].inputs[slot] == id for reader, slot in readers)
    assert sum(map(len, graph.consumers.values())) == sum(len(node.inputs) for node in graph.nodes.values())


def test_a_draft_leaves_its_graph_alone_and_counts_on() -> None:
    graph = diamond()
    draft = Draft(graph, born=9)
    new = draft.add("identity", "relu#2", after="relu#2")
    draft.redirect("relu#2", new, ["add#4"])
    changed = draft.finish()
    assert new == "identity#7" and changed.counter == 8 and changed[new].born == 9 and changed["relu#2"].born == 2
    assert list(changed.nodes)[3] == new, "it runs where it was placed"
    assert changed["add#4"].inputs == (new, "tanh#3") and graph == diamond()
    gone = Draft(changed)
    gone.redirect(new, "relu#2", ["add#4"])
    gone.remove([new])
    assert gone.finish().counter == 8, "numbers are not used again"


def test_redirecting_changes_every_place_at_which_a_node_reads() -> None:
    draft = Draft()
    x = draft.input((4,))
    one = draft.add("relu", x)
    twice = draft.add("add", [one, one])
    draft.redirect(one, x, [twice])
    assert draft.nodes[twice].inputs == (x, x)
    draft.rewire(twice, 1, one)
    assert draft.nodes[twice].inputs == (x, one)
    draft.head(twice, "a")
    draft.head(twice, "b", training_only=True)
    draft.move_heads(twice, one)
    assert draft.heads == [Head("a", one), Head("b", one, True)]


def test_tensors_get_names_that_nobody_has() -> None:
    draft = Draft()
    x = draft.input((3, 5, 5))
    first = draft.add("conv2d", x, path="conv2d_2", out=3)
    second = draft.add("conv2d", first, out=3)
    assert second == "conv2d#2"
    names = [set(draft.nodes[node].tensors.values()) for node in (first, second)]
    assert names[0] == {"conv2d_2.weight", "conv2d_2.bias"} and names[0].isdisjoint(names[1])


def change(**fields: Any) -> Callable[[Graph], Graph]:
    def changed(graph: Graph) -> Graph:
        nodes = dict(graph.nodes)
        nodes["relu#2"] = replace(nodes["relu#2"], **fields)
        return Graph(nodes, graph.heads, graph.counter)

    return changed


def heads(*found: Head) -> Callable[[Graph], Graph]:
    return lambda graph: Graph(graph.nodes, found, graph.counter)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (change(inputs=("nobody#9",)), "node 'relu#2' reads 'nobody#9', which is not in the graph"),
        (change(inputs=("add#4",)), r"node 'relu#2' reads 'add#4', which runs later \(a cycle, or a wrong order\)"),
        (change(inputs=("conv#1", "input#0")), "node 'relu#2' of kind 'relu' has 2 inputs, expected 1"),
        (change(id="other"), "node 'other' stands under the name 'relu#2'"),
        (change(settings={"slope": 1}), "unknown setting of 'relu' at node 'relu#2' 'slope'"),
        (change(kind="relux"), "unknown kind 'relux': did you mean 'relu'"),
        (change(kind="prelu", settings={"per_channel": True}), "names tensors for \\[\\], expected \\['weight'\\]"),
        (change(kind="flatten"), r"node 'add#4' of kind 'add' cannot read \(48,\), \(3, 4, 4\): expected equal shapes"),
        (change(kind="conv2d", settings={"out": 3}), "settings .* are not complete"),
        (heads(), "expected heads of different names"),
        (heads(Head("a", "fc#6"), Head("a", "fc#6")), "expected heads of different names"),
        (heads(Head("a", "nobody#9")), "head 'a' reads 'nobody#9', which is not in the graph"),
        (heads(Head("a", "relu#2")), "node 'add#4' leads to no output; remove it"),
    ],
)
def test_an_invalid_graph_is_refused_with_its_node(spoil: Callable[[Graph], Graph], message: str) -> None:
    with pytest.raises((GraphError, UnknownName), match=message):
        check(spoil(diamond()))


def test_inputs_must_have_different_names() -> None:
    draft = Draft()
    draft.head(draft.add("add", [draft.input((3,)), draft.input((3,))]))
    with pytest.raises(GraphError, match=r"expected inputs of different names, got \['x', 'x'\]"):
        draft.finish()


def test_what_is_one_for_all_examples_is_not_laid_beside_what_is_there_for_each() -> None:
    def joined(spread: bool) -> Graph:
        draft = Draft()
        tokens, token = draft.input((3, 4)), draft.add("parameter", (), shape=(1, 1, 4), view=(1, 4))
        if spread:
            token = draft.add("expand", [token, tokens], rank=2)
        draft.head(draft.add("concat", [token, tokens]))
        return draft.finish()

    assert len(joined(spread=True).nodes) == 4
    with pytest.raises(GraphError, match="'concat#2' reads 'parameter#1', which is one for all examples"):
        joined(spread=False)


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        ("conv2d", {}, "node 'conv2d#1' of kind 'conv2d' needs the setting 'out'"),
        ("conv2d", {"out": 0}, "setting out=0: expected a whole number from 1"),
        ("conv2d", {"out": True}, "setting out=True: expected a whole number"),
        (
            "conv2d",
            {"out": 4, "kernal": 3},
            "unknown setting of 'conv2d' at node 'conv2d#1' 'kernal': did you mean 'kernel'",
        ),
        ("conv2d", {"out": 4, "kernel": (3, 3, 3)}, "expected a whole number or two of them"),
        ("dropout", {"p": 1.5}, "setting p=1.5: expected a number from 0 to 1"),
        ("batch_norm", {"eps": 0}, "setting eps=0: expected a number above 0"),
        ("gelu", {"approximate": "tan"}, "expected one of none, tanh"),
        ("leaky_relu", {"negative_slope": float("nan")}, "expected a finite number"),
    ],
)
def test_settings_are_checked_when_a_node_is_added(kind: str, settings: dict[str, Any], message: str) -> None:
    draft = Draft()
    x = draft.input((3, 4, 4))
    with pytest.raises((GraphError, UnknownName), match=message):
        draft.add(kind, x, **settings)


@pytest.mark.parametrize(
    ("kind", "shape", "settings", "message"),
    [
        ("conv2d", (3,), {"out": 4}, r"cannot read \(3,\): expected \(channels, height, width\)"),
        ("conv2d", (3, 4, 4), {"out": 4, "groups": 3}, "3 input and 4 output channels cannot be divided into 3 groups"),
        (
            "conv2d",
            (3, 4, 4),
            {"out": 4, "kernel": 7, "padding": 0},
            r"would turn \(3, 4, 4\) into the empty \(4, 0, 0\)",
        ),
        ("conv1d", (3, 4, 4), {"out": 4}, r"expected \(channels, length\)"),
        ("linear", (), {"out": 4}, r"cannot read \(\): expected \(…, features\)"),
        ("flatten", (), {}, "expected at least one axis"),
        ("average", (3, 4), {"axes": []}, "expected at least one axis"),
        ("max_pool2d", (3, 4, 4), {"kernel": 2, "padding": 2}, "padding may be at most half the kernel"),
        ("group_norm", (4, 2, 2), {"groups": 3}, "4 channels cannot be divided into 3 groups"),
        ("layer_norm", (4,), {"axes": 2}, "expected at least 2 axes"),
        ("batch_norm", (4, 5, 1, 1, 2), {}, r"expected \(channels, height, width\), \(features,\)"),
        ("dropout2d", (4,), {}, r"expected \(channels, height, width\)"),
    ],
)
def test_shapes_that_do_not_fit_name_their_node(
    kind: str, shape: tuple[int, ...], settings: dict[str, Any], message: str
) -> None:
    draft = Draft()
    draft.head(draft.add(kind, draft.input(shape), **settings))
    with pytest.raises(ShapeError, match=message) as caught:
        draft.finish()
    assert f"node '{kind}#1'" in str(caught.value)


def test_a_genome_has_exactly_the_tensors_that_its_nodes_name() -> None:
    graph = diamond()
    weights = initial_weights(graph, 0)
    genome = Genome(graph, weights, {"labels": ["cat", "dog"]})
    assert genome.about["labels"] == ("cat", "dog")
    weights.clear()
    assert genome.weights.keys() == {"conv.weight", "conv.bias", "fc.weight", "fc.bias"}
    with pytest.raises(TypeError):
        genome.weights["fc.bias"] = torch.zeros(2)  # type: ignore[index]
    good = dict(genome.weights)
    with pytest.raises(GraphError, match=r"tensor 'fc.bias' is missing; its node expects shape \(2,\)"):
        Genome(graph, {name: tensor for name, tensor in good.items() if name != "fc.bias"})
    with pytest.raises(GraphError, match=r"tensor 'fc.bias' has shape \(3,\); its node expects \(2,\)"):
        Genome(graph, {**good, "fc.bias": torch.zeros(3)})
    with pytest.raises(GraphError, match="no node refers to tensor 'more'"):
        Genome(graph, {**good, "more": torch.zeros(3)})


def test_nodes_that_share_a_tensor_must_agree_on_its_shape() -> None:
    draft = Draft()
    x = draft.input((4,))
    one = draft.add("linear", x, out=3)
    draft.head(draft.add("linear", one, out=3, tensors=draft.nodes[one].tensors))
    with pytest.raises(GraphError, match=r"node 'linear#2' expects its tensor 'linear_1.weight' with shape \(3, 3\)"):
        draft.finish()
