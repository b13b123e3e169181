"""An evenly widened network follows its parent: 20 further steps part them by no more than rounding does.

What rounding does is measured: the parent, every weight of it moved to a neighbouring number, is trained alike, and the
distance to itself is the floor. Networks of all sorts, from the zoo and written elsewhere, all their spaces twice as
wide; rates at which training hardly moves, learns and jumps.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache, partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from evolve.vision import torchvision_models
from graphs import from_torch, to_torch, zoo
from graphs.genome import Genome
from graphs.modules import genome_from_module
from ops import Child, optimizer_factors, optimizer_groups, transfer_optimizer
from tests.ops.test_optimizing import widened_everywhere
from tests.strategies import small

CLASSES = 5
BEFORE, AFTER = 5, 20
"""Steps before the mutation and after it."""

FLOORS = 10


class Excited(nn.Module):
    """The inverted residual of MobileNetV3: wide inside, one filter for each channel there, squeeze and excitation."""

    def __init__(self, channels: int, inner: int) -> None:
        super().__init__()
        self.wide = nn.Sequential(nn.Conv2d(channels, inner, 1, bias=False), nn.BatchNorm2d(inner), nn.Hardswish())
        self.deep = nn.Conv2d(inner, inner, 3, padding=1, groups=inner, bias=False)
        self.norm = nn.BatchNorm2d(inner)
        self.squeeze, self.excite = nn.Conv2d(inner, 4, 1), nn.Conv2d(4, inner, 1)
        self.narrow = nn.Sequential(nn.Conv2d(inner, channels, 1, bias=False), nn.BatchNorm2d(channels))

    def forward(self, x: Tensor) -> Tensor:
        found = nn.functional.hardswish(self.norm(self.deep(self.wide(x))))
        squeezed = nn.functional.relu(self.squeeze(nn.functional.adaptive_avg_pool2d(found, 1)))
        return x + self.narrow(found * nn.functional.hardsigmoid(self.excite(squeezed)))


def mobile() -> nn.Module:
    """Two such blocks."""
    stem = [nn.Conv2d(3, 6, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(6), nn.Hardswish()]
    end = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, CLASSES)]
    return nn.Sequential(*stem, Excited(6, 12), Excited(6, 8), *end)


def vit() -> nn.Module:
    """Two layers of torchvision's vision transformer."""
    sizes = {"num_layers": 2, "num_heads": 2, "hidden_dim": 12, "mlp_dim": 16, "num_classes": CLASSES}
    transformer: nn.Module = torchvision_models().VisionTransformer(image_size=8, patch_size=4, **sizes)
    return transformer


def imported(make: Callable[[], nn.Module], side: int = 8) -> Genome:
    """A network that was written elsewhere."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return from_torch(make(), torch.randn(4, 3, side, side))


NETWORKS: dict[str, Callable[[], Genome]] = {
    "vgg": partial(small, "vgg8"),
    "densenet-bc": partial(small, "densenet-bc-40-12"),
    "wrn": partial(zoo.create, "wrn-16-4", classes=CLASSES, input_shape=(3, 4, 4), depth=10, widen=2),
    "vit": partial(imported, vit),
    "mobile": partial(imported, mobile),
}


@dataclass(frozen=True)
class Training:
    """An optimiser with its settings, to be made of groups or named parameters."""

    kind: type[torch.optim.Optimizer]
    lr: float
    decay: float = 0.0
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def adaptive(self) -> bool:
        """Whether its steps do not depend on the size of gradients."""
        return self.kind is not torch.optim.SGD

    def of(self, parameters: Any) -> torch.optim.Optimizer:
        """The optimiser."""
        return self.kind(parameters, lr=self.lr, weight_decay=self.decay, **self.settings)  # type: ignore[call-arg]


def sgd(lr: float) -> Training:
    return Training(torch.optim.SGD, lr, 5e-4, {"momentum": 0.9, "nesterov": True})


def adam(lr: float) -> Training:
    return Training(torch.optim.Adam, lr, 0.0, {"eps": 1e-40})


def adamw(lr: float) -> Training:
    return Training(torch.optim.AdamW, lr, 0.1, {"eps": 1e-40})


def batches(side: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Endless examples with labels that can be learnt."""
    generator = torch.Generator().manual_seed(seed)
    shape = (3, side, side)
    centres = torch.randn((CLASSES, *shape), dtype=torch.float64, generator=torch.Generator().manual_seed(99))
    while True:
        labels = torch.randint(0, CLASSES, (8,), generator=generator)
        yield centres[labels] + torch.randn((8, *shape), dtype=torch.float64, generator=generator), labels


def train(module: nn.Module, optimizer: torch.optim.Optimizer, side: int, steps: int, seed: int) -> None:
    module.train()
    for _, (images, labels) in zip(range(steps), batches(side, seed), strict=False):
        optimizer.zero_grad()
        cross_entropy(module(images), labels).backward()  # type: ignore[no-untyped-call]
        optimizer.step()


@torch.no_grad()
def logits(module: nn.Module, side: int) -> Tensor:
    """What comes out in eval and in train mode, which moves running statistics and so comes last."""
    images, _ = next(batches(side, 4))
    return torch.stack([module.train(mode)(images) for mode in (False, True)])


def neighbour(genome: Genome, seed: int) -> Genome:
    """The genome with each number of its tensors one step up or down."""
    generator = torch.Generator().manual_seed(seed)

    def moved(tensor: Tensor) -> Tensor:
        if not tensor.is_floating_point():
            return tensor
        return torch.nextafter(tensor, math.inf * (torch.randint(0, 2, tensor.shape, generator=generator) * 2.0 - 1))

    return Genome(genome.graph, {name: moved(tensor) for name, tensor in genome.weights.items()})


def follower(child: Child, module: nn.Module, training: Training, state: Mapping[str, Any]) -> torch.optim.Optimizer:
    """The child's optimiser, with the factors that keep it on its parent's path, within tensors too."""
    factors = optimizer_factors(child, training.adaptive)
    if all(isinstance(factor, float) for factor in factors.values()):
        made = training.of(optimizer_groups(child, module, training.lr, training.decay, training.adaptive))
        made.load_state_dict(transfer_optimizer(state, child, made.state_dict()))
        return made
    made = training.of(module.named_parameters())
    made.load_state_dict(transfer_optimizer(state, child, made.state_dict()))
    (_scale_steps if training.adaptive else _scale_gradients)(made, dict(module.named_parameters()), factors, training)
    return made


Factors = Mapping[str, Tensor | float]


def _scale_gradients(
    optimizer: torch.optim.Optimizer, parameters: Mapping[str, nn.Parameter], factors: Factors, training: Training
) -> None:
    for name, parameter in parameters.items():
        parameter.register_hook(lambda gradient, factor=factors[name]: gradient * factor)
        optimizer.state[parameter]["momentum_buffer"] *= factors[name]


def _scale_steps(
    optimizer: torch.optim.Optimizer, parameters: Mapping[str, nn.Parameter], factors: Factors, training: Training
) -> None:
    before: dict[str, Tensor] = {}

    def remember(*_: Any) -> None:
        decay = 1 - training.lr * training.decay
        before.update({name: parameter.detach() * decay for name, parameter in parameters.items()})

    @torch.no_grad()
    def scale(*_: Any) -> None:
        for name, parameter in parameters.items():
            parameter.copy_(before[name] + factors[name] * (parameter - before[name]))

    optimizer.register_step_pre_hook(remember)
    optimizer.register_step_post_hook(scale)


def parted(parent: Genome, training: Training, draws: int = 1) -> tuple[float, float, float]:
    """How far a child is from its parent after training, how far rounding parts the parent, and how far it has gone."""
    side = parent.graph.inputs[0].settings["shape"][-1]
    weights = {name: each.double() if each.is_floating_point() else each for name, each in parent.weights.items()}
    parent = Genome(parent.graph, weights)
    module = to_torch(parent)
    optimizer = training.of(module.parameters())
    train(module, optimizer, side, BEFORE, seed=1)
    now, state = genome_from_module(parent, module), copy.deepcopy(optimizer.state_dict())
    child = widened_everywhere(now)
    other = to_torch(child.genome)
    followers = [(other, follower(child, other, training, state))]
    for seed in range(draws):
        noisy = to_torch(neighbour(now, seed))
        followers.append((noisy, training.of(noisy.parameters())))
        followers[-1][1].load_state_dict(copy.deepcopy(state))
    train(module, optimizer, side, AFTER, seed=2)
    for each, made in followers:
        train(each, made, side, AFTER, seed=2)
    reached = logits(module, side)
    found, *noise = (float((logits(each, side) - reached).abs().max()) for each, _ in followers)
    return found, max(noise), float((logits(to_torch(now), side) - reached).abs().max())


@cache
def network(name: str) -> Genome:
    return NETWORKS[name]()


TRAININGS = [sgd(0.001), sgd(0.01), sgd(0.1), adam(0.001), adamw(0.01)]


@pytest.mark.parametrize("training", TRAININGS, ids=lambda each: f"{each.kind.__name__}-{each.lr}")
@pytest.mark.parametrize("name", NETWORKS)
def test_a_widened_network_follows_its_parent(name: str, training: Training) -> None:
    found, floor, way = parted(network(name), training)
    assert 0 < floor < 1e-3 * way and found <= FLOORS * floor, (found, floor, way)
