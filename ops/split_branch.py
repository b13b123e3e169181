"""Split branch: two layers side by side make a layer's channels, the first ones and the others.

y = [f₁(x), f₂(x)], where f₁ and f₂ have the filters of f (the concatenation of Path-level EAS: Cai et al., "Path-Level
Network Transformation for Efficient Architecture Search", 2018, arXiv 1806.02639). Nothing is gained yet, but from now
on kernel, width and depth of each part change on their own. What normalises and activates f stays behind the
concatenation. Law: exact in both modes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from graphs.draft import Draft
from graphs.genome import Genome
from ops.axis_maps import AxisMap
from ops.mixing import mixed_axis, reads_all_channels
from ops.mutation import Build, Mutation, Site, Work
from ops.transfer import Mapped, Plan, Transfer

if TYPE_CHECKING:
    import numpy

__all__ = ["SPLIT_BRANCH"]

_PARTS = (0.25, 0.5, 0.75)


def _find(genome: Genome) -> Iterable[Site]:
    outputs = {head.node for head in genome.graph.heads}
    for node in genome.graph.nodes.values():
        if reads_all_channels(node) and node.settings["out"] > 1 and node.id not in outputs:
            yield Site({"node": node.id}, "exact")


def _choose(genome: Genome, place: Mapping[str, Any], rng: numpy.random.Generator) -> Mapping[str, Any]:
    out = genome.graph[place["node"]].settings["out"]
    part = _PARTS[int(rng.integers(len(_PARTS)))]
    return {"first": min(out - 1, max(1, round(part * out)))}


def _build(work: Work) -> Build:
    import numpy

    old, first = work.graph[work.place["node"]], work.choices["first"]
    draft = Draft(work.graph, work.born)
    plans: dict[str, Plan] = {}
    parts: list[str] = []
    for start, end in ((0, first), (first, old.settings["out"])):
        settings = {**old.settings, "out": end - start}
        part = draft.add(old.kind, old.inputs, after=parts[-1] if parts else old.id, **settings)
        rows = AxisMap(0, numpy.arange(start, end, dtype=numpy.int64))
        plans.update({draft.nodes[part].tensors[role]: Mapped(name, (rows,)) for role, name in old.tensors.items()})
        parts.append(part)
    joined = draft.add("concat", parts, after=parts[-1], axis=mixed_axis(work.graph, old))
    draft.redirect(old.id, joined, [reader for reader, _ in work.graph.consumers[old.id]])
    draft.remove([old.id])
    return Build(draft.finish(), Transfer(plans))


SPLIT_BRANCH = Mutation(
    name="split_branch",
    preserves="exact",
    summary="make a layer's channels by two layers side by side",
    find=_find,
    choose=_choose,
    build=_build,
)
