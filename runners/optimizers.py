"""Optimisers and learning-rate schedules by name, and which tensors weight decay touches."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch._dynamo  # every optimiser imports it when it is made: 2 s that would be counted as a candidate's
from torch import nn

from graphs.genome import Genome
from runners.recipe import Recipe

__all__ = ["OPTIMIZERS", "SCHEDULES", "learning_rate", "make_optimizer", "parameter_groups"]


def _sgd(groups: list[dict[str, Any]], recipe: Recipe) -> torch.optim.Optimizer:
    return torch.optim.SGD(groups, recipe.lr, recipe.momentum, nesterov=recipe.momentum > 0, fused=True)


def _adamw(groups: list[dict[str, Any]], recipe: Recipe) -> torch.optim.Optimizer:
    return torch.optim.AdamW(groups, recipe.lr, betas=(recipe.momentum, 0.999), fused=True)


OPTIMIZERS: dict[str, Callable[[list[dict[str, Any]], Recipe], torch.optim.Optimizer]] = {
    "sgd": _sgd,
    "adamw": _adamw,
}
"""`recipe.optimizer` -> how it is made. Fused: one call a step for all tensors."""

SCHEDULES: dict[str, Callable[[float], float]] = {
    "cosine": lambda progress: 0.5 * (1 + math.cos(math.pi * progress)),
    "constant": lambda progress: 1.0,
}
"""`recipe.schedule` -> factor of the learning rate after a share of the steps, from 0 to 1.

Cosine: I. Loshchilov, F. Hutter, "SGDR: Stochastic Gradient Descent with Warm Restarts", 2016, arXiv:1608.03983.
"""


def learning_rate(recipe: Recipe, step: int, steps: int) -> float:
    """Learning rate of step `step` of `steps`, counted from 0; at `step == steps` the schedule has ended.

    >>> recipe = Recipe(lr=0.4)
    >>> [learning_rate(recipe, step, 2) for step in (0, 1, 2)]
    [0.4, 0.2, 0.0]
    """
    return recipe.lr * SCHEDULES[recipe.schedule](step / steps)


def parameter_groups(genome: Genome, module: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """The module's parameters in two groups: those that decay, then those that do not.

    The weights of convolutions and linear layers decay. Biases, normalisations, gates and slopes do not: decay would
    erode the identities that mutations build of them.

    Args:
        genome: From which `module` was made; it says how each tensor starts, and what starts as a constant is a scale,
            a gate or a slope.
        module: What is trained.
        weight_decay: Of the first group.
    """
    specs = genome.graph.tensors
    groups: list[dict[str, Any]] = [
        {"params": [], "weight_decay": weight_decay},
        {"params": [], "weight_decay": 0.0},
    ]
    # A shared parameter stands under several names, of which the genome knows one.
    names = {
        id(parameter): name for name, parameter in module.named_parameters(remove_duplicate=False) if name in specs
    }
    for parameter in module.parameters():
        random_start = specs[names[id(parameter)]].start in ("kaiming", "fan_in")
        groups[0 if parameter.ndim > 1 and random_start else 1]["params"].append(parameter)
    return [group for group in groups if group["params"]]


def make_optimizer(genome: Genome, module: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """The optimiser that `recipe` names, for the parameters of `module`, made from `genome`."""
    return OPTIMIZERS[recipe.optimizer](parameter_groups(genome, module, recipe.weight_decay), recipe)
