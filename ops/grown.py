"""A network with new channels, and the gradients that their incoming and outgoing weights get.

The slices of tensors that belong to the channels of a space are seen as one vector for each channel.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

from graphs.execution import execute
from graphs.kinds import TensorSpec
from graphs.spaces import Space, Use
from graphs.structure import Shape
from ops.examples import Examples
from ops.mutation import Build, Work
from ops.probe import prefix
from ops.steepest import loss_of
from ops.transfer import Completed, Extended, Mapped

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Grown", "Slices", "split"]


@dataclass(frozen=True, slots=True)
class Slices:
    """Where a space stands along one axis of a tensor.

    Attributes:
        tensor: Its name.
        axis: The axis.
        uses: The space's uses there, each at an offset of its own, in the order of these.
        blocks: Into how many blocks the space falls.
        block: How many channels there are in each.
    """

    tensor: str
    axis: int
    uses: tuple[Use, ...]
    blocks: int
    block: int

    @classmethod
    def of(cls, space: Space, how: str) -> list[Slices]:
        """All slices that `write` or `read` the space; those who share a tensor share them."""
        found: dict[tuple[str, int], dict[int, Use]] = defaultdict(dict)
        for use in space.uses:
            if use.how == how:
                found[use.tensor, use.axis][use.offset] = use
        block = space.width // space.blocks
        return [
            cls(tensor, axis, tuple(uses[offset] for offset in sorted(uses)), space.blocks, block)
            for (tensor, axis), uses in found.items()
        ]

    def old(self, tensor: Tensor) -> Tensor:
        """The slices of the channels that there are, side by side."""
        import torch

        parts = [tensor.narrow(self.axis, use.offset, self._length(use, self.block)) for use in self.uses]
        return torch.cat(parts, self.axis)

    def vectors(self, slices: Tensor) -> Tensor:
        """Vectors (block, channel, entry) from the slices of equally many channels of each block, side by side."""
        import torch

        count = slices.shape[self.axis] // sum(self._length(use, 1) for use in self.uses)
        found, start = [], 0
        for use in self.uses:
            part = slices.narrow(self.axis, start, self._length(use, count)).movedim(self.axis, -1)
            axes = part.reshape(use.fold, -1, self.blocks // use.fold, count, use.inner)
            found.append(axes.permute(0, 2, 3, 1, 4).reshape(self.blocks, count, -1))
            start += self._length(use, count)
        return torch.cat(found, -1)

    def slices(self, vectors: Tensor, shape: Shape) -> Tensor:
        """The slices from which `vectors` makes these, in a tensor whose other axes are those of `shape`."""
        import torch

        others = _without(shape, self.axis)
        found, start = [], 0
        for use in self.uses:
            part = vectors.narrow(-1, start, prod(others) // use.fold * use.inner)
            axes = part.reshape(use.fold, self.blocks // use.fold, vectors.shape[1], -1, use.inner)
            found.append(axes.permute(0, 3, 1, 2, 4).reshape(*others, -1).movedim(-1, self.axis))
            start += part.shape[-1]
        return torch.cat(found, self.axis)

    def entries(self, shape: Shape) -> int:
        """How long the vectors are for a tensor whose other axes are those of `shape`."""
        return sum(prod(_without(shape, self.axis)) // use.fold * use.inner for use in self.uses)

    def _length(self, use: Use, count: int) -> int:
        """How many entries of the axis `count` channels of each block take at one of the uses."""
        return self.blocks // use.fold * count * use.inner


def _without(shape: Shape, axis: int) -> Shape:
    return shape[:axis] + shape[axis + 1 :]


def split(parts: Sequence[Slices], vectors: Tensor, specs: Mapping[str, TensorSpec]) -> dict[str, Tensor]:
    """The slices, by tensor, of channels whose vectors lie side by side; `specs` tells the sizes of other axes."""
    found, start = {}, 0
    for part in parts:
        shape = specs[part.tensor].shape
        length = part.entries(shape)
        found[part.tensor] = part.slices(vectors.narrow(-1, start, length), shape)
        start += length
    return found


class Grown:
    """The child of a mutation that adds channels of zeros, and gradients on a batch, in train mode.

    Args:
        work: The mutation's.
        space: The space that grows.
        build: What it makes of it, but for what the readers give to the new channels.
        scales: The tensors that the build is given, but for those.
        columns: The readers' slices.
        count: How many channels each block gets.
    """

    def __init__(
        self,
        work: Work,
        space: Space,
        build: Build,
        scales: Mapping[str, Tensor],
        columns: Sequence[Slices],
        size: tuple[int, int, int],
    ) -> None:
        import torch

        assert work.batch is not None  # noqa: S101 (there is something to take gradients of)
        old = work.genome.weights
        self.graph, self.seed, self.build = build.graph, work.seed, build
        self.rows, self.columns = Slices.of(space, "write"), columns
        self.examples = Examples.of(work.graph, work.batch)
        self.specs = build.graph.tensors
        zeros = split(columns, torch.zeros(size), self.specs)
        self.weights = build.transfer.apply(old, self.graph, work.seed, {**scales, **zeros})
        self.dtype = old[columns[0].tensor].dtype
        inputs = self.inputs = self.examples.like(self.weights)
        moved = self.graph.downstream(use.node for use in space.uses)
        whole = execute(self.graph, self.weights, inputs, training=True, seed=self.seed)
        self.known = prefix(self.graph, moved, whole)

    def incoming(self, outgoing: Tensor) -> Tensor:
        """The gradients of the incoming weights, which are zero, for these outgoing ones."""
        return self._gradients(self._with(self.columns, outgoing), self.rows)

    def outgoing(self, incoming: Tensor) -> Tensor:
        """The gradients of the outgoing weights, which are zero, for these incoming ones."""
        return self._gradients(self._with(self.rows, incoming), self.columns)

    def _new(self, part: Slices) -> Tensor:
        """The places of the new channels along the axis of the slices."""
        import torch

        plan = self.build.transfer.plans[part.tensor]
        assert isinstance(plan, Mapped | Completed | Extended)  # noqa: S101 (a change of width makes no others)
        (index,) = (axis.index for axis in plan.axes if axis.axis == part.axis)  # type: ignore[union-attr]
        return torch.from_numpy(index < 0).nonzero().flatten()

    def _with(self, parts: Sequence[Slices], vectors: Tensor) -> dict[str, Tensor]:
        """The weights with these vectors for the new channels."""
        weights = dict(self.weights)
        for name, slices in split(parts, vectors, self.specs).items():
            (part,) = (part for part in parts if part.tensor == name)
            weights[name] = weights[name].index_copy(part.axis, self._new(part), slices.to(weights[name].dtype))
        return weights

    def _gradients(self, weights: Mapping[str, Tensor], parts: Sequence[Slices]) -> Tensor:
        import torch

        with torch.inference_mode(False), torch.enable_grad():
            leaves = {part.tensor: weights[part.tensor].detach().clone().requires_grad_() for part in parts}
            run = execute(
                self.graph,
                {**weights, **leaves},
                self.inputs,
                training=True,
                seed=self.seed,
                known=self.known,
                differentiable=True,
            )
            loss = loss_of(self.graph, run.values, self.examples, self.seed)
            found = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True)
        vectors = []
        for part, leaf, gradient in zip(parts, leaves.values(), found, strict=True):
            full = torch.zeros_like(leaf) if gradient is None else gradient
            vectors.append(part.vectors(full.detach().index_select(part.axis, self._new(part))))
        return torch.cat(vectors, -1)
