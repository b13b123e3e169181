"""What a mutation does to tensors, as data.

For each tensor of the child that is not simply its parent's tensor of the same name, a plan says where it comes from:
an index along some axes of a parent's tensor, or a start for what is new. Where copies of a channel share a weight,
each copy but the last takes between half and all of what is left, and the last takes the rest: by Sterbenz's lemma
every difference is then exact in floating point, and the copies add up to the parent's weight bit for bit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from graphs.initial import start_tensor
from graphs.kinds import TensorSpec, tensors
from graphs.structure import Graph

if TYPE_CHECKING:
    import numpy
    import torch
    from torch import Tensor

    Index = numpy.ndarray[tuple[int], numpy.dtype[numpy.int64]]
    Take = numpy.ndarray[tuple[int], numpy.dtype[numpy.float64]]

__all__ = [
    "AxisMap",
    "AxisSum",
    "Extended",
    "Given",
    "Made",
    "Mapped",
    "New",
    "Plan",
    "Regrouped",
    "Source",
    "Transfer",
]


@dataclass(frozen=True, slots=True, eq=False)
class AxisMap:
    """One axis of a child's tensor in terms of its parent's.

    Attributes:
        axis: Which axis.
        index: For each entry of the child, the parent's entry, or −1 for a new entry, which is zero. In an `Extended`
            tensor, −1 stands for what is drawn, −2 for what is zero.
        take: None if entries are copied. Else the parent's entry is shared among its copies: for each copy, in order,
            the part that it takes of what the copies before it left; 1 for the last one.
        gradient: None if each entry's gradient is that of the parent's entry. Else the part of it that each entry has:
            a copied channel passes on the share of its readers.
    """

    axis: int
    index: Index
    take: Take | None = None
    gradient: Take | None = None

    def apply(self, tensor: Tensor) -> Tensor:
        """The child's tensor along this axis."""
        import torch

        index = torch.from_numpy(self.index)
        out = tensor.index_select(self.axis, index.clamp(min=0))
        if self.take is not None:
            self._share(tensor, out, self.take)
        new = (index < 0).nonzero().flatten()
        return out.index_fill_(self.axis, new, 0) if len(new) else out

    def carry(self, tensor: Tensor, power: int) -> Tensor:
        """What goes with the gradient to the power `power` (a moment of an optimiser), along this axis.

        Nothing is shared here: readers' weights have the gradient of the parent's, whatever their share.
        """
        import torch

        index = torch.from_numpy(self.index).to(tensor.device)
        out = tensor.index_select(self.axis, index.clamp(min=0))
        if self.gradient is not None:
            out *= self._along(torch.from_numpy(self.gradient), out) ** power
        return out.index_fill_(self.axis, (index < 0).nonzero().flatten(), 0)

    def rate(self, factor: Tensor, adaptive: bool) -> Tensor:
        """By what learning rates are multiplied for the child to follow its parent, given the same before this map.

        A shared entry moves by its share; an entry with a part of the gradient moves as the whole would, which only
        steps that are `adaptive` do by themselves. A new entry has the factor 1.
        """
        import torch

        index = torch.from_numpy(self.index)
        out = factor.index_select(self.axis, index.clamp(min=0)) * self._along(torch.from_numpy(self.shares), factor)
        if self.gradient is not None and not adaptive:
            out /= self._along(torch.from_numpy(self.gradient), factor)
        return out.index_fill_(self.axis, (index < 0).nonzero().flatten(), 1)

    @property
    def shares(self) -> Take:
        """The part of the parent's entry that each entry is; 0 for a new one."""
        import numpy

        parts = numpy.where(self.index < 0, 0.0, 1.0)
        if self.take is None:
            return parts
        left: dict[int, float] = {}
        for place, (source, take) in enumerate(zip(self.index.tolist(), self.take.tolist(), strict=True)):
            if source >= 0:
                parts[place] = left.get(source, 1.0) * take
                left[source] = left.get(source, 1.0) - parts[place]
        return parts

    def _along(self, numbers: Tensor, tensor: Tensor) -> Tensor:
        """One number for each entry, so shaped that it multiplies `tensor` along this axis."""
        shape = [-1 if axis == self.axis else 1 for axis in range(tensor.ndim)]
        return numbers.to(tensor.device, tensor.dtype).reshape(shape)

    def _share(self, tensor: Tensor, out: Tensor, take: Take) -> None:
        import numpy
        import torch

        rank = _ranks(self.index)
        left = tensor.clone()
        several = numpy.isin(self.index, self.index[rank > 0]) & (self.index >= 0)
        for turn in range(int(rank.max(initial=0)) + 1):
            here = numpy.flatnonzero(several & (rank == turn))
            places, sources = torch.from_numpy(here), torch.from_numpy(self.index[here])
            remaining = left.index_select(self.axis, sources)
            part = remaining * self._along(torch.from_numpy(take[here]), remaining)
            out.index_copy_(self.axis, places, part)
            # What is left of −0 is −0 again, so that merging gives every bit back.
            left.index_copy_(self.axis, sources, torch.copysign(remaining - part, remaining))


def _ranks(index: Index) -> Index:
    """For each entry, how many entries before it have the same index."""
    import numpy

    order = numpy.argsort(index, kind="stable")
    ordered = index[order]
    starts = numpy.flatnonzero(numpy.r_[True, ordered[1:] != ordered[:-1]])
    counts = numpy.diff(numpy.r_[starts, len(index)])
    ranks = numpy.empty(len(index), dtype=numpy.int64)
    ranks[order] = numpy.arange(len(index)) - numpy.repeat(starts, counts)
    return ranks


@dataclass(frozen=True, slots=True)
class Mapped:
    """The child's tensor is made of the parent's tensor `source`; a plain copy if no axis is mapped."""

    source: str
    axes: tuple[AxisMap | AxisSum, ...] = ()

    def apply(self, weights: Mapping[str, Tensor]) -> Tensor:
        """The child's tensor."""
        tensor = weights[self.source]
        for axis in self.axes:
            tensor = axis.apply(tensor)
        return tensor

    def then(self, axes: tuple[AxisMap | AxisSum, ...]) -> Mapped:
        """This plan, and what another mutation does to its tensor after it."""
        return Mapped(self.source, self.axes + axes)

    def carry(self, tensor: Tensor, power: int) -> Tensor:
        """See `AxisMap.carry`."""
        for axis in self.axes:
            tensor = axis.carry(tensor, power)
        return tensor

    def rate(self, factor: Tensor, adaptive: bool) -> Tensor:
        """See `AxisMap.rate`."""
        for axis in self.axes:
            factor = axis.rate(factor, adaptive)
        return factor


@dataclass(frozen=True, slots=True)
class New:
    """The tensor is new: `start` is a name that `TensorSpec` knows, `identity`, or a number for all entries."""

    start: str | float

    def apply(self, spec: TensorSpec, seed: int, name: str) -> Tensor:
        """The tensor as `spec` says, drawn from the stream of (seed, name)."""
        import torch

        if isinstance(self.start, float):
            return torch.full(spec.shape, self.start, dtype=torch.float32)
        if self.start == "identity":
            weight = torch.zeros(spec.shape)
            centre = tuple(size // 2 for size in spec.shape[2:])
            for channel in range(spec.shape[0]):
                weight[(channel, channel, *centre)] = 1
            return weight
        return start_tensor(TensorSpec(spec.shape, self.start, spec.buffer, spec.integer), seed, name)


@dataclass(frozen=True, slots=True)
class Given:
    """The tensor was computed from data when the mutation was made, and is stored beside the record."""

    name: str


@dataclass(frozen=True, slots=True)
class Regrouped:
    """The weight of a convolution of `before` groups, for one of `after` groups; one of them divides the other.

    Where groups are merged, the blocks that no group had are zero; where they are split, such blocks are dropped.
    """

    source: str
    before: int
    after: int

    def apply(self, weights: Mapping[str, Tensor]) -> Tensor:
        """The child's tensor, (out, in / after, …), from the parent's, (out, in / before, …)."""
        tensor = weights[self.source]
        finest, ratio = max(self.before, self.after), max(self.before, self.after) // min(self.before, self.after)
        channels = tensor.shape[1] * self.before
        size, filters = channels // finest, tensor.shape[0] // finest
        out = tensor.new_zeros((tensor.shape[0], channels // self.after, *tensor.shape[2:]))
        for group in range(finest):
            rows = slice(group * filters, (group + 1) * filters)
            columns = slice(group % ratio * size, (group % ratio + 1) * size)
            if self.after < self.before:
                out[rows, columns] = tensor[rows]
            else:
                out[rows] = tensor[rows, columns]
        return out

    def carry(self, tensor: Tensor, power: int) -> Tensor:
        """See `AxisMap.carry`: entries keep their gradients, new ones have none yet."""
        return self.apply({self.source: tensor})

    def rate(self, factor: Tensor, adaptive: bool) -> Tensor:
        """See `AxisMap.rate`."""
        known = self.apply({self.source: factor.new_ones(factor.shape)})
        return self.apply({self.source: factor}).where(known > 0, 1.0)


@dataclass(frozen=True, slots=True, eq=False)
class AxisSum:
    """One axis of a child's tensor whose entries are sums of its parent's: what `AxisMap.take` shares, merged again.

    The last copy comes first, since in this order every sum ends in the number that was shared; and it is made in
    float64, so that shorter floats add up in any order, copies of copies too.

    Attributes:
        axis: Which axis.
        into: For each entry of the parent, the child's entry to which it is added.
    """

    axis: int
    into: Index

    def apply(self, tensor: Tensor) -> Tensor:
        """The child's tensor along this axis."""
        return self.sum(tensor).to(tensor.dtype)

    def sum(self, tensor: Tensor) -> Tensor:
        """The child's tensor in float64."""
        import numpy
        import torch

        shape = [*tensor.shape]
        shape[self.axis] = int(self.into.max()) + 1
        out = tensor.new_zeros(shape, dtype=torch.float64)
        rank = _ranks(self.into[::-1])[::-1]
        for turn in range(int(rank.max(initial=0)) + 1):
            here = numpy.flatnonzero(rank == turn)
            places, part = (
                torch.from_numpy(self.into[here]),
                tensor.index_select(self.axis, torch.from_numpy(here)).double(),
            )
            # The first part is copied and not added to 0, which would turn −0 into 0.
            out.index_copy_(self.axis, places, out.index_select(self.axis, places) + part if turn else part)
        return out

    def carry(self, tensor: Tensor, power: int) -> Tensor:
        """See `AxisMap.carry`: the weights of all copies have the same gradient, that of the first is taken."""
        return tensor.index_select(self.axis, self._first(tensor))

    def rate(self, factor: Tensor, adaptive: bool) -> Tensor:
        """See `AxisMap.rate`: where the copies had one rate, so has their sum."""
        return factor.index_select(self.axis, self._first(factor))

    def _first(self, like: Tensor) -> Tensor:
        import numpy
        import torch

        return torch.from_numpy(numpy.unique(self.into, return_index=True)[1]).to(like.device)


@dataclass(frozen=True, slots=True)
class Extended:
    """As `Mapped`, but new slices along one axis (those of −1) are what a fresh tensor has there, instead of zero."""

    source: str
    axes: tuple[AxisMap, ...]
    along: int

    def apply(self, weights: Mapping[str, Tensor], spec: TensorSpec, seed: int, name: str) -> Tensor:
        """The child's tensor, its new slices drawn from the stream of (seed, name)."""
        return self.fill(weights, start_tensor(spec, seed, name))

    def fill(self, weights: Mapping[str, Tensor], fresh: Tensor) -> Tensor:
        """The child's tensor, its new slices those of `fresh`."""
        import torch

        out = Mapped(self.source, self.axes).apply(weights)
        for axis in self.axes:
            if axis.axis == self.along:
                new = torch.from_numpy(axis.index == -1).nonzero().flatten()
                out.index_copy_(self.along, new, fresh.index_select(self.along, new).to(out.dtype))
        return out

    def carry(self, tensor: Tensor, power: int) -> Tensor:
        """See `AxisMap.carry`."""
        return Mapped(self.source, self.axes).carry(tensor, power)

    def rate(self, factor: Tensor, adaptive: bool) -> Tensor:
        """See `AxisMap.rate`."""
        return Mapped(self.source, self.axes).rate(factor, adaptive)


Source = Mapped | Regrouped | Extended
"""Plans that start from one of the parent's tensors."""


@dataclass(frozen=True, slots=True)
class Made:
    """A tensor's plan in a chain: what one mutation did, for the node `spec` describes, and what later ones did."""

    plan: Source | New | Given
    spec: TensorSpec
    seed: int
    name: str
    later: tuple[Made, ...] = ()

    @property
    def source(self) -> str | None:
        """The parent's tensor that it starts from; None if the tensor is new."""
        return None if isinstance(self.plan, New | Given) else self.plan.source

    def then(self, later: Made) -> Made:
        """This plan, and what another mutation does to its tensor after it."""
        return replace(self, later=(*self.later, later))

    def carry(self, tensor: Tensor, power: int) -> Tensor:
        """See `AxisMap.carry`."""
        for plan in (self.plan, *(each.plan for each in self.later)):
            if not isinstance(plan, New | Given):
                tensor = plan.carry(tensor, power)
        return tensor

    def rate(self, factor: Tensor, adaptive: bool) -> Tensor:
        """See `AxisMap.rate`."""
        for plan in (self.plan, *(each.plan for each in self.later)):
            if not isinstance(plan, New | Given):
                factor = plan.rate(factor, adaptive)
        return factor


Plan = Source | New | Given | Made


@dataclass(frozen=True, slots=True)
class Transfer:
    """The plans of a mutation, by name of the child's tensor.

    A tensor without a plan is the parent's of the same name, shared and not copied.

    Attributes:
        plans: By name of the child's tensor.
        gradients: By name of the child's tensor, by what its gradient differs from that of the tensor it comes from, as
            a whole; 1 where it is not named.
    """

    plans: Mapping[str, Plan] = field(default_factory=dict)
    gradients: Mapping[str, float] = field(default_factory=dict)

    def apply(
        self, weights: Mapping[str, Tensor], graph: Graph, seed: int, given: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """The child's tensors.

        Args:
            weights: The parent's tensors.
            graph: The child's graph.
            seed: From which new tensors are drawn.
            given: Tensors that were computed from data.
        """
        kinds = (tensor.dtype for tensor in weights.values() if tensor.is_floating_point())
        dtype = next(kinds, None)
        made: dict[str, Tensor] = {}
        for name, spec in tensors(graph).items():
            plan = self.plans.get(name)
            if plan is None:
                if name in weights:
                    made[name] = weights[name]
                    continue
                plan = New(spec.start)
            made[name] = _make(plan, spec, seed, name, weights, given, dtype)
        return made


def _make(
    plan: Plan,
    spec: TensorSpec,
    seed: int,
    name: str,
    weights: Mapping[str, Tensor],
    given: Mapping[str, Tensor],
    dtype: torch.dtype | None,
) -> Tensor:
    """What a plan makes of the tensors it starts from; a new tensor in the parent's type."""
    if isinstance(plan, Mapped | Regrouped):
        return plan.apply(weights)
    if isinstance(plan, Extended):
        return plan.apply(weights, spec, seed, name)
    if isinstance(plan, Made):
        tensor = _make(plan.plan, plan.spec, plan.seed, plan.name, weights, given, dtype)
        for each in plan.later:
            before = {each.source or "": tensor}
            tensor = _make(each.plan, each.spec, each.seed, each.name, before, given, dtype)
        return tensor
    tensor = given[plan.name] if isinstance(plan, Given) else plan.apply(spec, seed, name)
    return tensor.to(dtype) if tensor.is_floating_point() and dtype else tensor
