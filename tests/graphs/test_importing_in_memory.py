"""`graphs.from_torch` on functions that no file may name: they run as they are, in this process alone."""

from __future__ import annotations

import copy
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from torch import Tensor, fx, nn
from torch.utils.checkpoint import checkpoint

import evolve
import graphs
import ops
import runners
from graphs import files
from graphs.errors import FormatError, GraphError
from graphs.kinds import in_memory
from runners.jobs import Job, encode_job
from tests.graphs.test_files import INPUT, opaque, with_graph


class Sign(torch.autograd.Function):
    """The sign, with the gradient of what it is taken of."""

    @staticmethod
    def forward(context: Any, x: Tensor) -> Tensor:
        return x.sign()

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:
        return gradient


sign = Sign.apply


class Reversal(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, x: Tensor, rate: float = 1.0) -> Tensor:
        context.rate = rate
        return x.view_as(x)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return -context.rate * gradient, None


class Doubling(torch.autograd.Function):
    """It has an `apply` of its own."""

    @classmethod
    def apply(cls, x: Tensor) -> Any:
        return super().apply(x, 2.0)

    @staticmethod
    def forward(context: Any, x: Tensor, rate: float) -> Tensor:
        return x * rate

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient, None


class Scaled(torch.autograd.Function):
    """Arguments are told apart by name, and both have a gradient that is none."""

    @staticmethod
    def forward(x: Tensor, weight: Tensor, mean: Tensor) -> Tensor:
        return (x - mean) * weight

    @staticmethod
    def setup_context(context: Any, inputs: Any, output: Tensor) -> None:
        context.save_for_backward(*inputs)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        x, weight, _ = context.saved_tensors
        return gradient * weight.abs(), (gradient * x).sum((0, 2, 3), keepdim=True)[0].clamp(-0.01, 0.01), None


class Twice(torch.autograd.Function):
    """Its gradient is no sum of those of its two values."""

    @staticmethod
    def forward(context: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        return x * 2, x.abs() + 1

    @staticmethod
    def backward(context: Any, one: Tensor, other: Tensor) -> Tensor:
        return (one * other).clamp(-1e-3, 1e-3)


class Noisy(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, x: Tensor) -> Tensor:
        return x + 0.1 * torch.randn_like(x)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:
        return gradient


class Masked(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        context.mark_non_differentiable(mask := (x > 0).long())
        return x * 2, mask

    @staticmethod
    def backward(context: Any, gradient: Tensor, _: Any) -> Tensor:
        return gradient * 3


@torch.library.custom_op("hydra_tests::leaky", mutates_args=())
def leaky(x: Tensor, slope: float) -> Tensor:
    return torch.where(x > 0, x, x * slope)


@torch.library.custom_op("hydra_tests::relu", mutates_args=())
def other_relu(x: Tensor) -> Tensor:
    return x.clamp(min=0)


leaky.register_autograd(lambda context, gradient: (gradient * 0.5, None))
other_relu.register_autograd(lambda context, gradient: gradient * 0.5)


@fx.wrap
def through_numpy(x: Tensor, gain: float = 1.0) -> Tensor:
    return torch.from_numpy(numpy.tanh(x.detach().numpy())) * gain


@fx.wrap
def in_single(x: Tensor) -> Tensor:
    return torch.from_numpy(numpy.tanh(x.detach().numpy().astype(numpy.float32)))


@fx.wrap
def in_two_ways(x: Tensor, training: bool, count: int) -> Tensor:
    return through_numpy(x, 2.0 if training else 1.0) * (0.5 if count else 0.0)


@fx.wrap
def lowered(x: Tensor) -> Tensor:
    return x * 2 + 1


Middle = Callable[["Net", Tensor], Tensor]


class Net(nn.Module):
    def __init__(self, middle: Middle) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(1, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.conv, self.wide = nn.Conv2d(6, 6, 3, padding=1), nn.Conv2d(6, 8, 3, padding=1)
        self.fc, self.weight = nn.Linear(8, 10), nn.Parameter(torch.rand(6, 1, 1) + 0.5)
        self.register_buffer("mean", torch.full((6, 1, 1), 0.1))
        self.middle = middle

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.stem(x)).relu()
        y = y + self.middle(self, self.conv(y))
        return self.fc(self.wide(y).relu().mean((2, 3)))


def both(net: Net, y: Tensor) -> Tensor:
    one, other = Twice.apply(y)
    return one * other + one


def masked(net: Net, y: Tensor) -> Tensor:
    value, mask = Masked.apply(y)
    return value * mask


def turned(net: Net, y: Tensor) -> Tensor:
    z = Reversal.apply(y.transpose(0, 1), 0.5)
    return z.transpose(0, 1) + z.relu().transpose(0, 1)


TAKEN_IN: dict[str, tuple[Middle, str]] = {
    "a sign with a gradient": (lambda net, y: Sign.apply(y), f"{__name__}.Sign"),
    "a function that was taken from its class": (lambda net, y: sign(y), f"{__name__}.Sign"),
    "a reversed gradient": (lambda net, y: Reversal.apply(y, 0.3), f"{__name__}.Reversal"),
    "an argument that is left out": (lambda net, y: Reversal.apply(y), f"{__name__}.Reversal"),
    "a class that adds an argument": (lambda net, y: Doubling.apply(y), f"{__name__}.Doubling"),
    "a parameter and a buffer": (lambda net, y: Scaled.apply(y, net.weight, net.mean), f"{__name__}.Scaled"),
    "two values": (both, f"{__name__}.Twice"),
    "one of two values": (lambda net, y: Twice.apply(y)[1], f"{__name__}.Twice"),
    "a mask beside the value": (masked, f"{__name__}.Masked"),
    "the batch elsewhere": (turned, f"{__name__}.Reversal"),
    "no gradients around it": (lambda net, y: y + Sign.apply(y.detach()), f"{__name__}.Sign"),
    "an operator of a library": (lambda net, y: leaky(y, 0.2), "hydra_tests.leaky"),
    "an operator that is called like one of torch": (lambda net, y: other_relu(y), "hydra_tests.relu"),
    "an operator by its name": (lambda net, y: torch.ops.hydra_tests.leaky(y, 0.2), "hydra_tests.leaky"),
    "a helper that asks for numbers": (lambda net, y: y * through_numpy(y, gain=0.5), f"{__name__}.through_numpy"),
    "a helper that computes in a lower precision": (lambda net, y: y * in_single(y), f"{__name__}.in_single"),
    "the mode and the batch": (lambda net, y: y * in_two_ways(y, net.training, len(y)), f"{__name__}.in_two_ways"),
    "random numbers": (lambda net, y: Noisy.apply(y), f"{__name__}.Noisy"),
    "a function of torch that no file may name": (lambda net, y: y + torch.linalg.qr(y)[0], "linalg.qr"),
    "a method that no file may name": (lambda net, y: y + y.pinverse(), "method.pinverse"),
    "random numbers of torch": (lambda net, y: torch.normal(y, 0.1), "torch.normal"),
}
"""What runs in memory, and the name by which it is refused elsewhere."""


def made(name: str) -> Net:
    torch.manual_seed(4)
    return Net(TAKEN_IN[name][0])


def taken_in(name: str) -> graphs.Genome:
    return graphs.from_torch(made(name), torch.randn(4, 1, 6, 6))


def run(module: nn.Module, x: Tensor, training: bool) -> Iterator[tuple[str, Tensor | None]]:
    """Output, state after, and gradients of the input and the parameters."""
    work, given = copy.deepcopy(module).train(training), x.clone().requires_grad_()
    torch.manual_seed(5)
    out = work(given)
    (out * torch.linspace(-1, 1, out.numel()).reshape(out.shape)).sum().backward()
    yield from (("output", out.detach()), ("input", given.grad), *work.state_dict().items())
    yield from ((f"gradient of {name}", each.grad) for name, each in work.named_parameters())


@pytest.mark.parametrize("name", TAKEN_IN)
def test_it_computes_what_the_module_does_with_the_same_gradients(name: str) -> None:
    module = made(name)
    genome = taken_in(name)
    back = graphs.to_torch(genome)
    again = graphs.to_torch(graphs.from_torch(back, torch.randn(4, 1, 6, 6)))
    for training in (True, False):
        for batch in (1, 2, 5):
            x = torch.randn(batch, 1, 6, 6)
            expected = list(run(module, x, training))
            for other in (back, copy.deepcopy(copy.deepcopy(back)), again):
                found = dict(run(other, x, training))
                for what, tensor in expected:
                    if tensor is None:
                        assert found[what] is None, what
                    else:
                        assert torch.equal(tensor, found[what]), (what, training, batch)  # type: ignore[arg-type]
    assert list(back.state_dict()) == list(module.state_dict())


@pytest.mark.parametrize("name", sorted(each for each in TAKEN_IN if "random" not in each))
def test_every_operator_at_every_site_certifies(name: str) -> None:
    genome = taken_in(name)
    passed = 0
    for operator in ops.MUTATIONS.values():
        for site in operator.sites(genome):
            child = operator.apply(genome, site, numpy.random.default_rng(1))
            certificate = ops.certify(genome, child)
            verdicts = {certificate.eval.verdict, certificate.train.verdict}
            assert verdicts <= {"pass", "approximate", "unreached"}, (site, certificate)
            assert ops.replay(genome, child.record, child.tensors).digest == child.genome.digest
            passed += "pass" in verdicts
    assert passed >= 20


@pytest.mark.parametrize("name", TAKEN_IN)
def test_it_is_neither_stored_nor_exported_nor_sent_and_says_why(name: str, tmp_path: Path) -> None:
    genome = taken_in(name)
    digits = runners.Task.named("digits", limit=20)
    job = Job(id=1, genome=genome, recipe=runners.Recipe(epochs=1), task_spec=digits.spec, seed=0)
    attempts: list[Callable[[], object]] = [
        lambda: graphs.save(genome, tmp_path / "it.safetensors"),
        lambda: files.encode(genome),
        lambda: evolve.export(genome, tmp_path / "it"),
        lambda: encode_job(job),
    ]
    for attempt in attempts:
        with pytest.raises(GraphError) as caught:
            attempt()
        said = str(caught.value)
        assert "\n" not in said and f"'{TAKEN_IN[name][1]}" in said and "memory of this process alone" in said
    assert not list(tmp_path.iterdir())
    assert graphs.fingerprint(genome.graph) == graphs.fingerprint(taken_in(name).graph)
    assert genome.digest == taken_in(name).digest


class Once(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, x: Tensor) -> Tensor:
        return x * 2

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:
        return gradient


def test_the_line_that_calls_it_is_named_where_it_is_one_alone() -> None:
    x = torch.randn(4, 1, 6, 6)
    genome = graphs.from_torch(Net(lambda net, y: Once.apply(y)), x)
    with pytest.raises(GraphError, match=r"test_importing_in_memory.py\", line \d+, in <lambda>: '.*Once.apply\(y\)"):
        files.encode(genome)
    graphs.from_torch(Net(lambda net, y: Once.apply(y) + 1), x)
    with pytest.raises(GraphError) as caught:
        files.encode(genome)
    assert "Once'," in str(caught.value) and "line" not in str(caught.value).partition("Once',")[2]


@pytest.mark.parametrize("name", ["a sign with a gradient", "an operator of a library"])
def test_no_file_brings_it_back(name: str) -> None:
    genome = taken_in(name)
    (target,) = {target for node in genome.graph.nodes.values() for target in in_memory.in_memory(node.settings)}
    assert in_memory.remembered(target)
    file = with_graph([INPUT, opaque([[target, [{"in": 0}], {}]])])
    with pytest.raises(FormatError, match="in the memory of a process: no file may name it"):
        files.decode(file)
    document = files.to_json(genome.graph)
    with pytest.raises(FormatError, match="in the memory of a process: no file may name it"):
        files.from_json(document)
    pointwise = {**opaque([[target, [{"in": 0}], {}]]), "kind": "pointwise"}
    pointwise["settings"] = {"program": pointwise["settings"]["program"]}
    with pytest.raises(FormatError, match="in the memory of a process"):
        files.decode(with_graph([INPUT, pointwise]))


def test_another_process_knows_no_such_name() -> None:
    (target,) = {
        target
        for node in taken_in("a sign with a gradient").graph.nodes.values()
        for target in in_memory.in_memory(node.settings)
    }
    code = f"from graphs.kinds.program import checked_program; checked_program([[{target!r}, [{{'in': 0}}], {{}}]])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode and "none of the functions that a network's file may call" in done.stderr


def test_it_is_trained_in_this_process() -> None:
    torch.manual_seed(4)
    genome = graphs.from_torch(Net(lambda net, y: Sign.apply(y)), torch.randn(4, 1, 8, 8))
    task = runners.Task.named("digits", limit=200)
    outcome = runners.train(genome, runners.Recipe(epochs=2), task, threads=1)
    assert outcome.failure is None and outcome.genome is not None
    for name in ("stem.weight", "conv.weight"):  # behind the sign: its gradient is the function's own
        assert not torch.equal(outcome.genome.weights[name], genome.weights[name])
    child = ops.propose(outcome.genome, numpy.random.default_rng(0), {"widen": 1.0})
    assert ops.certify(outcome.genome, child).require()


def test_two_that_are_called_the_same_are_told_apart() -> None:
    def other(rate: float) -> type[torch.autograd.Function]:
        class Local(torch.autograd.Function):
            @staticmethod
            def forward(context: Any, x: Tensor) -> Tensor:
                return x * rate

            @staticmethod
            def backward(context: Any, gradient: Tensor) -> Tensor:
                return gradient * rate

        return Local

    first, second = other(2.0), other(3.0)
    module = Net(lambda net, y: first.apply(y) + second.apply(y))
    genome = graphs.from_torch(module, torch.randn(4, 1, 6, 6))
    names = [target for node in genome.graph.nodes.values() for target in in_memory.in_memory(node.settings)]
    assert len(set(names)) == 2 and all(name.startswith(f"memory.{__name__}.test_two") for name in names)
    x = torch.randn(2, 1, 6, 6)
    assert torch.equal(graphs.to_torch(genome).eval()(x), module.eval()(x))


@pytest.mark.parametrize(
    "middle", [lambda net, y: lowered(y), lambda net, y: torch.special.expit(y)], ids=["a helper", "a listed one"]
)
def test_what_can_be_lowered_is_data(middle: Middle, tmp_path: Path) -> None:
    module, x = Net(middle), torch.randn(4, 1, 6, 6)
    graphs.save(graphs.from_torch(module, x), tmp_path / "it.safetensors")
    assert torch.equal(graphs.to_torch(graphs.load(tmp_path / "it.safetensors")).eval()(x), module.eval()(x))


def test_it_is_a_wall_that_names_the_function() -> None:
    genome = taken_in("a parameter and a buffer")
    node = next(node.id for node in genome.graph.nodes.values() if node.tensors.get("weight") == "conv.weight")
    assert f"'{__name__}.Scaled', which is not known to treat channels apart" in graphs.explain(genome.graph, node)


# What is refused ----------------------------------------------------------------------------------------------------


class Counting(torch.autograd.Function):
    passes = 0

    @staticmethod
    def forward(context: Any, x: Tensor) -> Tensor:
        Counting.passes += 1
        return x * Counting.passes

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:
        return gradient


class InPlace(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, x: Tensor) -> Tensor:
        x.mul_(2)
        return x.clone()

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:
        return gradient


class Number(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, x: Tensor) -> float:
        return 3.0

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:
        return gradient


class Totals(torch.autograd.Function):
    """A value for each example, and one for each channel of all of them."""

    @staticmethod
    def forward(context: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        return x * 2, x.sum((0, 2, 3))

    @staticmethod
    def backward(context: Any, gradient: Tensor, _: Tensor) -> Tensor:
        return gradient


def summed(net: Net, y: Tensor) -> Tensor:
    value, total = Totals.apply(y)
    return value + total[:, None, None]


def hooked(net: Net, y: Tensor) -> Tensor:
    z = Sign.apply(y)
    if z.requires_grad:
        z.register_hook(lambda gradient: gradient * 0.1)
    return z


REFUSED: dict[str, tuple[Middle, str]] = {
    "a function that counts": (lambda net, y: Counting.apply(y), "does not compute what the module does"),
    "what is written into": (lambda net, y: InPlace.apply(y), "writes into a tensor that it is given"),
    "a number": (lambda net, y: y * Number.apply(y), "Number' gives a value of type float"),
    "what is read twice and is no value of each example": (summed, "keep examples along the first axis"),
    "a parameter that no attribute leads to": (
        lambda net, y: y * Sign.apply(next(net.parameters()).sum()),
        "whose gradient would be lost",
    ),
    "a hook on a gradient": (hooked, "if z.requires_grad:"),
    "values that decide": (lambda net, y: Sign.apply(y) if y.sum() > 0 else y, "depends on the values of tensors"),
    "an object": (lambda net, y: in_two_ways(y, object(), 1), "test_importing_in_memory.py"),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("name", REFUSED)
def test_it_is_refused(name: str) -> None:
    middle, message = REFUSED[name]
    with pytest.raises(GraphError) as caught:
        graphs.from_torch(Net(middle), torch.randn(4, 1, 6, 6))
    assert message in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")
def test_a_part_that_is_computed_again_in_the_backward_pass_is_refused_by_its_line() -> None:
    module = Net(lambda net, y: checkpoint(torch.relu, y, use_reentrant=True))  # here
    with pytest.raises(GraphError, match=r"use_reentrant=True\)\)  # here'.*'CheckpointFunction'"):
        graphs.from_torch(module, torch.randn(4, 1, 6, 6))


def test_functions_apply_as_ever_afterwards() -> None:
    with pytest.raises(GraphError):
        graphs.from_torch(Net(REFUSED["a number"][0]), torch.randn(4, 1, 6, 6))
    x = torch.ones(2, requires_grad=True)
    Reversal.apply(x, 2.0).sum().backward()
    assert x.grad is not None and x.grad.tolist() == [-2.0, -2.0]
    assert "apply" not in vars(torch.autograd.function._SingleLevelFunction)
