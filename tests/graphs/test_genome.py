"""Genomes: what they refuse, and what remains of them for inference."""

from __future__ import annotations

import pytest
import torch

from graphs import Draft, Genome, initial_weights, to_torch
from graphs.errors import GraphError
from graphs.execution import execute


def named(path: str) -> Genome:
    draft = Draft()
    names = {role: f"{path}.{role}" for role in ("weight", "bias")}
    draft.head(draft.add("linear", draft.input((3,)), tensors=names, out=2))
    graph = draft.finish()
    return Genome(graph, initial_weights(graph, 0))


INJECTED = 'b",getattr(__import__("os"),"system")("touch\\tPWNED"))or(getattr)(self,"b'
"""Part of a name that ends the text in which `torch.fx` quotes it, and calls."""


@pytest.mark.parametrize(
    "path",
    [
        *("forward", "training", "a.eval", "_parameters", "class", "a.def.b", "a..b", ".", ""),
        *(
            "graph",
            "code.0",
            "__a",
            "a b",
            "a'",
            'a"',
            "a\\",
            "a(",
            "a,",
            "a;",
            "a#",
            "a=b",
            "a\nb",
            "a\x00",
            "²",
            "ｏｕｔ",
        ),
        INJECTED,
        f"layers.{INJECTED}",
    ],
)
def test_tensors_cannot_stand_where_modules_have_something_else(path: str) -> None:
    with pytest.raises(GraphError, match="cannot stand in a module"):
        named(path)


@pytest.mark.parametrize("path", ["fc", "layers.0.fc", "weight", "größe", "block1-0", "a.code", "a/b", "a:0", "7"])
def test_other_paths_are_fine(path: str) -> None:
    genome = named(path)
    assert set(to_torch(genome).state_dict()) == set(genome.weights)


@pytest.mark.parametrize("path", [INJECTED, "a b", 'a"', "a\\", "a\n", "a=b", "ｏｕｔ", "²"])
def test_nodes_and_heads_have_no_name_that_means_something_in_python(path: str) -> None:
    draft = Draft()
    draft.head(draft.add("dropout", draft.input((3,)), path=path))
    with pytest.raises(GraphError, match="a node has the name"):
        draft.finish()
    draft = Draft()
    draft.head(draft.add("dropout", draft.input((3,))), path)
    with pytest.raises(GraphError, match="a head has the name"):
        draft.finish()


def test_a_tensor_is_no_place_for_another() -> None:
    draft = Draft()
    layer = draft.add("linear", draft.input((3,)), out=2, tensors={"weight": "a", "bias": "a.b"})
    draft.head(layer)
    graph = draft.finish()
    with pytest.raises(GraphError, match=r"'a\.b' cannot stand in a module: 'a' is a tensor"):
        Genome(graph, initial_weights(graph, 0))


@pytest.mark.parametrize(
    "name", ["self", "torch", "import", "1x", "a b", "getattr", "slice", "__x", "größe", "ｘ", "inf"]
)
def test_inputs_have_names_that_a_forward_pass_can_use(name: str) -> None:
    with pytest.raises(GraphError, match="expected a name"):
        Draft().input((3,), name)


def test_what_exists_in_training_only_is_left_out_for_inference() -> None:
    draft = Draft()
    hidden = draft.add("relu", draft.add("linear", draft.input((3,)), path="body", out=4))
    draft.head(draft.add("linear", hidden, path="aux", out=7), "aux", training_only=True)
    draft.head(draft.add("linear", hidden, path="main", out=2), "logits")
    graph = draft.finish()
    genome = Genome(graph, initial_weights(graph, 0), {"labels": ["a", "b"]})
    lean = genome.for_inference()
    assert set(lean.weights) == {"body.weight", "body.bias", "main.weight", "main.bias"}
    assert [head.name for head in lean.graph.heads] == ["logits"] and lean.about == genome.about
    assert lean.for_inference() is lean
    inputs = torch.randn(5, 3)
    whole = execute(graph, genome.weights, {"x": inputs}, training=False)
    assert torch.equal(to_torch(lean).eval()(inputs), whole.values[graph.heads[1].node])


def test_only_what_is_wanted_is_run_and_kept() -> None:
    draft = Draft()
    first = draft.add("linear", draft.input((3,)), path="first", out=4)
    side, main = draft.add("linear", first, path="side", out=7), draft.add("relu", first)
    draft.head(side, "side")
    draft.head(draft.add("linear", main, path="main", out=2), "main")
    graph = draft.finish()
    weights, examples = initial_weights(graph, 0), {"x": torch.randn(5, 3)}
    whole = execute(graph, weights, examples, training=False)
    run: list[str] = []
    found = execute(
        graph,
        weights,
        examples,
        training=False,
        keep=[graph.heads[1].node],
        adjust=lambda node, slot, value: run.append(node) or value,  # type: ignore[func-returns-value]
    )
    assert side not in run and first in run
    assert {*found.values} == {graph.heads[1].node}
    assert torch.equal(found.values[graph.heads[1].node], whole.values[graph.heads[1].node])


def test_weights_fit_the_graph() -> None:
    genome = named("fc")
    with pytest.raises(GraphError, match=r"'fc\.bias' is missing"):
        Genome(genome.graph, {"fc.weight": genome.weights["fc.weight"]})
    with pytest.raises(GraphError, match=r"'fc\.bias' has shape \(3,\)"):
        Genome(genome.graph, {**genome.weights, "fc.bias": torch.zeros(3)})
    with pytest.raises(GraphError, match="no node refers to tensor 'other'"):
        Genome(genome.graph, {**genome.weights, "other": torch.zeros(3)})
