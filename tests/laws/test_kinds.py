"""Laws of every kind of node: what a graph infers, runs and emits is one and the same network."""

from __future__ import annotations

import itertools
from random import Random
from typing import Any

import pytest
import torch
from hypothesis import given
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from graphs.cost import macs, parameters
from graphs.draft import Draft
from graphs.execution import execute
from graphs.genome import Genome
from graphs.kinds import KINDS, tensors
from graphs.modules import genome_from_module, to_torch
from graphs.source_text import constants_of, source
from graphs.spaces import Space, Value
from graphs.structure import Graph, Node
from tests.strategies import MISSING, around, budget, inputs, lively, networks, sketch

SEEDS = range(6)


def test_the_strategies_know_every_kind() -> None:
    assert MISSING == [], f"tests/strategies.py cannot draw {MISSING}: say in UNARY, JOINING or PARTICULAR how"


def test_random_graphs_have_every_kind() -> None:
    drawn = {node.kind for seed in range(300) for node in sketch(14, Random(seed)).nodes.values()}  # noqa: S311
    assert drawn == KINDS.keys()


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind(kind: str) -> None:
    for seed in SEEDS:
        check_all(lively(around(kind, seed), seed))


@pytest.mark.parametrize("kind", ["attention", "dropout", "dropout2d", "stochastic_depth"])
def test_what_drops_nothing_draws_no_numbers(kind: str) -> None:
    (part,) = {"p", "dropout"} & KINDS[kind].settings.keys()
    assert KINDS[kind].random({part: 0.2}) and not KINDS[kind].random({part: 0.0})


def test_a_channel_that_is_the_mean_of_the_others_stays_it() -> None:
    """Through every kind that says so, wherever the channels of a space stand in what it reads."""
    even = {name for name, kind in KINDS.items() if kind.even}
    seen = set()
    drawn = (lively(sketch(14, Random(seed)), seed) for seed in range(1500))  # noqa: S311
    for number, genome in enumerate(itertools.chain(map(pooled, (1, 2, 3)), drawn)):
        for node in genome.graph.nodes.values():
            if node.kind in even and any([check_mean(genome, node, space) for space in genome.graph.spaces]):
                seen.add(node.kind)
        if number > 300 and seen == even:
            break
    assert seen == even


def pooled(places: int) -> Genome:
    draft = Draft()
    value = draft.add(f"conv{places}d", draft.input((3, *[6] * places)), out=4)
    for kind, settings in ((f"avg_pool{places}d", {"kernel": 2}), (f"adaptive_avg_pool{places}d", {"size": 2})):
        value = draft.add(f"dropout{places}d", draft.add("stochastic_depth", draft.add(kind, value, **settings)))
    value = draft.add("roll", value, shifts=(0, *[1] * places))
    value = draft.add("pad", value, margins=((0, 0), *[(1, 0)] * places))
    value = draft.add("select", value, axis=1, index=1)
    draft.head(draft.add("linear", draft.add("flatten", value), out=3))
    return lively(draft.finish())


def check_mean(genome: Genome, node: Node, space: Space) -> bool:
    """False where the space cannot change, does not stand in the value, or has no others."""
    graph, generator = genome.graph, torch.Generator().manual_seed(1)
    made = [value for value in space.values if value.node == node.id]
    if not made or space.width < 2 or space.reason:
        return False
    operands = []
    for operand_of in node.inputs:
        operand = torch.randn((3, *graph.shapes[operand_of]), generator=generator, dtype=torch.float64)
        if graph[operand_of].settings.get("dtype") == "integer":
            operand = torch.randint(graph[operand_of].settings["most"], operand.shape, generator=generator)
        for value in space.values:
            if value.node == operand_of:
                channels = of_space(operand, value, space)
                channels[:, -1] = channels[:, :-1].mean(1)
        operands.append(operand)
    tensors = {role: genome.weights[name] for role, name in node.tensors.items()}
    found = KINDS[node.kind].compute(node.settings, operands, tensors, False)  # type: ignore[misc]
    for value in made:
        channels = of_space(found, value, space)
        torch.testing.assert_close(channels[:, -1], channels[:, :-1].mean(1))
    return True


def of_space(value: Tensor, place: Value, space: Space) -> Tensor:
    """Where a space stands in a value: (N, channel, what is in it, …)."""
    length = space.width * place.inner
    part = value.movedim(1 + place.axis, 1).narrow(1, place.offset, length)
    return part.unflatten(1, (space.width, place.inner))


@budget(60)
@given(networks())
def test_random_networks(genome: Genome) -> None:
    check_all(genome)


def check_all(genome: Genome) -> None:
    check_shapes(genome)
    module = to_torch(genome)
    check_state(genome, module)
    check_cost(genome, module)
    check_outputs(genome, module)
    check_gradients(genome, module)
    check_outputs(genome, rebuilt(genome))


def check_shapes(genome: Genome) -> None:
    """What is inferred is what is observed, whatever the batch, of which what depends on no input has one entry."""
    varying = genome.graph.downstream(node.id for node in genome.graph.inputs)
    for batch, training in ((4, True), (4, False), (7, True), (7, False)):
        run = execute(genome.graph, genome.weights, inputs(genome.graph, batch, dtype=torch.float32), training=training)
        assert run.values.keys() == genome.graph.in_mode(training).nodes.keys()
        for id, value in run.values.items():
            assert tuple(value.shape) == (batch if id in varying else 1, *genome.graph.shapes[id]), id


def check_state(genome: Genome, module: nn.Module) -> None:
    """The module has the genome's tensors under the genome's names, as copies; only sharing adds names.

    Constants that are no part of a network's state are buffers of the module, but not in its `state_dict`.
    """
    state = module.state_dict()
    constants = {name for name, spec in tensors(genome.graph).items() if not spec.persistent}
    assert constants.isdisjoint(state)
    references = [name for node in genome.graph.nodes.values() for name in node.tensors.values()]
    if len(references) == len(set(references)):
        assert state.keys() == genome.weights.keys() - constants
    state |= {name: buffer for name, buffer in module.named_buffers() if name in constants}
    for name, tensor in genome.weights.items():
        assert torch.equal(state[name], tensor), name
        assert state[name].data_ptr() != tensor.data_ptr(), name
    assert genome_from_module(genome, module).digest == genome.digest


def check_cost(genome: Genome, module: nn.Module) -> None:
    """Parameters and products are what torch counts."""
    assert parameters(genome.graph) == sum(parameter.numel() for parameter in module.parameters())
    if any(head.training_only for head in genome.graph.heads):
        return
    # Of the ways to compute attention only the plain one is counted on every machine.
    with FlopCounterMode(display=False) as counter, torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        module.requires_grad_(False).eval()(**inputs(genome.graph, 1, dtype=torch.float32))
    assert 2 * macs(genome.graph) == counter.get_total_flops()


def check_heads(genome: Genome, found: Any, training: bool) -> dict[str, Tensor]:
    """The outputs by name: in eval mode without those that exist in training only; one alone is no dictionary."""
    names = [head.name for head in genome.graph.heads if training or not head.training_only]
    assert isinstance(found, Tensor) == (len(names) == 1)
    outputs = {names[0]: found} if isinstance(found, Tensor) else dict(found)
    assert list(outputs) == names
    return outputs


def check_outputs(genome: Genome, module: nn.Module) -> None:
    """Bit for bit what the node-by-node run gives, in train mode with the buffers that it leaves."""
    graph, examples = genome.graph, inputs(genome.graph, 6, dtype=torch.float32)
    modes = (False,) if any(KINDS[node.kind].random(node.settings) for node in graph.nodes.values()) else (False, True)
    # Of a value whose axes are out of order, torch multiplies weights that ask for gradients in another order.
    module.requires_grad_(False)
    weights = {**genome.weights, **dict(module.named_parameters(remove_duplicate=False))}
    for training in modes:
        run = execute(graph, weights, examples, training=training)
        with torch.no_grad():
            found = module.train(training)(**examples)
        outputs = check_heads(genome, found, training)
        for head in graph.heads:
            if head.name in outputs:
                assert torch.equal(outputs[head.name], run.values[head.node]), (head, training)
        if training:
            state = dict(module.named_buffers())
            for name in buffers(graph):
                assert torch.equal(state[name], run.buffers.get(name, genome.weights[name])), name


def check_gradients(genome: Genome, module: nn.Module) -> None:
    """What is overwritten on the way was needed by nobody: gradients are those of the run that keeps all values."""
    graph, specs = genome.graph, tensors(genome.graph)
    examples = inputs(graph, 5, dtype=torch.float32)
    kept = {name: value.clone() for name, value in examples.items()}
    for value in examples.values():
        value.requires_grad_(value.is_floating_point())
    weights = {name: tensor.clone().requires_grad_(not specs[name].buffer) for name, tensor in genome.weights.items()}
    module.load_state_dict(genome.weights, strict=False)
    module.requires_grad_(True)
    modes = (False,) if any(KINDS[node.kind].random(node.settings) for node in graph.nodes.values()) else (False, True)
    for training in modes:
        run = execute(graph, weights, examples, training=training, differentiable=True)
        heads = {head.name: run.values[head.node] for head in graph.heads if training or not head.training_only}
        expected = gradients(heads, {**examples, **weights})
        found = check_heads(genome, module.train(training)(**examples), training)
        assert all(torch.equal(found[name], value) for name, value in heads.items())
        for name, gradient in gradients(found, {**examples, **dict(module.named_parameters())}).items():
            one, other = gradient, expected.get(name)
            assert (one is None) == (other is None) and (one is None or torch.equal(one, other)), (name, training)
    assert all(torch.equal(examples[name], value) for name, value in kept.items())


def gradients(outputs: dict[str, Tensor], leaves: dict[str, Tensor]) -> dict[str, Tensor | None]:
    """Of a sum over all outputs, each element weighted by its place, by the name of the leaf."""
    total = sum((value.flatten() * torch.linspace(-1, 1, value.numel())).sum() for value in outputs.values())
    asked = {name: leaf for name, leaf in leaves.items() if leaf.requires_grad}
    assert isinstance(total, Tensor)
    found = torch.autograd.grad(total, list(asked.values()), allow_unused=True)
    return dict(zip(asked, found, strict=True))


def buffers(graph: Graph) -> list[str]:
    return [name for name, spec in tensors(graph).items() if spec.buffer]


def rebuilt(genome: Genome) -> nn.Module:
    """The module that the source text describes, filled with the genome's tensors."""
    constants = {name: genome.weights[name] for name in constants_of(genome)}
    names: dict[str, Any] = {"constants": constants}
    exec(source(genome, "Network"), names)  # noqa: S102
    module: nn.Module = names["Network"]()
    state = {name: tensor for name, tensor in genome.weights.items() if name not in constants}
    missing, unexpected = module.load_state_dict(state, strict=False)
    assert unexpected == []
    shared = [name for node in genome.graph.nodes.values() for name in node.tensors.values()]
    assert missing == [] or len(shared) > len(set(shared))
    return module
