"""Narrow all: bring every channel space that can be changed to a fraction of its width, at once.

The whole-network counterpart of `ops.narrow`, with the same importance (Li et al., "Pruning Filters for Efficient
ConvNets", 2017, arXiv 1608.08710). All spaces change in one pass over the graph, however many there are; of heads and
channels within heads, the heads do. Law: none; the child inherits what is kept and is repaired by distillation from its
parent.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from graphs.genome import Genome
from graphs.spaces import Space
from ops.mutation import Build, Mutation, Site, Work
from ops.narrow import important
from ops.options import Ascending, Named, Option
from ops.width import Resized, apart, change_widths, changeable

if TYPE_CHECKING:
    import numpy

__all__ = ["NARROW_ALL"]

_PARTS = (0.5, 0.75)


def _find(genome: Genome) -> Iterable[Site]:
    spaces = apart(changeable(genome.graph))
    for part in _PARTS:
        if sum(_kept(space, part) < space.width // space.blocks for space in spaces) >= 2:
            yield Site({"to": part}, "approximate")


def _kept(space: Space, part: float) -> int:
    """How many channels of a block remain."""
    return max(1, round(space.width // space.blocks * part))


def _choose(genome: Genome, place: Mapping[str, Any], rng: numpy.random.Generator) -> Mapping[str, Any]:
    keep: dict[str, list[int]] = {}
    for space in apart(changeable(genome.graph)):
        kept = _kept(space, place["to"])
        if kept < space.width // space.blocks:
            keep[space.name] = important(genome, space, kept)
    return {"keep": keep}


def _options(genome: Genome, place: Mapping[str, Any]) -> Mapping[str, Option]:
    spaces = apart(changeable(genome.graph))
    return {"keep": Named({space.name: Ascending(space.width // space.blocks) for space in spaces})}


def _build(work: Work) -> Build:
    import numpy

    keep = work.choices["keep"]
    changes = [
        Resized(space, numpy.asarray(keep[space.name], dtype=numpy.int64))
        for space in changeable(work.graph)
        if space.name in keep
    ]
    return change_widths(work.graph, changes, work.born)


NARROW_ALL = Mutation(
    name="narrow_all",
    preserves="approximate",
    summary="drop channels of all spaces at once, those whose weights are smallest",
    needs="two channel spaces that can change, each with two channels or more in each of its blocks",
    find=_find,
    choose=_choose,
    build=_build,
    options=_options,
)
