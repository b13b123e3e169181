"""How far a network's outputs move when what a node reads is shaken, for many operands by one backward pass.

Let y be the outputs in units, v an operand, and J the derivative of y by v. If each entry of v is multiplied by 1 ± s,
signs independent, the expected square of the change of y is, to first order, the sum of (s J v)² over all entries of J.
Where the entries of r are ±1, independent too, the gradient of r·y by v is g = Jᵀ r, and the expectation of the sum of
(s g v)² is that same number, whichever operand is asked for: so one r serves all (Hutchinson, A stochastic estimator of
the trace of the influence matrix for Laplacian smoothing splines, 1989). The same g tells which channels move no output
at all. What is given is the root of its mean over the entries of y, which is at most the largest change; an operand of
which every path ends in a dead activation or behind a closed gate gives 0.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

from graphs.execution import Run, execute
from graphs.structure import Graph
from ops.visibility import some_zero

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Edge", "responses"]

Edge = tuple[str, int]
"""A node, and the position of one of its operands."""


def responses(
    graph: Graph,
    weights: Mapping[str, Tensor],
    inputs: Mapping[str, Tensor],
    known: Run,
    edges: Collection[Edge],
    units: Mapping[str, float],
    *,
    training: bool,
    seed: int,
    size: float,
    made: Mapping[str, Collection[int]] = MappingProxyType({}),
) -> tuple[dict[Edge, float], bool]:
    """How far the outputs move when what is read is shaken, and whether a channel that is made moves none of them.

    Returns:
        For each edge, the root mean square of the change of the outputs, in units, when it alone is shaken by `size`.
        An edge from which no path of derivatives leads to an output, such as what a comparison reads, is missing. And
        whether there is one among the channels of `made` on which no output depends, as far as derivatives tell.

    Args:
        graph: The network.
        weights: Its tensors, in float64.
        inputs: The probe by argument name.
        known: What of the run is known; no node of an edge may be in it.
        edges: Which operands are shaken. Those that are no floating-point tensors can't be, and are left out.
        units: For each node that is an output and holds floating-point numbers, its unit.
        training: In train mode.
        seed: Of the projection, and of nodes that draw.
        size: Part of each entry by which it is shaken.
        made: Nodes, and the axes of their values along which each channel has to move an output.
    """
    import torch

    watched: dict[Edge, Tensor] = {}

    def watch(node: str, slot: int, value: Tensor) -> Tensor:
        if (node, slot) not in edges or not value.is_floating_point():
            return value
        # A view of its own, for another reader of the same value is another edge.
        seen = value.view_as(value) if value.requires_grad else value.detach().requires_grad_()
        watched[node, slot] = seen
        return seen

    run = execute(
        graph,
        weights,
        inputs,
        training=training,
        seed=seed,
        known=known,
        keep={*units, *made},
        adjust=watch,
        differentiable=True,
        straight=True,
        double=True,
    )
    generator = torch.Generator().manual_seed(seed)
    outputs, signs = [], []
    for node, unit in units.items():
        value = run.values[node]
        drawn = torch.randint(0, 2, value.shape, generator=generator, dtype=value.dtype) * 2 - 1
        if value.requires_grad:
            outputs.append(value)
            signs.append(drawn / unit)
    found: dict[Edge, float] = {}
    silent = False
    if outputs and watched:
        values = {id: run.values[id] for id in made if run.values[id].requires_grad}
        of = [*watched.values(), *values.values()]
        gradients = torch.autograd.grad(outputs, of, signs, allow_unused=True)
        reached = zip(values, gradients[len(watched) :], strict=True)
        silent = any(some_zero(each, axis) for id, each in reached if each is not None for axis in made[id])
        entries = sum(run.values[node].numel() for node in units)
        for (edge, value), gradient in zip(watched.items(), gradients, strict=False):
            if gradient is not None:
                # Where there is no derivative, as of the root at 0, nothing is taken to show.
                change = torch.nan_to_num(value.detach() * gradient, nan=0.0, posinf=0.0, neginf=0.0)
                found[edge] = size * float(change.square().sum()) ** 0.5 / entries**0.5
    return found, silent
