"""Running a graph node by node, with every value in hand.

The generated module of `to_torch` is what trains and ships; this is how the engine looks inside: the certificate
compares values, perturbs them, and starts from a prefix that is already known. Both call the same operations.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

from graphs.errors import EvolutionError, GraphError, NotComputed
from graphs.kinds import KINDS
from graphs.kinds.precision import in_double
from graphs.structure import Graph, Node

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
    seed: int | None = 0,
    known: Run | None = None,
    adjust: Callable[[str, int, Tensor], Tensor] | None = None,
    keep: Collection[str] | None = None,
    differentiable: bool = False,
    straight: bool = False,
    double: bool = False,
) -> Run:
    """Runs a graph.

    Args:
        graph: What to run.
        weights: Its tensors, left untouched, buffers too.
        inputs: For each input, by its argument name, a tensor (N, *shape).
        training: Train mode: batch norms use and update the statistics of the batch, dropout drops.
        seed: Before each node that draws, the generator is seeded from (seed, node id), so that a new random node does
            not shift what the others draw. None: they draw one after another from the caller's generator, as in the
            module that `graphs.to_torch` makes; it is left where it was.
        known: Values that are taken as they are (and, in train mode, buffers): those nodes are not run.
        adjust: Called with (node id, position, value) for each operand of each node that is run; gives what it sees.
        keep: Ids of the nodes whose values are wanted; all if None. What none of them depends on is not run, and a
            value that is not wanted is forgotten once it has been read.
        differentiable: The values know how they were made from those that require a gradient, also where the caller
            has switched that off.
        straight: What stops gradients lets them through: how values depend on values is asked, not how they are
            trained.
        double: The tensors have been cast up to double precision: what the network casts to a lower one is, too.

    Returns:
        The values, and in train mode the updated buffers of the nodes that were run or known.

    Raises:
        GraphError: An input is missing, or a node cannot be computed; names it.
    """
    import torch

    given = known.values if known else {}
    wanted = graph.in_mode(training).nodes if keep is None else keep
    running = _running(graph, given, wanted, training)
    last = {source: node for node in running for source in _read(graph[node], training)}
    values: dict[str, Tensor] = dict(given)
    buffers: dict[str, Tensor] = dict(known.buffers) if known else {}
    precision = in_double() if double else nullcontext()
    with precision, torch.set_grad_enabled(differentiable), torch.random.fork_rng(devices=[]):
        for id in running:
            node = graph[id]
            kind = KINDS[node.kind]
            if kind.compute is None:
                name = node.settings["name"]
                if name not in inputs:
                    raise GraphError(f"no value for the input '{name}'; got {sorted(inputs)}")
                value = inputs[name]
            else:
                tensors = {role: buffers.get(name, weights[name]) for role, name in node.tensors.items()}
                if kind.wall:  # a program may change its statistics, in eval mode too
                    tensors = {role: tensor.clone() for role, tensor in tensors.items()}
                if training:
                    shapes = [graph.shapes[source] for source in node.inputs]
                    for role, spec in kind.tensors(node.settings, shapes).items():
                        if spec.buffer:
                            tensors[role] = buffers[node.tensors[role]] = tensors[role].clone()
                operands = [values[source] for source in _read(node, training)]
                if kind.random(node.settings) and seed is not None:
                    _seed_generators(_node_seed(seed, node.id), operands)
                if adjust:
                    operands = [adjust(node.id, position, operand) for position, operand in enumerate(operands)]
                if straight and kind.stops:
                    value = operands[0]
                else:
                    value = _computed(graph, node, operands, tensors, training)
            values[node.id] = value
            if keep is not None:
                for source in _read(node, training):
                    if last[source] == node.id and source not in keep:
                        values.pop(source, None)
    return Run(values, buffers)


def _computed(
    graph: Graph, node: Node, operands: Sequence[Tensor], tensors: Mapping[str, Tensor], training: bool
) -> Tensor:
    """The value of a node; what a program in a file promises is not known to be so before it has run."""
    import torch

    kind = KINDS[node.kind]
    try:
        value: Tensor = kind.compute(node.settings, operands, tensors, training)  # type: ignore[misc]
    except (EvolutionError, torch.OutOfMemoryError):
        raise
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise NotComputed(f"node '{node.id}' cannot be computed: {' '.join(str(error).split())}") from error
    if kind.wall and not (isinstance(value, torch.Tensor) and tuple(value.shape[1:]) == graph.shapes[node.id]):
        raise GraphError(f"node '{node.id}' gives something else than a tensor (N, *{graph.shapes[node.id]})")
    return value


def _seed_generators(seed: int, operands: Sequence[Tensor]) -> None:
    """`torch.manual_seed` where the operands lie; for devices not in use it would format a traceback each time."""
    import torch

    torch.default_generator.manual_seed(seed)
    if any(operand.is_cuda for operand in operands):
        torch.cuda.manual_seed_all(seed)


def _read(node: Node, training: bool) -> Sequence[str]:
    """The operands that a node reads in a mode."""
    return (node.inputs[0 if training else 1],) * 2 if KINDS[node.kind].divides else node.inputs


def _running(graph: Graph, given: Collection[str], wanted: Collection[str], training: bool) -> list[str]:
    """The nodes that have to be run for those that are wanted, in execution order."""
    found = {node for node in wanted if node not in given}
    for node in reversed(list(graph.nodes.values())):
        if node.id in found:
            found.update(source for source in _read(node, training) if source not in given)
    return [node for node in graph.nodes if node in found]


def _node_seed(seed: int, node: str) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed}/{node}".encode()).digest()[:7], "big")
