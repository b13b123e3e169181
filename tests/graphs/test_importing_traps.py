"""What a trace alone would take in wrong comes in right, or is refused by a message that names the line or the part."""

from __future__ import annotations

import copy
import functools
import random
import weakref
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import graphs
import ops
from graphs.errors import GraphError
from graphs.source_text import constants_of, source


class Base(nn.Module):
    """A convolution, a batch norm, and a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.fc = nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.Linear(6, 4)
        self.drop = nn.Dropout(0.4)

    def body(self, x: Tensor) -> Tensor:
        return functional.relu(self.norm(self.conv(x)))

    def head(self, x: Tensor) -> Tensor:
        return self.fc(x.mean((2, 3)))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.drop(self.body(x)))


class Frozen(Base):
    """Its norm stays in eval mode, the idiom of frozen backbones."""

    def train(self, mode: bool = True) -> Frozen:
        super().train(mode)
        self.norm.eval()
        return self


class Undropped(Base):
    """Its dropout never drops."""

    def train(self, mode: bool = True) -> Undropped:
        super().train(mode)
        self.drop.eval()
        return self


class Sampling(Base):
    """Its dropout drops in eval mode, too."""

    def train(self, mode: bool = True) -> Sampling:
        super().train(mode)
        self.drop.train()
        return self


class Blind(Base):
    """Its body is computed without gradients."""

    @torch.no_grad()
    def body(self, x: Tensor) -> Tensor:
        return super().body(x)


class Within(Base):
    """A part of it is computed without gradients, and its pieces are read with gradients."""

    def forward(self, x: Tensor) -> Tensor:
        y = self.body(x)
        with torch.no_grad():
            a, b = y.chunk(2, 1)
            c = a + b
        return self.head(torch.cat([y[:, :3] * a, c], 1))


class Detached(Base):
    def forward(self, x: Tensor) -> Tensor:
        y = self.body(x)
        return self.head(y + (torch.round(y) - y).detach())


def hooked() -> nn.Module:
    module = Base()
    module.register_forward_hook(lambda part, given, value: value * 2)
    module.register_forward_pre_hook(lambda part, given: (given[0] + 1,))
    return module


class Own(Base):
    """It changes what it is given."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.mul_(2))


class Tied(nn.Module):
    """An embedding and a classifier with one weight, and a convolution's bias that others have."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.twin, self.norm = nn.Conv2d(3, 6, 3), nn.Conv2d(3, 6, 3, bias=False), nn.BatchNorm2d(6)
        self.twin.weight, self.norm.bias = self.conv.weight, self.conv.bias
        self.words, self.fc, self.out = nn.Embedding(4, 6), nn.Linear(6, 6), nn.Linear(6, 4, bias=False)
        self.out.weight = self.words.weight

    def forward(self, x: Tensor) -> Tensor:
        y = self.twin(x) * self.norm(self.conv(x))
        return self.out(torch.tanh(self.fc(y.mean((2, 3)))) + self.words((x[:, 0, 0, 0] > 0).long()))


class Twice(nn.Module):
    """One block under three names, called twice."""

    def __init__(self) -> None:
        super().__init__()
        block = nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3), nn.ReLU())
        self.blocks = nn.ModuleList([block, nn.Conv2d(3, 3, 1), block])
        self.alias, self.fc = block, nn.Linear(3, 4)

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return self.fc(x.mean((2, 3)))


class Spare(Base):
    """Parameters, buffers and a whole layer that the forward pass does not use."""

    def __init__(self) -> None:
        super().__init__()
        self.spare, self.more = nn.Linear(3, 3), nn.Parameter(torch.ones(4))
        self.conv.gain = nn.Parameter(torch.ones(2), requires_grad=False)
        self.register_buffer("seen", torch.arange(3))


class Folded(nn.Module):
    """A norm over frames that are folded into the batch, and one of each example that counts nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(1, 5, 3), nn.BatchNorm2d(5)
        self.each, self.fc = nn.InstanceNorm2d(3, affine=True, track_running_stats=True), nn.Linear(5, 4)

    def forward(self, x: Tensor) -> Tensor:
        n, frames, rows, columns = x.shape
        y = torch.relu(self.norm(self.conv(self.each(x).reshape(n * frames, 1, rows, columns))))
        return self.fc(y.mean((2, 3)).view(n, frames, 5).mean(1))


class Half(Base):
    """Its convolution, and the shift of its norm, are not trained."""

    def __init__(self) -> None:
        super().__init__()
        self.conv.requires_grad_(False)
        self.norm.bias.requires_grad_(False)


class Repeated(Base):
    """A table is repeated for each example, and reshaped by their number."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(1, 6, 2))

    def forward(self, x: Tensor) -> Tensor:
        n = x.shape[0]
        table = torch.cumsum(self.table, 2).repeat(n, 1, 1).reshape(n, -1, 6)
        return self.fc(self.body(x).mean((2, 3)) + table.mean(1))


class TinyView(Base):
    """The difference is far below one in a hundred thousand."""

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        half = y[:, :2]
        half.add_(1e-9)  # here
        return self.head(y)


class Cast(Base):
    """A cast that has nothing to do gives the very tensor, which is then changed."""

    cast: Callable[[Tensor], Tensor] = Tensor.float

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        z = type(self).cast(y)
        z.mul_(2)
        return self.head(y) + z.mean((1, 2, 3))[:, None]


def casting(how: Callable[[Tensor], Tensor]) -> Callable[[], nn.Module]:
    return lambda: type("Casting", (Cast,), {"cast": staticmethod(how)})()


SAME: dict[str, Callable[[Tensor], Tensor]] = {
    "float()": Tensor.float,
    "to(dtype)": lambda y: y.to(torch.float32),
    "to(device)": lambda y: y.to("cpu"),
    "type_as": lambda y: y.type_as(y),
    "plus": lambda y: +y,
    "positive()": Tensor.positive,
    "contiguous()": Tensor.contiguous,
    "dropout of nothing": lambda y: functional.dropout(y, 0.5, False),
    "alpha dropout of nothing": lambda y: functional.alpha_dropout(y, 0.5, False),
}
"""Calls that give their very operand, if its type and place fit already."""


class CastLayer(Base):
    def __init__(self) -> None:
        super().__init__()
        self.act = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        return self.head(self.act(y.to(torch.float32))) + self.head(y)


class Copied(Base):
    """A copy is changed, and what it was made of is not."""

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x).transpose(2, 3)
        z, flat = y.contiguous(), y.flatten(1)
        z.mul_(2)
        flat.relu_()
        return self.fc(y.amax((2, 3))) + self.fc(z.amax((2, 3))) + flat[:, :4]


class Named(Base):
    """What is changed in place is given by name."""

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        functional.relu(inplace=True, input=y)
        return self.head(y)


class Into(Base):
    """A result is written into another tensor."""

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        torch.mul(y, 2, out=y)
        return self.head(y)


class Undrawn(Base):
    """A dropout that drops nothing gives its very operand, of which a part is changed."""

    def forward(self, x: Tensor) -> Tensor:
        y = x * 1.5
        nn.AlphaDropout(0.5).eval()(y)[:, :, 1:].relu_()
        return self.head(self.conv(y))


class Borrowed(Base):
    """It uses the weights of layers again, by a function, and has its parts in another order than it calls them in."""

    def __init__(self) -> None:
        super().__init__()
        self.last, self.scale = nn.Linear(4, 4), nn.Parameter(torch.rand(4))
        self.embed = nn.Embedding(9, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = self.last(super().forward(x) * self.scale)
        y = functional.linear(y, self.last.weight, self.last.bias) + self.embed((y > 0).long()).sum(1)
        return functional.linear(y, self.embed.weight)


RIGHT: dict[str, Callable[[], nn.Module]] = {
    "a view changed a little": TinyView,
    "a norm that stays in eval mode": Frozen,
    "a dropout that stays in eval mode": Undropped,
    "a dropout that stays in train mode": Sampling,
    **{f"{name} changed in place": casting(how) for name, how in SAME.items()},
    "a layer that changes a cast value": CastLayer,
    "a changed copy": Copied,
    "an operand by name changed in place": Named,
    "weights of layers used again": Borrowed,
    "a part of what a dropout leaves as it is": Undrawn,
    "a body without gradients": Blind,
    "a part without gradients": Within,
    "a detached difference": Detached,
    "hooks of the whole": hooked,
    "an input that is changed in place": Own,
    "tensors that several layers share": Tied,
    "a block under several names": Twice,
    "tensors that nothing uses": Spare,
    "a norm over a folded batch": Folded,
    "parameters that are not trained": Half,
    "a table for each example": Repeated,
}


def made(make: Callable[[], nn.Module]) -> nn.Module:
    torch.manual_seed(4)
    module = make()
    for tensor in module.state_dict().values():
        if tensor.is_floating_point():
            tensor.add_(0.1 * torch.rand_like(tensor))
    return module


def run(module: nn.Module, x: Tensor, training: bool) -> tuple[Tensor, dict[str, Tensor], dict[str, Tensor | None]]:
    """Output, state after, and gradients of the parameters."""
    work = copy.deepcopy(module).train(training)
    torch.manual_seed(5)
    out = work(x.clone())
    if out.requires_grad:
        (out * torch.linspace(-1, 1, out.numel()).reshape(out.shape)).sum().backward()
    return (
        out.detach(),
        work.state_dict(),
        {name: each.grad for name, each in work.named_parameters(remove_duplicate=False)},
    )


def trained(module: nn.Module) -> dict[str, bool]:
    return {name: each.requires_grad for name, each in module.named_parameters(remove_duplicate=False)}


def assert_alike(one: nn.Module, other: nn.Module, x: Tensor) -> None:
    for training in (False, True):
        for batch in (x, x[:2]) if training else (x, x[:1]):
            (a, before, gradients), (b, after, others) = run(one, batch, training), run(other, batch, training)
            assert torch.equal(a, b)
            assert before.keys() == after.keys() and all(torch.equal(before[key], after[key]) for key in before)
            assert gradients.keys() == others.keys()
            for name, gradient in gradients.items():
                found = others[name]
                assert (gradient is None) == (found is None), name
                if gradient is not None and found is not None:
                    torch.testing.assert_close(gradient, found, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", RIGHT)
def test_it_comes_in_right(name: str, tmp_path: Path) -> None:
    module = made(RIGHT[name])
    x = torch.randn(4, 3, 6, 6)
    genome = graphs.from_torch(module, x)
    back = graphs.to_torch(genome)
    assert_alike(module, back, x)
    assert trained(back) == trained(module)
    assert list(back.state_dict()) == list(module.state_dict())
    assert [name for name, _ in back.named_parameters()] == [name for name, _ in module.named_parameters()]
    alike = copy.deepcopy(copy.deepcopy(back))
    assert list(alike.state_dict()) == list(back.state_dict()) and trained(alike) == trained(back)
    assert [name for name, _ in alike.named_buffers()] == [name for name, _ in back.named_buffers()]
    assert not {id(each) for each in alike.parameters()} & {id(each) for each in back.parameters()}
    assert_alike(module, alike, x)
    again = graphs.to_torch(graphs.from_torch(back, x))
    assert list(again.state_dict()) == list(module.state_dict())
    back.load_state_dict(RIGHT[name]().state_dict())
    module.load_state_dict(back.state_dict())
    assert_alike(module, back, x)
    graphs.save(genome, tmp_path / "it.safetensors")
    loaded = graphs.load(tmp_path / "it.safetensors")
    assert loaded.digest == genome.digest
    assert genome.weights.keys() == loaded.weights.keys()
    assert all(torch.equal(tensor, loaded.weights[name]) for name, tensor in genome.weights.items())


@pytest.mark.parametrize("name", RIGHT)
def test_its_source_text_has_the_same_state(name: str) -> None:
    genome = graphs.from_torch(made(RIGHT[name]), torch.randn(4, 3, 6, 6))
    constants = {name: genome.weights[name] for name in constants_of(genome)}
    names: dict[str, Any] = {"torch": torch, "nn": nn, "constants": constants}
    exec("import torch\nfrom torch import nn\n" + source(genome, "Network"), names)  # noqa: S102
    network, back = names["Network"](), graphs.to_torch(genome)
    network.load_state_dict(back.state_dict())
    assert_alike(back, network, torch.randn(4, 3, 6, 6))
    assert trained(network) == trained(back)


def test_what_is_made_of_a_frozen_parameter_is_frozen() -> None:
    genome = graphs.from_torch(made(Half), torch.randn(4, 3, 6, 6))
    for name in ("widen", "grow_kernel", "copy_block", "replicate_branch"):
        for site in ops.MUTATIONS[name].sites(genome):
            child = ops.MUTATIONS[name].apply(genome, site, numpy.random.default_rng(1))
            free = {name for name, each in graphs.to_torch(child.genome).named_parameters() if each.requires_grad}
            for tensor in child.genome.graph.tensors:
                plan = child.transfer.plans.get(tensor)
                came_from = plan.source if plan else tensor
                assert came_from not in genome.state.frozen or tensor not in free, (name, tensor)
            assert ops.replay(genome, child.record, child.tensors).digest == child.genome.digest


def test_what_nothing_uses_goes_along_and_certificates_are_taken() -> None:
    genome = graphs.from_torch(made(Spare), torch.randn(4, 3, 6, 6))
    child = ops.propose(genome, numpy.random.default_rng(3), {"widen": 1.0})
    assert set(genome.state.unused) < set(graphs.to_torch(child.genome).state_dict())
    assert ops.certify(genome, child).require()


def test_a_norm_that_stays_in_eval_mode_keeps_its_channels_changeable() -> None:
    genome = graphs.from_torch(Frozen(), torch.randn(4, 3, 6, 6))
    assert any(node.kind == "frozen_batch_norm" for node in genome.graph.nodes.values())
    node = next(node.id for node in genome.graph.nodes.values() if node.kind == "conv2d")
    assert "can be changed" in graphs.explain(genome.graph, node)


# What is refused ----------------------------------------------------------------------------------------------------


class LiveNorm(Base):
    def train(self, mode: bool = True) -> LiveNorm:
        super().train(mode)
        self.norm.train()
        return self


class View(Base):
    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        half = y[:, :2]
        if self.training:
            half.mul_(0.5)  # here
        return self.head(y)


class DroppedView(Base):
    def __init__(self) -> None:
        super().__init__()
        self.drop = nn.Dropout(0.4, inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        flat = self.drop(y.flatten(1))  # here
        return self.head(y) + flat[:, :4]


VIEWS: dict[str, Callable[[Tensor], Tensor]] = {
    "mT": lambda y: y.mT,
    "broadcast_to": lambda y: y.broadcast_to(y.shape),
    "expand_as": lambda y: y.expand_as(y),
    "data": lambda y: y.data,
    "detach": Tensor.detach,
    "a view of a view": lambda y: y[:, :2].unflatten(1, (1, 2)).swapaxes(3, 4),
}
"""Calls that share their operand's memory."""


class ViewRead(Base):
    """A change that does nothing to an example without negative entries."""

    view: Callable[[Tensor], Tensor]

    def forward(self, x: Tensor) -> Tensor:
        y = x * 1.5
        type(self).view(y).relu_()  # here
        return self.head(self.conv(y))


def viewing(how: Callable[[Tensor], Tensor]) -> Callable[[], nn.Module]:
    return lambda: type("Viewing", (ViewRead,), {"view": staticmethod(how)})()


class TableView(Base):
    """It changes its own table through a view of it."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("table", torch.randn(4, 3))

    def forward(self, x: Tensor) -> Tensor:
        view = self.table.t()
        view.mul_(0.5)  # here
        return self.head(self.body(x)) + view[0]


class Small(Base):
    """Outputs of a millionth, and a value that only the run shows."""

    factor = 1.0

    def forward(self, x: Tensor) -> Tensor:
        Small.factor *= 1.5
        return super().forward(x) * 1e-6 * Small.factor


class SingleOnly(Base):
    """In double precision, and to all that traces, it is something else."""

    def forward(self, x: Tensor) -> Tensor:
        weight = self.conv.weight
        single = type(weight) is nn.Parameter and weight.dtype is torch.float32
        return super().forward(x) * (2.0 if single else 1.0)


class LayerDrop(Base):
    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        if not self.training or torch.rand(()).item() > 0.1:  # here
            y = self.norm(y)
        return self.head(y)


class Chance(Base):
    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        if self.training and random.random() < 0.5:  # noqa: S311 here
            y = y * 2
        return self.head(y)


class Draw(Base):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + float(numpy.random.rand())


class Noise(Base):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + torch.randn(4)  # here


class Swallowed(Base):
    """It goes on without what a stand-in cannot answer."""

    ask: Callable[[Tensor], Any]

    def forward(self, x: Tensor) -> Tensor:
        y = self.body(x)
        try:
            if type(self).ask(y):  # here
                y = y * 2
        except Exception:
            y = y + 0
        return self.head(y)


ASKED: dict[str, Callable[[Tensor], Any]] = {
    "the truth": lambda y: y.max() > 1e3,
    "a float": lambda y: float(y.max()) > 1e3,
    "an integer": lambda y: int(y.max()) > 1e3,
    "a complex number": lambda y: abs(complex(y.max())) > 1e3,
    "a rounded number": lambda y: round(y.max().item()) > 1e3,
    "an item": lambda y: y.max().item() > 1e3,
    "a list": lambda y: y.tolist()[0][0][0][0] > 1e3,
    "an array": lambda y: y.detach().numpy().max() > 1e3,
    "a range": lambda y: len(range(y.max().long())) > 1e3,
    "an index": lambda y: [False, False, False, False, False, False][y.argmax() * 0],
    "what is within": lambda y: 1e3 in y,
}
"""Questions about values; of the example the answer is no."""


def swallowing(ask: Callable[[Tensor], Any]) -> Callable[[], nn.Module]:
    return lambda: type("Swallowing", (Swallowed,), {"ask": staticmethod(ask)})()


class HookedTensor(Base):
    def forward(self, x: Tensor) -> Tensor:
        y = self.body(x)
        if y.requires_grad:  # here
            y.register_hook(lambda gradient: gradient * 0.1)
        return self.head(y)


def hooked_parameter() -> nn.Module:
    module = Base()
    module.conv.weight.register_hook(lambda gradient: gradient * 2)
    return module


def hooked_backward() -> nn.Module:
    module = Base()
    module.conv.register_full_backward_hook(lambda *given: None)
    return module


class Counting(Base):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("steps", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.steps += 1  # here
        return super().forward(x) * torch.clamp(self.steps / 10, max=1.0)


class OneOnly(Base):
    def forward(self, x: Tensor) -> Tensor:
        y = super().forward(x)
        return y * 0.5 if y.size(0) == 1 else y  # here


class Squeezed(Base):
    def forward(self, x: Tensor) -> Tensor:
        return self.fc(functional.adaptive_avg_pool2d(self.conv(x), 1).squeeze())  # here


class Steps(Base):
    def __init__(self) -> None:
        super().__init__()
        self.step = 0

    def forward(self, x: Tensor) -> Tensor:
        self.step += 1
        return super().forward(x) * (1 + 0.1 * self.step)


class Capped(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words, self.fc = nn.Embedding(9, 5, max_norm=0.5), nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.words(x).mean(1))


class Unlisted(Base):
    """It keeps a layer where no module looks for layers."""

    def __init__(self) -> None:
        super().__init__()
        self.more = [nn.BatchNorm2d(6)]

    def body(self, x: Tensor) -> Tensor:
        return super().body(self.more[0](self.conv(x)).sum(1, keepdim=True).expand(-1, 3, -1, -1))


REFUSED: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "a norm that stays in train mode": (LiveNorm, "'norm' is in train mode"),
    "a view that dropout changes": (DroppedView, "self.drop(y.flatten(1))  # here"),
    **{f"{name} changed": (viewing(how), ".relu_()  # here") for name, how in VIEWS.items()},
    "its own tensor changed through a view": (TableView, "'table' of the module in place"),
    "small outputs that are others": (Small, "does not compute what the module does"),
    "another function in single precision": (SingleOnly, "does not compute what the module does"),
    "a layer left out by chance": (LayerDrop, "torch.rand(()).item() > 0.1:  # here"),
    "chance of Python's": (Chance, "random.random() < 0.5"),
    "chance of NumPy's": (Draw, "numpy.random.rand()"),
    "noise of a fixed shape": (Noise, "torch.randn(4)  # here"),
    **{f"{name} asked for in vain": (swallowing(ask), "test_importing_traps.py") for name, ask in ASKED.items()},
    "a hook on a tensor": (HookedTensor, "if y.requires_grad:  # here"),
    "a hook on a parameter": (hooked_parameter, "'conv.weight' has a hook"),
    "a backward hook": (hooked_backward, "'conv' has a backward hook"),
    "a buffer that counts": (Counting, "buffer 'steps'"),
    "another function of one example": (OneOnly, "if y.size(0) == 1 else y  # here"),
    "a squeezed batch": (Squeezed, ".squeeze())  # here"),
    "a number that counts": (Steps, "its attribute 'step' changes"),
    "a layer that is no part": (Unlisted, "a BatchNorm2d, that is no part of the module"),
    "an embedding that changes its weights": (Capped, "in place"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_it_is_refused_and_nothing_is_touched(name: str) -> None:
    make, message = REFUSED[name]
    module = made(make)
    x = torch.randint(0, 9, (4, 6)) if make is Capped else torch.rand(4, 3, 6, 6)
    kept, state = x.clone(), {key: tensor.clone() for key, tensor in module.state_dict().items()}
    with pytest.raises(GraphError) as caught:
        graphs.from_torch(module, x)
    assert message in str(caught.value) and "\n" not in str(caught.value)
    assert torch.equal(x, kept)
    assert all(torch.equal(tensor, state[key]) for key, tensor in module.state_dict().items())


@pytest.mark.parametrize("make", [Base, Own, LayerDrop, Chance, Draw])
def test_example_and_generators_are_left_as_they_are(make: Callable[[], nn.Module]) -> None:
    module, x = made(make), torch.randn(4, 3, 6, 6)
    kept = x.clone()
    before = torch.get_rng_state(), random.getstate(), numpy.random.get_state()[1].tolist()
    try:
        graphs.to_torch(graphs.from_torch(module, x))
    except GraphError:
        pass
    assert torch.equal(torch.get_rng_state(), before[0]) and torch.equal(x, kept)
    assert (random.getstate(), numpy.random.get_state()[1].tolist()) == before[1:]


def test_a_module_that_fails_on_the_example_is_refused_with_its_reason() -> None:
    with pytest.raises(GraphError, match="does not run on the example: mat1 and mat2 must have the same dtype"):
        graphs.from_torch(nn.Sequential(nn.Linear(4, 3)), torch.randn(2, 4).double())
    with pytest.raises(GraphError, match="the module does not run on the example: "):
        graphs.from_torch(nn.Bilinear(4, 4, 3), (torch.randn(2, 4), torch.randn(3, 4)))


class Rectified(Base):
    """A rectifier that only a run shows, and that shows where entries are negative only."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(functional.relu(x) if type(self.conv.weight) is nn.Parameter else x)


@pytest.mark.parametrize("x", [torch.rand(4, 3, 6, 6), torch.zeros(4, 3, 6, 6), torch.full((4, 3, 6, 6), torch.nan)])
def test_an_example_that_hides_a_difference_is_not_the_only_one(x: Tensor) -> None:
    with pytest.raises(GraphError, match="does not compute what the module does"):
        graphs.from_torch(made(Rectified), x)


def test_a_drawn_example_that_the_module_does_not_take_is_left_out() -> None:
    class Indexed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words, self.fc = nn.Embedding(9, 5), nn.Linear(5, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(self.words((x - 100 * (x < 0)).long()).mean(1))

    x = torch.randint(0, 9, (4, 6)).float()
    module = Indexed()
    assert torch.equal(graphs.to_torch(graphs.from_torch(module, x))(x), module(x))


class Weighing(nn.Module):
    """It gives, or uses, the weights of an attention."""

    def __init__(self, give: Callable[[Tensor, Tensor], Any], dropout: float) -> None:
        super().__init__()
        self.attention, self.give = nn.MultiheadAttention(8, 2, dropout, batch_first=True), give

    def forward(self, x: Tensor) -> Any:
        y, weights = self.attention(x, x, x)
        return self.give(y, weights)


@pytest.mark.parametrize(
    "give", [lambda y, w: (y, w), lambda y, w: w, lambda y, w: y + w.mean()], ids=["given", "alone", "used"]
)
@pytest.mark.parametrize("dropout", [0.0, 0.1])
@pytest.mark.parametrize("verify", [True, False])
def test_weights_of_an_attention_are_right_or_named(
    give: Callable[[Tensor, Tensor], Any], dropout: float, verify: bool
) -> None:
    x = torch.randn(3, 4, 8)
    module = Weighing(give, dropout).eval()
    try:
        back = graphs.to_torch(graphs.from_torch(module, x, verify=verify)).eval()
    except GraphError as error:
        assert "the weights of the attention 'attention', which no node computes" in str(error)
    else:
        expected, found = module(x), back(x)
        parts = found.values() if isinstance(found, dict) else [found]
        for one, other in zip(expected if isinstance(expected, tuple) else [expected], parts, strict=True):
            torch.testing.assert_close(one, other)


def on_meta() -> nn.Module:
    with torch.device("meta"):
        return nn.Linear(4, 3)


@pytest.mark.parametrize(
    ("module", "x", "message"),
    [
        (nn.Sequential(nn.LazyLinear(4)), torch.randn(2, 4), "'0.weight' has no shape yet"),
        (on_meta(), torch.randn(2, 4), "'weight' is on the meta device"),
        (nn.Linear(4, 3), torch.randn(2, 4).to_sparse(), "the example for 'input' is sparse"),
        (nn.Linear(4, 3), torch.randn(2, 4, device="meta"), "the example for 'input' is on the meta device"),
    ],
    ids=["lazy", "meta", "sparse example", "meta example"],
)
def test_what_has_no_numbers_is_refused_in_a_line(module: nn.Module, x: Tensor, message: str) -> None:
    with pytest.raises(GraphError, match=message) as caught:
        graphs.from_torch(module, x)
    assert "\n" not in str(caught.value)


class Amplified(nn.Module):
    """What is rounded in the order of a sum is made much larger."""

    def __init__(self) -> None:
        super().__init__()
        self.attention, self.fc = nn.MultiheadAttention(8, 2, batch_first=True), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.fc(self.attention(x, x, x, need_weights=True)[0].mean(1))
        return torch.sin(y * 1e5)


def test_amplified_rounding_is_no_difference() -> None:
    x = torch.randn(2, 5, 8)
    back = graphs.to_torch(graphs.from_torch(made(Amplified), x)).double()
    module = made(Amplified).double()
    torch.testing.assert_close(back(x.double()), module(x.double()), rtol=1e-6, atol=1e-6)


def called(layers: nn.ModuleDict, x: Tensor) -> Tensor:
    made: Tensor = layers["last"](layers["drop"](layers["norm"](layers["first"](x).relu())))
    return made


def with_default(layers: nn.ModuleDict) -> Callable[[Tensor], Tensor]:
    def forward(x: Tensor, *, own: nn.ModuleDict = layers) -> Tensor:
        return called(own, x)

    return forward


class Caller:
    """An object of the user's that is no module."""

    def __init__(self, layers: nn.ModuleDict) -> None:
        self.layers = layers

    def __call__(self, x: Tensor) -> Tensor:
        return called(self.layers, x)


def assert_equal_at_equal_seeds(module: nn.Module, back: nn.Module, x: Tensor) -> None:
    for training in (False, True):
        outputs = []
        for each in (module, back):
            torch.manual_seed(2)
            outputs.append(each.train(training)(x))
        assert torch.equal(*outputs)


HIDDEN: dict[str, Callable[[Any], Callable[[Tensor], Tensor]]] = {
    "a function's cell": lambda layers: lambda x: called(layers, x),
    "a function's default": lambda layers: lambda x, own=layers: called(own, x),
    "a default by name": with_default,
    "a call that waits": lambda layers: functools.partial(called, layers),
    "a cell of a call that waits": lambda layers: functools.partial(lambda x: called(layers, x)),
    "a function in a function": lambda layers: lambda x: (lambda: called(layers, x))(),
    "a weak reference": lambda layers: functools.partial(lambda own, x: called(own(), x), weakref.ref(layers)),
    "a weak proxy": lambda layers: functools.partial(called, weakref.proxy(layers)),
    "an attribute": lambda layers: functools.partial(lambda own, x: called(own.on, x), SimpleNamespace(on=layers)),
    "an object that is called": lambda layers: Caller(layers),
    "an object in a cell": lambda layers: functools.partial(lambda own, x: own(x), Caller(layers)),
}
"""Ways to reach layers that a copy of a module does not copy."""


class Reaching(nn.Module):
    """It calls its layers through a function that it keeps, in a list."""

    def __init__(self, reach: Callable[[Any], Callable[[Tensor], Tensor]]) -> None:
        super().__init__()
        first, last = nn.Linear(5, 8), nn.Linear(8, 3)
        parts = {"first": first, "norm": nn.BatchNorm1d(8), "drop": nn.Dropout(0.5), "last": last}
        self.layers = nn.ModuleDict(parts)
        self.calls = [reach(self.layers)]

    def forward(self, x: Tensor) -> Tensor:
        return self.calls[0](x)


@pytest.mark.parametrize("given", [True, False])
@pytest.mark.parametrize("how", HIDDEN)
def test_layers_that_a_function_reaches_are_those_of_the_module(how: str, given: bool) -> None:
    module = Reaching(HIDDEN[how]).train(given)
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    back = graphs.to_torch(graphs.from_torch(module, torch.randn(4, 5)))
    assert module.training == given and all(part.training == given for part in module.modules())
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())
    assert_equal_at_equal_seeds(module, back, torch.randn(6, 5))
    assert all(torch.equal(tensor, back.state_dict()[name]) for name, tensor in module.state_dict().items())


class Asking(nn.Module):
    """It asks another module for its mode, which it reaches in a way of its own."""

    def __init__(self, reach: Callable[[nn.Module], Any]) -> None:
        super().__init__()
        self.fc, self.part = nn.Linear(5, 8), nn.Module()
        self.reached = reach(self.part)

    def forward(self, x: Tensor) -> Tensor:
        return functional.dropout(self.fc(x), 0.5, training=self.reached())


def test_a_mode_that_no_copy_has_is_refused_with_the_line() -> None:
    def by_name(part: nn.Module) -> Callable[[], bool]:
        parts = weakref.WeakValueDictionary({"part": part})
        return lambda: parts["part"].training

    module = Asking(by_name)
    with pytest.raises(GraphError, match=r"reaches the part 'part' through something that cannot be copied"):
        graphs.from_torch(module, torch.randn(4, 5))
    assert "training" not in vars(nn.Module)


@pytest.mark.parametrize("given", [True, False])
def test_a_child_that_asks_its_parent_is_told_of_every_mode(given: bool) -> None:
    module = nn.Sequential(nn.Linear(5, 8), Asking(lambda part: None)).train(given)
    module[1].fc = nn.Linear(8, 8)
    module[1].reached = functools.partial(lambda parent: parent().training, weakref.ref(module))
    back = graphs.to_torch(graphs.from_torch(module, torch.randn(4, 5)))
    assert_equal_at_equal_seeds(module, back, torch.randn(6, 5))


def test_a_weight_that_a_function_reaches_is_trained() -> None:
    module = Reaching(lambda layers: lambda x: layers["last"](layers["first"](x)))
    back = graphs.to_torch(graphs.from_torch(module, torch.randn(4, 5)))
    back(torch.randn(4, 5)).sum().backward()
    names = [name for name, each in back.named_parameters() if "norm" not in name and each.grad is None]
    assert not names and dict(back.named_buffers()).keys() == dict(module.named_buffers()).keys()


class Unnumbered(Base):
    """It gives no number where its input is negative."""

    def forward(self, x: Tensor) -> Tensor:
        y = super().forward(x)
        return torch.where(y > 0, y, torch.full_like(y, float("nan")))


def test_no_number_is_the_same_in_both_modes() -> None:
    torch.manual_seed(1)
    module, x = Unnumbered(), torch.randn(3, 3, 6, 6)
    back = graphs.to_torch(graphs.from_torch(module, x))
    torch.testing.assert_close(back.eval()(x), module.eval()(x), equal_nan=True)


class Alike(Base):
    """Two of its outputs would have one name."""

    def forward(self, x: Tensor) -> dict[str, Any]:
        y = super().forward(x)
        return {"a": {"b": y}, "a_b": y + 1}


@pytest.mark.parametrize("verify", [True, False])
def test_outputs_whose_names_would_be_one_are_refused(verify: bool) -> None:
    with pytest.raises(GraphError, match="two of its outputs would be called 'a_b'"):
        graphs.from_torch(Alike(), torch.randn(2, 3, 6, 6), verify=verify)
