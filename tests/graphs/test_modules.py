"""The module that comes out: ordinary, with the genome's names, and nothing of this project inside."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from graphs import from_torch, genome_from_module, initial_weights, to_torch, zoo
from graphs.draft import Draft
from graphs.errors import GraphError
from graphs.execution import execute
from graphs.genome import Genome
from graphs.source_text import source
from graphs.structure import Graph
from tests.strategies import inputs, lively


def test_the_module_is_an_ordinary_one() -> None:
    genome = zoo.create("resnet", depth=8, input_shape=(3, 8, 8))
    module = to_torch(genome)
    assert module.training and isinstance(module.get_submodule("layer1.0.conv1"), nn.Conv2d)
    assert {type(each).__module__.partition(".")[0] for each in module.children()} == {"torch"}
    assert "graphs" not in source(genome) and "ops" not in source(genome)
    assert list(dict(module.named_parameters()))[:3] == ["conv1.weight", "bn1.weight", "bn1.bias"]
    x = torch.randn(4, 3, 8, 8)
    module.eval()
    assert torch.equal(module(x), module(x=x)) and module(x).shape == (4, 10)
    assert torch.equal(copy.deepcopy(module)(x), module(x))


def test_training_the_module_leaves_the_genome_alone() -> None:
    genome = zoo.create("convnet", input_shape=(1, 8, 8))
    digest = genome.digest
    module = to_torch(genome)
    module(torch.randn(4, 1, 8, 8)).square().sum().backward()
    torch.optim.SGD(module.parameters(), lr=0.1).step()
    trained = genome_from_module(genome, module)
    assert Genome(genome.graph, genome.weights).digest == digest != trained.digest
    assert int(trained.weights["stage1.bn.num_batches_tracked"]) == 1
    assert int(genome.weights["stage1.bn.num_batches_tracked"]) == 0
    with torch.no_grad():
        module.get_parameter("fc.bias").fill_(7)
    assert 7 not in trained.weights["fc.bias"].tolist()
    assert not any(tensor.requires_grad for tensor in trained.weights.values())


def test_a_module_of_another_genome_is_refused() -> None:
    genome = zoo.create("convnet", input_shape=(1, 8, 8))
    with pytest.raises(GraphError, match=r"the module has no tensor '.*'; it was not made from this genome"):
        genome_from_module(genome, nn.Linear(3, 3))


def test_several_heads_come_as_a_dictionary_and_several_inputs_by_name() -> None:
    draft = Draft()
    x, y = draft.input((3,)), draft.input((2,), "y")
    both = draft.add("concat", [x, y])
    draft.head(draft.add("linear", both, path="one", out=2), "logits")
    draft.head(draft.add("linear", both, path="two", out=1), "auxiliary", training_only=True)
    genome = lively(draft.finish())
    module = to_torch(genome)
    given = inputs(genome.graph, 5, dtype=torch.float32)
    found = module(given["x"], given["y"])
    assert {name: tuple(value.shape) for name, value in found.items()} == {"logits": (5, 2), "auxiliary": (5, 1)}
    assert torch.equal(module(y=given["y"], x=given["x"])["logits"], found["logits"])


def rebuilt(genome: Genome) -> nn.Module:
    names: dict[str, Any] = {}
    exec("import torch\nfrom torch import nn\n" + source(genome), names)  # noqa: S102
    module: nn.Module = names["Model"]()
    return module


def check_equal(genome: Genome) -> nn.Module:
    """The module's outputs are those of the graph, and so are those of its source."""
    given = inputs(genome.graph, 4, dtype=torch.float32)
    run = execute(genome.graph, genome.weights, given, training=False)
    module = to_torch(genome).eval()
    written = rebuilt(genome).eval()
    written.load_state_dict({**module.state_dict(), **genome.weights}, strict=True)
    expected = run.values[genome.graph.heads[0].node]
    for each in (module, written):
        found = each(**given)
        assert isinstance(found, Tensor) and torch.equal(found, expected)
    assert genome_from_module(genome, module).digest == genome.digest
    return module


def test_a_layer_that_is_used_twice_is_one_module() -> None:
    draft = Draft()
    x = draft.input((3, 5, 5))
    one = draft.add("conv2d", x, path="body.conv", out=3)
    two = draft.add("conv2d", draft.add("relu", one), out=3, tensors=draft.nodes[one].tensors)
    norm = draft.add("batch_norm", two, path="body.norm")
    again = draft.add("batch_norm", draft.add("relu", norm), tensors=draft.nodes[norm].tensors)
    draft.head(draft.add("linear", draft.add("flatten", again), path="fc", out=2))
    module = check_equal(lively(draft.finish()))
    assert [name for name, each in module.named_modules() if isinstance(each, nn.Conv2d)] == ["body.conv"]
    assert sum(parameter.numel() for parameter in module.parameters()) == 84 + 6 + 152
    module.train()(torch.randn(4, 3, 5, 5))
    assert int(module.get_buffer("body.norm.num_batches_tracked")) == 3 + 2


def test_layers_that_differ_can_share_their_tensors() -> None:
    draft = Draft()
    x = draft.input((3, 6, 6))
    one = draft.add("conv2d", x, path="one", out=4)
    two = draft.add("conv2d", x, out=4, dilation=2, tensors=draft.nodes[one].tensors)
    draft.head(draft.add("linear", draft.add("flatten", draft.add("add", [one, two])), path="fc", out=2))
    module = check_equal(lively(draft.finish()))
    assert [name for name, each in module.named_modules() if isinstance(each, nn.Conv2d)] == ["one"]
    assert set(module.state_dict()) == {"one.weight", "one.bias", "fc.weight", "fc.bias"}


@pytest.mark.parametrize("bias", ["other.place.bias", "conv2d_3.bias", "two.bias"])
@pytest.mark.parametrize("first", [False, True])
def test_layers_can_share_some_of_their_tensors(bias: str, first: bool) -> None:
    """The genome's names are all there, whichever of the two nodes runs first."""
    draft = Draft()
    x = draft.input((3, 5, 5))
    shared = {"weight": "one.weight", "bias": bias}
    own = {"weight": "one.weight", "bias": "one.bias"}
    front, back = (shared, own) if first else (own, shared)
    one = draft.add("conv2d", x, out=3, tensors=front)
    two = draft.add("conv2d", draft.add("relu", one), out=3, tensors=back)
    draft.head(draft.add("linear", draft.add("flatten", two), path="fc", out=2))
    genome = lively(draft.finish())
    assert genome.weights.keys() <= check_equal(genome).state_dict().keys()


def test_paths_of_all_sorts() -> None:
    """Numbers, a path within another one, and a node called like somebody's path."""
    draft = Draft()
    x = draft.add("conv2d", draft.input((3, 5, 5)), path="blocks.0", out=4)
    x = draft.add("batch_norm", x, path="blocks.0.norm")
    x = draft.add("prelu", x, path="größe.1")
    x = draft.add("gate", [x, draft.add("dropout", x, path="blocks")], path="a.b.c")
    draft.head(draft.add("linear", draft.add("flatten", x), path="7", out=2))
    genome = lively(draft.finish())
    module = check_equal(genome)
    assert module.state_dict().keys() == genome.weights.keys()
    assert isinstance(module.get_submodule("blocks.0.norm"), nn.BatchNorm2d)


@pytest.mark.parametrize(
    "names", [("x", "relu"), ("input", "input_1"), ("input_1", "input"), ("type", "type_"), ("sub", "float")]
)
def test_inputs_are_told_apart_from_what_else_bears_their_name(names: tuple[str, str]) -> None:
    draft = Draft()
    first = draft.add("relu", draft.input((3,), names[0]))
    draft.head(
        draft.add(
            "pointwise", [first, draft.input((3,), names[1])], program=[["torch.sub", [{"in": 0}, {"in": 1}], {}]]
        )
    )
    module = check_equal(Genome(draft.finish(), {}))
    one, other = torch.randn(2, 3), torch.randn(2, 3)
    assert torch.equal(module(one, other), one.relu() - other)


@pytest.mark.parametrize("id", ["forward", "class", "training", "graph", "code", "__x", "a-b", "fc", "scale"])
def test_a_node_without_tensors_has_a_place_whatever_its_id(id: str) -> None:
    draft = Draft()
    drop = draft.add("dropout", draft.input((3,)), path="drop")
    scale = draft.add("parameter", (), shape=(1, 3), view=(3,), tensors={"value": "scale"})
    draft.head(draft.add("linear", draft.add("add", [drop, scale]), path="fc", out=2))
    graph = draft.finish()
    nodes = [
        replace(n, inputs=tuple(id if source == drop else source for source in n.inputs)) for n in graph.nodes.values()
    ]
    renamed = [replace(n, id=id) if n.id == drop else n for n in nodes]
    check_equal(lively(Graph({n.id: n for n in renamed}, graph.heads, graph.counter)))


def test_what_a_layer_has_already_is_no_place_for_another() -> None:
    draft = Draft()
    x = draft.add("linear", draft.input((3,)), path="fc", out=2)
    draft.head(draft.add("linear", x, path="fc.in_features", out=2))
    with pytest.raises(GraphError, match=r"no module can stand at 'fc\.in_features'"):
        to_torch(lively(draft.finish()))


def test_a_shared_tensor_keeps_its_name_when_the_layer_it_came_from_is_gone() -> None:
    draft = Draft()
    layer = draft.add(
        "linear", draft.input((4,)), path="two", out=4, tensors={"weight": "one.weight", "bias": "two.bias"}
    )
    draft.head(draft.add("linear", layer, path="fc", out=2))
    graph = draft.finish()
    genome = Genome(graph, initial_weights(graph, 0))
    module = to_torch(genome)
    assert set(genome.weights) <= set(module.state_dict())
    assert len(list(module.parameters())) == 4
    inputs = torch.randn(3, 4)
    assert torch.equal(
        module(inputs), execute(graph, genome.weights, {"x": inputs}, training=False).values[graph.heads[0].node]
    )


def test_a_tensor_without_a_place_is_named() -> None:
    draft = Draft()
    draft.head(draft.add("linear", draft.input((4,)), out=2, tensors={"weight": "w", "bias": "layer.bias"}))
    graph = draft.finish()
    with pytest.raises(GraphError, match="tensor 'w' has no place in a module"):
        to_torch(Genome(graph, initial_weights(graph, 0)))


def overwriting(readers: int, head: bool) -> str:
    """The code of a convolution under an activation, whose value others read too, or that is an output."""
    draft = Draft()
    made = draft.add("conv2d", draft.input((3, 4, 4)), out=3)
    value = draft.add("relu", made)
    for _ in range(readers):
        value = draft.add("add", [value, made])
    draft.head(draft.add("flatten", value))
    if head:
        draft.head(made, "other")
    graph = draft.finish()
    code: str = to_torch(Genome(graph, initial_weights(graph, 0))).code
    return code


def test_an_activation_overwrites_what_nobody_else_reads() -> None:
    assert "inplace = True" in overwriting(0, head=False)
    assert "inplace = True" not in overwriting(1, head=False)
    assert "inplace = True" not in overwriting(0, head=True)


def test_inputs_and_views_are_not_overwritten() -> None:
    draft = Draft()
    image = draft.input((4, 2, 2))
    bent = draft.add("relu", image)
    flat = draft.add("flatten", draft.add("conv2d", bent, out=4))
    draft.head(draft.add("relu", flat))
    graph = draft.finish()
    module = to_torch(Genome(graph, initial_weights(graph, 0)))
    assert "inplace = True" not in module.code


def test_an_input_that_one_mode_alone_reads_is_an_argument_in_both() -> None:
    draft = Draft()
    one, other = draft.input((3,), "x"), draft.input((3,), "y")
    draft.head(draft.add("linear", draft.add("by_mode", [one, other]), path="fc", out=2))
    graph = draft.finish()
    genome = Genome(graph, initial_weights(graph, 0))
    module = to_torch(genome)
    x, y = torch.randn(2, 4, 3)
    for training, read in ((True, x), (False, y)):
        expected = nn.functional.linear(read, module.fc.weight, module.fc.bias)
        assert torch.equal(module.train(training)(x, y), expected)
        assert torch.equal(module(y=y, x=x), expected)
    assert from_torch(module, {"x": x, "y": y}).graph.fingerprint == graph.fingerprint
