"""Changing the width of a channel space: the one place where `widen` and `narrow` meet tensors.

A change is a map within one block of the space: for each new channel, the old one that it copies. Every block changes
alike, so groups stay equal. The analysis of `graphs.spaces` tells which slices of which tensors follow.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from graphs.draft import Draft
from graphs.errors import GraphError
from graphs.kinds import KINDS, tensors
from graphs.spaces import Space, Use
from graphs.structure import Graph
from ops.mutation import Build, Touched
from ops.transfer import AxisMap, Mapped, Plan, Transfer

if TYPE_CHECKING:
    import numpy

    Index = numpy.ndarray[tuple[int], numpy.dtype[numpy.int64]]
    Take = numpy.ndarray[tuple[int], numpy.dtype[numpy.float64]]

__all__ = ["change_width", "changeable", "space_at"]


def changeable(graph: Graph) -> list[Space]:
    """The spaces whose width can be changed: nothing fixes them, and they are written and read."""
    return [
        space for space in graph.spaces if space.reason is None and {"write", "read"} <= {use.how for use in space.uses}
    ]


def space_at(graph: Graph, name: str) -> Space:
    """The changeable space called `name`.

    Raises:
        GraphError: There is none.
    """
    for space in changeable(graph):
        if space.name == name:
            return space
    raise GraphError(f"there is no channel space '{name}' that can be changed in this network")


def change_width(graph: Graph, space: Space, within: Index, take: Take | None, born: int) -> Build:
    """Changes a space.

    Args:
        graph: The parent's graph.
        space: Which space.
        within: For each new channel of a block, the old channel of that block.
        take: How copies share what the readers' weights gave to one channel, see `AxisMap.take`; None to drop what is
            not kept.
        born: Number of the candidate.
    """
    import numpy

    block = space.width // space.blocks
    growth = (len(within) - block) * space.blocks
    draft = Draft(graph, born)
    for node in dict.fromkeys(use.node for use in space.uses):
        _resize(draft, graph, space, node, growth)
    plans: dict[str, Plan] = {}
    specs = tensors(graph)
    by_axis: dict[str, dict[int, dict[int, Use]]] = defaultdict(lambda: defaultdict(dict))
    for use in space.uses:
        by_axis[use.tensor][use.axis][use.offset] = use
    for tensor, axes in by_axis.items():
        maps = [
            _axis_map(axis, specs[tensor].shape[axis], list(uses.values()), space, within, take)
            for axis, uses in axes.items()
        ]
        plans[tensor] = Mapped(tensor, tuple(maps))
    counts = numpy.bincount(within, minlength=block)
    changed = numpy.flatnonzero(counts != 1)
    channels = (numpy.arange(space.blocks)[:, None] * block + changed).reshape(-1)
    sources = {graph[use.node].inputs[use.slot] for use in space.uses if use.how == "read"}
    touched = [
        Touched(value.node, value.offset, value.inner, channels) for value in space.values if value.node in sources
    ]
    return Build(draft.finish(), Transfer(plans), tuple(touched))


def _resize(draft: Draft, graph: Graph, space: Space, id: str, growth: int) -> None:
    """Brings a node's settings in line with its new widths."""

    def width(node: str) -> int:
        more = sum(value.inner for value in space.values if value.node == node) * growth
        return graph.shapes[node][0] + more

    node = graph[id]
    source = node.inputs[0]
    settings = KINDS[node.kind].resize(node.settings, graph.shapes[source][0], width(source), width(id))
    draft.set(id, **settings)


def _axis_map(axis: int, length: int, uses: list[Use], space: Space, within: Index, take: Take | None) -> AxisMap:
    """The map of one whole tensor axis on which the space stands at one or more offsets."""
    import numpy

    block = space.width // space.blocks
    index: list[Index] = []
    taken: list[Take] = []
    position = 0
    for use in sorted(uses, key=lambda use: use.offset):
        blocks = space.blocks // use.fold
        starts = numpy.arange(blocks)[:, None] * block
        channels = (starts + within).reshape(-1, 1)
        entries = use.offset + (channels * use.inner + numpy.arange(use.inner)).reshape(-1)
        index += [numpy.arange(position, use.offset), entries]
        shares = numpy.ones(len(within)) if take is None else take
        taken += [numpy.ones(use.offset - position), numpy.repeat(numpy.tile(shares, blocks), use.inner)]
        position = use.offset + blocks * block * use.inner
    index.append(numpy.arange(position, length))
    taken.append(numpy.ones(length - position))
    reads = uses[0].how == "read"
    whole = numpy.concatenate(index).astype(numpy.int64)
    return AxisMap(axis, whole, numpy.concatenate(taken) if reads and take is not None else None)
