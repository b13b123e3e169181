"""Changing the width of a channel space: the one place where `widen`, `narrow` and their like meet tensors.

A change is a map within one block of the space: for each new channel, the old one that it copies. Every block changes
alike, so groups stay equal. The analysis of `graphs.spaces` tells which slices of which tensors follow.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from graphs.draft import Draft
from graphs.errors import GraphError
from graphs.kinds import KINDS, tensors
from graphs.kinds.kind import Change
from graphs.spaces import Space, Use, Value
from graphs.structure import Graph, Shape
from ops.mutation import Build, Touched
from ops.transfer import AxisMap, AxisSum, Extended, Mapped, Plan, Transfer

if TYPE_CHECKING:
    import numpy

    Index = numpy.ndarray[tuple[int], numpy.dtype[numpy.int64]]
    Take = numpy.ndarray[tuple[int], numpy.dtype[numpy.float64]]

__all__ = ["change_width", "changeable", "merge_channels", "space_at"]


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
        within: For each new channel of a block, the old channel of that block; or −1 for a fresh one, to which the
            readers give no weight.
        take: How copies share what the readers' weights gave to one channel, see `AxisMap.take`; None to drop what is
            not kept.
        born: Number of the candidate.
    """
    import numpy

    block = space.width // space.blocks
    growth = (len(within) - block) * space.blocks
    draft = Draft(graph, born)
    _resize(draft, graph, space, growth)
    plans: dict[str, Plan] = {}
    specs = tensors(graph)
    for tensor, axes in _by_axis(space).items():
        maps = tuple(
            _axis_map(axis, specs[tensor].shape[axis], uses, space, within, take) for axis, uses in axes.items()
        )
        fresh = [axis for axis, uses in axes.items() if uses[0].how != "read" and (within < 0).any()]
        plans[tensor] = Extended(tensor, maps, fresh[0]) if fresh else Mapped(tensor, maps)
    counts = numpy.bincount(within[within >= 0], minlength=block)
    touched = _touched(graph, space, numpy.flatnonzero(counts != 1))
    return Build(draft.finish(), Transfer(plans), touched)


def merge_channels(graph: Graph, space: Space, into: Index, born: int) -> Build:
    """Merges channels that are alike: one of them remains, and its readers add up what they gave to each.

    Args:
        graph: The parent's graph.
        space: Which space.
        into: For each channel of a block, its number among those that remain, which are numbered as they come.
        born: Number of the candidate.
    """
    import numpy

    kept = numpy.unique(into, return_index=True)[1].astype(numpy.int64)
    built = change_width(graph, space, kept, None, born)
    plans: dict[str, Plan] = {}
    ground: dict[str, Plan] = {}
    specs = tensors(graph)
    for tensor, axes in _by_axis(space).items():
        maps: list[AxisMap | AxisSum] = []
        copies: list[AxisMap] = []
        for axis, uses in axes.items():
            length = specs[tensor].shape[axis]
            remain = _axis_map(axis, length, uses, space, kept, None)
            alike = _axis_map(axis, length, uses, space, kept[into], None)
            if uses[0].how == "read":
                place = numpy.zeros(length, dtype=numpy.int64)
                place[remain.index] = numpy.arange(len(remain.index))
                maps.append(AxisSum(axis, place[alike.index]))
            else:
                maps.append(remain)
                copies.append(alike)
        plans[tensor] = Mapped(tensor, tuple(maps))
        if copies:
            ground[tensor] = Mapped(tensor, tuple(copies))
    touched = _touched(graph, space, numpy.flatnonzero(numpy.bincount(into)[into] > 1))
    return Build(built.graph, Transfer(plans), touched, ground=Transfer(ground))


def _by_axis(space: Space) -> dict[str, dict[int, list[Use]]]:
    """The uses of a space at different offsets, by tensor and axis."""
    found: dict[str, dict[int, dict[int, Use]]] = defaultdict(lambda: defaultdict(dict))
    for use in space.uses:
        found[use.tensor][use.axis][use.offset] = use
    return {tensor: {axis: list(uses.values()) for axis, uses in axes.items()} for tensor, axes in found.items()}


def _touched(graph: Graph, space: Space, changed: Index) -> tuple[Touched, ...]:
    """The channels at the positions `changed` of each block, wherever they are read."""
    import numpy

    channels = (numpy.arange(space.blocks)[:, None] * (space.width // space.blocks) + changed).reshape(-1)
    sources = {graph[use.node].inputs[use.slot] for use in space.uses if use.how == "read"}
    return tuple(
        Touched(value.node, value.offset, value.inner, channels, value.axis)
        for value in space.values
        if value.node in sources
    )


def _resize(draft: Draft, graph: Graph, space: Space, growth: int) -> None:
    """Brings the settings of all nodes that make or read the space in line with the new shapes."""
    values: dict[str, list[Value]] = defaultdict(list)
    for value in space.values:
        values[value.node].append(value)

    def moved(node: str, axis: int, position: int) -> int:
        before = (value for value in values.get(node, ()) if value.axis == axis and value.offset < position)
        return position + growth * sum(value.inner for value in before)

    def shape(node: str) -> Shape:
        return tuple(moved(node, axis, size) for axis, size in enumerate(graph.shapes[node]))

    readers = (reader for node in values for reader, _ in graph.consumers[node])
    for id in dict.fromkeys([*values, *readers]):
        node = graph[id]
        change = Change(
            before=[graph.shapes[source] for source in node.inputs],
            after=[shape(source) for source in node.inputs],
            out=shape(id),
            moved=lambda slot, axis, position, node=node: moved(node.inputs[slot], axis, position),  # type: ignore[misc]
        )
        settings = KINDS[node.kind].resize(node.settings, change)
        if settings is not node.settings:
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
        entries[numpy.tile(numpy.repeat(within < 0, use.inner), blocks)] = -1
        index += [numpy.arange(position, use.offset), entries]
        shares = numpy.ones(len(within)) if take is None else take
        taken += [numpy.ones(use.offset - position), numpy.repeat(numpy.tile(shares, blocks), use.inner)]
        position = use.offset + blocks * block * use.inner
    index.append(numpy.arange(position, length))
    taken.append(numpy.ones(length - position))
    whole = numpy.concatenate(index).astype(numpy.int64)
    if take is None:
        return AxisMap(axis, whole)
    shared = AxisMap(axis, whole, numpy.concatenate(taken))
    # Readers share the weights; what the channels are made with has the readers' shares of the gradient.
    return shared if uses[0].how == "read" else AxisMap(axis, whole, gradient=shared.shares)
