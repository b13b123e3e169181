"""Optimisers through mutations: moments follow gradients, evenly widened networks follow their parents, twins part."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from graphs import from_torch, to_torch, zoo
from graphs.errors import GraphError, UnknownName
from graphs.genome import Genome
from graphs.modules import genome_from_module
from ops import MUTATIONS, Child, chain, optimizer_factors, optimizer_groups, transfer_optimizer, width
from ops.axis_maps import AxisMap
from ops.mutation import Work
from ops.optimizing import MOMENTS, decaying
from ops.table import CHAIN
from ops.transfer import Mapped
from runners.optimizers import parameter_groups

SGD = {"lr": 0.01, "momentum": 0.9, "nesterov": True, "weight_decay": 5e-4}
BATCH = 8


@pytest.fixture(scope="module")
def parent() -> Genome:
    fresh = zoo.create("resnet", depth=20, classes=10, input_shape=(3, 8, 8))
    return Genome(fresh.graph, {name: _double(tensor) for name, tensor in fresh.weights.items()})


def _double(tensor: Tensor) -> Tensor:
    return tensor.double() if tensor.is_floating_point() else tensor


def batches(seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Endless examples with labels that can be learnt."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(10, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(99))
    while True:
        labels = torch.randint(0, 10, (BATCH,), generator=generator)
        yield centres[labels] + torch.randn(BATCH, 3, 8, 8, dtype=torch.float64, generator=generator), labels


def train(module: nn.Module, optimizer: torch.optim.Optimizer, steps: int, seed: int) -> list[float]:
    losses = []
    for _, (images, labels) in zip(range(steps), batches(seed), strict=False):
        optimizer.zero_grad()
        loss = cross_entropy(module(images), labels)
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses


@torch.no_grad()
def apart(module: nn.Module, other: nn.Module) -> float:
    """Largest difference of logits, in eval and in train mode."""
    images, _ = next(batches(4))
    return max(float((other.train(mode)(images) - module.train(mode)(images)).abs().max()) for mode in (False, True))


def widened(genome: Genome, space: str, split: str = "even", seed: int = 3) -> Child:
    """Twice the channels of a space, each copied once."""
    return MUTATIONS["widen"].make(Work(genome, {"space": space}, _twice(genome, space, split), seed, 1), "exact")


def _twice(genome: Genome, space: str, split: str) -> dict[str, Any]:
    (width,) = [found.width for found in genome.graph.spaces if found.name == space]
    return {"width": 2 * width, "split": split}


def widened_everywhere(genome: Genome, split: str = "even") -> Child:
    """Twice the channels of all spaces, as a chain; of two that lie across each other, of the first one."""
    alone = {space.name for space in width.apart(width.changeable(genome.graph))}
    spaces = [name for site in MUTATIONS["widen"].sites(genome) if (name := site.place["space"]) in alone]
    places = {"steps": [{"operator": "widen", "site": {"space": space}} for space in spaces]}
    choices = {"steps": [{"choices": _twice(genome, space, split), "seed": seed} for seed, space in enumerate(spaces)]}
    return CHAIN.make(Work(genome, places, choices, 0, 1), "exact")


def sgd(groups: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(groups, **SGD)


def adam(groups: Any) -> torch.optim.Optimizer:
    return torch.optim.Adam(groups, lr=1e-3, eps=1e-40, amsgrad=True)


def adamw(groups: Any) -> torch.optim.Optimizer:
    return torch.optim.AdamW(groups, lr=1e-3, eps=1e-40, weight_decay=0.1)


def trained(
    genome: Genome, make: Callable[..., torch.optim.Optimizer], steps: int = 5
) -> tuple[Genome, nn.Module, Any]:
    """A genome after some steps, with the module and the optimiser that go on from there."""
    module = to_torch(genome)
    optimizer = make(module.parameters())
    train(module, optimizer, steps, seed=1)
    return genome_from_module(genome, module), module, optimizer


WIDENINGS: dict[str, Callable[[Genome], Child]] = {
    "a stream": lambda genome: widened(genome, MUTATIONS["widen"].sites(genome)[0].place["space"]),
    "a block": lambda genome: widened(genome, MUTATIONS["widen"].sites(genome)[1].place["space"]),
    "everything": widened_everywhere,
}


@pytest.mark.parametrize("name", WIDENINGS)
def test_an_evenly_widened_network_follows_its_parent(parent: Genome, name: str) -> None:
    now, module, optimizer = trained(parent, sgd)
    child = WIDENINGS[name](now)
    other = to_torch(child.genome)
    groups = optimizer_groups(child, other, SGD["lr"], SGD["weight_decay"])
    assert {round(group["lr"] / SGD["lr"], 9) for group in groups} >= {2.0, 0.5}
    follower = sgd(groups)
    follower.load_state_dict(transfer_optimizer(optimizer.state_dict(), child, follower.state_dict()))
    train(module, optimizer, 20, seed=2)
    train(other, follower, 20, seed=2)
    assert apart(module, other) <= 1e-10


@pytest.mark.parametrize("wrong", ["rates", "decay", "moments"])
def test_it_does_not_without_any_of_the_three(parent: Genome, wrong: str) -> None:
    now, module, optimizer = trained(parent, sgd)
    child = widened_everywhere(now)
    other = to_torch(child.genome)
    groups = optimizer_groups(child, other, SGD["lr"], SGD["weight_decay"])
    for group in groups:
        group.update({"lr": SGD["lr"]} if wrong == "rates" else {})
        group.update({"weight_decay": SGD["weight_decay"]} if wrong == "decay" else {})
    follower = sgd(groups)
    if wrong != "moments":
        follower.load_state_dict(transfer_optimizer(optimizer.state_dict(), child, follower.state_dict()))
    train(module, optimizer, 20, seed=2)
    train(other, follower, 20, seed=2)
    assert apart(module, other) > 1e-6


@pytest.mark.parametrize("name", ["split_head", "replicate_branch", "insert_block", "insert_se", "blend_activation"])
def test_weight_decay_leaves_alone_what_is_new_and_no_weight_of_a_layer(parent: Genome, name: str) -> None:
    """Of the parent's tensors what decays in the parent does; with the rule of our own training, layers alone."""
    mutation = MUTATIONS[name]
    once = mutation.apply(parent, mutation.sites(parent)[0], numpy.random.default_rng(0))
    for child in (once, mutation.apply(once.genome, mutation.sites(once.genome)[0], numpy.random.default_rng(1))):
        module = to_torch(child.genome)
        for decay_all in (True, False):
            groups = optimizer_groups(child, module, 0.1, 5e-4, decay_all=decay_all)
            found = {name for group in groups if group["weight_decay"] for name, _ in group["params"]}
            assert sum(len(group["params"]) for group in groups) == len(list(module.parameters()))
            ruled = decaying(child.genome.graph)
            gates = {name for name, each in module.named_parameters() if each.ndim == 0}
            assert ruled <= found and not gates & found
            inherited = {name for name in parent.graph.tensors if name in dict(module.named_parameters())}
            assert (inherited <= found) if decay_all else (found == ruled)
        (rest,) = [group for group in parameter_groups(child.genome, module, 5e-4) if not group["weight_decay"]]
        spared = {id(parameter) for parameter in rest["params"]}
        assert spared == {id(each) for name, each in module.named_parameters() if name not in ruled}


@pytest.mark.parametrize("name", ["split_head", "replicate_branch"])
def test_even_copies_behind_a_gate_follow_their_parent_under_weight_decay(parent: Genome, name: str) -> None:
    """Both sides stay alike, so the gate has no gradient; decay alone would move it."""
    now, module, optimizer = trained(parent, sgd)
    mutation = MUTATIONS[name]
    child = mutation.apply(now, mutation.sites(now)[-1], numpy.random.default_rng(0), choices={"share": 0.5})
    other = to_torch(child.genome)
    follower = sgd(optimizer_groups(child, other, SGD["lr"], SGD["weight_decay"]))
    follower.load_state_dict(transfer_optimizer(optimizer.state_dict(), child, follower.state_dict()))
    train(module, optimizer, 20, seed=2)
    train(other, follower, 20, seed=2)
    assert apart(module, other) <= 1e-10


@torch.no_grad()
def keep_tied(child: Child, module: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Gives copies of channels equal bits: on some processors they part by a rounding in training."""
    tensors = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    for name, plan in child.transfer.plans.items():
        assert isinstance(plan, Mapped)
        moments = [value for value in optimizer.state.get(tensors[name], {}).values() if isinstance(value, Tensor)]
        for axis in plan.axes:
            assert isinstance(axis, AxisMap)
            firsts = torch.tensor([list(axis.index).index(source) for source in axis.index])
            for tensor in (tensors[name], *moments):
                tensor.copy_(tensor.index_select(axis.axis, firsts))


@pytest.mark.parametrize("name", ["a stream", "a block"])
def test_a_network_of_merged_twins_follows_its_parent(parent: Genome, name: str) -> None:
    """Twins that were trained side by side have each a part of the gradient, and what remains of them has all."""
    wide = WIDENINGS[name](parent)
    _, module, optimizer = trained(wide.genome, sgd)
    keep_tied(wide, module, optimizer)
    now = genome_from_module(wide.genome, module)
    (site,) = MUTATIONS["merge_twins"].sites(now)
    child = MUTATIONS["merge_twins"].apply(now, site, numpy.random.default_rng(0))
    other = to_torch(child.genome)
    follower = sgd(optimizer_groups(child, other, SGD["lr"], SGD["weight_decay"]))
    assert {round(group["lr"] / SGD["lr"], 9) for group in follower.param_groups} >= {2.0, 0.5}
    follower.load_state_dict(transfer_optimizer(optimizer.state_dict(), child, follower.state_dict()))
    train(module, optimizer, 20, seed=2)
    train(other, follower, 20, seed=2)
    assert apart(module, other) <= 1e-10


def test_an_unevenly_widened_network_follows_with_factors_for_each_entry(parent: Genome) -> None:
    now, module, optimizer = trained(parent, sgd)
    child = widened_everywhere(now, "uneven")
    other = to_torch(child.genome)
    with pytest.raises(GraphError, match=r"need learning rates from .* to .*, but"):
        optimizer_groups(child, other, 0.01)
    factors = optimizer_factors(child)
    follower = sgd(other.named_parameters())
    follower.load_state_dict(transfer_optimizer(optimizer.state_dict(), child, follower.state_dict()))
    for name, parameter in other.named_parameters():
        parameter.register_hook(lambda gradient, factor=factors[name]: gradient * factor)
        follower.state[parameter]["momentum_buffer"] *= factors[name]
    train(module, optimizer, 20, seed=2)
    train(other, follower, 20, seed=2)
    assert apart(module, other) <= 1e-10


def test_the_moments_keep_the_loss_from_jumping(parent: Genome) -> None:
    now, module, optimizer = trained(parent, sgd, 30)
    child = MUTATIONS["widen"].apply(now, MUTATIONS["widen"].sites(now)[1], numpy.random.default_rng(0))
    state = transfer_optimizer(optimizer.state_dict(), child)
    expected = train(module, optimizer, 2, seed=2)
    kept, dropped = to_torch(child.genome), to_torch(child.genome)
    carrying = sgd(kept.parameters())
    carrying.load_state_dict(state)
    with_moments = train(kept, carrying, 2, seed=2)
    without = train(dropped, sgd(dropped.parameters()), 2, seed=2)
    assert abs(with_moments[0] - expected[0]) <= 1e-12 and abs(without[0] - expected[0]) <= 1e-12
    assert abs(without[1] - expected[1]) > 0.01 * expected[1]
    assert abs(with_moments[1] - expected[1]) < 0.2 * abs(without[1] - expected[1])


@pytest.mark.parametrize("split", ["even", "uneven"])
@pytest.mark.parametrize("make", [adam, adamw])
def test_a_step_of_adam_moves_copies_as_their_original(
    parent: Genome, make: Callable[..., torch.optim.Optimizer], split: str
) -> None:
    now, module, optimizer = trained(parent, make)
    child = widened_everywhere(now, split)
    other = to_torch(child.genome)
    follower = make(other.parameters())
    follower.load_state_dict(transfer_optimizer(optimizer.state_dict(), child))
    before, start = genome_from_module(now, module), dict(child.genome.weights)
    train(module, optimizer, 1, seed=2)
    train(other, follower, 1, seed=2)
    decay = optimizer.param_groups[0]["lr"] * optimizer.param_groups[0]["weight_decay"] if make is adamw else 0.0
    for name, parameter in other.named_parameters():
        plan = child.transfer.plans.get(name, Mapped(name))
        assert isinstance(plan, Mapped)
        moved = module.get_parameter(plan.source).detach() - (1 - decay) * before.weights[plan.source]
        for axis in plan.axes:
            moved = moved.index_select(axis.axis, torch.from_numpy(axis.index))
        found = parameter.detach() - (1 - decay) * start[name]
        assert torch.allclose(found, moved, rtol=1e-6, atol=1e-9), name


@pytest.mark.parametrize("make", [sgd, adam, adamw])
def test_moments_go_with_the_gradient(parent: Genome, make: Callable[..., torch.optim.Optimizer]) -> None:
    """A child that starts where its parent starts comes after one step to the moments that the parent's become."""
    child = chain(parent, ["widen", "widen", "widen"], numpy.random.default_rng(5))
    module, other = to_torch(parent), to_torch(child.genome)
    kinds = (make(module.parameters()), make(other.parameters()))
    for optimizer in kinds:
        for group in optimizer.param_groups:
            group["weight_decay"] = 0.0
    train(module, kinds[0], 1, seed=2)
    train(other, kinds[1], 1, seed=2)
    expected, found = transfer_optimizer(kinds[0].state_dict(), child)["state"], kinds[1].state_dict()["state"]
    assert expected.keys() == found.keys()
    for index, state in found.items():
        assert state.keys() == expected[index].keys() and state.keys() <= MOMENTS.keys()
        for key, value in state.items():
            largest = float(value.abs().max())
            assert float((value - expected[index][key]).abs().max()) <= 1e-9 * largest, (index, key)


@pytest.mark.parametrize("name", ["deepen", "insert_block", "branch", "grow_kernel", "split_head", "narrow"])
@pytest.mark.parametrize("make", [sgd, adam])
def test_training_goes_on_after_any_mutation(
    parent: Genome, name: str, make: Callable[..., torch.optim.Optimizer]
) -> None:
    now, _, optimizer = trained(parent, make, 2)
    child = MUTATIONS[name].apply(now, MUTATIONS[name].sites(now)[0], numpy.random.default_rng(0))
    other = to_torch(child.genome)
    follower = make(other.parameters())
    state = transfer_optimizer(optimizer.state_dict(), child)
    assert 0 < len(state["state"]) <= len(list(other.parameters()))
    follower.load_state_dict(state)
    assert all(numpy.isfinite(train(other, follower, 3, seed=2)))


def test_the_copies_of_a_split_head_have_their_shares_of_the_gradient(parent: Genome) -> None:
    child = MUTATIONS["split_head"].apply(
        parent, MUTATIONS["split_head"].sites(parent)[-1], numpy.random.default_rng(0)
    )
    module, other = to_torch(parent), to_torch(child.genome)
    train(module, torch.optim.SGD(module.parameters(), 0.0), 1, seed=2)
    train(other, torch.optim.SGD(other.parameters(), 0.0), 1, seed=2)
    assert set(child.transfer.gradients.values()) == {0.375, 0.625}
    for name, parameter in other.named_parameters():
        plan = child.transfer.plans.get(name, Mapped(name))
        if isinstance(plan, Mapped):
            expected = module.get_parameter(plan.source).grad * child.transfer.gradients.get(name, 1.0)
            assert torch.allclose(parameter.grad, expected, rtol=1e-9, atol=1e-12), name


def twins_after(child: Child, steps: int = 50) -> float:
    """Largest relative distance of two copies of a channel after some steps."""
    module = to_torch(child.genome)
    train(module, sgd(module.parameters()), steps, seed=2)
    (plan, weight) = next(
        (plan, module.get_parameter(name).detach())
        for name, plan in child.transfer.plans.items()
        if name.endswith("weight") and isinstance(plan, Mapped) and plan.axes[0].axis == 0 and plan.axes[0].take is None
    )
    index = plan.axes[0].index
    found = []
    for copy in range(len(numpy.unique(index)), len(index)):
        one, two = weight[index[copy]], weight[copy]
        found.append(float((one - two).norm() / one.norm()))
    return max(found)


def test_twins_part_by_default_and_never_under_an_even_split(parent: Genome) -> None:
    site = MUTATIONS["widen"].sites(parent)[1]
    assert twins_after(MUTATIONS["widen"].apply(parent, site, numpy.random.default_rng(0))) > 1e-2
    assert twins_after(widened(parent, site.place["space"])) == 0


def test_groups_are_kept_and_names_tell_whose_state_it_is(parent: Genome) -> None:
    module = to_torch(parent)
    named = list(module.named_parameters())
    optimizer = sgd([{"params": named[::2]}, {"params": named[1::2], "weight_decay": 0.0}])
    train(module, optimizer, 2, seed=1)
    child = widened_everywhere(genome_from_module(parent, module))
    other = to_torch(child.genome)
    renamed = list(other.named_parameters())
    target = sgd([{"params": renamed[1::2], "lr": 0.5}, {"params": renamed[::2]}])
    state = transfer_optimizer(optimizer.state_dict(), child, target.state_dict())
    target.load_state_dict(state)
    assert [group["lr"] for group in target.param_groups] == [0.5, SGD["lr"]]
    for name, parameter in renamed:
        plan = child.transfer.plans.get(name, Mapped(name))
        assert isinstance(plan, Mapped)
        expected = optimizer.state[module.get_parameter(plan.source)]["momentum_buffer"]
        for axis in plan.axes:
            expected = axis.carry(expected, 1)
        assert torch.equal(target.state[parameter]["momentum_buffer"], expected)
    with pytest.raises(GraphError, match="has 2 groups, so it is open"):
        transfer_optimizer(optimizer.state_dict(), child)


def test_an_optimiser_of_what_is_trained_alone_goes_on() -> None:
    """As for a network of which layers are frozen: `SGD(p for p in module.parameters() if p.requires_grad)`."""
    start = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3)).double()
    start[0].requires_grad_(False)
    parent = from_torch(start, torch.randn(2, 6, dtype=torch.float64))
    module = to_torch(parent)
    optimizer = sgd([each for each in module.parameters() if each.requires_grad])
    module(torch.randn(8, 6, dtype=torch.float64)).square().sum().backward()
    optimizer.step()
    site = next(site for site in MUTATIONS["widen"].sites(parent) if site.place["space"].startswith("2#"))
    child = MUTATIONS["widen"].apply(parent, site, numpy.random.default_rng(0))
    made = to_torch(child.genome)
    free = [name for name, each in made.named_parameters() if each.requires_grad]
    target = sgd([made.get_parameter(name) for name in free])
    for wanted in (None, target.state_dict()):
        target.load_state_dict(transfer_optimizer(optimizer.state_dict(), child, wanted))
        held = dict(module.named_parameters())
        for name in free:
            own = target.state[made.get_parameter(name)]["momentum_buffer"]
            old = optimizer.state[held[name]]["momentum_buffer"]
            assert own.shape == made.get_parameter(name).shape
            assert torch.equal(own, old) or own.shape != old.shape
    assert {"0.weight", "0.bias"}.isdisjoint(free)


def test_what_is_unclear_says_so(parent: Genome) -> None:
    _, module, optimizer = trained(parent, sgd, 1)
    child = widened_everywhere(parent)
    state = optimizer.state_dict()
    order = state["param_groups"][0]["params"]
    halves = [{**state["param_groups"][0], "params": part} for part in (order[:3], order[3:])]
    with pytest.raises(GraphError, match=r"groups of \[3, .*\] unnamed parameters"):
        transfer_optimizer({**state, "param_groups": halves}, child)
    with pytest.raises(GraphError, match="its parameters are in another order"):
        transfer_optimizer({**state, "param_groups": [{**halves[0], "params": order[::-1]}]}, child)
    with pytest.raises(UnknownName, match="unknown state of an optimiser 'square_avg'"):
        transfer_optimizer({**state, "state": {0: {"square_avg": torch.zeros(1)}}}, child)
    named = sgd([("nobody", module.get_parameter("fc.weight"))]).state_dict()
    with pytest.raises(GraphError, match="a parameter 'nobody', which this network lacks"):
        transfer_optimizer(named, child)
