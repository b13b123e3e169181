"""Modules that compute something else in train mode come in as one network, with a choice where the modes part."""

from __future__ import annotations

import copy
import importlib.util
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import evolve
import graphs
from graphs.draft import Draft
from graphs.errors import GraphError
from graphs.execution import execute
from ops import MUTATIONS, certify
from runners.hydra import split
from tests.strategies import lively


class Parted(nn.Module):
    """Layers, and a forward pass that is given them and the mode."""

    def __init__(self, forward: Callable[..., Any]) -> None:
        super().__init__()
        self.conv, self.norm, self.other = nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.BatchNorm2d(6)
        self.drop, self.fc, self.aux = nn.Dropout(0.3), nn.Linear(6, 4), nn.Linear(6, 4)
        self.what = forward

    def pooled(self, x: Tensor, norm: nn.Module | None = None) -> Tensor:
        return (norm or self.norm)(self.conv(x)).relu().mean((2, 3))

    def forward(self, x: Tensor) -> Any:
        return self.what(self, x)


def probabilities(s: Any, x: Tensor) -> Any:
    y = s.fc(s.pooled(x))
    return y if s.training else torch.softmax(y, -1)


def noises(s: Any, x: Tensor) -> Any:
    if s.training:
        x = x + torch.randn_like(x) * 0.1
    y = s.drop(s.pooled(x))
    if s.training:
        y = y + torch.randn_like(y) * 0.1
    return s.fc(y)


def norms(s: Any, x: Tensor) -> Any:
    return s.fc(s.pooled(x, s.norm if s.training else s.other))


def beside(s: Any, x: Tensor) -> Any:
    y = s.pooled(x)
    if s.training:
        return s.fc(y), s.aux(y)
    return s.fc(y).softmax(-1)


def named(s: Any, x: Tensor) -> Any:
    y = s.pooled(x)
    one, other = s.fc(y), s.aux(y)
    if not s.training:
        one = one.sigmoid()
    return {"one": one, "other": other if s.training else other.softmax(-1)}


def dropped(s: Any, x: Tensor) -> Any:
    y = s.pooled(x)
    y = y * torch.bernoulli(torch.full_like(y, 0.7)) if s.training else y * 0.7
    return s.fc(y)


def turns(s: Any, x: Tensor) -> Any:
    y = s.conv(x)
    for _ in range(3 if s.training else 2):
        y = y + s.norm(y).relu()
    return s.fc(y.mean((2, 3)))


def straight_through(s: Any, x: Tensor) -> Any:
    y = s.pooled(x) - 0.5
    sign = torch.sign(y)
    return s.fc(y + (sign - y).detach() if s.training else sign)


def wired(s: Any, x: Tensor) -> Any:
    y = s.pooled(x)
    one, other = s.fc(y), s.aux(y)
    return (one if s.training else other).relu()


def arranged(s: Any, x: Tensor) -> Any:
    y = s.pooled(x)
    return s.fc(y.flip(1) if s.training else y.flip(0, 1).flip(0))


def tied(s: Any, x: Tensor) -> Any:
    """The weight of a layer that eval mode alone calls is used in both."""
    y = s.pooled(x)
    one = torch.sigmoid(y[:, :4]) if s.training else s.fc(y)
    return one @ s.fc.weight @ s.aux.weight.t()


def scaled(s: Any, x: Tensor) -> Any:
    """Eval mode alone uses a constant."""
    y = s.fc(s.pooled(x))
    return y if s.training else y * torch.tensor([1.0, 2.0, 3.0, 4.0])


def view_changed(s: Any, x: Tensor) -> Any:
    y = s.conv(x)
    half = y[:, :2]
    if s.training:
        half.mul_(0.5)
    return s.fc(y.mean((2, 3)))


def numbers(s: Any, x: Tensor) -> Any:
    y = functional.dropout(s.pooled(x), 0.2 if s.training else 0.0) * (2.0 if s.training else 1.0)
    return s.fc(functional.layer_norm(y, (6,), eps=1e-5 if s.training else 1e-1))


def halves(s: Any, x: Tensor) -> Any:
    """A slice, a flag and a rate that are others in each mode, and a flag that is true in eval mode alone."""
    y = functional.dropout(s.pooled(x), 0.2, not s.training)
    y = torch.cat([y[:, slice(0, 3) if s.training else slice(3, 6)]] * 2, 1)
    return s.fc(functional.leaky_relu(y.cumsum(1), 0.3 if s.training else 0.1))


def reparametrised(s: Any, x: Tensor) -> Any:
    """In eval mode one node is two outputs."""
    y = s.pooled(x)
    mean, spread = s.fc(y), s.aux(y)
    return mean + spread.exp() * torch.randn_like(mean) if s.training else mean, mean, spread


def reordered(s: Any, x: Tensor) -> Any:
    y = s.pooled(x)
    one, other = s.fc(y), s.aux(y)
    return {"one": one, "other": other} if s.training else {"other": other, "one": one}


def crossed(s: Any, x: Tensor) -> Any:
    """The first of two equal calls is another output in each mode."""
    y = s.pooled(x)
    if s.training:
        return {"one": s.fc(y), "other": s.fc(y)}
    return {"other": s.fc(y).softmax(1) * 2, "one": s.fc(y)}


def in_turn(s: Any, x: Tensor) -> Any:
    """What draws comes before and after the place where the modes part, and beside it."""
    y = s.pooled(x)
    one = s.drop((y + torch.randn_like(y) * 0.1 if s.training else y.exp()) * 2)
    return s.fc(one) + s.aux(s.drop(y.sin()))


PARTED: dict[str, Callable[..., Any]] = {
    each.__name__: each
    for each in [
        probabilities,
        noises,
        norms,
        beside,
        named,
        dropped,
        turns,
        straight_through,
        wired,
        arranged,
        tied,
        scaled,
        view_changed,
        numbers,
        halves,
        reparametrised,
        reordered,
        crossed,
        in_turn,
    ]
}

IMAGES = torch.randn((5, 3, 7, 6), generator=torch.Generator().manual_seed(0))


def parted(name: str) -> Parted:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = Parted(PARTED[name])
        for tensor in filter(torch.is_floating_point, module.buffers()):
            tensor.uniform_(0.5, 1.5)
    return module


def outputs(module: nn.Module, images: Tensor) -> list[Tensor]:
    torch.manual_seed(3)
    found = module(images)
    if isinstance(found, dict):
        return [found[name] for name in sorted(found)]
    return list(found) if isinstance(found, tuple) else [found]


@pytest.mark.parametrize("name", PARTED)
def test_both_modes_compute_and_learn_the_same(name: str, tmp_path: Path) -> None:
    module = parted(name)
    genome = graphs.from_torch(module, IMAGES)
    graphs.save(genome, tmp_path / "parted.safetensors")
    made = graphs.to_torch(graphs.load(tmp_path / "parted.safetensors"))
    with torch.random.fork_rng(devices=[]):
        for training in (True, False, True, False):
            module.train(training), made.train(training)
            for count in (5, 2) if training else (5, 2, 1):
                expected, got = outputs(module, IMAGES[:count]), outputs(made, IMAGES[:count])
                assert len(expected) == len(got) and all(map(torch.equal, expected, got))
                for each in (expected, got):
                    torch.stack([part.square().sum() for part in each]).sum().backward()
                for (own, one), (path, other) in zip(module.named_parameters(), made.named_parameters(), strict=True):
                    assert own == path and (one.grad is None) == (other.grad is None)
                    assert one.grad is None or torch.equal(one.grad, other.grad)
                module.zero_grad(), made.zero_grad()
    state, other = module.state_dict(), made.state_dict()
    assert list(state) == list(other) and all(torch.equal(tensor, other[key]) for key, tensor in state.items())


@pytest.mark.parametrize("name", PARTED)
def test_what_comes_out_comes_in_again_and_its_eval_mode_alone_is_the_same(name: str) -> None:
    genome = graphs.from_torch(parted(name), IMAGES)
    made = graphs.to_torch(genome)
    again = graphs.from_torch(copy.deepcopy(made), IMAGES)
    assert again.graph.fingerprint == genome.graph.fingerprint
    inference = genome.for_inference()
    assert not any(node.kind == "by_mode" for node in inference.graph.nodes.values())
    assert graphs.macs(inference.graph) == graphs.macs(genome.graph)
    expected, got = outputs(made.eval(), IMAGES), outputs(graphs.to_torch(inference).eval(), IMAGES)
    assert all(map(torch.equal, expected, got))


@pytest.mark.parametrize("name", ["probabilities", "noises", "dropped"])
def test_what_both_modes_do_is_there_once(name: str) -> None:
    kinds = [node.kind for node in graphs.from_torch(parted(name), IMAGES).graph.nodes.values()]
    assert kinds.count("conv2d") == kinds.count("batch_norm") == kinds.count("linear") == 1
    assert kinds.count("by_mode") == (2 if name == "noises" else 1)


@pytest.mark.parametrize("name", PARTED)
def test_every_operator_keeps_both_modes(name: str) -> None:
    parent = graphs.from_torch(parted(name), IMAGES)
    reached = set()
    for mutation in MUTATIONS.values():
        for site in mutation.sites(parent)[:3]:
            child = mutation.apply(parent, site, numpy.random.default_rng(1))
            certificate = certify(parent, child).require()
            reached |= {certificate.eval.verdict, certificate.train.verdict}
            for training in (True, False):
                graphs.to_torch(child.genome).train(training)(IMAGES)
    assert "pass" in reached


def test_only_what_a_mode_takes_is_computed_and_counted() -> None:
    draft = Draft()
    image = draft.input((3, 6, 6))
    one = draft.add("batch_norm", draft.add("conv2d", image, out=4, kernel=5, path="one"), path="first")
    other = draft.add("batch_norm", draft.add("conv2d", image, out=4, kernel=3, path="other"), path="second")
    draft.head(draft.add("by_mode", [one, other]))
    genome = lively(draft.finish())
    assert graphs.macs(genome.graph) == 36 * 4 * 3 * 9
    run = execute(genome.graph, genome.weights, {"x": torch.randn(2, 3, 6, 6)}, training=True)
    assert other not in run.values and "second.running_mean" not in run.buffers and "first.running_mean" in run.buffers
    module = graphs.to_torch(genome).train()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    module(torch.randn(2, 3, 6, 6))
    moved = {name for name, tensor in module.state_dict().items() if not torch.equal(tensor, before[name])}
    assert moved == {"first.running_mean", "first.running_var", "first.num_batches_tracked"}


def test_a_fault_in_one_mode_alone_is_found_there() -> None:
    parent = graphs.from_torch(parted("norms"), IMAGES)
    site = MUTATIONS["widen"].sites(parent)[0]
    child = MUTATIONS["widen"].apply(parent, site, numpy.random.default_rng(0))
    for name, broken in (("norm.weight", "train"), ("other.weight", "eval")):
        weights = dict(child.genome.weights)
        weights[name] = weights[name] * 1.001
        certificate = certify(parent, replace(child, genome=replace(child.genome, weights=weights)))
        verdicts = {"eval": certificate.eval.verdict, "train": certificate.train.verdict}
        assert verdicts == {**dict.fromkeys(verdicts, "pass"), broken: "broken"}


def unread(s: Any, x: Tensor) -> Any:
    """Its train mode moves the statistics of a norm whose value eval mode alone reads."""
    one, other = s.norm(s.conv(x)), s.other(s.conv(x))
    return s.fc((one if s.training else other).relu().mean((2, 3)))


REFUSED: dict[str, tuple[Callable[..., Any], str]] = {
    "a norm that nobody reads": (unread, "leaves another buffer 'other.running_mean'"),
    "another shape": (lambda s, x: s.conv(x).mean(2) if s.training else s.conv(x).mean((2, 3)), "of another shape"),
    "one output more": (lambda s, x: s.conv(x) if s.training else (s.conv(x), s.conv(x).relu()), "there is none"),
    "another name": (lambda s, x: {"one" if s.training else "two": s.conv(x) * (1 + s.training)}, "there is none"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_outputs_that_do_not_fit_are_refused(name: str) -> None:
    forward, message = REFUSED[name]
    with pytest.raises(GraphError) as caught:
        graphs.from_torch(Parted(forward), IMAGES)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def crossing(s: Any, x: Tensor) -> Any:
    """Each mode does first what the other one does then."""
    y = s.pooled(x)
    for place, layer in enumerate((s.other_layers, s.fc)):
        y = layer(y).relu() if s.training == (place == 0) else layer(y).tanh()
    return y


class Crossing(Parted):
    def __init__(self) -> None:
        super().__init__(crossing)
        self.other_layers = nn.Linear(6, 6)


def test_modes_that_do_the_same_in_turn_come_in() -> None:
    with torch.random.fork_rng(devices=[]):
        module = Crossing()
        made = graphs.to_torch(graphs.from_torch(module, IMAGES))
        for training in (True, False):
            expected, got = outputs(module.train(training), IMAGES), outputs(made.train(training), IMAGES)
            assert all(map(torch.equal, expected, got))


@pytest.mark.parametrize("copied", [False, True])
def test_who_reads_the_graph_of_what_comes_out_finds_that_of_its_mode(copied: bool) -> None:
    module = parted("probabilities")
    made = graphs.to_torch(graphs.from_torch(module, IMAGES))
    made = copy.deepcopy(made) if copied else made
    for training in (True, False):
        expected = module.train(training)(IMAGES)
        assert torch.equal(torch.fx.Interpreter(made.train(training)).run(IMAGES), expected)
    exported = torch.export.export(made.eval(), (IMAGES,)).module()
    torch.testing.assert_close(exported(IMAGES), module.eval()(IMAGES))
    with pytest.raises(TypeError, match="would keep one mode for good; save its state_dict"):
        pickle.dumps(made)


def test_an_export_has_both_modes(tmp_path: Path) -> None:
    module = parted("beside")
    evolve.export(graphs.from_torch(module, IMAGES), tmp_path / "exported")
    spec = importlib.util.spec_from_file_location("exported_with_modes", tmp_path / "exported" / "model.py")
    assert spec is not None and spec.loader is not None
    code = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(code)
    made = code.load()
    assert torch.equal(made(IMAGES), module.eval()(IMAGES))
    assert torch.equal(made.train()(IMAGES), module.train()(IMAGES)[0])


def test_heads_leave_train_mode_what_it_is() -> None:
    genome = graphs.from_torch(parted("probabilities"), IMAGES)
    heads = split(genome, 2, 1, "copied")
    assert sum(node.kind == "by_mode" for node in heads.graph.nodes.values()) == 2
    assert split(genome, 1, 1).graph == genome.graph
