"""Norms that people write themselves come in as norms if they are, and as they are written if not."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import graphs
import ops


class Norm(nn.Module):
    """Parameters by name, an eps, and what is done with them."""

    def __init__(self, compute: Callable[[Norm, Tensor], Tensor], *names: str, eps: float = 3e-6) -> None:
        super().__init__()
        for name in names:
            self.register_parameter(name, nn.Parameter(torch.rand(8) + 0.5))
        self.compute, self.variance_epsilon = compute, eps

    def forward(self, x: Tensor) -> Tensor:
        return self.compute(self, x)


def squares(norm: Norm, x: Tensor) -> Tensor:
    whole = x.float()
    return norm.weight * (whole * torch.rsqrt(whole.pow(2).mean(-1, keepdim=True) + norm.variance_epsilon)).type_as(x)


def squares_beside_one(norm: Norm, x: Tensor) -> Tensor:
    return (1 + norm.weight) * x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + norm.variance_epsilon)


def means(norm: Norm, x: Tensor) -> Tensor:
    apart = x - x.mean(-1, keepdim=True)
    return norm.gamma * apart / torch.sqrt(apart.square().mean(-1, keepdim=True) + 1e-12) + norm.beta


def deviations(norm: Norm, x: Tensor) -> Tensor:
    return norm.gamma * (x - x.mean(-1, keepdim=True)) / (x.std(-1, keepdim=True) + 1e-6) + norm.beta


def scales(norm: Norm, x: Tensor) -> Tensor:
    return norm.weight * x


NORMS: dict[str, tuple[Callable[[], Norm], str | None, float]] = {
    "of squares": (lambda: Norm(squares, "weight"), "rms_norm", 3e-6),
    "of squares with a coarse eps": (lambda: Norm(squares, "weight", eps=0.01), "rms_norm", 0.01),
    "of means": (lambda: Norm(means, "gamma", "beta"), "layer_norm", 1e-12),
    "of means, its parts in another order": (lambda: Norm(means, "beta", "gamma"), "layer_norm", 1e-12),
    "of squares with a scale beside one": (lambda: Norm(squares_beside_one, "weight"), None, 0),
    "by the deviation of a sample": (lambda: Norm(deviations, "gamma", "beta"), None, 0),
    "that is none": (lambda: Norm(scales, "weight"), None, 0),
}


class Stream(nn.Module):
    def __init__(self, make: Callable[[], Norm]) -> None:
        super().__init__()
        self.enter, self.first, self.wide = nn.Linear(4, 8), make(), nn.Linear(8, 12)
        self.narrow, self.last, self.leave = nn.Linear(12, 8), make(), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.enter(x)
        y = y + self.narrow(self.wide(self.first(y)).relu())
        left: Tensor = self.leave(self.last(y)).mean(1)
        return left


@pytest.mark.parametrize("name", NORMS)
def test_it_comes_in_as_what_it_computes(name: str) -> None:
    make, kind, eps = NORMS[name]
    torch.manual_seed(0)
    module = Stream(make)
    state = {key: tensor.clone() for key, tensor in module.state_dict().items()}
    genome = graphs.from_torch(module, torch.randn(4, 5, 4))
    found = [node for node in genome.graph.nodes.values() if node.kind in ("layer_norm", "rms_norm")]
    assert [(node.kind, node.settings["eps"]) for node in found] == ([] if kind is None else [(kind, eps)] * 2)
    made = graphs.to_torch(genome)
    assert list(made.state_dict()) == list(state)
    assert all(torch.equal(tensor, state[key]) for key, tensor in made.state_dict().items())
    assert all(torch.equal(tensor, state[key]) for key, tensor in module.state_dict().items())
    # What computes in single precision whatever it is given is held against the norm there.
    single = kind == "rms_norm"
    x = torch.randn(7, 5, 4, dtype=torch.float32 if single else torch.float64)
    for training in (True, False):
        expected, got = (each.to(x.dtype).train(training)(x).detach() for each in (module, made))
        torch.testing.assert_close(got, expected, rtol=0, atol=(1e-6 if single else 1e-13) * float(expected.std()))
    if kind is not None:
        assert ops.MUTATIONS["widen_stream"].sites(genome)
