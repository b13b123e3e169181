"""The constraints from which channel spaces are solved.

A kind says what it does with channels in the words of `Solver`: a convolution *reads* one axis and *writes* a fresh
one, a sum *ties* its operands, a concatenation *joins* them, a flatten *repeats* each channel H·W times, a batch norm
*carries* per-channel tensors. An **axis** is a sequence of segments `(variable, inner)`: the variable's channels in
order, each of them `inner` entries long (`graphs.axes`). Tying two axes makes their variables equal; where one axis is
divided and the other is not, the undivided variable is split at the same places, or along the same axes: a reshape that
divides channels into heads makes heads a variable, and the channels of a head another one. `graphs.spaces` reads the
solution.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import prod

from graphs.axes import Axis, Dims, Inner, nest, quotient, variables
from graphs.structure import Graph, Node

__all__ = ["Axis", "Dims", "Solver", "Touch"]


_MOST_SEGMENTS = 2**16
"""What nodes read may fall into so many segments in all, beyond the first of each: a file can ask for any number."""


@dataclass(frozen=True, slots=True)
class Touch:
    """One axis of one tensor that a node uses along a channel axis.

    Attributes:
        how: `write` (a new channel is a new slice here), `carry` (a parameter or statistic of each channel) or `read`
            (contributions of the channels are summed here).
        slot: For `read`, the number of the operand whose channels are read.
        fold: Number of groups that share the tensor's axis; 1 unless the convolution is grouped.
    """

    how: str
    node: str
    tensor: str
    tensor_axis: int
    axis: Axis
    slot: int = 0
    fold: int = 1


class Solver:
    """Collects constraints on channel axes and resolves them to leaf variables."""

    def __init__(self) -> None:
        self.widths: list[int] = []
        self.parts: dict[int, Axis] = {}
        self.touches: list[Touch] = []
        self.reasons: list[tuple[Axis, str]] = []
        self.divisions: list[tuple[Axis, int, bool, str]] = []
        self.draws_at: list[tuple[Axis, str]] = []
        self._tensors: dict[tuple[str, int], Touch] = {}
        self._left = _MOST_SEGMENTS

    def fresh(self, width: int) -> Axis:
        """A new axis of `width` independent channels."""
        self.widths.append(width)
        return ((len(self.widths) - 1, 1),)

    def write(self, axis: Axis, node: Node, role: str, tensor_axis: int) -> None:
        """The channels of `axis` are made by the slices of a tensor along `tensor_axis`."""
        self._touch("write", axis, node, role, tensor_axis)

    def carry(self, axis: Axis, node: Node, role: str, tensor_axis: int) -> None:
        """Each channel of `axis` has an entry of its own in a tensor along `tensor_axis`."""
        self._touch("carry", axis, node, role, tensor_axis)

    def read(self, axis: Axis, node: Node, slot: int, role: str, tensor_axis: int, fold: int = 1) -> None:
        """The node sums over the channels of `axis`, its operand number `slot`, weighted along `tensor_axis`."""
        self._touch("read", axis, node, role, tensor_axis, slot, fold)

    def join(self, axes: Sequence[Axis]) -> Axis:
        """The axes side by side."""
        return tuple(segment for axis in axes for segment in axis)

    def concatenate(self, axes: Sequence[Axis], node: Node) -> Axis:
        """The axes side by side, or where that are more segments than can be followed, fixed channels."""
        if sum(map(len, axes)) <= self._left:
            return self.join(axes)
        return self._wall(axes, node)

    def admit(self, dims: Dims, node: Node) -> Dims:
        """What `node` reads, with fixed channels in the stead of more segments than can be followed."""
        admitted = []
        for axis in dims:
            self._left -= max(0, len(axis) - 1)
            admitted.append(axis if len(axis) <= 1 or self._left >= 0 else self._wall([axis], node))
        return tuple(admitted)

    def _wall(self, axes: Sequence[Axis], node: Node) -> Axis:
        """Fixed channels in the stead of these axes, which are fixed too."""
        reason = f"at '{node.id}' channels are laid side by side more often than can be followed"
        for axis in axes:
            self.fix(axis, reason)
        return self.fix(self.fresh(sum(map(self.size, axes))), reason)

    def channels(self, axis: Axis, width: int, node: Node) -> Axis:
        """`axis`, or where it is one of places, fixed channels in their stead."""
        return axis or self.fix(self.fresh(width), f"'{node.id}' mixes what is not known to be channels")

    def instead(self, axes: Sequence[Axis], width: int, node: Node, what: str) -> Axis:
        """Fixed channels in the stead of those of `axes`, which cannot be changed because of what `node` does."""
        if not any(axes):
            return ()
        self.close(axes, node, what)
        return self.fix(self.fresh(width), f"'{node.id}' {what}")

    def close(self, dims: Sequence[Axis], node: Node, what: str = "works across them") -> None:
        """The channels of `dims` cannot be changed, because of what `node` does."""
        for axis in dims:
            if axis:
                self.fix(axis, f"'{node.id}' {what}")

    def cut(self, axis: Axis, start: int, stop: int) -> Axis | None:
        """The entries of `axis` from `start` to `stop`; None if a channel of several entries would be cut through."""
        taken: list[tuple[int, Inner]] = []
        position = 0
        for variable, inner in self.resolve(axis):
            each, width = self.size(inner), self.widths[variable]
            low, high = max(start - position, 0), min(stop - position, width * each)
            position += width * each
            if low >= high:
                continue
            if low % each or high % each:
                return None
            part = self._part(variable, low // each, high // each)
            if part is None:
                return None
            taken.extend(nest(part, inner))
        return tuple(taken)

    def _part(self, variable: int, low: int, high: int) -> Axis | None:
        """The channels of a variable from `low` to `high`, which become a variable of their own."""
        width = self.widths[variable]
        if (low, high) == (0, width):
            return ((variable, 1),)
        if variable in self.parts:  # it stands on the axis several times, and was cut the first time
            return self.cut(((variable, 1),), low, high)
        sizes = [low, high - low, width - high]
        parts = [self.fresh(size) if size else () for size in sizes]
        self.parts[variable] = self.join(parts)
        return parts[1]

    def divide(self, axis: Axis, sizes: Sequence[int]) -> list[Axis] | None:
        """The axes, of these sizes, that `axis` is once its entries are laid out in rows; None if none are whole."""
        if not axis or len(sizes) == 1:
            return [axis, *((),) * (len(sizes) - 1)]
        axis = self.resolve(axis)
        first, rest = sizes[0], prod(sizes[1:])
        if len(axis) > 1:
            # Side by side: the rows must all be the same channels.
            rows = [self.cut(axis, row * rest, (row + 1) * rest) for row in range(first)]
            if None in rows or any(self._tie(rows[0] or (), row or ()) is not None for row in rows):
                return None
            within = self.divide(rows[0] or (), sizes[1:])
            return within and [(), *within]
        ((variable, inner),) = axis
        width = self.widths[variable]
        if width == first:
            within = [()] * (len(sizes) - 1) if isinstance(inner, int) else self.divide(inner, sizes[1:])
            return within and [((variable, 1),), *within]
        if width % first == 0:
            self.parts[variable] = nest(self.fresh(first), self.fresh(width // first))
            return self.divide(axis, sizes)
        if first % width or self.size(inner) % (first // width):
            return None
        outer: Inner = first // width
        if not isinstance(inner, int):
            found = self.divide(inner, (first // width, *sizes[1:]))
            if found is None:
                return None
            outer, within = found[0] or outer, found[1:]
        else:
            within = [()] * (len(sizes) - 1)
        return [((variable, outer),), *within]

    def repeat(self, axis: Axis, times: int) -> Axis:
        """Each channel becomes `times` adjacent entries."""
        return nest(axis, times)

    def fix(self, axis: Axis, reason: str) -> Axis:
        """The channels of `axis` cannot be changed; `reason` says why in a clause that starts with a possessive."""
        self.reasons.append((axis, reason))
        return axis

    def blocks(self, axis: Axis, groups: int, node: Node) -> None:
        """`axis` falls into `groups` equal blocks that must stay equal."""
        self.divisions.append((axis, groups, False, node.id))

    def balance(self, axis: Axis, groups: int, node: Node) -> None:
        """As `blocks`, and means and variances over each block must stay what they are."""
        self.divisions.append((axis, groups, True, node.id))

    def draws(self, axis: Axis, node: Node) -> None:
        """In train mode the node draws independent random numbers for each channel."""
        self.draws_at.append((axis, node.id))

    def tie(self, one: Axis, other: Axis, node: Node) -> None:
        """The two axes hold the same channels, entry by entry."""
        if not one or not other:
            self.close([one, other], node, "pairs them with what is not known to be channels")
            return
        left = self._tie(one, other)
        if left is not None:
            # From here on the two lie across each other.
            self.fix(left, f"its channels meet others in another arrangement at '{node.id}'")

    def share(self, nodes: Iterable[Node]) -> None:
        """Fixes the slices of tensors that one of the nodes uses in another way than as channels.

        Such a node, a wall that transposes a layer's weights, say, could not go on with more of them, or fewer.
        """
        found: dict[str, dict[int, Axis]] = defaultdict(dict)
        for touch in self.touches:
            found[touch.tensor][touch.tensor_axis] = touch.axis
        told = {(touch.node, touch.tensor, touch.tensor_axis) for touch in self.touches}
        for node in nodes:
            for tensor in sorted(found.keys() & node.tensors.values()):
                for place, axis in found[tensor].items():
                    if (node.id, tensor, place) not in told:
                        what = f"its tensor '{tensor}' is used by '{node.id}', too, which does not tell channels apart"
                        self.fix(axis, what)

    def resolve(self, axis: Axis) -> Axis:
        """`axis` in terms of variables that are neither split nor merged."""
        leaves: list[tuple[int, Inner]] = []
        for variable, inner in axis:
            within = inner if isinstance(inner, int) else self.resolve(inner)
            if variable in self.parts:
                found = self.parts[variable] = self.resolve(self.parts[variable])
                leaves.extend(nest(found, within))
            else:
                leaves.append((variable, within))
        return tuple(leaves)

    def size(self, inner: Inner) -> int:
        """Number of entries."""
        if isinstance(inner, int):
            return inner
        return sum(self.widths[variable] * self.size(each) for variable, each in inner)

    def _tie(self, one: Axis, other: Axis) -> Axis | None:
        """Makes two axes equal; else what is left of them where no arrangement of whole channels does."""
        left, right = list(reversed(self.resolve(one))), list(reversed(self.resolve(other)))
        while left and right:
            (a, a_inner), (b, b_inner) = left[-1], right[-1]
            if (a, a_inner) == (b, b_inner):
                left.pop(), right.pop()
                continue
            if not self._tie_heads(a, a_inner, b, b_inner):
                return (*left, *right)
            left = list(reversed(self.resolve(tuple(reversed(left)))))
            right = list(reversed(self.resolve(tuple(reversed(right)))))
        return None

    def _tie_heads(self, a: int, a_inner: Inner, b: int, b_inner: Inner) -> bool:
        """Makes the first segments of two axes begin more alike; False if no arrangement of whole channels does."""
        if self.size(a_inner) < self.size(b_inner):
            a, a_inner, b, b_inner = b, b_inner, a, a_inner
        times, rest = divmod(self.size(a_inner), self.size(b_inner))
        if rest:
            return False
        # Each channel of `a` is `times` channels of `b`.
        each = quotient(a_inner, b_inner)
        if each is None:
            if isinstance(a_inner, int) or (times == 1 and isinstance(b_inner, int)):
                return False
            within = b_inner if times == 1 else nest(self.fresh(times), b_inner)
            return not isinstance(within, int) and self._tie(a_inner, within) is None
        if a == b or b in variables(each):
            return False
        # The longer one is cut where the shorter one ends.
        wide, narrow = self.widths[a] * times, self.widths[b]
        if narrow >= wide:
            self.parts[b] = ((a, each),) + (self.fresh(narrow - wide) if narrow > wide else ())
            return True
        if narrow % times:
            return False
        first, behind = self.fresh(narrow // times), self.fresh(self.widths[a] - narrow // times)
        self.parts[a] = first + behind
        self.parts[b] = nest(first, each)
        return True

    def _touch(
        self, how: str, axis: Axis, node: Node, role: str, tensor_axis: int, slot: int = 0, fold: int = 1
    ) -> None:
        if role not in node.tensors:
            return
        tensor = node.tensors[role]
        touch = Touch(how, node.id, tensor, tensor_axis, axis, slot, fold)
        known = self._tensors.setdefault((tensor, tensor_axis), touch)
        self.touches.append(touch)
        if known is touch:
            return
        # A shared tensor has one set of slices, whoever uses it.
        self.tie(known.axis, axis, node)
        if (known.how == "read") != (how == "read") or known.fold != fold:
            self.fix(axis, f"its tensor '{tensor}' is shared by '{known.node}' and '{node.id}' in different ways")


def solve(graph: Graph) -> tuple[Solver, dict[str, Dims]]:
    """All constraints of a graph, and the axes of each node's value."""
    from graphs.kinds import KINDS

    solver = Solver()
    axes: dict[str, Dims] = {}
    for node in graph.nodes.values():
        shapes = [graph.shapes[source] for source in node.inputs]
        axes.update({source: solver.admit(axes[source], node) for source in node.inputs})
        sources = [axes[source] for source in node.inputs]
        axes[node.id] = KINDS[node.kind].channels(solver, node, sources, shapes, graph.shapes[node.id])
    solver.share(graph.nodes.values())
    for head in graph.heads:
        for axis in filter(None, axes[head.node]):
            solver.fix(axis, f"its channels are the output '{head.name}'")
    return solver, axes
