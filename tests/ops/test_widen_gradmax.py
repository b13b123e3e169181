"""GradMax: as much gradient as the best outgoing weights give, where a channel of zeros can learn, and only there."""

from __future__ import annotations

from typing import Any

import numpy
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, cross_entropy

import graphs
from graphs.draft import Draft
from graphs.execution import execute
from graphs.genome import Genome
from graphs.modules import to_torch
from ops import MUTATIONS, Child, certify, chain, replay, transfer_optimizer
from tests.strategies import inputs, lively

WIDEN = MUTATIONS["widen_gradmax"]


def network(activation: str = "silu", norm: bool = False, groups: int = 1, **settings: Any) -> Genome:
    """Two convolutions with an activation between, the second 1×1, and logits."""
    draft = Draft()
    stem = draft.add("gelu", draft.add("conv2d", draft.input((3, 6, 5)), out=4, path="stem"))
    inner = draft.add("conv2d", stem, out=8, groups=groups, path="inner")
    inner = draft.add("batch_norm", inner, path="norm") if norm else inner
    bent = draft.add(activation, inner, path="act", **settings)
    outer = draft.add("conv2d", bent, out=6, kernel=1, groups=groups, path="outer")
    draft.head(draft.add("linear", draft.add("flatten", draft.add("adaptive_avg_pool2d", outer)), out=5))
    return lively(draft.finish(), 4)


def examples(genome: Genome, count: int = 12) -> tuple[Tensor, Tensor]:
    return inputs(genome.graph, count, 3, torch.float32)["x"], torch.arange(count) % 5


def site_of(genome: Genome, node: str) -> Any:
    return next(site for site in WIDEN.sites(genome) if site.place["space"].startswith(f"{node}#"))


def widened(genome: Genome, batch: Any, node: str = "inner", width: int = 11, seed: int = 0) -> Child:
    draws = numpy.random.default_rng(seed)
    return WIDEN.apply(genome, site_of(genome, node), draws, batch, choices={"width": width})


def gradients(genome: Genome, batch: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
    module = to_torch(genome).train()
    cross_entropy(module(batch[0]), batch[1]).backward()  # type: ignore[no-untyped-call]
    return {name: parameter.grad for name, parameter in module.named_parameters() if parameter.grad is not None}


def auxiliary(genome: Genome, batch: tuple[Tensor, Tensor]) -> Tensor:
    """The gradient of a layer from the inner convolution's input to the outer one's output, and of its bias."""
    values = execute(genome.graph, genome.weights, {"x": batch[0]}, training=True).values
    (inner,), (outer,) = ([id for id in values if id.startswith(f"{name}#")] for name in ("inner", "outer"))
    images = values[genome.graph[inner].inputs[0]]
    images = torch.cat([images, torch.ones_like(images[:, :1])], 1)
    weight = torch.zeros((6, images.shape[1], 3, 3), requires_grad=True)
    pooled = (values[outer] + conv2d(images, weight, padding=1)).mean((2, 3))
    head = genome.graph[genome.graph.heads[0].node]
    logits = pooled @ genome.weights[head.tensors["weight"]].T + genome.weights[head.tensors["bias"]]
    cross_entropy(logits, batch[1]).backward()  # type: ignore[no-untyped-call]
    assert weight.grad is not None
    # A bias is a kernel that is 1 at its centre alone.
    return torch.cat([weight.grad[:, :-1].flatten(1), weight.grad[:, -1:, 1, 1]], 1)


@pytest.mark.parametrize(("activation", "slope"), [("silu", 0.5), ("tanh", 1.0), ("hardswish", 0.5)])
def test_the_first_gradients_are_as_large_as_those_of_the_singular_vectors(activation: str, slope: float) -> None:
    parent = network(activation)
    batch = examples(parent)
    child = widened(parent, batch)
    found = gradients(child.genome, batch)
    size = sum(float(found[f"inner.{role}"][8:].square().sum()) for role in ("weight", "bias"))
    columns = child.genome.weights["outer.weight"][:, :, 0, 0]
    length = columns[:, :8].norm(dim=0).mean()
    torch.testing.assert_close(columns[:, 8:].T @ columns[:, 8:], torch.eye(3) * length**2, atol=1e-5, rtol=1e-4)
    best = slope * float(length) * torch.linalg.svdvals(auxiliary(parent, batch))[:3].norm()
    assert 0.98 * best <= size**0.5 <= 1.0001 * best
    drawn = gradients(widened(parent, None).genome, batch)
    assert float(drawn["inner.weight"][8:].norm()) < 0.9 * float(found["inner.weight"][8:].norm())


def test_a_norm_between_leaves_gradients_of_their_usual_size() -> None:
    parent = network(norm=True)
    batch = examples(parent)
    child = widened(parent, batch)
    found = gradients(child.genome, batch)["inner.weight"]
    assert 0.01 < float(found[8:].norm() / found[:8].norm()) < 20
    # In eval mode the norm passes a new channel on with the same slope.
    assert child.genome.weights["norm.running_var"][8:].tolist() == [0, 0, 0]
    torch.testing.assert_close(child.genome.weights["norm.weight"][8:], torch.full((3,), 1e-5**0.5))


@pytest.mark.parametrize("parent", [network(), network(norm=True), network("prelu"), network("tanh", groups=2)])
def test_nothing_moves(parent: Genome) -> None:
    batch = examples(parent)
    for given in (batch, batch[0], {"x": batch[0]}, None):
        child = widened(parent, given, width=12)
        certificate = certify(parent, child)
        assert (certificate.eval.verdict, certificate.train.verdict) == ("pass", "pass")
        assert certificate.require().eval.verdict == certificate.train.verdict == "pass"
        assert gradients(child.genome, batch)["inner.weight"].flatten(1).any(1).all()


def test_each_block_grows_by_its_own_directions() -> None:
    parent = network(groups=2)
    child = widened(parent, examples(parent), width=12)
    weight = child.genome.weights["outer.weight"]
    assert weight.shape == (6, 6, 1, 1)
    first, second = (weight[rows, 4:, 0, 0] for rows in (slice(0, 3), slice(3, 6)))
    for block in (first, second):
        assert abs(float((block[:, 0] * block[:, 1]).sum())) < 1e-5
    assert not torch.allclose(first, second)
    assert not child.genome.weights["inner.bias"][[4, 5, 10, 11]].any()


def test_what_was_computed_is_stored_and_replayed() -> None:
    parent = network(norm=True)
    child = widened(parent, examples(parent))
    assert child.tensors.keys() == {"outer.weight", "norm.weight"}
    assert replay(parent, child.record, child.tensors).digest == child.genome.digest
    assert replay(parent, child.record).digest != child.genome.digest
    again = widened(parent, examples(parent))
    assert again.genome.digest == child.genome.digest


def test_the_loss_counts() -> None:
    parent = network()
    images, labels = examples(parent)
    columns = [widened(parent, batch).genome.weights["outer.weight"][:, 8:] for batch in ((images, labels), images)]
    assert not torch.allclose(*columns)
    values = torch.randn((12, 5), generator=torch.Generator().manual_seed(0))
    child = widened(parent, (images, values))
    assert certify(parent, child).require().eval.verdict == "pass"


@pytest.mark.parametrize(
    ("activation", "why"),
    [("relu", "has no slope at zero"), ("relu6", "has no slope at zero"), ("sigmoid", "makes 0.5 of zero")],
)
def test_no_site_where_zeros_are_dead_or_no_zeros(activation: str, why: str) -> None:
    parent = network(activation, norm=True)
    assert not [site for site in WIDEN.sites(parent) if site.place["space"].startswith("inner#")]
    text = graphs.explain(parent.graph, next(id for id in parent.graph.nodes if id.startswith("inner#")))
    assert "can be changed, but no new one can start at zero" in text and why in text and "'act#" in text


def test_a_channel_behind_excitation_can_start_at_zero() -> None:
    """The factor of a half does not matter, nor that what makes it is zero too."""
    draft = Draft()
    image = draft.add("silu", draft.add("conv2d", draft.input((3, 6, 5)), out=6, path="inner"))
    squeezed = draft.add("relu", draft.add("conv2d", draft.add("adaptive_avg_pool2d", image), out=4, kernel=1))
    scale = draft.add("sigmoid", draft.add("conv2d", squeezed, out=6, kernel=1))
    outer = draft.add("conv2d", draft.add("multiply", [image, scale]), out=4)
    draft.head(draft.add("linear", draft.add("flatten", outer), out=5))
    parent = lively(draft.finish(), 2)
    child = widened(parent, examples(parent), width=8)
    assert certify(parent, child).require().eval.verdict == "pass"
    assert gradients(child.genome, examples(parent))["inner.weight"][6:].any()


def test_a_stream_is_widened_for_all_who_write_it() -> None:
    draft = Draft()
    stem = draft.add("conv2d", draft.input((3, 6, 5)), out=4, path="stem")
    inner = draft.add("silu", draft.add("conv2d", draft.add("batch_norm", stem), out=6))
    stream = draft.add("add", [stem, draft.add("conv2d", inner, out=4, path="second")])
    last = draft.add("conv2d", draft.add("gelu", stream), out=5, path="last")
    draft.head(draft.add("linear", draft.add("flatten", last), out=5))
    parent = lively(draft.finish(), 2)
    child = widened(parent, examples(parent), "stem", 6)
    assert certify(parent, child).require().train.verdict == "pass"
    found = gradients(child.genome, examples(parent))
    assert found["stem.weight"][4:].any() and found["second.weight"][4:].any()


def test_readers_that_give_nothing_give_new_channels_something() -> None:
    parent = network()
    silent = Genome(parent.graph, {**parent.weights, "outer.weight": torch.zeros((6, 8, 1, 1))})
    assert widened(silent, examples(parent)).genome.weights["outer.weight"][:, 8:].norm() > 0.1


def test_in_a_chain_and_with_an_optimiser() -> None:
    parent = network(norm=True)
    batch = examples(parent)
    steps = [("widen_gradmax", site_of(parent, "inner")), "widen", "grow_kernel"]
    child = chain(parent, steps, numpy.random.default_rng(2), batch)
    assert not certify(parent, child).broken
    assert replay(parent, child.record, child.tensors).digest == child.genome.digest
    module = to_torch(parent)
    optimiser = torch.optim.SGD(module.named_parameters(), lr=0.1, momentum=0.9)
    cross_entropy(module(batch[0]), batch[1]).backward()  # type: ignore[no-untyped-call]
    optimiser.step()
    alone = widened(parent, batch)
    state = transfer_optimizer(optimiser.state_dict(), alone)
    names = state["param_groups"][0]["param_names"]
    momentum = state["state"][names.index("outer.weight")]["momentum_buffer"]
    old = optimiser.state_dict()["state"][names.index("outer.weight")]["momentum_buffer"]
    assert torch.equal(momentum[:, :8], old) and not momentum[:, 8:].any()


class Cut(nn.Module):
    """A layer whose value goes on without its gradient, and as it is too where `straight`."""

    def __init__(self, straight: bool) -> None:
        super().__init__()
        self.inner, self.outer, self.straight = nn.Linear(6, 8), nn.Linear(8, 3), straight

    def forward(self, x: Tensor) -> Tensor:
        x = torch.tanh(self.inner(x))
        rounded = torch.round(x * 4) / 4
        x = x + (rounded - x).detach() if self.straight else rounded.detach()
        found: Tensor = self.outer(x)
        return found


@pytest.mark.parametrize("straight", [True, False])
def test_what_is_cut_off_from_the_gradient_has_none(straight: bool) -> None:
    """A straight-through estimator lets new channels learn; behind `detach` alone they could not."""
    genome = graphs.from_torch(Cut(straight), torch.randn(3, 6))
    assert "changeable" in graphs.report(genome.graph)
    assert all(graphs.explain(genome.graph, node) for node in genome.graph.nodes)
    assert len(MUTATIONS["widen_gradmax"].sites(genome)) == straight
