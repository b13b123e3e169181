"""Silent channels: what becomes of a channel that is zero where it is made.

A new channel whose weights and biases are zero changes nothing if it is still zero wherever layers read it, and can
learn only if something would come through once it is not zero. Both are found by following one number, and its
derivative, through all that works on the channels of a space: ReLU has no slope at zero, as torch has it, and a sigmoid
makes a half of it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING

from graphs.initial import CONSTANT
from graphs.kinds import KINDS
from graphs.kinds.kind import TensorSpec
from graphs.spaces import Space
from graphs.structure import Graph, Node

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["followed", "heard", "through"]

_ANY = 0.7
"""Stands for what is not known: a factor that is a parameter, say."""


def heard(graph: Graph, space: Space, added: Collection[str] = ()) -> str | None:
    """Why a new channel of a space cannot start at zero, in a clause; None if it can.

    It has to be zero for all who read it, and something has to come through from each layer that makes it.

    Args:
        graph: The network.
        space: Which space.
        added: Nodes of parameters that are zero there, as those of the layers are.
    """
    made = {use.node for use in space.uses if use.how == "write"}
    return followed(graph, space, made, {id: (0.0, 1.0) for id in added})


def followed(graph: Graph, space: Space, made: Collection[str], known: Mapping[str, tuple[float, float]]) -> str | None:
    """As `heard`, from the nodes `made` on, whose value is zero there; others have a `known` value and derivative."""
    states, reasons, dead = dict(known), dict.fromkeys(known, ""), dict[str, str]()
    places = {value.node for value in space.values}
    order = [id for id in graph.nodes if id in places and id not in known]
    for id in order:
        node = graph[id]
        kind, before = KINDS[node.kind], [states[source] for source in node.inputs if source in states]
        reasons[id] = next((reasons[source] for source in node.inputs if reasons.get(source)), "")
        if id in made:
            states[id], reasons[id] = (0.0, 1.0), ""
        elif not node.inputs:
            states[id] = (_ANY, 0.0)
        elif kind.elementwise and len(before) == len(node.inputs):
            states[id] = through(node, before)
            if states[id][0] and not any(value for value, _ in before):
                reasons[id] = f"'{id}' makes {states[id][0]:.2g} of zero"
            if not states[id][1] and any(slope for _, slope in before):
                dead[id] = f"'{id}' has no slope at zero, behind which it could not learn"
        elif kind.silent and before and not any(value for value, _ in before):
            states[id] = (0.0, max(slope for _, slope in before))
        else:
            return reasons[id] or f"'{id}' does not pass it on as it is"
    read = {graph[use.node].inputs[use.slot] for use in space.uses if use.how == "read"}.difference(known)
    for source in read:
        if states[source][0]:
            return reasons[source] or f"'{source}' adds something to it"
    alive = set(read)
    for id in reversed(order):
        if id in alive and id not in dead and id not in made:
            alive.update(graph[id].inputs)
    if made and alive.issuperset(made):
        return None
    return next(iter(dead.values()), "nothing that it is made of could be learnt")


def through(node: Node, operands: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """The value, and its derivative, that a function of each element makes of such operands."""
    import torch

    kind, shapes = KINDS[node.kind], [(1,)] * len(operands)
    specs = kind.tensors(node.settings, shapes)
    tensors = {role: torch.full(spec.shape, _start(spec), dtype=torch.float64) for role, spec in specs.items()}
    with torch.inference_mode(False), torch.enable_grad():
        step = torch.zeros((), dtype=torch.float64, requires_grad=True)
        found: Tensor = kind.compute(  # type: ignore[misc]
            node.settings, [(value + slope * step).reshape(1, 1) for value, slope in operands], tensors, False
        )
        # What is cut off from the gradient, a value that is detached, say, has none.
        slope = torch.autograd.grad(found.sum(), step)[0] if found.requires_grad else 0.0
    return float(found.detach()), float(slope)


def _start(spec: TensorSpec) -> float:
    """A number for the entry of a tensor that belongs to a new channel; a gate may stand anywhere."""
    return CONSTANT.get(spec.start, _ANY) if spec.shape else _ANY
