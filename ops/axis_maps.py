"""One axis of a child's tensor in terms of its parent's: copied, shared, dropped, new, or added up again.

Where copies of a channel share a weight, each copy but the last takes between half and all of what is left, and the
last takes the rest: by Sterbenz's lemma every difference is then exact in floating point, and the copies add up to the
parent's weight bit for bit.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy
    from torch import Tensor

    Index = numpy.ndarray[tuple[int], numpy.dtype[numpy.int64]]
    Take = numpy.ndarray[tuple[int], numpy.dtype[numpy.float64]]

__all__ = ["Axis", "AxisMap", "AxisMean", "AxisSum", "AxisTwins", "lengthened"]


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
        scale: What all entries are multiplied by, because what they scale has been divided by it.
    """

    axis: int
    index: Index
    take: Take | None = None
    gradient: Take | None = None
    scale: float = 1.0

    @property
    def rounds(self) -> bool:
        """Whether entries are numbers that have to be rounded to the tensor's type."""
        return self.scale != 1

    def apply(self, tensor: Tensor) -> Tensor:
        """The child's tensor along this axis."""
        import torch

        index = torch.from_numpy(self.index)
        out = tensor.index_select(self.axis, index.clamp(min=0))
        if self.take is not None:
            self._share(tensor, out, self.take)
        if self.scale != 1:
            out *= self.scale
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
        if self.scale != 1:
            out /= self.scale**power
        return out.index_fill_(self.axis, (index < 0).nonzero().flatten(), 0)

    def rate(self, factor: Tensor, adaptive: bool) -> Tensor:
        """By what learning rates are multiplied for the child to follow its parent, given the same before this map.

        A shared entry moves by its share, and a scaled one by its scale; an entry with a part of the gradient moves as
        the whole would, which only steps that are `adaptive` do by themselves. A new entry has the factor 1.
        """
        import torch

        index = torch.from_numpy(self.index)
        out = factor.index_select(self.axis, index.clamp(min=0)) * self._along(torch.from_numpy(self.shares), factor)
        if self.gradient is not None and not adaptive:
            out /= self._along(torch.from_numpy(self.gradient), factor)
        out *= self.scale if adaptive else self.scale**2
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


@dataclass(frozen=True, slots=True, eq=False)
class AxisMean(AxisMap):
    """As `AxisMap`, but the new entries are means of the parent's, and not zero.

    Attributes:
        kin: For each entry of the parent, the number of the mean in which it counts, or −1.
        means: For each new entry, in order, the number of the mean that it is.
    """

    kin: Index = field(kw_only=True)
    means: Index = field(kw_only=True)

    @property
    def rounds(self) -> bool:
        """See `AxisMap.rounds`."""
        return True

    def apply(self, tensor: Tensor) -> Tensor:
        """The child's tensor along this axis."""
        import numpy
        import torch

        out = AxisMap.apply(self, tensor)
        counted = numpy.flatnonzero(self.kin >= 0)
        part = tensor.index_select(self.axis, torch.from_numpy(counted)).double()
        sums = _gathered(self.axis, self.kin[counted], part)
        means = sums / self._along(torch.from_numpy(numpy.bincount(self.kin[counted])), sums)
        new = torch.from_numpy(numpy.flatnonzero(self.index < 0))
        return out.index_copy_(
            self.axis, new, means.index_select(self.axis, torch.from_numpy(self.means)).to(out.dtype)
        )


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
        """See `AxisMap.rate`: with one gradient for all, their sum moves by what they move together."""
        return _gathered(self.axis, self.into, factor)

    def _first(self, like: Tensor) -> Tensor:
        return _firsts(self.into).to(like.device)


@dataclass(frozen=True, slots=True, eq=False)
class AxisTwins:
    """One axis of a child's tensor on which one of several entries that are alike remains, the first one.

    Attributes:
        axis: Which axis.
        into: For each entry of the parent, the child's entry that stands for it.
    """

    axis: int
    into: Index

    def apply(self, tensor: Tensor) -> Tensor:
        """The child's tensor along this axis."""
        return tensor.index_select(self.axis, _firsts(self.into).to(tensor.device))

    def carry(self, tensor: Tensor, power: int) -> Tensor:
        """See `AxisMap.carry`: what remains has the gradients of all, which are parts of one and have its sign."""
        return _gathered(self.axis, self.into, tensor ** (1 / power)) ** power

    def rate(self, factor: Tensor, adaptive: bool) -> Tensor:
        """See `AxisMap.rate`: what remains moves as each of the twins did, if they moved alike.

        Twins with rates f have parts 1/f of what moves them all, which add up.
        """
        return self.apply(factor) if adaptive else 1 / _gathered(self.axis, self.into, 1 / factor)


def _firsts(into: Index) -> Tensor:
    """For each number, the first entry that has it."""
    import numpy
    import torch

    return torch.from_numpy(numpy.unique(into, return_index=True)[1])


def _gathered(axis: int, into: Index, tensor: Tensor) -> Tensor:
    """The sums of the entries that go into one."""
    import torch

    shape = [*tensor.shape]
    shape[axis] = int(into.max()) + 1
    return tensor.new_zeros(shape).index_add_(axis, torch.from_numpy(into).to(tensor.device), tensor)


Axis = AxisMap | AxisSum | AxisTwins
"""What can happen to one axis."""


def lengthened(count: int, more: int, mark: int) -> Index:
    """All `count` old entries, and `more` that are `mark`, see `AxisMap.index`."""
    import numpy

    return numpy.concatenate([numpy.arange(count), numpy.full(more, mark)]).astype(numpy.int64)
