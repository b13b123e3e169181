"""Channel spaces: which channels of a network are the same channels, wherever they appear.

The whole-graph analysis on which every change of width rests. A **space** is a run of channels that can only be changed
together: a residual sum ties the spaces of its operands, a concatenation lays spaces side by side, a depthwise
convolution passes its input's space on, a flatten turns each channel into H·W entries. Where channels are divided into
heads, the heads are a space and so are the channels of a head: two that lie across each other. For a space the analysis
tells who writes it, who carries parameters for it and who reads it, at which offsets of which tensors; mutations never
walk the graph themselves.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from math import lcm
from typing import TYPE_CHECKING

from graphs.axes import Axis, is_uniform, recurring, variables
from graphs.solver import Solver, Touch, solve
from graphs.structure import Graph

if TYPE_CHECKING:
    from graphs.neutral import Neutral

__all__ = ["Space", "Use", "Value", "explain", "find_channel_axes", "find_spaces", "report"]


@dataclass(frozen=True, slots=True)
class Use:
    """Where a space stands in a tensor.

    Attributes:
        how: `write`, `carry` or `read`, see `graphs.solver.Touch`.
        node: Id of the node.
        slot: For `read`, which operand.
        tensor: Name of the tensor.
        axis: Axis of the tensor.
        offset: First entry of the space along that axis (in the first group, if `fold` > 1).
        inner: Entries for each channel.
        fold: Number of groups that share the entries; the axis holds `width / fold` channels.
    """

    how: str
    node: str
    slot: int
    tensor: str
    axis: int
    offset: int
    inner: int
    fold: int


@dataclass(frozen=True, slots=True)
class Value:
    """Where a space stands in the value of a node: entries `offset` to `offset + width·inner` of axis `axis`.

    Axes are counted without the batch.
    """

    node: str
    offset: int
    inner: int
    axis: int = 0


@dataclass(frozen=True, slots=True)
class Space:
    """Channels that change together.

    Attributes:
        name: `<node>:<offset>`, the first place in execution order where the space appears; with `/<axis>` behind it
            where that is along another axis than the first, and `*<inner>` where each channel is several entries.
        width: Number of channels.
        blocks: The channels fall into so many equal blocks, which must stay equal (grouped convolutions, group norm).
        norms: Nodes whose means and variances run over the channels, so that copies must be equally many of each.
        draws: Nodes that draw random numbers for each channel: a change of width is exact in eval mode only.
        uses: Where the space stands in tensors, in execution order.
        values: Where it stands in values, in execution order.
        reason: Why the space cannot be changed; None if it can.
    """

    name: str
    width: int
    blocks: int
    norms: tuple[str, ...]
    draws: tuple[str, ...]
    uses: tuple[Use, ...]
    values: tuple[Value, ...]
    reason: str | None

    @property
    def balanced(self) -> bool:
        """Whether copies must be equally many of each channel."""
        return bool(self.norms)


def find_spaces(graph: Graph) -> tuple[Space, ...]:
    """All channel spaces of a graph, in order of appearance. `graph.spaces` is the same, remembered."""
    solver, axes = solve(graph)
    values: dict[int, list[Value]] = defaultdict(list)
    for node, dims in axes.items():
        for place, axis in enumerate(dims):
            for variable, offset, inner in _places(solver, axis):
                values[variable].append(Value(node, offset, inner, place))
    uses: dict[int, list[Use]] = defaultdict(list)
    for touch in solver.touches:
        for variable, offset, inner in _places(solver, touch.axis):
            uses[variable].append(_use(touch, offset, inner))
    reasons: dict[int, str] = {}
    for axis, reason in solver.reasons:
        for variable in variables(solver.resolve(axis)):
            reasons.setdefault(variable, reason)
    for node, dims in axes.items():
        for axis in dims:
            for variable in recurring(solver.resolve(axis)):
                reasons.setdefault(variable, f"its channels lie across each other at '{node}'")
    blocks, norms = _divide(solver, reasons)
    draws: dict[int, list[str]] = defaultdict(list)
    for axis, node in solver.draws_at:
        for variable in dict.fromkeys(variables(solver.resolve(axis))):
            draws[variable].append(node)
    return tuple(
        Space(
            name=_name(places[0]),
            width=solver.widths[variable],
            blocks=blocks[variable],
            norms=tuple(dict.fromkeys(norms[variable])),
            draws=tuple(draws[variable]),
            uses=tuple(uses[variable]),
            values=tuple(places),
            reason=reasons.get(variable),
        )
        for variable, places in values.items()
    )


def find_channel_axes(graph: Graph) -> dict[str, int]:
    """For each node whose value has channels, the axis along which they lie; features have no other axis.

    Where several axes hold channels, as between layers that mix tokens and layers that mix features, it is the one that
    a layer or a norm has worked on last. `graph.channel_axes` is the same, remembered.
    """
    position = {id: place for place, id in enumerate(graph.nodes)}
    newest: dict[str, tuple[int, int]] = {id: (-1, 0) for id, shape in graph.shapes.items() if len(shape) == 1}
    for space in graph.spaces:
        made = sorted(position[use.node] for use in space.uses if use.how != "read")
        for value in space.values:
            before = bisect_right(made, position[value.node])
            found = (made[before - 1] if before else -1, value.axis)
            newest[value.node] = max(found, newest.get(value.node, found))
    return {id: axis for id, (_, axis) in newest.items()}


def explain(graph: Graph, node: str) -> str:
    """Says in one sentence for each space of a node's value whether its width can be changed, and if not, why.

    Raises:
        GraphError: There is no such node.
    """
    from graphs.kinds import KINDS
    from graphs.neutral import neutral
    from graphs.silence import heard

    if KINDS[graph[node].kind].wall:
        return f"The axes of '{node}' cannot be changed: what it computes is not known to treat channels apart."
    found = [space for space in graph.spaces if any(value.node == node for value in space.values)]
    if not found:
        return f"The axes of '{node}' are places, such as rows or tokens; it has no channels whose number could change."
    sentences = []
    for space in found:
        where = f"The {space.width} channels that start at '{space.name}'"
        if space.reason:
            sentences.append(f"{where} cannot be changed: {space.reason}.")
            continue
        conditions = []
        if space.blocks > 1:
            conditions.append(f"in {space.blocks} blocks that stay equal")
        if space.balanced:
            conditions.append(f"by whole multiples, because a norm runs over them, {_else(neutral(graph, space))}")
        if space.draws:
            conditions.append(f"exactly in eval mode only, because '{space.draws[0]}' draws for each of them")
        deaf = None if space.balanced else heard(graph, space)
        silent = f", but no new one can start at zero, because {deaf}" if deaf else ""
        sentences.append(f"{where} can be changed{' ' if conditions else ''}{', '.join(conditions)}{silent}.")
    return " ".join(sentences)


def _else(found: Neutral | str) -> str:
    """How channels over which a norm runs can grow by other numbers than whole multiples."""
    if isinstance(found, str):
        return f"and by no other number, because {found}"
    return f"or by any number that are {'the mean of them' if found.mean else 'zero'}"


def report(graph: Graph) -> str:
    """A readable table of all spaces: who writes, carries and reads each, at which offsets."""
    lines = []
    for space in graph.spaces:
        state = f"fixed: {space.reason}" if space.reason else "changeable"
        lines.append(f"{space.name}  width {space.width}  {state}")
        for use in space.uses:
            end = use.offset + space.width // use.fold * use.inner
            lines.append(f"    {use.how:5} {use.tensor} axis {use.axis} [{use.offset}:{end}]")
    return "\n".join(lines)


def _places(solver: Solver, axis: Axis) -> list[tuple[int, int, int]]:
    """(variable, offset, inner) of each segment of `axis`, and of those within it."""
    return list(_segments(solver, solver.resolve(axis), 0))


def _segments(solver: Solver, axis: Axis, offset: int) -> Iterator[tuple[int, int, int]]:
    for variable, inner in axis:
        size = solver.size(inner)
        yield variable, offset, size
        for channel in range(0 if isinstance(inner, int) else solver.widths[variable]):
            yield from _segments(solver, inner, offset + channel * size)  # type: ignore[arg-type]
        offset += solver.widths[variable] * size


def _name(first: Value) -> str:
    along = f"/{first.axis}" if first.axis else ""
    return f"{first.node}:{first.offset}{along}" + (f"*{first.inner}" if first.inner > 1 else "")


def _use(touch: Touch, offset: int, inner: int) -> Use:
    return Use(touch.how, touch.node, touch.slot, touch.tensor, touch.tensor_axis, offset, inner, touch.fold)


def _divide(solver: Solver, reasons: dict[int, str]) -> tuple[dict[int, int], dict[int, list[str]]]:
    """How many equal blocks each variable falls into, and which norms run over it; adds to `reasons`."""
    blocks: dict[int, int] = defaultdict(lambda: 1)
    norms: dict[int, list[str]] = defaultdict(list)
    for axis, groups, balance, node in solver.divisions:
        segments = solver.resolve(axis)
        found = dict.fromkeys(variables(segments))
        if len(segments) > 1 or len(found) > 1:
            if not (balance and groups == 1 and is_uniform(segments)):
                what = "a norm" if balance else "groups"
                for variable in found:
                    reasons.setdefault(variable, f"its channels share {what} at '{node}' with others")
                continue
        for variable in found:
            together = lcm(blocks[variable], groups)
            if solver.widths[variable] % together:
                reasons.setdefault(variable, f"its channels cannot be divided into the {together} groups of '{node}'")
                continue
            blocks[variable] = together
            if balance:
                norms[variable].append(node)
    return blocks, norms
