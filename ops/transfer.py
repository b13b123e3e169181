"""What a mutation does to tensors, as data.

For each tensor of the child that is not simply its parent's tensor of the same name, a plan says where it comes from:
maps along some axes of a parent's tensor (`ops.axis_maps`), or a start for what is new.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise
from math import prod
from typing import TYPE_CHECKING

from graphs.initial import start_tensor
from graphs.kinds import TensorSpec
from graphs.structure import Graph, Shape
from ops.axis_maps import Axis, AxisMap

if TYPE_CHECKING:
    import torch
    from torch import Tensor

__all__ = [
    "Completed",
    "Extended",
    "Given",
    "Made",
    "Mapped",
    "New",
    "Plan",
    "Projected",
    "Regrouped",
    "Source",
    "Transfer",
    "shifts",
]


@dataclass(frozen=True, slots=True)
class Mapped:
    """The child's tensor is made of the parent's tensor `source`; a plain copy if no axis is mapped."""

    source: str
    axes: tuple[Axis, ...] = ()

    def apply(self, weights: Mapping[str, Tensor]) -> Tensor:
        """The child's tensor."""
        tensor = weights[self.source]
        for axis in self.axes:
            tensor = axis.apply(tensor)
        return tensor

    def then(self, axes: tuple[Axis, ...]) -> Mapped:
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
    """The tensor is new: `start` is a name that `TensorSpec` knows, `identity`, `shifts`, or a number for all."""

    start: str | float

    @property
    def source(self) -> None:
        """It starts from none of the parent's tensors."""

    def apply(self, spec: TensorSpec, seed: int, name: str) -> Tensor:
        """The tensor as `spec` says, drawn from the stream of (seed, name)."""
        import torch

        if isinstance(self.start, float):
            return torch.full(spec.shape, self.start, dtype=torch.float32)
        if self.start == "shifts":
            return shifts(spec.shape)
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

    @property
    def source(self) -> None:
        """It starts from none of the parent's tensors."""


@dataclass(frozen=True, slots=True)
class Regrouped:
    """The weight of a convolution for other numbers of groups, one after the other; of two, one divides the other.

    Where groups are merged, the blocks that no group had are zero; where they are split, such blocks are dropped.
    """

    source: str
    groups: tuple[int, ...]

    def apply(self, weights: Mapping[str, Tensor]) -> Tensor:
        """The child's tensor, (out, in / last, …), from the parent's, (out, in / first, …)."""
        tensor = weights[self.source]
        for before, after in pairwise(self.groups):
            tensor = _regroup(tensor, before, after)
        return tensor

    def carry(self, tensor: Tensor, power: int) -> Tensor:
        """See `AxisMap.carry`: entries keep their gradients, new ones have none yet."""
        return self.apply({self.source: tensor})

    def rate(self, factor: Tensor, adaptive: bool) -> Tensor:
        """See `AxisMap.rate`."""
        known = self.apply({self.source: factor.new_ones(factor.shape)})
        return self.apply({self.source: factor}).where(known > 0, 1.0)


def _regroup(tensor: Tensor, before: int, after: int) -> Tensor:
    finest, ratio = max(before, after), max(before, after) // min(before, after)
    channels = tensor.shape[1] * before
    size, filters = channels // finest, tensor.shape[0] // finest
    out = tensor.new_zeros((tensor.shape[0], channels // after, *tensor.shape[2:]))
    for group in range(finest):
        rows = slice(group * filters, (group + 1) * filters)
        columns = slice(group % ratio * size, (group % ratio + 1) * size)
        if after < before:
            out[rows, columns] = tensor[rows]
        else:
            out[rows] = tensor[rows, columns]
    return out


def shifts(shape: Shape) -> Tensor:
    """Filters (channels · places, 1, *kernel) of which each channel has one for each place of the kernel: 1 there."""
    import torch

    places = prod(shape[2:])
    return torch.eye(places).repeat(shape[0] // places, 1).reshape(shape)


@dataclass(frozen=True, slots=True, eq=False)
class Projected:
    """The weight of a 1×1 convolution behind a depthwise one: what the kernels of the parent's have of its filters.

    Attributes:
        source: The parent's weight, (out, in, *kernel).
        filters: Those of the depthwise convolution, (in · multiplier, 1, *kernel), orthonormal for each channel.
    """

    source: str
    filters: Tensor

    def apply(self, weights: Mapping[str, Tensor]) -> Tensor:
        """The child's tensor, (out, in · multiplier, 1, …)."""
        return self._project(weights[self.source], self.filters)

    def carry(self, tensor: Tensor, power: int) -> Tensor:
        """See `AxisMap.carry`: a gradient is projected as the weight is."""
        return self._project(tensor, self.filters**power)

    def rate(self, factor: Tensor, adaptive: bool) -> Tensor:
        """See `AxisMap.rate`: the mean of the factors, by the filters' squares."""
        return self._project(factor, self.filters**2)

    def _project(self, tensor: Tensor, filters: Tensor) -> Tensor:
        import torch

        out, channels = tensor.shape[:2]
        basis = filters.to(tensor.dtype).reshape(channels, -1, prod(tensor.shape[2:]))
        found = torch.einsum("ocs,cjs->ocj", tensor.flatten(2), basis)
        return found.reshape(out, -1, *(1,) * (tensor.ndim - 2))


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


@dataclass(frozen=True, slots=True)
class Completed:
    """As `Mapped`, but new slices along one axis are those of a tensor that was computed, `given`.

    That tensor holds nothing but these slices, and is stored beside the record.
    """

    source: str
    axes: tuple[AxisMap, ...]
    along: int
    given: str

    def apply(self, weights: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> Tensor:
        """The child's tensor."""
        import torch

        out = Mapped(self.source, self.axes).apply(weights)
        (axis,) = (axis for axis in self.axes if axis.axis == self.along)
        new = torch.from_numpy(axis.index < 0).nonzero().flatten()
        return out.index_copy_(self.along, new, given[self.given].to(out.dtype))

    def carry(self, tensor: Tensor, power: int) -> Tensor:
        """See `AxisMap.carry`."""
        return Mapped(self.source, self.axes).carry(tensor, power)

    def rate(self, factor: Tensor, adaptive: bool) -> Tensor:
        """See `AxisMap.rate`."""
        return Mapped(self.source, self.axes).rate(factor, adaptive)


Source = Mapped | Regrouped | Projected | Extended | Completed
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
        return self.plan.source

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

    @property
    def rounds(self) -> bool:
        """Whether numbers are computed from the parent's that have to be rounded to the weights' type."""
        return any(map(_rounds, self.plans.values()))

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
        for name, spec in graph.tensors.items():
            plan = self.plans.get(name)
            if plan is None:
                if name in weights:
                    made[name] = weights[name]
                    continue
                plan = New(spec.start)
            made[name] = _make(plan, spec, seed, name, weights, given, dtype)
        return made

    def keeps(self, weights: Mapping[str, Tensor], graph: Graph) -> bool:
        """Whether this, from a parent to itself, leaves the parent's tensors as they are."""
        specs = graph.tensors
        return all(
            bool((_make(plan, specs[name], 0, name, weights, {}, None) == weights[name]).all())
            for name, plan in self.plans.items()
        )


def _rounds(plan: Plan) -> bool:
    if isinstance(plan, Made):
        return any(map(_rounds, (plan.plan, *plan.later)))
    axes = plan.axes if isinstance(plan, Mapped | Extended | Completed) else ()
    return any(isinstance(axis, AxisMap) and axis.rounds for axis in axes)


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
    if isinstance(plan, Mapped | Regrouped | Projected):
        return plan.apply(weights)
    if isinstance(plan, Extended):
        return plan.apply(weights, spec, seed, name)
    if isinstance(plan, Completed):
        return plan.apply(weights, given)
    if isinstance(plan, Made):
        tensor = _make(plan.plan, plan.spec, plan.seed, plan.name, weights, given, dtype)
        for each in plan.later:
            before = {each.source or "": tensor}
            tensor = _make(each.plan, each.spec, each.seed, each.name, before, given, dtype)
        return tensor
    tensor = given[plan.name] if isinstance(plan, Given) else plan.apply(spec, seed, name)
    return tensor.to(dtype) if tensor.is_floating_point() and dtype else tensor
