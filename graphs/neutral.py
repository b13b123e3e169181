"""Neutral channels: what a new channel has to hold for the norms over channels to make of the others what they did.

A root-mean-square norm takes a channel of zeros for nothing, and a layer norm takes the mean of the others for nothing,
but for a factor that both have, since they divide by the number of channels. Whatever makes the channels can make such
ones, if all that is between it and the norms leaves zeros zero, or means means; behind a layer norm the mean is a zero.
Where a new channel is zero, who reads it may give it any weight; where it is the mean, none.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from graphs.kinds import KINDS
from graphs.silence import followed, heard, through
from graphs.spaces import Space
from graphs.structure import Graph, Node

__all__ = ["Neutral", "neutral"]


@dataclass(frozen=True, slots=True)
class Neutral:
    """What a new channel of a space can hold.

    Attributes:
        mean: The mean of the others; else zeros.
        added: Nodes of parameters that are added to the channels, and so hold that, too.
        open: Nodes in whose values a new channel is zero: who reads them may give it any weight.
    """

    mean: bool
    added: frozenset[str]
    open: frozenset[str]


def neutral(graph: Graph, space: Space) -> Neutral | str:
    """What a new channel of a space has to hold for the norms over it; or why it can't, in a clause."""
    wanted = {KINDS[graph[norm].kind].neutral: norm for norm in reversed(space.norms)}
    if len(wanted) != 1:
        return "norms of different kinds run over them" if wanted else "no norm runs over them"
    ((what, norm),) = wanted.items()
    if what is None:
        return f"'{norm}' takes no further channel for nothing"
    for each in space.norms:
        if "weight" not in graph[each].tensors:
            return f"'{each}' has no scale that could make up for its larger number of channels"
    tensors = {name for each in space.norms for name in graph[each].tensors.values()}
    for node in graph.nodes.values():
        if node.id not in space.norms and not tensors.isdisjoint(node.tensors.values()):
            return f"'{node.id}' has its scale from a norm over them"
    return _mean(graph, space) if what == "mean" else _zeros(graph, space)


def _zeros(graph: Graph, space: Space) -> Neutral | str:
    added = frozenset(id for id in _parameters(graph, space) if not _is_factor(graph, id))
    return heard(graph, space, added) or Neutral(False, added, frozenset(value.node for value in space.values))


def _mean(graph: Graph, space: Space) -> Neutral | str:
    if space.blocks > 1:
        return "in each of their blocks there are some only"
    shapes = graph.tensors
    for norm in space.norms:
        if any(shapes[name].shape != (space.width,) for name in graph[norm].tensors.values()):
            return f"'{norm}' takes the mean of more than them"
    made = {use.node for use in space.uses if use.how == "write"}
    places = {value.node for value in space.values}
    behind: set[str] = set()
    front: set[str] = set()
    for id in (id for id in graph.nodes if id in places):
        node = graph[id]
        inputs = [source for source in node.inputs if source in places]
        if id in made or not node.inputs:
            front.add(id)
        elif id in space.norms:
            if not front.issuperset(inputs):
                return f"'{id}' has their mean from behind another norm"
            behind.add(id)
        elif not behind.isdisjoint(inputs):
            behind.add(id)
        elif KINDS[node.kind].even or (len(inputs) == len(node.inputs) and _keeps_means(node)):
            front.add(id)
        else:
            return f"'{id}' does not make the mean of what it reads of a mean"
    reason = followed(graph, space, space.norms, dict.fromkeys(front, (1.0, 0.0)))
    return reason or Neutral(True, frozenset(_parameters(graph, space)), frozenset(behind))


def _parameters(graph: Graph, space: Space) -> Iterator[str]:
    """The nodes of parameters that are used directly, such as position embeddings."""
    return (value.node for value in space.values if not graph[value.node].inputs)


def _is_factor(graph: Graph, id: str) -> bool:
    """Whether nothing comes through where a parameter is zero, as where it scales what it meets."""
    for reader, _ in graph.consumers[id]:
        node = graph[reader]
        kind = KINDS[node.kind]
        if kind.elementwise and len(node.inputs) > 1:
            operands = [(0.0, float(source != id)) for source in node.inputs]
            if not through(node, operands)[1]:
                return True
        elif (kind.elementwise or kind.silent) and _is_factor(graph, reader):
            return True
    return False


def _keeps_means(node: Node) -> bool:
    """Whether a function of each element is the same affine one for all channels."""
    import torch

    kind, count = KINDS[node.kind], 64
    specs = kind.tensors(node.settings, [(count,)] * len(node.inputs))
    if not kind.elementwise or any(spec.shape for spec in specs.values()):
        return False
    tensors = {role: torch.full((), 0.7, dtype=torch.float64) for role in specs}
    # Small and large numbers of both signs, for each operand others, and all of them in reverse: with equal signs and
    # with different ones, which alone tell what is linear on each side of zero.
    size = torch.logspace(-2, 3, count, dtype=torch.float64)
    signs = torch.tensor([1.0, 1.0, -1.0, 1.0, -1.0], dtype=torch.float64).repeat(count)[:count]
    one = [(size * signs).roll(7 * slot)[None] for slot in range(len(node.inputs))]
    other = [value.flip(1) for value in one]
    half = [(value + found) / 2 for value, found in zip(one, other, strict=True)]

    def made(operands: list[torch.Tensor]) -> torch.Tensor:
        found: torch.Tensor = kind.compute(node.settings, operands, tensors, False)  # type: ignore[misc]
        return found

    return torch.allclose(made(half), (made(one) + made(other)) / 2, rtol=1e-9, atol=1e-9)
