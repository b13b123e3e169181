"""Split outputs: from a point on, two copies of the network, each of which makes some of the outputs.

The heads of several tasks on a shared trunk: the rows of the last layer are divided, and each part gets a copy of all
that leads from the point to it (HydraNets: Mullapudi et al., "HydraNets: Specialized Dynamic Architectures for
Efficient Inference", CVPR 2018; TreeNets: Lee et al., 2015, arXiv 1511.06314). The outputs stand side by side as
before. No copy is tied to another, for each learns from outputs of its own; so what an optimiser keeps is copied as it
is, though no factor says which part of a gradient comes from which output. Law: exact in both modes; in eval mode only
where the copied part draws random numbers or shares the statistics of a norm.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from graphs.draft import Draft
from graphs.genome import Genome
from graphs.structure import Graph
from ops.axis_maps import AxisMap
from ops.copying import copy_nodes
from ops.mixing import mixed_axis, reads_all_channels
from ops.mutation import Build, Mutation, Site, Work
from ops.options import Option, Whole
from ops.places import junctions, kept_by_copies
from ops.split_head import cuts
from ops.transfer import Mapped, Plan, Transfer

if TYPE_CHECKING:
    import numpy

__all__ = ["SPLIT_OUTPUTS"]


def _find(genome: Genome) -> Iterable[Site]:
    graph = genome.graph
    last = graph[graph.heads[0].node]
    if len(graph.heads) != 1 or not reads_all_channels(last) or last.settings["out"] < 2 or graph.consumers[last.id]:
        return
    wanted = set(junctions(graph))
    for cut in cuts(graph):
        between = _between(graph, cut)
        if cut in wanted and any(graph[node].tensors for node in between):
            yield Site({"cut": cut}, kept_by_copies(graph, between))


def _between(graph: Graph, cut: str) -> frozenset[str]:
    """What lies behind a point and in front of the last layer."""
    return graph.downstream([cut]) - {cut, graph.heads[0].node}


def _choose(genome: Genome, place: Mapping[str, Any], rng: numpy.random.Generator) -> Mapping[str, Any]:
    return {"first": int(rng.integers(1, genome.graph[genome.graph.heads[0].node].settings["out"]))}


def _options(genome: Genome, place: Mapping[str, Any]) -> Mapping[str, Option]:
    return {"first": Whole(1, genome.graph[genome.graph.heads[0].node].settings["out"] - 1)}


def _build(work: Work) -> Build:
    import numpy

    graph, first = work.graph, work.choices["first"]
    last = graph[graph.heads[0].node]
    draft = Draft(graph, work.born)
    copies, copied = copy_nodes(draft, graph, _between(graph, work.place["cut"]), {})
    plans: dict[str, Plan] = {**copied}
    parts = []
    ends = (last.inputs[0], 0, first), (copies[last.inputs[0]], first, last.settings["out"])
    for source, start, end in ends:
        part = draft.add(last.kind, source, **{**last.settings, "out": end - start})
        rows = AxisMap(0, numpy.arange(start, end, dtype=numpy.int64))
        plans.update({draft.nodes[part].tensors[role]: Mapped(name, (rows,)) for role, name in last.tensors.items()})
        parts.append(part)
    draft.move_heads(last.id, draft.add("concat", parts, axis=mixed_axis(graph, last)))
    draft.remove([last.id])
    return Build(draft.finish(), Transfer(plans))


SPLIT_OUTPUTS = Mutation(
    name="split_outputs",
    preserves="exact",
    summary="copy the network behind a point, each copy for some of the outputs",
    needs="a single output of two numbers or more, made by a layer that mixes all channels",
    find=_find,
    choose=_choose,
    build=_build,
    options=_options,
)
