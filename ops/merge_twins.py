"""Merge twins: of channels that are copies of each other one remains, and its readers add up what they gave to each.

The inverse of widening (Net2WiderNet: Chen, Goodfellow, Shlens, "Net2Net", 2016, arXiv 1511.05641). Twins are channels
whose slices are equal, bit for bit, in every tensor that writes or carries them: they are equal on every input. Law:
exact in both modes; in eval mode only where a node draws random numbers for each channel. Under layer and group norm
all channels must have equally many twins. What `widen` has just shared unevenly adds up to the parent bit for bit.
Where sums of weights have to be rounded to the weights' type, the site promises nothing.

All twins of a space are merged, those of several widenings too. Which copy came last, and of which of its twins it is
one, no network can tell: different parents lead to the same child. The record of the last widening knows, and
`ops.widen.copied` makes of it the choice `into` that gives back that parent.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from graphs.genome import Genome
from graphs.spaces import Space
from ops.axis_maps import AxisSum
from ops.mutation import Build, Mutation, Site, Work
from ops.options import Merged, Option
from ops.transfer import Mapped
from ops.width import changeable, merge_channels, space_at

if TYPE_CHECKING:
    import numpy

    Index = numpy.ndarray[tuple[int], numpy.dtype[numpy.int64]]

__all__ = ["MERGE_TWINS"]


def _find(genome: Genome) -> Iterable[Site]:
    import numpy

    for space in changeable(genome.graph):
        into = _classes(genome, space)
        counts = numpy.bincount(into)
        if counts.max() > 1 and (not space.balanced or len(set(counts.tolist())) == 1):
            promise = "eval-exact" if space.draws else "exact"
            yield Site({"space": space.name}, promise if _add_up(genome, space, into) else "approximate")


def _add_up(genome: Genome, space: Space, into: Index) -> bool:
    """Whether the sums of what the readers gave to twins are floating-point numbers of the weights' type."""
    return all(
        bool((axis.sum(tensor) == axis.apply(tensor)).all())
        for plan in merge_channels(genome.graph, space, into, 0).transfer.plans.values()
        if isinstance(plan, Mapped)
        for axis in plan.axes
        if isinstance(axis, AxisSum)
        for tensor in [genome.weights[plan.source]]
    )


def _classes(genome: Genome, space: Space) -> Index:
    """For each channel of a block, the number of its class of twins, in the order in which the classes come."""
    import numpy

    block = space.width // space.blocks
    found = numpy.zeros(block, dtype=numpy.int64)
    for use in space.uses:
        if use.how == "read":
            continue
        slices = genome.weights[use.tensor].narrow(use.axis, use.offset, space.width * use.inner).movedim(use.axis, 0)
        rows = slices.reshape(space.blocks, block, -1).transpose(0, 1).reshape(block, -1).contiguous()
        numbers: dict[tuple[int, bytes], int] = {}
        keys = zip(found.tolist(), _bytes(rows), strict=True)
        found = numpy.asarray([numbers.setdefault(key, len(numbers)) for key in keys], dtype=numpy.int64)
        if len(numbers) == block:
            break
    return found


def _bytes(rows: Any) -> list[bytes]:
    import torch

    plain = rows.clone(memory_format=torch.contiguous_format)
    return [row.tobytes() for row in plain.view(torch.uint8).numpy()]


def _choose(genome: Genome, place: Mapping[str, Any], rng: numpy.random.Generator) -> Mapping[str, Any]:
    into = _classes(genome, space_at(genome.graph, place["space"]))
    return {"into": [int(number) for number in into]}


def _options(genome: Genome, place: Mapping[str, Any]) -> Mapping[str, Option]:
    return {"into": Merged([int(number) for number in _classes(genome, space_at(genome.graph, place["space"]))])}


def _build(work: Work) -> Build:
    import numpy

    space = space_at(work.graph, work.place["space"])
    return merge_channels(work.graph, space, numpy.asarray(work.choices["into"], dtype=numpy.int64), work.born)


MERGE_TWINS = Mutation(
    name="merge_twins",
    preserves="exact",
    summary="merge channels that are copies of each other",
    needs="a channel space that can change, in which channels are copies of each other, bit for bit",
    find=_find,
    choose=_choose,
    build=_build,
    options=_options,
    undoes="widen",
)
