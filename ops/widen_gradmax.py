"""Widen with GradMax: fresh channels that are zero, read in the directions in which they will learn most.

What makes the new channels has weights and biases of zero, so that nothing changes, and what reads them has such
weights that the gradients of the former are as large as they can be for weights of that length (Evci et al., "GradMax:
Growing Neural Networks using Gradient Information", 2022, arXiv 2201.05125); the length is the mean of what the old
channels have (`ops.steepest` finds the directions, in train mode, and says of which loss). Directions beyond those that
the readers have room for, and all of them without a batch, are drawn.

A batch norm between divides by the deviation of the channel, which is zero, so by the root of its eps alone, and would
make gradients some 300 times as large as they were. A new channel gets that root as its scale, and a running variance
of zero: the norm passes it on as it is, in both modes, until it has grown to the size of that root.

Law: exact in both modes, bit for bit where nothing is added; in eval mode only where a node draws random numbers for
each channel. Only where a channel of zeros is zero wherever it is read, and can learn (`graphs.silence`): not behind
ReLU, which has no slope at zero in torch, and not behind a sigmoid.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from graphs.genome import Genome
from graphs.initial import stream, uniform
from graphs.kinds import KINDS
from graphs.silence import heard
from graphs.spaces import Space, Use
from graphs.structure import Graph
from ops.axis_maps import AxisMap, lengthened
from ops.grown import Grown, Slices, split
from ops.mutation import Build, Mutation, Site, Work
from ops.options import Option, widths
from ops.steepest import steepest
from ops.transfer import Completed, Extended, Mapped, Plan, Transfer
from ops.widen import wider
from ops.width import change_width, changeable, space_at

if TYPE_CHECKING:
    import numpy
    from torch import Tensor

__all__ = ["WIDEN_GRADMAX"]


def _find(genome: Genome) -> Iterable[Site]:
    for space in changeable(genome.graph):
        if not space.balanced and heard(genome.graph, space) is None:
            yield Site({"space": space.name}, "eval-exact" if space.draws else "exact")


def _choose(genome: Genome, place: Mapping[str, Any], rng: numpy.random.Generator) -> Mapping[str, Any]:
    return {"width": wider(space_at(genome.graph, place["space"]), rng)}


def _options(genome: Genome, place: Mapping[str, Any]) -> Mapping[str, Option]:
    return {"width": widths(space_at(genome.graph, place["space"]))}


def _build(work: Work) -> Build:

    space = space_at(work.graph, work.place["space"])
    block, new = space.width // space.blocks, work.choices["width"] // space.blocks
    built = change_width(work.graph, space, lengthened(block, new - block, -2), None, work.born)
    plans = dict(built.transfer.plans)
    scales: dict[str, Tensor] = {}
    for use in space.uses:
        plan = plans[use.tensor]
        if use.how == "carry" and isinstance(plan, Mapped):
            plans[use.tensor] = _carried(work.graph, use, plan, scales)
    columns = Slices.of(space, "read")
    for part in columns:
        plan = plans[part.tensor]
        assert isinstance(plan, Mapped)  # noqa: S101 (what is read is not carried)
        plans[part.tensor] = Completed(part.tensor, _maps(plan), part.axis, part.tensor)
    build = replace(built, transfer=Transfer(plans))
    if work.given:
        return replace(build, tensors=work.given)
    return replace(build, tensors={**scales, **_outgoing(work, space, build, scales, columns, new - block)})


def _maps(plan: Mapped) -> tuple[AxisMap, ...]:
    return tuple(axis for axis in plan.axes if isinstance(axis, AxisMap))


def _carried(graph: Graph, use: Use, plan: Mapped, scales: dict[str, Tensor]) -> Plan:
    """What the new channels get in a tensor in which each channel has an entry of its own.

    Biases and statistics are zero, and the scales of a norm such that it passes zeros on with a slope of 1; what else
    there is starts as in a fresh network.
    """
    import torch

    node, maps = graph[use.node], _maps(plan)
    specs = KINDS[node.kind].tensors(node.settings, [graph.shapes[source] for source in node.inputs])
    role = next(role for role, name in node.tensors.items() if name == use.tensor)
    if KINDS[node.kind].normalisation and role == "weight":
        scales[use.tensor] = torch.full((int((maps[0].index < 0).sum()),), node.settings["eps"] ** 0.5)
        return Completed(use.tensor, maps, use.axis, use.tensor)
    if KINDS[node.kind].normalisation or specs[role].start == "zeros":
        return plan
    drawn = (replace(axis, index=axis.index.clip(min=-1)) if axis.axis == use.axis else axis for axis in maps)
    return Extended(use.tensor, tuple(drawn), use.axis)


def _outgoing(
    work: Work,
    space: Space,
    build: Build,
    scales: Mapping[str, Tensor],
    columns: Sequence[Slices],
    count: int,
) -> dict[str, Tensor]:
    """The readers' weights for `count` new channels of each block, by tensor."""
    import torch

    old = torch.cat([part.vectors(part.old(work.genome.weights[part.tensor])) for part in columns], -1).double()
    specs = build.graph.tensors
    size = (space.blocks, count, sum(part.entries(specs[part.tensor].shape) for part in columns))
    start = torch.from_numpy(uniform(stream(work.seed, "gradmax"), size, -1, 1))
    if work.batch is None:
        found = start / start.norm(dim=-1, keepdim=True)
    else:
        network = Grown(work, space, build, scales, columns, size)
        found = steepest(start.to(network.dtype), network.incoming, network.outgoing).double()
    # Readers that give nothing to any channel would leave the new ones without a gradient for ever.
    length = float(old.norm(dim=-1).mean()) or old.shape[1] ** -0.5
    dtype = work.genome.weights[columns[0].tensor].dtype
    return split(columns, (length * found).to(dtype), specs)


WIDEN_GRADMAX = Mutation(
    name="widen_gradmax",
    preserves="exact",
    summary="add channels of zeros to a space, read so that their first gradients are as large as can be",
    needs="channels behind an activation that is 0 at 0 but not flat there, such as GELU, SiLU or tanh, or none",
    find=_find,
    choose=_choose,
    build=_build,
    options=_options,
)
