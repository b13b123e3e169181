"""Whether what a mutation's tensors work on can be seen on a probe, channel by channel.

A tensor that a mutation makes from one of its parent's holds a slice for each channel that it reads, and one for each
that it makes. A slice for a channel that is zero on the whole probe could hold anything, and so could one that makes a
channel which moves no output, such as one behind a ReLU that is never open.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING

from graphs.axes import variables
from graphs.execution import Run
from graphs.kinds import KINDS
from graphs.solver import Axis, Solver
from graphs.structure import Graph, Node
from ops.mutation import Touched

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["is_dark", "makers", "read", "reads_nothing", "some_zero"]


@dataclass(frozen=True, slots=True)
class Sliced:
    """The axes, the batch not counted, for whose channels a node's tensors have slices.

    Attributes:
        reads: Pairs of an operand's number and an axis of the operand.
        makes: Axes of the node's value.
    """

    reads: frozenset[tuple[int, int]]
    makes: frozenset[int]


def sliced(graph: Graph, node: Node, tensors: Collection[str]) -> Sliced:
    """What those of a node's tensors that are among `tensors` have slices for."""
    shapes = [graph.shapes[source] for source in node.inputs]
    solver = Solver()
    dims = [tuple(solver.fresh(size) for size in shape) for shape in shapes]
    out = KINDS[node.kind].channels(solver, node, dims, shapes, graph.shapes[node.id])
    touches = [touch for touch in solver.touches if touch.tensor in tensors]

    def among(axis: Axis) -> set[int]:
        return set(variables(solver.resolve(axis)))

    worked = {variable for touch in touches for variable in among(touch.axis)}
    made = {variable for touch in touches if touch.how != "read" for variable in among(touch.axis)}
    reads = ((slot, place) for slot, each in enumerate(dims) for place, axis in enumerate(each) if worked & among(axis))
    makes = (place for place, axis in enumerate(out) if made & among(axis))
    return Sliced(frozenset(reads), frozenset(makes))


def read(graph: Graph, tensors: frozenset[str], among: Collection[str]) -> frozenset[tuple[str, int]]:
    """The values, and their axes, for whose channels a node among `among` has slices in one of `tensors`."""
    users = (graph[id] for id in among if not tensors.isdisjoint(graph[id].tensors.values()))
    return frozenset((node.inputs[slot], axis) for node in users for slot, axis in sliced(graph, node, tensors).reads)


def reads_nothing(found: Collection[tuple[str, int]], run: Run) -> bool:
    """Whether along one of these axes of values (see `read`) a channel is zero in a run."""
    return any(some_zero(run.values[source], axis) for source, axis in found)


def makers(graph: Graph, tensors: frozenset[str]) -> dict[str, frozenset[int]]:
    """The nodes with slices in one of `tensors` for the channels of their values, and the axes of these."""
    users = (node for node in graph.nodes.values() if not tensors.isdisjoint(node.tensors.values()))
    found = {node.id: sliced(graph, node, tensors).makes for node in users}
    return {id: axes for id, axes in found.items() if axes}


def is_dark(touched: Collection[Touched], before: Run, after: Run, settled: bool = False) -> bool:
    """Whether a channel that a mutation works on is zero in the parent's run, or can't be looked at.

    Where the parent lacks the node, a part of a chain has made it, and the child's value is looked at. It is not once
    all is `settled`: what is zero there on several stirred parents was made so, and the outputs are the proof.
    """
    import torch

    for touch in touched:
        if settled and touch.node not in before.values:
            continue
        value = before.values.get(touch.node, after.values.get(touch.node))
        if value is None:
            return True
        entries = value.movedim(1 + touch.axis, 0).flatten(1).abs().amax(1)
        count = (len(entries) - touch.offset) // touch.inner
        channels = entries[touch.offset :][: count * touch.inner].reshape(count, touch.inner).amax(1)
        if bool((channels[torch.from_numpy(touch.channels)] == 0).any()):
            return True
    return False


def some_zero(value: Tensor, axis: int) -> bool:
    """Whether an entry along an axis is zero in all examples and places."""
    return bool((value.movedim(1 + axis, 0).flatten(1).abs().amax(1) == 0).any())
