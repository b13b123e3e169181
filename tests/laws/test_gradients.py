"""Laws of what a transfer says about gradients, measured by automatic differentiation in double precision.

A transfer says which part of the parent's gradient each entry of the child has, and an optimiser's moments and rates
follow from that (`ops.optimizing`). Law: at every site that promises something, the gradient of each parameter is what
the transfer makes of the parent's, wherever the parameter stands in one place and all of the parent's gradient can be
told apart.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from functools import cache, lru_cache
from typing import Any

import numpy
import pytest
import torch
from torch import Tensor

from graphs.execution import execute
from graphs.genome import Genome
from graphs.structure import Graph
from ops import MUTATIONS, Child, Site
from ops.axis_maps import AxisMean
from ops.transfer import Extended, Given, Mapped, New
from tests.strategies import MADE, SMALL_ZOO, inputs, lively, small

TOLERANCE = 1e-9
"""In parts of the largest entry of a tensor's gradient."""


def gradients(genome: Genome, wanted: dict[str, Tensor], training: bool) -> dict[str, Tensor]:
    """Of a loss that weights every output by `wanted`, by tensor; zero where nothing depends on it."""
    names = parameters(genome.graph)
    weights = {**genome.weights, **{name: genome.weights[name].clone().requires_grad_() for name in names}}
    run = execute(genome.graph, weights, inputs(genome.graph), training=training, differentiable=True)
    with torch.enable_grad():
        loss = sum((run.values[head.node] * wanted[head.name]).sum() for head in genome.graph.heads)
    found = torch.autograd.grad(loss, [weights[name] for name in names], allow_unused=True)  # type: ignore[arg-type]
    return {
        name: torch.zeros_like(weights[name]) if gradient is None else gradient
        for name, gradient in zip(names, found, strict=True)
    }


def parameters(graph: Graph) -> list[str]:
    return [name for name, spec in graph.tensors.items() if not spec.buffer and not spec.integer]


def weighting(genome: Genome) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(5)
    return {
        head.name: torch.randn(genome.graph.shapes[head.node], generator=generator, dtype=torch.float64)
        for head in genome.graph.heads
    }


def places(graph: Graph) -> Counter[str]:
    """In how many nodes each tensor stands."""
    return Counter(name for node in graph.nodes.values() for name in node.tensors.values())


def choices(name: str, genome: Genome, site: Site) -> dict[str, Any]:
    """Under a norm over channels, shares are told apart for equal ones only (`ops.optimizing`)."""
    balanced = {space.name for space in genome.graph.spaces if space.balanced}
    return {"split": "even"} if name == "widen" and site.place["space"] in balanced else {}


@lru_cache(maxsize=4)
def of_parent(parent: Genome, training: bool) -> dict[str, Tensor]:
    """Its gradients, which are the same for each of its children."""
    return gradients(parent, weighting(parent), training)


DIVIDED = {"split_outputs"}
"""Where each copy learns from outputs of its own, no factor says what part of a gradient comes from which."""


def check_gradients(parent: Genome, child: Child) -> None:
    several = places(parent.graph)
    for training in (False, True)[: 1 + (child.preserves == "exact")]:
        before, after = of_parent(parent, training), gradients(child.genome, weighting(parent), training)
        largest = max(float(gradient.abs().max()) for gradient in before.values())
        for name, gradient in after.items():
            plan = child.transfer.plans.get(name, Mapped(name))
            if isinstance(plan, New | Given) or plan.source not in before or several[plan.source] > 1:
                continue
            theirs = before[plan.source]
            expected = plan.carry(theirs.clone(), 1) * child.transfer.gradients.get(name, 1.0)
            new = plan.carry(torch.ones_like(theirs), 1) == 0
            apart = gradient - expected
            for axis in plan.axes if isinstance(plan, Mapped | Extended) else ():
                if isinstance(axis, AxisMean):
                    # The norm takes away a mean to which new channels contribute: in all old ones the same is missing.
                    old = torch.from_numpy(numpy.flatnonzero(axis.index >= 0))
                    apart = apart - apart.index_select(axis.axis, old).mean(axis.axis, keepdim=True)
            error = float(apart.masked_fill(new, 0).abs().max())
            limit = TOLERANCE * max(float(theirs.abs().max()), 1e-4 * largest)
            assert error <= limit, (child.record.operator, child.record.site, name, error / limit)


def double(genome: Genome) -> Genome:
    return Genome(
        genome.graph,
        {name: each.double() if each.is_floating_point() else each for name, each in genome.weights.items()},
    )


def children(parent: Genome, name: str) -> Iterator[Child]:
    """At up to four sites that promise something."""
    sites = [site for site in MUTATIONS[name].sites(parent) if site.preserves != "approximate"]
    for site in sites[:: max(1, len(sites) // 4)]:
        yield MUTATIONS[name].apply(parent, site, numpy.random.default_rng(2), choices=choices(name, parent, site))


@cache
def fresh(model: str) -> Genome:
    """A network in double precision that no mutation has been at."""
    return double(lively((MADE[model]() if model in MADE else small(model)).graph))


@pytest.mark.parametrize("name", sorted(MUTATIONS.keys() - DIVIDED))
@pytest.mark.parametrize("model", [*SMALL_ZOO, *MADE])
def test_gradients_are_what_the_transfer_makes_of_the_parents(name: str, model: str) -> None:
    """What undoes another operator, where that one has been."""
    undone = MUTATIONS[name].undoes
    for parent in [child.genome for child in children(fresh(model), undone)] if undone else [fresh(model)]:
        for child in children(parent, name):
            check_gradients(parent, child)
