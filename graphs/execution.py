"""Running a graph node by node, with every value in hand.

The generated module of `to_torch` is what trains and ships; this is how the engine looks inside: the certificate
compares values, perturbs them, and starts from a prefix that is already known. Both call the same operations.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from graphs.errors import GraphError
from graphs.kinds import KINDS
from graphs.structure import Graph

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Run", "execute"]


@dataclass(frozen=True, slots=True)
class Run:
    """The values of all nodes by id, and the buffers as the run left them, by tensor name."""

    values: Mapping[str, Tensor]
    buffers: Mapping[str, Tensor]


def execute(
    graph: Graph,
    weights: Mapping[str, Tensor],
    inputs: Mapping[str, Tensor],
    *,
    training: bool,
    seed: int = 0,
    known: Run | None = None,
    adjust: Callable[[str, int, Tensor], Tensor] | None = None,
    only: Collection[str] | None = None,
    differentiable: bool = False,
) -> Run:
    """Runs a graph.

    Args:
        graph: What to run.
        weights: Its tensors, left untouched, buffers too.
        inputs: For each input, by its argument name, a tensor (N, *shape).
        training: Train mode: batch norms use and update the statistics of the batch, dropout drops.
        seed: Before each node that draws, the generator is seeded from (seed, node id), so that a new random node does
            not shift what the others draw.
        known: Values that are taken as they are (and, in train mode, buffers): those nodes are not run.
        adjust: Called with (node id, position, value) for each operand of each node that is run; gives what it sees.
        only: Ids of the nodes to run; all if None.
        differentiable: The values know how they were made from those that require a gradient, also where the caller
            has switched that off.

    Returns:
        All values, and in train mode the updated buffers of the nodes that were run or known.
    """
    import torch

    values: dict[str, Tensor] = {}
    buffers: dict[str, Tensor] = dict(known.buffers) if known else {}
    with torch.set_grad_enabled(differentiable), torch.random.fork_rng(devices=[]):
        for node in graph.nodes.values():
            if only is not None and node.id not in only:
                continue
            if known is not None and node.id in known.values:
                values[node.id] = known.values[node.id]
                continue
            kind = KINDS[node.kind]
            if kind.compute is None:
                name = node.settings["name"]
                if name not in inputs:
                    raise GraphError(f"no value for the input '{name}'; got {sorted(inputs)}")
                value = inputs[name]
            else:
                tensors = {role: buffers.get(name, weights[name]) for role, name in node.tensors.items()}
                if training:
                    shapes = [graph.shapes[source] for source in node.inputs]
                    for role, spec in kind.tensors(node.settings, shapes).items():
                        if spec.buffer:
                            tensors[role] = buffers[node.tensors[role]] = tensors[role].clone()
                if training and kind.random(node.settings):
                    torch.manual_seed(_node_seed(seed, node.id))
                operands = [values[source] for source in node.inputs]
                if adjust:
                    operands = [adjust(node.id, position, operand) for position, operand in enumerate(operands)]
                value = kind.compute(node.settings, operands, tensors, training)
            values[node.id] = value
    return Run(values, buffers)


def _node_seed(seed: int, node: str) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed}/{node}".encode()).digest()[:7], "big")
