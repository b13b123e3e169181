"""Widen a stream: any number of further channels under norms that run over all of them.

The new channels hold what the norms take for nothing (`graphs.neutral`): zeros under root-mean-square norms (the hidden
expansion of Gesmundo and Maile, "Composable Function-preserving Expansions for Transformer Architectures", 2023, arXiv
2308.06103), and the mean of the others under layer norms (LEMON: Wang et al., 2024, arXiv 2310.07999, for one copy of
each channel; `widen` before it makes more). With r channels for each one that there was, the norms' scales are divided
by √r and their eps by r. Where a norm takes its eps from the type of the numbers, no number is right in every type: the
eps stays what it is, and what the norm reads is multiplied by √r. Who reads zeros has fresh weights for them, those
that layer norms make of means, too; who reads the means themselves has none.

Law: exact in both modes, up to the rounding of scales and means to the weights' type; in eval mode only where a node
draws random numbers for each channel. The old scales follow their parent with the factors of `ops.optimizing`. Under
layer norms what makes the stream has other gradients than in the parent, by what all channels have in common, because
the norms now take away a mean to which the new channels contribute. Everything new learns within two steps.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from math import sqrt
from typing import TYPE_CHECKING, Any

from graphs.draft import Draft
from graphs.errors import GraphError
from graphs.genome import Genome
from graphs.neutral import Neutral, neutral
from graphs.spaces import Space, Use
from graphs.structure import Graph
from ops.axis_maps import AxisMap, AxisMean, lengthened
from ops.mutation import Build, Mutation, Site, Work
from ops.options import Option, widths
from ops.transfer import Extended, Mapped, Plan, Transfer
from ops.widen import wider
from ops.width import change_width, changeable, space_at

if TYPE_CHECKING:
    import numpy

__all__ = ["WIDEN_STREAM"]


def _find(genome: Genome) -> Iterable[Site]:
    for space in changeable(genome.graph):
        if isinstance(neutral(genome.graph, space), Neutral):
            yield Site({"space": space.name}, "eval-exact" if space.draws else "exact")


def _free(genome: Genome, place: Mapping[str, Any]) -> Space:
    """The space, as if no norm asked for whole multiples."""
    return replace(space_at(genome.graph, place["space"]), norms=())


def _choose(genome: Genome, place: Mapping[str, Any], rng: numpy.random.Generator) -> Mapping[str, Any]:
    return {"width": wider(_free(genome, place), rng)}


def _options(genome: Genome, place: Mapping[str, Any]) -> Mapping[str, Option]:
    return {"width": widths(_free(genome, place))}


def _build(work: Work) -> Build:
    graph, space = work.graph, space_at(work.graph, work.place["space"])
    found = neutral(graph, space)
    if isinstance(found, str):
        raise GraphError(f"no channel of '{space.name}' can be neutral, because {found}")
    block, more = space.width // space.blocks, (work.choices["width"] - space.width) // space.blocks
    built = change_width(graph, space, lengthened(block, more, -2), None, work.born)
    ratio = work.choices["width"] / space.width
    plans = {name: _plan(graph, space, found, name, plan, more, ratio) for name, plan in built.transfer.plans.items()}
    draft = Draft(built.graph, work.born)
    for norm in space.norms:
        source, eps = graph[norm].inputs[0], graph[norm].settings["eps"]
        if eps is None:
            program = [["operator.mul", [{"in": 0}, sqrt(ratio)], {}]]
            draft.rewire(norm, 0, draft.add("pointwise", source, after=source, program=program))
        else:
            draft.set(norm, eps=eps / ratio)
    return replace(built, graph=draft.finish(), transfer=Transfer(plans))


def _plan(
    graph: Graph, space: Space, found: Neutral, tensor: str, plan: Plan, more: int, ratio: float
) -> Mapped | Extended:
    """What becomes of a tensor whose new entries, `more` for each block, would all be zero."""
    assert isinstance(plan, Mapped)  # noqa: S101 (a change of width without fresh channels makes no others)
    uses = [use for use in space.uses if use.tensor == tensor]
    scaled = any(graph[norm].tensors["weight"] == tensor for norm in space.norms)
    maps: list[AxisMap] = []
    drawn: list[int] = []
    for axis in plan.axes:
        assert isinstance(axis, AxisMap)  # noqa: S101 (nor maps)
        here = [use for use in uses if use.axis == axis.axis]
        if all(_is_neutral(use, found) for use in here):
            maps.append(_means(space, here, axis, more) if found.mean else axis)
        elif any(use.how == "read" and graph[use.node].inputs[use.slot] not in found.open for use in here):
            maps.append(axis)
        else:
            scale = 1 / sqrt(ratio) if scaled and not drawn else 1.0
            maps.append(replace(axis, index=axis.index.clip(min=-1), scale=scale))
            drawn.append(axis.axis)
    return Extended(tensor, tuple(maps), drawn[0]) if drawn else Mapped(tensor, tuple(maps))


def _is_neutral(use: Use, found: Neutral) -> bool:
    """Whether this makes channels, rather than working on them or reading them."""
    return use.how == "write" or use.node in found.added


def _means(space: Space, uses: list[Use], axis: AxisMap, more: int) -> AxisMean:
    """The map of an axis along which channels are made, the new ones as means of the old ones."""
    import numpy

    kin = numpy.full(int(axis.index.max()) + 1, -1)
    means: list[int] = []
    count = 0
    for offset, inner in sorted({(use.offset, use.inner) for use in uses}):
        numbers = count + numpy.arange(inner)
        kin[offset : offset + space.width * inner] = numpy.tile(numbers, space.width)
        means += [*numpy.tile(numbers, more)]
        count += inner
    return AxisMean(axis.axis, axis.index, kin=kin, means=numpy.asarray(means, dtype=numpy.int64))


WIDEN_STREAM = Mutation(
    name="widen_stream",
    preserves="exact",
    summary="add any number of channels under layer or root-mean-square norms, which take them for nothing at first",
    needs="a channel space that can change, whose channels run to their layer norms or root-mean-square norms as a "
    "whole, through sums and the like",
    find=_find,
    choose=_choose,
    build=_build,
    options=_options,
)
