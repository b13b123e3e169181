"""How a value is read: by layers, directly or behind norms and activations that work on each channel by itself.

Where that is all that reads it, channels can be added to the value or taken from it without a change elsewhere: the
norms have parameters for each channel, and the layers have columns.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from graphs.kinds import KINDS
from graphs.structure import Graph, Node
from ops.axis_maps import AxisMap
from ops.mixing import mixed_axis, reads_all_channels
from ops.places import shared_tensors
from ops.transfer import Extended, Mapped, Plan

if TYPE_CHECKING:
    import numpy

    Index = numpy.ndarray[tuple[int], numpy.dtype[numpy.int64]]

__all__ = ["Reading", "by_channel", "reading_behind", "readings"]


@dataclass(frozen=True, slots=True)
class Reading:
    """What reads the channels of a value.

    Attributes:
        carried: Names of the tensors in which each channel has an entry along axis 0, such as a norm's.
        columns: Names of the weights in which each channel has a column along axis 1.
    """

    carried: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()

    def plans(self, index: Index) -> dict[str, Plan]:
        """All of these tensors for other channels, see `AxisMap.index`: what carries new ones starts afresh."""
        carried: Mapping[str, Plan] = {
            name: Extended(name, (AxisMap(0, index),), 0) if (index < 0).any() else Mapped(name, (AxisMap(0, index),))
            for name in self.carried
        }
        return {**carried, **self.column_plans(index)}

    def column_plans(self, index: Index) -> dict[str, Mapped]:
        """The layers' weights alone, with no weight for what is new."""
        return {name: Mapped(name, (AxisMap(1, index),)) for name in self.columns}

    def __add__(self, other: Reading) -> Reading:
        return Reading(self.carried + other.carried, self.columns + other.columns)


def readings(graph: Graph, axis: int | None = None) -> dict[str, Reading]:
    """For each layer, norm and activation of which that can be said, how it reads the channels of its one operand.

    Args:
        graph: The graph.
        axis: Only those for which these are along this axis; along any if None.
    """
    shared = shared_tensors(graph)
    found: dict[str, Reading] = {}
    for node in reversed([*graph.nodes.values()]):
        if not shared.isdisjoint(node.tensors.values()):
            continue
        if reads_all_channels(node):
            if axis in (None, mixed_axis(graph, node)):
                found[node.id] = Reading(columns=(node.tensors["weight"],))
            continue
        behind = reading_behind(graph, node.id, found) if _each_channel(node, axis) else None
        if behind is not None:
            found[node.id] = Reading(by_channel(graph, node)) + behind
    return found


def reading_behind(graph: Graph, node: str, found: Mapping[str, Reading]) -> Reading | None:
    """How all that reads a node reads its channels; None where something else does, or it is an output."""
    if any(head.node == node for head in graph.heads):
        return None
    behind = [found.get(reader) for reader, _ in graph.consumers[node]]
    known = [each for each in behind if each is not None]
    return sum(known, Reading()) if len(known) == len(behind) else None


def _each_channel(node: Node, axis: int | None) -> bool:
    """Whether a node works on each channel of its one operand by itself; with tensors, that is along axis 0."""
    kind = KINDS[node.kind]
    return (kind.activation or kind.normalisation) and (not node.tensors or axis == 0)


def by_channel(graph: Graph, node: Node) -> tuple[str, ...]:
    """The tensors of a node that have an entry for each channel: those that are longer where there are more of them."""
    specs, shape = KINDS[node.kind].tensors, graph.shapes[node.id]
    if not node.tensors:
        return ()
    more = specs(node.settings, [(shape[0] + 1, *shape[1:])])
    now = specs(node.settings, [shape])
    return tuple(node.tensors[role] for role, spec in now.items() if more[role].shape != spec.shape)
