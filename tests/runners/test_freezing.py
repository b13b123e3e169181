"""What is frozen computes what it does in eval mode, whatever it is made of, and thaws again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from graphs import Genome, from_torch, to_torch
from graphs.modules import module_paths
from runners.freezing import Freezer
from runners.recipe import Recipe
from runners.session import Session
from runners.task import Task


class Varied(nn.Module):
    """A layer, something that depends on the mode, and more layers."""

    def __init__(self, what: Callable[[Varied, Tensor], Tensor], part: nn.Module | None = None) -> None:
        super().__init__()
        self.conv, self.norm, self.other = nn.Conv2d(1, 12, 3, padding=1), nn.BatchNorm2d(12), nn.BatchNorm2d(12)
        self.part, self.what = part or nn.Identity(), what
        self.next, self.last, self.out = nn.Conv2d(12, 8, 3), nn.Conv2d(8, 8, 3), nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.what(self, self.conv(x))
        return self.out(self.last(self.next(x).relu()).relu().mean((2, 3)))


def attends(s: Any, x: Tensor) -> Tensor:
    rows = x.flatten(2).transpose(1, 2)
    mixed = functional.scaled_dot_product_attention(rows, rows, rows, dropout_p=0.5 if s.training else 0.0)
    return mixed.transpose(1, 2).reshape(x.shape)


def skips(s: Any, x: Tensor) -> Tensor:
    if not s.training:
        return x
    return x / 0.5 * (0.5 + torch.rand((x.shape[0], 1, 1, 1), dtype=x.dtype, device=x.device)).floor()


def other(s: Any, x: Tensor) -> Tensor:
    return s.norm(x) if s.training else s.other(x) * 2


VARIED: dict[str, Callable[[], Varied]] = {
    "batch norm": lambda: Varied(lambda s, x: s.norm(x)),
    "dropout": lambda: Varied(lambda s, x: functional.dropout(x, 0.5, s.training)),
    "statistics of an instance norm": lambda: Varied(
        lambda s, x: s.part(x), nn.InstanceNorm2d(12, affine=True, track_running_stats=True)
    ),
    "statistics of a function": lambda: Varied(
        lambda s, x: functional.instance_norm(
            x.clone(), s.norm.running_mean, s.norm.running_var, use_input_stats=s.training
        )
    ),
    "random slopes": lambda: Varied(lambda s, x: s.part(x), nn.RReLU()),
    "random slopes by a function": lambda: Varied(lambda s, x: functional.rrelu(x, training=s.training)),
    "steps": lambda: Varied(lambda s, x: functional.rrelu(x.clone().flip(1), 0.1, 0.5, s.training)),
    "alpha dropout": lambda: Varied(lambda s, x: s.part(x), nn.AlphaDropout()),
    "alpha dropout by a function": lambda: Varied(lambda s, x: functional.alpha_dropout(x, 0.5, s.training)),
    "alpha dropout of channels": lambda: Varied(lambda s, x: s.part(x), nn.FeatureAlphaDropout()),
    "attention": lambda: Varied(attends),
    "noise": lambda: Varied(lambda s, x: x + torch.randn_like(x) if s.training else x),
    "depth": lambda: Varied(skips),
    "another layer": lambda: Varied(other),
}


def made(name: str) -> Genome:
    """With statistics that are not those at the start."""
    torch.manual_seed(2)
    module = VARIED[name]()
    for each in module.modules():
        if isinstance(each, nn.BatchNorm2d | nn.InstanceNorm2d) and each.running_var is not None:
            nn.init.uniform_(each.running_var, 0.5, 2.0)
            nn.init.normal_(each.running_mean)  # type: ignore[arg-type]
    return from_torch(module.eval(), torch.randn(2, 1, 8, 8))


@pytest.mark.parametrize("name", VARIED)
def test_what_is_frozen_is_as_in_eval_mode_and_thaws_again(name: str) -> None:
    genome = made(name)
    module, x = to_torch(genome), torch.randn(16, 1, 8, 8)
    with torch.no_grad():
        wanted = module.eval()(x)
        module.train()
        before = {key: value.clone() for key, value in module.state_dict().items()}
        freezer = Freezer(genome, module)
        freezer.freeze(genome.graph.nodes)
        freezer.train()
        assert torch.equal(module(x), wanted) and torch.equal(module(x), wanted)
        after = module.state_dict()
        assert all(torch.equal(after[key], value) for key, value in before.items())
        last = [node.id for node in genome.graph.nodes.values() if module_paths(genome).get(node.id) in ("last", "out")]
        assert len(last) == 2
        freezer.freeze(last)  # what varies learns again, and the rest does not
        freezer.train()
        torch.manual_seed(5)
        found = module(x)
        torch.manual_seed(5)
        assert torch.equal(found, to_torch(genome).train()(x)) and not torch.allclose(found, wanted, atol=1e-4)


RECIPES: dict[str, dict[str, Any]] = {
    "body": {"hydra": {"heads": 1, "frozen": 2, "split_point": 3}},
    "body of several heads": {"hydra": {"heads": 2, "frozen": 2, "split_point": 3}},
    "stages": {"freezeout": {"t0": 0.05, "how": "linear"}},
}


@pytest.mark.parametrize("how", RECIPES)
@pytest.mark.parametrize("name", ["statistics of an instance norm", "statistics of a function", "alpha dropout"])
def test_a_training_leaves_what_is_frozen_alone(name: str, how: str) -> None:
    genome, digits = made(name), Task.named("digits", limit=60)
    recipe = Recipe(epochs=2, batch=8, precision="float32", **RECIPES[how]).resolved(digits)
    with torch.random.fork_rng():
        session = Session(genome, recipe, digits, [], "cpu", 1, 2)
        session.epoch()
        first = session.trained()
        frozen = [node for node in session._freezer.nodes if genome.graph[node].kind != "input"]
        names = {name for node in frozen for name in genome.graph[node].tensors.values()}
        assert {"conv.weight"} < names or (name == "alpha dropout" and "conv.weight" in names)
        session._freezer.train()
        seen: list[Tensor] = []
        session._module.get_submodule("next").register_forward_pre_hook(lambda _, given: seen.append(given[0]))
        x = torch.randn(4, 1, 8, 8)
        session._module(x), session._module(x), session._module.eval()(x)
        assert torch.equal(seen[0], seen[1]) and torch.equal(seen[0], seen[2])
        session.epoch()
    assert names and all(torch.equal(session.trained().weights[name], first.weights[name]) for name in names)
    assert not torch.equal(session.trained().weights["out.weight"], first.weights["out.weight"])
