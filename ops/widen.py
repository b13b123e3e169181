"""Widen: copy channels, and let the copies share what their readers gave to the original.

Net2WiderNet (Chen, Goodfellow, Shlens, "Net2Net", 2016, arXiv 1511.05641) with the uneven shares of LEMON (Wang et al.,
2024, arXiv 2310.07999): copies that share unevenly receive different gradients, so they part without any noise, and the
function stays exactly what it was. The even split of Net2Net is there for those who ask for it (`choices`): its copies
stay tied for ever. Law: exact in both modes; in eval mode only where a node draws random numbers for
each channel. Under layer and group norm each channel is copied equally often.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from graphs.genome import Genome
from graphs.initial import stream, uniform
from graphs.spaces import Space
from ops.mutation import Build, Mutation, Record, Site, Work
from ops.options import OneOf, Option, widths
from ops.width import change_width, changeable, space_at

if TYPE_CHECKING:
    import numpy

    Index = numpy.ndarray[tuple[int], numpy.dtype[numpy.int64]]
    Take = numpy.ndarray[tuple[int], numpy.dtype[numpy.float64]]

__all__ = ["WIDEN", "copied", "wider"]

_FACTORS = (1.25, 1.5, 2.0)


def _find(genome: Genome) -> Iterable[Site]:
    for space in changeable(genome.graph):
        yield Site({"space": space.name}, "eval-exact" if space.draws else "exact")


def _choose(genome: Genome, place: Mapping[str, Any], rng: numpy.random.Generator) -> Mapping[str, Any]:
    return {"width": wider(space_at(genome.graph, place["space"]), rng), "split": "uneven"}


def wider(space: Space, rng: numpy.random.Generator) -> int:
    """A larger width for a space, drawn."""
    block = space.width // space.blocks
    factor = _FACTORS[int(rng.integers(len(_FACTORS)))]
    return space.blocks * (2 * block if space.balanced else max(block + 1, round(block * factor)))


def _options(genome: Genome, place: Mapping[str, Any]) -> Mapping[str, Option]:
    return {"width": widths(space_at(genome.graph, place["space"])), "split": OneOf([*_SPLITS])}


def _build(work: Work) -> Build:
    import numpy

    space = space_at(work.graph, work.place["space"])
    block = space.width // space.blocks
    split = _SPLITS[work.choices["split"]]
    draws = stream(work.seed, "widen")
    within = _copied(block, work.choices["width"] // space.blocks, draws)
    after: Index = numpy.bincount(within, minlength=block)[within] - _before(within)
    return change_width(work.graph, space, within, numpy.where(after == 1, 1.0, split(after, draws)), work.born)


def copied(parent: Genome, record: Record) -> list[int]:
    """For each channel of a block of the child's, the parent's channel that it is or copies.

    Args:
        parent: What was widened.
        record: That of its widening.
    """
    space = space_at(parent.graph, record.site["space"])
    block, new = space.width // space.blocks, record.choices["width"] // space.blocks
    return [int(source) for source in _copied(block, new, stream(record.seed, "widen"))]


def _copied(block: int, new: int, draws: numpy.random.PCG64) -> Index:
    import numpy

    # Whole rounds copy every channel; what remains copies channels at random, each at most once more.
    order = numpy.argsort(uniform(draws, (block,), 0, 1), kind="stable")
    more = new - block
    copies = numpy.concatenate([numpy.tile(numpy.arange(block), more // block), order[: more % block]])
    return numpy.concatenate([numpy.arange(block), copies]).astype(numpy.int64)


def _uneven(after: Index, draws: numpy.random.PCG64) -> Take:
    return uniform(draws, after.shape, 0.55, 0.8)


def _even(after: Index, draws: numpy.random.PCG64) -> Take:
    return 1 / after


_SPLITS = {"uneven": _uneven, "even": _even}
"""For each copy of which there are `after` from it on: the part that it takes of what those before it left."""


def _before(within: Index) -> list[int]:
    """For each entry, how many entries before it are copies of the same channel."""
    seen: Counter[int] = Counter()
    found = []
    for source in within.tolist():
        found.append(seen[source])
        seen[source] += 1
    return found


WIDEN = Mutation(
    name="widen",
    preserves="exact",
    summary="copy channels of a space; the copies share their readers' weights unevenly",
    needs="a channel space that can change: written by one layer, read by another, and fixed by nothing between",
    find=_find,
    choose=_choose,
    build=_build,
    options=_options,
)
