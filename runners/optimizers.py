"""Optimisers by name, which tensors weight decay touches, and their state by the names of the tensors."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
import torch._dynamo  # every optimiser imports it when it is made: 2 s that would be counted as a candidate's
from torch import Tensor, nn

from graphs.genome import Genome
from ops.optimizing import decaying
from runners.recipe import Recipe

__all__ = ["OPTIMIZERS", "load_moments", "make_optimizer", "moments", "parameter_groups"]


def _sgd(groups: list[dict[str, Any]], recipe: Recipe) -> torch.optim.Optimizer:
    return torch.optim.SGD(
        groups, recipe.lr, recipe.momentum, nesterov=recipe.nesterov and recipe.momentum > 0, fused=True
    )


def _adamw(groups: list[dict[str, Any]], recipe: Recipe) -> torch.optim.Optimizer:
    return torch.optim.AdamW(groups, recipe.lr, betas=(recipe.momentum, 0.999), fused=True)


OPTIMIZERS: dict[str, Callable[[list[dict[str, Any]], Recipe], torch.optim.Optimizer]] = {
    "sgd": _sgd,
    "adamw": _adamw,
}
"""`recipe.optimizer` -> how it is made. Fused: one call a step for all tensors."""


def parameter_groups(
    genome: Genome,
    module: nn.Module,
    weight_decay: float,
    *,
    decay_all: bool = False,
    stages: Sequence[Iterable[str]] = (),
) -> list[dict[str, Any]]:
    """The module's parameters in groups: of each stage those that decay, then those that do not.

    The weights of convolutions and linear layers decay; biases, normalisations, gates, slopes and scales of channels
    do not (see `ops.optimizing.decaying`), unless all shall.

    Args:
        genome: From which `module` was made.
        module: What is trained.
        weight_decay: Of what decays.
        decay_all: Everything decays.
        stages: Ids of the nodes of each stage, for groups with rates of their own; all nodes are one stage if there is
            none. A parameter that several stages share is of the last one.

    Returns:
        Groups that are not empty, with `params`, `weight_decay` and the number of the `stage`.
    """
    decayed = decaying(genome.graph)
    place = {
        name: number
        for number, nodes in enumerate(stages)
        for node in nodes
        for name in genome.graph[node].tensors.values()
    }
    groups: dict[tuple[int, bool], list[nn.Parameter]] = {}
    for name, parameter in _named(genome, module).items():
        key = (place.get(name, 0), not (decay_all or name in decayed))
        groups.setdefault(key, []).append(parameter)
    return [
        {"params": found, "weight_decay": 0.0 if spared else weight_decay, "stage": stage}
        for (stage, spared), found in sorted(groups.items(), key=lambda item: item[0])
    ]


def _named(genome: Genome, module: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that nodes use by the genome's names; a shared one has several, of which the genome knows one."""
    specs = genome.graph.tensors
    names = {
        id(parameter): name for name, parameter in module.named_parameters(remove_duplicate=False) if name in specs
    }
    return {names[id(parameter)]: parameter for parameter in module.parameters() if id(parameter) in names}


def make_optimizer(
    genome: Genome, module: nn.Module, recipe: Recipe, stages: Sequence[Iterable[str]] = ()
) -> torch.optim.Optimizer:
    """The optimiser that `recipe` names, for the parameters of `module`, made from `genome`."""
    groups = parameter_groups(genome, module, recipe.weight_decay, decay_all=recipe.decay_all, stages=stages)
    return OPTIMIZERS[recipe.optimizer](groups, recipe)


def moments(genome: Genome, module: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, dict[str, Tensor]]:
    """An optimiser's state (`momentum_buffer`, `exp_avg`, …) by the names of the parameters."""
    return {
        name: {role: value.detach().clone() for role, value in optimizer.state[parameter].items() if value is not None}
        for name, parameter in _named(genome, module).items()
        if parameter in optimizer.state
    }


def load_moments(
    genome: Genome,
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    state: Mapping[str, Mapping[str, Tensor]],
) -> None:
    """Gives an optimiser the state that `moments` read, on the parameters' devices."""
    for name, parameter in _named(genome, module).items():
        if name in state:
            optimizer.state[parameter] = {
                role: torch.empty_like(parameter if value.ndim else value, device=parameter.device).copy_(value)
                for role, value in state[name].items()
            }
