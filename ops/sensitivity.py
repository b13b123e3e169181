"""How far a network's outputs move when what a node reads is shaken, for many operands by one backward pass.

Let y be the outputs in units, v an operand, and J the derivative of y by v. If each entry of v is multiplied by 1 ± s,
signs independent, the expected square of the change of y is, to first order, the sum of (s J v)² over all entries of J.
Where the entries of r are ±1, independent too, the gradient of r·y by v is g = Jᵀ r, and the expectation of the sum of
(s g v)² is that same number, whichever operand is asked for: so one r serves all (Hutchinson, A stochastic estimator of
the trace of the influence matrix for Laplacian smoothing splines, 1989). What is given is the root of its mean over the
entries of y, which is at most the largest change; an operand of which every path ends in a dead activation or behind a
closed gate gives 0.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

from graphs.execution import Run, execute
from graphs.structure import Graph

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
) -> dict[Edge, float]:
    """For each edge, the root mean square of the change of the outputs, in units, when it alone is shaken by `size`.

    An edge from which no path of derivatives leads to an output, such as what a comparison reads, is missing.

    Args:
        graph: The network.
        weights: Its tensors.
        inputs: The probe by argument name.
        known: What of the run is known; no node of an edge may be in it.
        edges: Which operands are shaken. Those that are no floating-point tensors can't be, and are left out.
        units: For each node that is an output and holds floating-point numbers, its unit.
        training: In train mode.
        seed: Of the projection, and of nodes that draw.
        size: Part of each entry by which it is shaken.
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
        keep=units.keys(),
        adjust=watch,
        differentiable=True,
        straight=True,
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
    if outputs and watched:
        gradients = torch.autograd.grad(outputs, list(watched.values()), signs, allow_unused=True)
        entries = sum(run.values[node].numel() for node in units)
        for (edge, value), gradient in zip(watched.items(), gradients, strict=True):
            if gradient is not None:
                # Where there is no derivative, as of the root at 0, nothing is taken to show.
                change = torch.nan_to_num(value.detach() * gradient, nan=0.0, posinf=0.0, neginf=0.0)
                found[edge] = size * float(change.square().sum()) ** 0.5 / entries**0.5
    return found
