"""Changing the width of channel spaces: the one place where `widen`, `narrow` and their like meet tensors.

A change is a map within one block of a space: for each new channel, the old one that it copies. Every block changes
alike, so groups stay equal. The analysis of `graphs.spaces` tells which slices of which tensors follow. Spaces that
fit together only, such as the queries and keys of attention, change at once.
"""

from __future__ import annotations

from bisect import bisect, insort
from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from graphs.draft import Draft
from graphs.errors import GraphError
from graphs.kinds import KINDS
from graphs.kinds.kind import Change
from graphs.spaces import Space, Use, Value
from graphs.structure import Graph, Shape
from ops.axis_maps import Axis, AxisMap, AxisSum, AxisTwins
from ops.mutation import Build, Touched
from ops.transfer import Extended, Mapped, Plan, Transfer

if TYPE_CHECKING:
    import numpy

    Index = numpy.ndarray[tuple[int], numpy.dtype[numpy.int64]]
    Take = numpy.ndarray[tuple[int], numpy.dtype[numpy.float64]]

__all__ = [
    "Resized",
    "apart",
    "change_width",
    "change_widths",
    "changeable",
    "merge_channels",
    "readers_map",
    "space_at",
]


@dataclass(frozen=True, slots=True, eq=False)
class Resized:
    """A change of one space.

    Attributes:
        space: Which space.
        within: For each new channel of a block, the old channel of that block; or, to which the readers give no
            weight, −1 for a fresh one, −2 for one that is zero.
        take: How copies share what the readers' weights gave to one channel, see `AxisMap.take`; None to drop what is
            not kept.
    """

    space: Space
    within: Index
    take: Take | None = None

    @property
    def growth(self) -> int:
        """Channels more than before."""
        return len(self.within) * self.space.blocks - self.space.width


Part = tuple[Use, Resized]
"""Where a space stands in a tensor, and what happens to the space."""

Entries = tuple["Index", "Take | None"]
"""For each entry of a changed axis, the parent's entry, and what it takes of it."""


def changeable(graph: Graph) -> list[Space]:
    """The spaces whose width can be changed: nothing fixes them, and they are written and read."""
    return [
        space for space in graph.spaces if space.reason is None and {"write", "read"} <= {use.how for use in space.uses}
    ]


def apart(spaces: Iterable[Space]) -> list[Space]:
    """Those of the spaces that can change at once: of two that lie across each other, the first one."""
    taken: dict[tuple[str, int], list[tuple[int, int]]] = defaultdict(list)
    found = []
    for space in spaces:
        # A tensor that several nodes share has the space at the same places.
        parts = dict.fromkeys(
            ((use.tensor, use.axis), (use.offset, use.offset + space.width // use.fold * use.inner))
            for use in space.uses
        )
        if any(_overlaps(taken[key], part) for key, part in parts):
            continue
        found.append(space)
        for key, part in parts:
            insort(taken[key], part)
    return found


def _overlaps(others: Sequence[tuple[int, int]], part: tuple[int, int]) -> bool:
    """Whether a range lies across one of the others, which are in order and apart from each other."""
    place = bisect(others, part)
    return (place > 0 and others[place - 1][1] > part[0]) or (place < len(others) and others[place][0] < part[1])


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
    """Changes one space; see `Resized`."""
    return change_widths(graph, [Resized(space, within, take)], born)


def change_widths(graph: Graph, changes: Sequence[Resized], born: int) -> Build:
    """Changes several spaces at once.

    Args:
        graph: The parent's graph.
        changes: Of spaces that lie `apart`.
        born: Number of the candidate.
    """
    import numpy

    draft = Draft(graph, born)
    _resize(draft, graph, changes)
    plans: dict[str, Plan] = {}
    specs = graph.tensors
    known: dict[Hashable, Entries] = {}
    for tensor, axes in _by_axis(changes).items():
        maps = tuple(_axis_map(axis, specs[tensor].shape[axis], parts, known) for axis, parts in axes.items())
        fresh = [axis for axis, parts in axes.items() if any(map(_is_drawn, parts))]
        plans[tensor] = Extended(tensor, maps, fresh[0]) if fresh else Mapped(tensor, maps)
    touched: list[Touched] = []
    for change in changes:
        block = change.space.width // change.space.blocks
        counts = numpy.bincount(change.within[change.within >= 0], minlength=block)
        touched += _touched(graph, change.space, numpy.flatnonzero(counts != 1))
    return Build(draft.finish(), Transfer(plans), tuple(touched))


def readers_map(graph: Graph, change: Resized) -> dict[str, Plan]:
    """What a change does to the weights with which a space is read, and to nothing else, by tensor."""
    specs = graph.tensors
    found: dict[str, Plan] = {}
    for tensor, axes in _by_axis([change]).items():
        reading = {axis: parts for axis, parts in axes.items() if parts[0][0].how == "read"}
        maps = tuple(_axis_map(axis, specs[tensor].shape[axis], parts) for axis, parts in reading.items())
        if maps:
            found[tensor] = Mapped(tensor, maps)
    return found


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
    plans: dict[str, Plan] = {}
    ground: dict[str, Plan] = {}
    specs = graph.tensors
    first, again = Resized(space, kept), Resized(space, kept[into])
    draft = Draft(graph, born)
    _resize(draft, graph, [first])
    for tensor, axes in _by_axis([first]).items():
        maps: list[Axis] = []
        copies: list[AxisMap] = []
        for axis, parts in axes.items():
            length = specs[tensor].shape[axis]
            remain = _axis_map(axis, length, parts)
            alike = _axis_map(axis, length, [(use, again) for use, _ in parts])
            place = numpy.zeros(length, dtype=numpy.int64)
            place[remain.index] = numpy.arange(len(remain.index))
            if parts[0][0].how == "read":
                maps.append(AxisSum(axis, place[alike.index]))
            else:
                maps.append(AxisTwins(axis, place[alike.index]))
                copies.append(alike)
        plans[tensor] = Mapped(tensor, tuple(maps))
        if copies:
            ground[tensor] = Mapped(tensor, tuple(copies))
    touched = _touched(graph, space, numpy.flatnonzero(numpy.bincount(into)[into] > 1))
    return Build(draft.finish(), Transfer(plans), touched, ground=Transfer(ground))


def _by_axis(changes: Iterable[Resized]) -> dict[str, dict[int, list[Part]]]:
    """The uses of spaces at different offsets, each with what happens to it, by tensor and axis."""
    found: dict[str, dict[int, dict[int, Part]]] = defaultdict(lambda: defaultdict(dict))
    for change in changes:
        for use in change.space.uses:
            found[use.tensor][use.axis][use.offset] = (use, change)
    return {tensor: {axis: list(parts.values()) for axis, parts in axes.items()} for tensor, axes in found.items()}


def _is_drawn(part: Part) -> bool:
    """Whether there are fresh channels in it, and it makes or carries them."""
    use, change = part
    return use.how != "read" and bool((change.within == -1).any())


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


def _resize(draft: Draft, graph: Graph, changes: Iterable[Resized]) -> None:
    """Brings the settings of all nodes that make or read the spaces in line with the new shapes."""
    values: dict[str, list[tuple[Value, int]]] = defaultdict(list)
    for change in changes:
        for value in change.space.values:
            values[value.node].append((value, change.growth * value.inner))

    def moved(node: str, axis: int, position: int) -> int:
        grown = (more for value, more in values.get(node, ()) if value.axis == axis and value.offset < position)
        return position + sum(grown)

    def shape(node: str) -> Shape:
        return tuple(moved(node, axis, size) for axis, size in enumerate(graph.shapes[node]))

    readers = (reader for node in values for reader, _ in graph.consumers[node])
    for id in dict.fromkeys([*values, *readers]):
        node = graph[id]
        around = Change(
            before=[graph.shapes[source] for source in node.inputs],
            after=[shape(source) for source in node.inputs],
            out=shape(id),
            moved=lambda slot, axis, position, node=node: moved(node.inputs[slot], axis, position),  # type: ignore[misc]
        )
        settings = KINDS[node.kind].resize(node.settings, around)
        if settings is not node.settings:
            draft.set(id, **settings)


def _axis_map(axis: int, length: int, parts: list[Part], known: dict[Hashable, Entries] | None = None) -> AxisMap:
    """The map of one whole tensor axis on which spaces stand at one or more offsets.

    What is `known` of axes on which the same spaces stand is used, and added to: in a dense network the layers after a
    concatenation read dozens of spaces from a handful of tensors each.
    """
    parts = sorted(parts, key=lambda part: part[0].offset)
    known = {} if known is None else known
    key = (length, *((use.offset, use.inner, use.fold, id(change)) for use, change in parts))
    if key not in known:
        known[key] = _entries(length, parts)
    index, take = known[key]
    # Readers share the weights; what the channels are made with has the readers' shares of the gradient.
    if take is None or parts[0][0].how == "read":
        return AxisMap(axis, index, take)
    return AxisMap(axis, index, gradient=AxisMap(axis, index, take).shares)


def _entries(length: int, parts: list[Part]) -> Entries:
    """For each entry of a changed axis, the parent's entry and what it takes of it (None: all, everywhere)."""
    import numpy

    index: list[Index] = []
    taken: list[Take] = []
    position = 0
    for use, change in parts:
        within, take = change.within, change.take
        block, blocks = change.space.width // change.space.blocks, change.space.blocks // use.fold
        starts = numpy.arange(blocks)[:, None] * block
        channels = (starts + within).reshape(-1, 1)
        entries = use.offset + (channels * use.inner + numpy.arange(use.inner)).reshape(-1)
        marks = numpy.tile(numpy.repeat(within, use.inner), blocks)
        entries = numpy.where(marks < 0, marks, entries)
        index += [numpy.arange(position, use.offset), entries]
        shares = numpy.ones(len(within)) if take is None else take
        taken += [numpy.ones(use.offset - position), numpy.repeat(numpy.tile(shares, blocks), use.inner)]
        position = use.offset + blocks * block * use.inner
    index.append(numpy.arange(position, length))
    taken.append(numpy.ones(length - position))
    whole = numpy.concatenate(index).astype(numpy.int64)
    return whole, None if all(change.take is None for _, change in parts) else numpy.concatenate(taken)
