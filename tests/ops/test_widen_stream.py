"""Streams between norms over channels, widened by any number: by hand, on networks of others, and where it can't be."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import sqrt
from typing import Any

import numpy
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import graphs
from evolve.vision import torchvision_models
from graphs.draft import Draft
from graphs.genome import Genome
from graphs.neutral import neutral
from ops import MUTATIONS, Child, certify, chain, optimizer_factors, transfer_optimizer
from ops.axis_maps import AxisMap
from ops.stirring import stir
from ops.transfer import Extended, Mapped
from tests.strategies import inputs, lively, residual

WIDEN = MUTATIONS["widen_stream"]


def only_child(parent: Genome, more: int = 3) -> Child:
    """With so many more channels."""
    (site,) = WIDEN.sites(parent)
    (space,) = [space for space in parent.graph.spaces if space.name == site.place["space"]]
    return WIDEN.apply(parent, site, numpy.random.default_rng(0), choices={"width": space.width + more})


def seeded(module: nn.Module, example: Tensor) -> Tensor:
    torch.manual_seed(0)
    found: Tensor = module(example).detach()
    return found


def double(genome: Genome) -> Genome:
    return cast(genome, torch.float64)


def cast(genome: Genome, dtype: torch.dtype) -> Genome:
    weights = {name: each.to(dtype) if each.is_floating_point() else each for name, each in genome.weights.items()}
    return Genome(genome.graph, weights, genome.about)


def passes(parent: Genome, child: Child) -> bool:
    """In both modes, or in eval mode where no more is promised."""
    found = certify(parent, child)
    return (found.eval.verdict, found.train.verdict) == (
        "pass",
        {"exact": "pass", "eval-exact": "approximate"}[child.preserves],
    )


# By hand ------------------------------------------------------------------------------------------------------------


def test_zeros_under_root_mean_square_norms() -> None:
    parent = residual("rms_norm", eps=1e-3)
    child = only_child(parent)
    before, after = parent.weights, child.genome.weights
    for name in ("tokens.weight", "tokens.bias", "linear_7.weight", "linear_7.bias"):
        assert torch.equal(after[name][:6], before[name]) and not after[name][6:].any(), name
    assert torch.equal(after["positions.value"][..., :6], before["positions.value"])
    assert not after["positions.value"][..., 6:].any()
    for name in ("linear_5.weight", "linear_10.weight", "skip.weight"):
        assert torch.equal(after[name][:, :6], before[name]) and bool(after[name][:, 6:].all()), name
    for node in child.genome.graph.nodes.values():
        if node.kind == "rms_norm":
            assert node.settings["eps"] == 1e-3 / 1.5
            scale = after[node.tensors["weight"]]
            torch.testing.assert_close(scale[:6], before[node.tensors["weight"]] / sqrt(1.5))
            assert bool((scale[6:] == 1).all())


def test_means_under_layer_norms() -> None:
    parent = double(residual("layer_norm"))
    child = only_child(parent, 2)
    before, after = parent.weights, child.genome.weights
    for name in ("tokens.weight", "tokens.bias", "linear_7.weight", "linear_7.bias"):
        assert torch.equal(after[name][:6], before[name])
        torch.testing.assert_close(after[name][6:], before[name].mean(0, keepdim=True).expand_as(after[name][6:]))
    positions = after["positions.value"]
    torch.testing.assert_close(positions[..., 6:], before["positions.value"].mean(-1, keepdim=True).expand(1, 4, 2))
    assert bool(after["linear_5.weight"][:, 6:].all()) and bool(after["linear_10.weight"][:, 6:].all())
    assert not after["skip.weight"][:, 6:].any(), "it reads the means, where they are no zeros"
    for node in child.genome.graph.nodes.values():
        if node.kind == "layer_norm":
            assert node.settings["eps"] == 1e-5 * 6 / 8
            torch.testing.assert_close(after[node.tensors["weight"]][:6], before[node.tensors["weight"]] * sqrt(6 / 8))
            assert bool((after[node.tensors["weight"]][6:] == 1).all()) and not after[node.tensors["bias"]][6:].any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_an_eps_of_the_types_own_is_right_in_every_type(dtype: torch.dtype) -> None:
    """Where squares are as small as it is, no other eps would do."""
    fresh = residual("rms_norm")
    weights = {
        name: tensor * 3e-4 if name.startswith(("tokens", "positions")) else tensor
        for name, tensor in fresh.weights.items()
    }
    parent = Genome(fresh.graph, {name: tensor.to(dtype) for name, tensor in weights.items()})
    child = only_child(parent)
    assert all(node.settings["eps"] is None for node in child.genome.graph.nodes.values() if node.kind == "rms_norm")
    module, other = graphs.to_torch(parent), graphs.to_torch(child.genome)
    assert any(isinstance(layer, nn.RMSNorm) for layer in other.modules())
    examples = inputs(parent.graph, 5, dtype=dtype)
    torch.testing.assert_close(other(**examples), module(**examples), rtol=0, atol=20 * torch.finfo(dtype).eps)
    assert passes(parent, child)


def test_with_copies_of_each_channel_first() -> None:
    """LEMON's widening by more than twice: whole copies, and what is left over."""
    for parent in (residual("layer_norm"), residual("rms_norm")):
        space = WIDEN.sites(parent)[0].place["space"]
        child = chain(
            parent, [("widen", {"space": space}), ("widen_stream", {"space": space})], numpy.random.default_rng(0)
        )
        assert child.preserves == "exact" and child.transfer.rounds and passes(parent, child)
        assert child.genome.weights["tokens.weight"].shape[0] > 12


# Networks of others ---------------------------------------------------------------------------------------------------


class Layer(nn.Module):
    def __init__(self, norm: Callable[[int], nn.Module], width: int) -> None:
        super().__init__()
        self.first, self.second, self.packed = norm(width), norm(width), nn.Linear(width, 3 * width)
        self.out, self.up, self.down = nn.Linear(width, width), nn.Linear(width, 20), nn.Linear(20, width)
        self.drop = nn.Dropout(0.0)

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, width = x.shape
        packed = self.packed(self.first(x)).reshape(batch, tokens, 3, 2, width // 2).permute(2, 0, 3, 1, 4)
        found = functional.scaled_dot_product_attention(packed[0], packed[1], packed[2])
        x = x + self.drop(self.out(found.transpose(1, 2).reshape(batch, tokens, width)))
        return x + self.down(functional.gelu(self.up(self.second(x))))


class Language(nn.Module):
    """A transformer with its norms in front, of embedded tokens."""

    def __init__(self, norm: Callable[[int], nn.Module], width: int = 8) -> None:
        super().__init__()
        self.tokens, self.positions = nn.Embedding(11, width), nn.Parameter(torch.randn(1, 5, width))
        self.layers = nn.Sequential(Layer(norm, width), Layer(norm, width))
        self.norm, self.head = norm(width), nn.Linear(width, 11)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.head(self.norm(self.layers(self.tokens(x) + self.positions)))
        return found


def vit() -> nn.Module:
    made: nn.Module = torchvision_models().VisionTransformer(
        image_size=32, patch_size=8, num_layers=2, num_heads=2, hidden_dim=32, mlp_dim=64, num_classes=5
    )
    return made


def swin() -> nn.Module:
    made: nn.Module = torchvision_models().SwinTransformer(
        patch_size=[2, 2], embed_dim=4, depths=[1, 2], num_heads=[1, 2], window_size=[2, 2], num_classes=5
    )
    return made


IDS, IMAGES = torch.arange(20).reshape(4, 5) % 11, torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(1))

OTHERS: dict[str, tuple[Callable[[], nn.Module], Tensor]] = {
    "layer norms": (lambda: Language(nn.LayerNorm), IDS),
    "root-mean-square norms": (lambda: Language(nn.RMSNorm), IDS),
    "root-mean-square norms with an eps": (lambda: Language(lambda width: nn.RMSNorm(width, eps=1e-2)), IDS),
    "vit": (vit, IMAGES),
    "swin": (swin, IMAGES[..., :16, :16]),
}


@pytest.mark.parametrize("network", OTHERS)
def test_networks_of_others(network: str) -> None:
    """On their own weights and on stirred ones, in float32 and in float64; what comes out goes in again."""
    make, example = OTHERS[network]
    torch.manual_seed(3)
    genome = graphs.from_torch(make(), example)
    precise = example.double() if example.is_floating_point() else example
    bold = stir(genome, {genome.graph.inputs[0].settings["name"]: precise})
    for parent in (genome, bold, cast(bold, torch.float32)):
        child = only_child(parent)
        assert child.preserves == "exact" and passes(parent, child)
    exact = only_child(bold)
    for training in (False, True):
        before, after = (seeded(graphs.to_torch(each).train(training), precise) for each in (bold, exact.genome))
        assert float((after - before).abs().max()) <= 1e-12 * float(before.std())
    again = [graphs.from_torch(graphs.to_torch(each), precise) for each in (bold, exact.genome)]
    assert len(WIDEN.sites(again[0])) == len(WIDEN.sites(again[1]))


# Where it can't be ----------------------------------------------------------------------------------------------------


def tokens(*norms: str, between: str = "identity", axes: int = 1, last: str = "identity", **settings: Any) -> Genome:
    """A layer for each norm, what is between it and its norm, and a layer that reads all norms."""
    draft = Draft()
    stem = draft.add("linear", draft.input((4, 3)), path="stem", out=6)
    value = draft.add(between, stem, **settings)
    normed = [draft.add(norm, value, axes=axes) if norm != "group_norm" else grouped(draft, value) for norm in norms]
    total = draft.add("add", normed) if len(normed) > 1 else normed[0]
    draft.head(draft.add("linear", draft.add("average", draft.add(last, total), axes=(0,)), out=5))
    return lively(draft.finish())


def grouped(draft: Draft, value: str) -> str:
    first = draft.add("permute", value, order=(1, 0))
    return draft.add("permute", draft.add("group_norm", first, groups=1), order=(1, 0))


def scaled(norm: str) -> Genome:
    """A residual branch that ends in a scale for each channel, as in ConvNeXt and CaiT."""
    draft = Draft()
    stem = draft.add("linear", draft.input((4, 3)), path="stem", out=6)
    inner = draft.add("linear", draft.add(norm, stem, axes=1), path="inner", out=6)
    scale = draft.add("parameter", (), path="scale", shape=(6,), view=(1, 6))
    many = draft.add("pointwise", [inner, scale], program=[["operator.mul", [{"in": 0}, {"in": 1}], {}]])
    total = draft.add("add", [stem, many])
    draft.head(draft.add("linear", draft.add("average", draft.add(norm, total, axes=1), axes=(0,)), out=5))
    return lively(draft.finish())


def depthwise() -> Genome:
    draft = Draft()
    stem = draft.add("conv2d", draft.input((3, 5, 5)), path="stem", out=4)
    apart = draft.add("permute", draft.add("conv2d", stem, out=4, groups=4), order=(1, 2, 0))
    hidden = draft.add("linear", draft.add("layer_norm", apart, axes=1), out=4)
    total = draft.add("add", [stem, draft.add("permute", hidden, order=(2, 0, 1))])
    draft.head(draft.add("linear", draft.add("average", total, axes=(1, 2)), out=5))
    return lively(draft.finish())


def behind_norms() -> Genome:
    """A transformer's sums with the norms behind them."""
    draft = Draft()
    total = draft.add("linear", draft.input((4, 3)), path="stem", out=6)
    for _ in range(2):
        inner = draft.add("linear", draft.add("gelu", draft.add("linear", total, out=8)), out=6)
        total = draft.add("layer_norm", draft.add("add", [total, inner]), axes=1)
    draft.head(draft.add("linear", draft.add("average", total, axes=(0,)), out=5))
    return lively(draft.finish())


def shared_scale() -> Genome:
    draft = Draft()
    stem = draft.add("linear", draft.input((4, 3)), path="stem", out=6)
    norm = draft.add("rms_norm", stem, axes=1)
    scale = draft.nodes[norm].tensors["weight"]
    again = draft.add("parameter", (), shape=(6,), view=(1, 6), tensors={"value": scale})
    many = draft.add("pointwise", [norm, again], program=[["operator.add", [{"in": 0}, {"in": 1}], {}]])
    draft.head(draft.add("linear", draft.add("average", many, axes=(0,)), out=5))
    return lively(draft.finish())


def scaleless(norm: str) -> Genome:
    draft = Draft()
    stem = draft.add("linear", draft.input((4, 3)), path="stem", out=6)
    draft.head(draft.add("linear", draft.add("average", draft.add(norm, stem, axes=1, weight=False), axes=(0,)), out=5))
    return lively(draft.finish())


REFUSED: dict[str, tuple[Callable[[], Genome], str]] = {
    "group norm": (lambda: tokens("group_norm"), "takes no further channel for nothing"),
    "means without a scale": (lambda: scaleless("layer_norm"), "has no scale that could make up"),
    "squares without a scale": (lambda: scaleless("rms_norm"), "has no scale that could make up"),
    "two kinds": (lambda: tokens("layer_norm", "rms_norm"), "norms of different kinds"),
    "more than channels": (lambda: tokens("layer_norm", axes=2), "takes the mean of more than them"),
    "an activation before": (lambda: tokens("layer_norm", between="gelu"), "does not make the mean"),
    "a rectifier before": (lambda: tokens("layer_norm", between="relu"), "does not make the mean"),
    "a leaky rectifier before": (lambda: tokens("layer_norm", between="leaky_relu"), "does not make the mean"),
    "slopes before": (lambda: tokens("layer_norm", between="prelu"), "does not make the mean"),
    "a batch norm before": (lambda: tokens("layer_norm", between="batch_norm"), "does not make the mean"),
    "a dead activation behind": (lambda: tokens("layer_norm", last="relu"), "has no slope at zero"),
    "something of zero before": (lambda: tokens("rms_norm", between="sigmoid"), "makes 0.5 of zero"),
    "something of zero behind": (lambda: tokens("layer_norm", last="sigmoid"), "makes 0.5 of zero"),
    "scaled branches": (lambda: scaled("layer_norm"), "does not make the mean"),
    "a depthwise convolution": (depthwise, "does not make the mean"),
    "norms behind": (behind_norms, "has their mean from behind another norm"),
    "a shared scale": (shared_scale, "has its scale from a norm over them"),
}


@pytest.mark.parametrize("network", REFUSED)
def test_where_no_channel_is_neutral(network: str) -> None:
    make, why = REFUSED[network]
    parent = make()
    assert WIDEN.sites(parent) == []
    stem = next(space for space in parent.graph.spaces if space.name.startswith("stem"))
    assert why in str(neutral(parent.graph, stem))
    if stem.reason is None:
        assert why in graphs.explain(parent.graph, stem.values[0].node)


TAKEN: dict[str, Callable[[], Genome]] = {
    "scaled branches": lambda: scaled("rms_norm"),
    "both axes": lambda: tokens("rms_norm", axes=2),
    "an activation before": lambda: tokens("rms_norm", between="gelu"),
    "an activation behind": lambda: tokens("layer_norm", last="tanh"),
    "two norms": lambda: tokens("layer_norm", "layer_norm"),
    "dropout before": lambda: tokens("layer_norm", between="dropout"),
    "another dropout": lambda: tokens("rms_norm", between="dropout"),
    "stochastic depth": lambda: tokens("layer_norm", between="stochastic_depth"),
    "a multiple": lambda: tokens("layer_norm", between="pointwise", program=[["operator.mul", [{"in": 0}, -0.3], {}]]),
}


@pytest.mark.parametrize("network", TAKEN)
def test_what_leaves_neutral_channels_neutral(network: str) -> None:
    parent = TAKEN[network]()
    child = only_child(parent, 5)
    assert child.preserves == ("eval-exact" if "dropout" in network else "exact") and passes(parent, child)
    (space,) = [space for space in parent.graph.spaces if space.name == child.record.site["space"]]
    assert "or by any number that are" in graphs.explain(parent.graph, space.values[0].node)
    if network == "scaled branches":
        rows = child.genome.weights["inner.weight"][6:]
        assert bool(child.genome.weights["scale.value"].all()) and not rows[:, :6].any()


# Rounding -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("norm", ["layer_norm", "rms_norm"])
def test_a_number_that_is_rounded_otherwise_is_not_what_the_record_leads_to(norm: str) -> None:
    """What float32 has to round is proven in float64, and must then be rounded to the nearest."""
    parent = residual(norm, eps=1e-3)
    child = only_child(parent)
    assert child.transfer.rounds and passes(parent, child)
    name = next(node.tensors["weight"] for node in child.genome.graph.nodes.values() if node.kind == norm)
    scale = child.genome.weights[name].clone()
    scale[0] = torch.nextafter(scale[0], torch.tensor(2.0))
    wrong = replace(child, genome=Genome(child.genome.graph, {**child.genome.weights, name: scale}))
    assert certify(parent, wrong).broken


# Training -------------------------------------------------------------------------------------------------------------

OPTIMISERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "sgd": lambda named: torch.optim.SGD(named, 0.01, momentum=0.9, weight_decay=5e-4),
    "adam": lambda named: torch.optim.Adam(named, 1e-3, eps=1e-40),
    "adamw": lambda named: torch.optim.AdamW(named, 1e-3, eps=1e-40, weight_decay=0.1),
}


def train(module: nn.Module, optimizer: torch.optim.Optimizer, steps: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        examples = torch.randn(8, 4, 3, generator=generator, dtype=torch.float64)
        optimizer.zero_grad()
        functional.cross_entropy(module(examples), torch.arange(8) % 5).backward()
        optimizer.step()


@pytest.mark.parametrize("optimiser", OPTIMISERS)
def test_a_step_moves_what_there_was_as_in_the_parent(optimiser: str) -> None:
    """The scales by as much less as they are less, with rates, decays and moments from the transfer."""
    make = OPTIMISERS[optimiser]
    start = double(residual("rms_norm", eps=1e-3))
    module = graphs.to_torch(start)
    optimizer = make(module.named_parameters())
    train(module, optimizer, 3, seed=1)
    parent = Genome(start.graph, {name: each.detach().clone() for name, each in module.state_dict().items()})
    child = only_child(parent)
    other = graphs.to_torch(child.genome)
    factors = optimizer_factors(child, adaptive=optimiser != "sgd")
    settings = optimizer.param_groups[0]
    follower = make(other.named_parameters())
    follower.load_state_dict(transfer_optimizer(optimizer.state_dict(), child))
    for name, parameter in other.named_parameters():
        # One rate for what there was; what is new has another one, and is not compared.
        factor = factors[name]
        rate = factor if isinstance(factor, float) else float(factor.flatten()[0])
        group = {**settings, "lr": settings["lr"] * rate, "weight_decay": settings["weight_decay"] / rate}
        alone = make([(name, parameter)])
        alone.param_groups[0].update({key: group[key] for key in ("lr", "weight_decay")})
        alone.state[parameter] = follower.state[parameter]
        follower.state.pop(parameter)
        parameter.register_post_accumulate_grad_hook(lambda _, alone=alone: alone.step())
    train(module, optimizer, 1, seed=2)
    train(other, torch.optim.SGD(other.parameters(), 0.0), 1, seed=2)
    scaled = 0
    for name, parameter in other.named_parameters():
        plan = child.transfer.plans.get(name, Mapped(name))
        assert isinstance(plan, Mapped | Extended)
        mapped = Mapped(name, plan.axes)
        new = mapped.carry(torch.ones_like(parent.weights[name]), 1) == 0
        apart = parameter.detach() - mapped.apply({name: module.get_parameter(name).detach()})
        assert float(apart.masked_fill(new, 0).abs().max()) <= 1e-12, name
        scaled += any(isinstance(axis, AxisMap) and axis.scale != 1 for axis in plan.axes)
    assert scaled == 3


@pytest.mark.parametrize("norm", ["layer_norm", "rms_norm"])
def test_new_channels_part_and_are_used(norm: str) -> None:
    child = only_child(double(residual(norm)))
    module = graphs.to_torch(child.genome)
    train(module, torch.optim.SGD(module.parameters(), 0.05), 20, seed=3)
    for name in ("tokens.weight", "linear_7.weight"):
        one, two, three = module.get_parameter(name).detach()[6:]
        assert min(float((one - two).norm()), float((two - three).norm())) > 1e-3
    old = child.genome.weights["linear_5.weight"]
    assert bool((module.get_parameter("linear_5.weight").detach() != old)[:, 6:].all())
