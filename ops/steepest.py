"""The directions of outgoing weights in which the incoming weights of new channels get the largest gradients.

A new channel has incoming weights v and outgoing weights u. At v = 0 the gradient for v is M·u, where M is what an
auxiliary layer from before the channel to behind it would get for a gradient (GradMax: Evci et al., 2022, arXiv
2201.05125): the best u of length 1 are M's first right singular vectors. M is not made; it is applied. M·u is a
backward pass through the network with v = 0, Mᵀ·v one with a tiny v and u = 0, whatever lies between, so the vectors
are found by subspace iteration (Halko, Martinsson, Tropp, 2011, arXiv 0909.4061).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from graphs.errors import GraphError
from graphs.initial import stream, uniform
from graphs.structure import Graph
from ops.examples import Examples

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["loss_of", "steepest"]

_ROUNDS = 3
_TINY = 1e-6
"""Length of v, whose channel must be small beside the square root of a norm's eps, about 3e-3."""

_KEPT = 1e-3
"""Part of the directions that a round keeps, so that those in which nothing can be gained stay apart."""


def _orthonormal(directions: Tensor) -> Tensor:
    """Directions (…, K, Q) made orthogonal and of length 1; those beyond the Q-th of length 1 only."""
    import torch

    count = min(directions.shape[-2:])
    basis = torch.linalg.qr(directions[..., :count, :].mT).Q.mT
    rest = directions[..., count:, :]
    return torch.cat([basis, rest / rest.norm(dim=-1, keepdim=True)], -2)


def steepest(start: Tensor, incoming: Callable[[Tensor], Tensor], outgoing: Callable[[Tensor], Tensor]) -> Tensor:
    """Directions (B, K, Q) of outgoing weights, orthonormal in each of B blocks, near the best ones.

    Args:
        start: Where to start from.
        incoming: M: outgoing weights (B, K, Q) to the gradients (B, K, P) of the incoming ones.
        outgoing: Mᵀ, up to a factor: incoming weights (B, K, P) to the gradients (B, K, Q) of the outgoing ones.
    """
    found = _orthonormal(start)
    for _ in range(_ROUNDS):
        gradient = incoming(found)
        length = gradient.norm(dim=-1, keepdim=True).clamp(min=1e-30)
        again = outgoing(_TINY * gradient / length) * length
        largest = again.norm(dim=-1, keepdim=True).amax(-2, keepdim=True).clamp(min=1e-30)
        found = _orthonormal(again / largest + _KEPT * found)
    return found


def loss_of(graph: Graph, values: Mapping[str, Tensor], examples: Examples, seed: int) -> Tensor:
    """The loss of which gradients are taken: the sum of those of all outputs that are numbers.

    Of class numbers the cross entropy, of values of the outputs' shape half the squared distance. Without targets, the
    network's own predictions stand in: for logits the negative log-likelihood of a class drawn from what it predicts,
    for a single number half the squared distance from itself with a deviation of 1 drawn on top.

    Raises:
        GraphError: The targets are neither.
    """
    import torch
    from torch.nn import functional

    total = torch.zeros(())
    for head in graph.heads:
        output = values[head.node]
        if not output.is_floating_point():
            continue
        flat, targets = output.flatten(1), _targets(examples, head.name, output)
        draws = torch.from_numpy(uniform(stream(seed, f"loss/{head.name}"), (len(flat),), 0, 1)).to(flat)
        if targets is not None and targets.is_floating_point():
            total = total + (output - targets).square().flatten(1).sum(1).mean() / 2
        elif targets is None and flat.shape[1] == 1:
            total = total + (flat - flat.detach() - torch.erfinv(2 * draws - 1)[:, None] * 2**0.5).square().mean() / 2
        else:
            drawn = (flat.detach().softmax(1).cumsum(1) < draws[:, None]).sum(1).clamp(max=flat.shape[1] - 1)
            total = total + functional.cross_entropy(flat, drawn if targets is None else targets)
    return total


def _targets(examples: Examples, name: str, output: Tensor) -> Tensor | None:
    """The targets for an output: as numbers of its type, or as class numbers."""
    import torch

    targets, shape = examples.targets, tuple(output.shape)
    if targets is None:
        return None
    if not isinstance(targets, torch.Tensor) or targets.is_complex():
        raise GraphError(f"the batch has targets of type {type(targets).__name__}; expected a tensor of numbers")
    if targets.is_floating_point():
        if tuple(targets.shape) != shape:
            raise GraphError(f"the batch has targets of shape {tuple(targets.shape)}; output '{name}' has {shape}")
        return targets.to(output)
    classes = output[0].numel()
    if tuple(targets.shape) != shape[:1]:
        raise GraphError(f"the batch has class numbers of shape {tuple(targets.shape)}; expected {shape[:1]}")
    if not 0 <= int(targets.min()) <= int(targets.max()) < classes:
        raise GraphError(
            f"the batch has class numbers from {int(targets.min())} to {int(targets.max())}; "
            f"output '{name}' has those from 0 to {classes - 1}"
        )
    return targets.long()
