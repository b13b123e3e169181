"""Replicate branch: a copy of a layer, with its norm and activation, beside it; the outputs of both are averaged.

The replication of Path-level EAS (Cai et al., "Path-Level Network Transformation for Efficient Architecture Search",
2018, arXiv 1806.02639). The average is a learnable gate that starts uneven, so that both receive different gradients
and part without any noise. What is copied ends in an activation: two layers without one would add up to one layer.
Law: exact in both modes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from graphs.draft import Draft
from graphs.genome import Genome
from graphs.kinds import KINDS
from graphs.structure import Graph
from ops.mixing import is_layer
from ops.mutation import Build, Mutation, Site, Work
from ops.options import Option, Share
from ops.places import followed, shared_tensors
from ops.transfer import Mapped, New, Plan, Transfer

if TYPE_CHECKING:
    import numpy

__all__ = ["REPLICATE_BRANCH"]

_SHARE = 0.375


def _find(genome: Genome) -> Iterable[Site]:
    graph = genome.graph
    outputs, shared = {head.node for head in graph.heads}, shared_tensors(graph)
    for node in graph.nodes.values():
        if not is_layer(node):
            continue
        part = followed(graph, node.id)
        bent = any(KINDS[graph[id].kind].activation for id in part)
        if bent and part[-1] not in outputs and not _updates(graph, part, shared):
            yield Site({"layer": node.id}, "exact")


def _updates(graph: Graph, part: Iterable[str], tensors: frozenset[str]) -> bool:
    """Whether a norm of a part updates running statistics among `tensors`."""
    return any(
        KINDS[graph[id].kind].normalisation and not tensors.isdisjoint(graph[id].tensors.values()) for id in part
    )


def _choose(genome: Genome, place: Mapping[str, Any], rng: numpy.random.Generator) -> Mapping[str, Any]:
    return {"share": _SHARE}


def _options(genome: Genome, place: Mapping[str, Any]) -> Mapping[str, Option]:
    return {"share": Share()}


def _build(work: Work) -> Build:
    part = followed(work.graph, work.place["layer"])
    draft = Draft(work.graph, work.born)
    plans: dict[str, Plan] = {}
    source, last = work.graph[part[0]].inputs[0], part[-1]
    for id in part:
        old = work.graph[id]
        source = last = draft.add(old.kind, source, after=last, **old.settings)
        plans.update({draft.nodes[last].tensors[role]: Mapped(name) for role, name in old.tensors.items()})
    copied = frozenset(plans)
    gate = draft.add("gate", [part[-1], last], after=last)
    share = float(work.choices["share"])
    plans[draft.nodes[gate].tensors["gate"]] = New(share)
    draft.redirect(part[-1], gate, [reader for reader, _ in work.graph.consumers[part[-1]]])
    # A tensor that stands elsewhere too has gradients from there as well.
    alone = {name for id in part for name in work.graph[id].tensors.values()} - shared_tensors(work.graph)
    gradients = dict.fromkeys(alone, 1 - share) | dict.fromkeys(copied, share)
    return Build(draft.finish(), Transfer(plans, gradients))


REPLICATE_BRANCH = Mutation(
    name="replicate_branch",
    preserves="exact",
    summary="copy a layer with its norm and activation beside it and average both",
    needs="a convolution or linear layer followed by an activation that is no output",
    find=_find,
    choose=_choose,
    build=_build,
    options=_options,
)
