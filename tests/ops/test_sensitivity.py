"""The response of a network to each operand by itself: what it is, that it is not overstated, what shows nothing."""

from __future__ import annotations

import numpy
import pytest
import torch
from torch import Tensor

from graphs.draft import Draft
from graphs.execution import Run, execute
from graphs.genome import Genome
from ops import MUTATIONS, certify
from ops.sensitivity import Edge, responses
from tests.strategies import inputs, lively, small

NOTHING = Run({}, {})


def found(genome: Genome, training: bool = False, seed: int = 0, size: float = 0.01) -> dict[Edge, float]:
    """The responses to all operands, in the deviations of no output in particular."""
    edges = {(node.id, slot) for node in genome.graph.nodes.values() for slot in range(len(node.inputs))}
    units = {head.node: 1.0 for head in genome.graph.heads}
    examples, weights = inputs(genome.graph), precise(genome)
    return responses(genome.graph, weights, examples, NOTHING, edges, units, training=training, seed=seed, size=size)[0]


def precise(genome: Genome) -> dict[str, Tensor]:
    return {name: tensor.double() if tensor.is_floating_point() else tensor for name, tensor in genome.weights.items()}


def shaken(genome: Genome, edge: Edge, training: bool, size: float, turns: int = 40) -> tuple[float, float]:
    """Root mean square and the largest change of the outputs when one operand is really shaken, over some draws."""
    generator = torch.Generator().manual_seed(1)
    graph, weights, examples = genome.graph, precise(genome), inputs(genome.graph)

    def shake(node: str, slot: int, value: Tensor) -> Tensor:
        signs = torch.randint(0, 2, value.shape, generator=generator, dtype=value.dtype) * 2 - 1
        return value * (1 + size * signs) if (node, slot) == edge else value

    before = execute(graph, weights, examples, training=training)
    squares, largest = [], 0.0
    for _ in range(turns):
        after = execute(graph, weights, examples, training=training, adjust=shake)
        change = torch.cat([(after.values[head.node] - before.values[head.node]).flatten() for head in graph.heads])
        squares.append(float(change.square().mean()))
        largest = max(largest, float(change.abs().max()))
    return float(numpy.sqrt(numpy.mean(squares))), largest


@pytest.mark.parametrize("model", ["convnet", "resnet", "densenet"])
@pytest.mark.parametrize("training", [False, True])
def test_it_is_the_response_to_small_changes(model: str, training: bool) -> None:
    """For every operand, within what one projection scatters; never more than what really happens at some output."""
    genome = lively(small(model).graph)
    size = 1e-6
    got = found(genome, training, size=size)
    assert got.keys() == {(node.id, slot) for node in genome.graph.nodes.values() for slot in range(len(node.inputs))}
    for edge in list(got)[::5]:
        typical, largest = shaken(genome, edge, training, size, 12)
        assert 0.4 * typical <= got[edge] <= 2.5 * typical and got[edge] <= largest, edge


def test_over_many_projections_it_is_the_mean_square() -> None:
    genome = lively(small("convnet").graph)
    seeds = [found(genome, seed=seed, size=1e-6) for seed in range(60)]
    for edge in list(seeds[0])[::3]:
        mean = numpy.sqrt(numpy.mean([each[edge] ** 2 for each in seeds]))
        assert mean == pytest.approx(shaken(genome, edge, False, 1e-6, 60)[0], rel=0.15), edge


def test_readers_of_one_value_are_told_apart_and_hidden_ones_show_nothing() -> None:
    draft = Draft()
    x = draft.add("conv2d", draft.input((2, 5, 5)), out=4)
    y = draft.add("conv2d", x, path="hidden", out=4)
    both = draft.add("gate", [x, y], path="gate")
    draft.head(draft.add("linear", draft.add("flatten", both), out=3))
    genome = lively(draft.finish())
    closed = Genome(genome.graph, {**genome.weights, "gate.gate": torch.tensor(0.0)})
    gate = next(id for id in genome.graph.nodes if id.startswith("gate#"))
    opened, shut = found(genome), found(closed)
    assert opened[y, 0] > 1e-4 and opened[gate, 0] > 1e-4 and opened[gate, 1] > 1e-4
    assert shut[y, 0] == shut[gate, 1] == 0 and shut[gate, 0] > 1e-4 and shut[x, 0] > 1e-4


def test_where_there_is_no_derivative_nothing_is_taken_to_show() -> None:
    """The root of what is 0 on the whole probe, beside a path that shows enough."""
    draft = Draft()
    image = draft.input((6,))
    low = draft.add("relu", draft.add("linear", image, path="low", out=4))
    root = draft.add("pointwise", low, program=[["torch.sqrt", [{"in": 0}], {}]])
    shown = draft.add("linear", image, out=4)
    draft.head(draft.add("linear", draft.add("add", [root, shown]), out=3))
    genome = lively(draft.finish())
    got = found(Genome(genome.graph, {**genome.weights, "low.bias": torch.full((4,), -1000.0)}))
    assert [node for (node, _), response in got.items() if response == 0][:2] == ["low#1", low]
    assert got[shown, 0] > 1e-4 and all(numpy.isfinite(response) for response in got.values())


def test_what_a_comparison_reads_is_seen_though_it_has_no_derivative() -> None:
    """And what is read for its batch size only does not count."""
    draft = Draft()
    middle = draft.add("relu", draft.add("linear", draft.input((6,)), path="middle", out=8))
    step = ["operator.gt", [{"in": 0}, 0.5], {}]
    mask = draft.add("opaque", middle, program=[step], reads=[[8]], shape=[8], held=[])
    draft.head(draft.add("linear", draft.add("multiply", [middle, mask]), out=3))
    parent = lively(draft.finish())
    assert (mask, 0) not in found(parent)
    rewired = 0
    for name, mutation in MUTATIONS.items():
        for site in [site for site in mutation.sites(parent) if site.preserves == "exact"]:
            child = mutation.apply(parent, site, numpy.random.default_rng(0))
            if child.genome.graph[mask] != parent.graph[mask]:
                assert certify(parent, child).eval.verdict == "pass", name
                rewired += 1
    assert rewired


@pytest.mark.parametrize("caller", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_a_certificate_does_not_depend_on_how_gradients_are_set(caller: type) -> None:
    parent = lively(small("convnet").graph)
    site = MUTATIONS["widen"].sites(parent)[0]
    child = MUTATIONS["widen"].apply(parent, site, numpy.random.default_rng(0))
    expected = certify(parent, child)
    with caller():
        made = lively(small("convnet").graph)
        again = MUTATIONS["widen"].apply(made, site, numpy.random.default_rng(0))
        for genome, other in ((parent, child), (made, again), (bold(made), None)):
            other = other or MUTATIONS["widen"].apply(genome, site, numpy.random.default_rng(0))
            before = torch.is_grad_enabled(), torch.is_inference_mode_enabled()
            certificate = certify(genome, other)
            assert (torch.is_grad_enabled(), torch.is_inference_mode_enabled()) == before
            assert (certificate.eval.verdict, certificate.train.verdict) == ("pass", "pass")
            assert genome.weights["fc.weight"].dtype == torch.float64 or certificate == expected


def bold(genome: Genome) -> Genome:
    """In float64 from the start, so that nothing has to be cast up."""
    return Genome(genome.graph, precise(genome))
