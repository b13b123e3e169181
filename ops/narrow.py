"""Narrow: drop the channels of a space that its weights say least about.

Importance is the sum over all writers of the L1 norm of a channel's slice (Li et al., "Pruning Filters for Efficient
ConvNets", 2017, arXiv 1608.08710), each writer's norms divided by their mean. Law: none; the child inherits what is
kept and is repaired by distillation from its parent (LEMONADE: Elsken, Metzen, Hutter, 2019, arXiv 1804.09081).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from graphs.genome import Genome
from graphs.spaces import Space
from ops.mutation import Build, Mutation, Site, Work
from ops.options import Ascending, Option
from ops.width import change_width, changeable, space_at

if TYPE_CHECKING:
    import numpy

__all__ = ["NARROW", "important"]

_FACTORS = (0.5, 0.75)


def _find(genome: Genome) -> Iterable[Site]:
    for space in changeable(genome.graph):
        if space.width // space.blocks >= 2:
            yield Site({"space": space.name}, "approximate")


def _choose(genome: Genome, place: Mapping[str, Any], rng: numpy.random.Generator) -> Mapping[str, Any]:
    space = space_at(genome.graph, place["space"])
    block = space.width // space.blocks
    kept = max(1, min(block - 1, round(block * _FACTORS[int(rng.integers(len(_FACTORS)))])))
    return {"keep": important(genome, space, kept)}


def important(genome: Genome, space: Space, count: int) -> list[int]:
    """The `count` positions within a block whose channels matter most, in their order."""
    import numpy

    best = numpy.argsort(-_importance(genome, space), kind="stable")[:count]
    return sorted(int(channel) for channel in best)


def _importance(genome: Genome, space: Space) -> numpy.ndarray[tuple[int], numpy.dtype[numpy.float64]]:
    """For each position within a block, how much its channels matter."""
    import numpy

    block = space.width // space.blocks
    total = numpy.zeros(block)
    for use in space.uses:
        tensor = genome.weights[use.tensor]
        if use.how != "write" or tensor.ndim < 2:
            continue
        slices = tensor.narrow(use.axis, use.offset, space.width * use.inner).movedim(use.axis, 0)
        norms = slices.reshape(space.blocks, block, -1).abs().double().sum(dim=(0, 2)).numpy()
        total += norms / max(float(norms.mean()), 1e-30)
    return total


def _options(genome: Genome, place: Mapping[str, Any]) -> Mapping[str, Option]:
    space = space_at(genome.graph, place["space"])
    return {"keep": Ascending(space.width // space.blocks)}


def _build(work: Work) -> Build:
    import numpy

    space = space_at(work.graph, work.place["space"])
    within = numpy.asarray(work.choices["keep"], dtype=numpy.int64)
    return change_width(work.graph, space, within, None, work.born)


NARROW = Mutation(
    name="narrow",
    preserves="approximate",
    summary="drop the channels of a space whose weights are smallest",
    needs="a channel space that can change, with two channels or more in each of its blocks",
    find=_find,
    choose=_choose,
    build=_build,
    options=_options,
)
