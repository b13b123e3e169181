"""Widen: copy channels, and let the copies share what their readers gave to the original.

Net2WiderNet (Chen, Goodfellow, Shlens, "Net2Net", 2016, arXiv 1511.05641) with the uneven shares of LEMON (Wang et al.,
2024, arXiv 2310.07999): copies that share unevenly receive different gradients, so they part without any noise, and the
function stays exactly what it was. Law: exact in both modes; in eval mode only where a node draws random numbers for
each channel. Under layer and group norm each channel is copied equally often.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from graphs.genome import Genome
from graphs.initial import stream, uniform
from ops.mutation import Build, Mutation, Site, Work
from ops.width import change_width, changeable, space_at

if TYPE_CHECKING:
    import numpy

__all__ = ["WIDEN"]

_FACTORS = (1.25, 1.5, 2.0)


def _find(genome: Genome) -> Iterable[Site]:
    for space in changeable(genome.graph):
        yield Site({"space": space.name}, "eval-exact" if space.draws else "exact")


def _choose(genome: Genome, place: Mapping[str, Any], rng: numpy.random.Generator) -> Mapping[str, Any]:
    space = space_at(genome.graph, place["space"])
    block = space.width // space.blocks
    factor = _FACTORS[int(rng.integers(len(_FACTORS)))]
    wider = 2 * block if space.balanced else max(block + 1, round(block * factor))
    return {"width": wider * space.blocks, "split": "uneven"}


def _build(work: Work) -> Build:
    import numpy

    space = space_at(work.graph, work.place["space"])
    block, wider = space.width // space.blocks, work.choices["width"] // space.blocks
    draws = stream(work.seed, "widen")
    more = wider - block
    # Whole rounds copy every channel; what remains copies channels at random, each at most once more.
    order = numpy.argsort(uniform(draws, (block,), 0, 1), kind="stable")
    copies = numpy.concatenate([numpy.tile(numpy.arange(block), more // block), order[: more % block]])
    within = numpy.concatenate([numpy.arange(block), copies]).astype(numpy.int64)
    after = numpy.bincount(within, minlength=block)[within] - _before(within)
    shares = 1 / after if work.choices["split"] == "even" else uniform(draws, (wider,), 0.55, 0.8)
    return change_width(work.graph, space, within, numpy.where(after == 1, 1.0, shares), work.born)


def _before(within: numpy.ndarray[tuple[int], numpy.dtype[numpy.int64]]) -> list[int]:
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
    find=_find,
    choose=_choose,
    build=_build,
)
