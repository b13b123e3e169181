"""Widen with zeros: fresh channels, to which their readers give no weight at first.

What writes the new channels is drawn as in a fresh network, whatever carries them (norms, slopes) starts as it would
there, and the readers' weights for them are zero (the expansion of Gesmundo and Maile, "Composable Function-preserving
Expansions for Transformer Architectures", 2023, arXiv 2308.06103). The readers learn from the first step, the writers
from the second; there are no twins. Law: exact in both modes, whatever the activation; in eval mode only where a node
draws random numbers for each channel. Not under layer and group norm, which would see the new channels.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from graphs.genome import Genome
from ops.axis_maps import lengthened
from ops.mutation import Build, Mutation, Site, Work
from ops.options import Option, widths
from ops.widen import wider
from ops.width import change_width, changeable, space_at

if TYPE_CHECKING:
    import numpy

__all__ = ["WIDEN_ZERO"]


def _find(genome: Genome) -> Iterable[Site]:
    for space in changeable(genome.graph):
        if not space.balanced:
            yield Site({"space": space.name}, "eval-exact" if space.draws else "exact")


def _choose(genome: Genome, place: Mapping[str, Any], rng: numpy.random.Generator) -> Mapping[str, Any]:
    return {"width": wider(space_at(genome.graph, place["space"]), rng)}


def _options(genome: Genome, place: Mapping[str, Any]) -> Mapping[str, Option]:
    return {"width": widths(space_at(genome.graph, place["space"]))}


def _build(work: Work) -> Build:
    space = space_at(work.graph, work.place["space"])
    block, new = space.width // space.blocks, work.choices["width"] // space.blocks
    return change_width(work.graph, space, lengthened(block, new - block, -1), None, work.born)


WIDEN_ZERO = Mutation(
    name="widen_zero",
    preserves="exact",
    summary="add fresh channels to a space, which their readers ignore at first",
    needs="a channel space that can change, and over which no layer norm, root-mean-square norm or group norm runs",
    find=_find,
    choose=_choose,
    build=_build,
    options=_options,
)
