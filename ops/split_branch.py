"""Split branch: two layers side by side make a layer's channels, the first ones and the others.

y = [f₁(x), f₂(x)], where f₁ and f₂ have the filters of f (the concatenation of Path-level EAS: Cai et al., "Path-Level
Network Transformation for Efficient Architecture Search", 2018, arXiv 1806.02639). Nothing is gained yet, but from now
on kernel, width and depth of each part change on their own. The norm and the activation that follow f are split with
it, their parameters too, or stay behind the concatenation. A grouped or depthwise convolution is split between its
groups, and so are the channels that it reads. The rows of a last layer can be split as any others are, by task, say.
Law: exact in both modes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from graphs.draft import Draft
from graphs.genome import Genome
from graphs.kinds import KINDS
from graphs.structure import Graph, Node
from ops.axis_maps import AxisMap
from ops.mixing import is_layer, mixed_axis
from ops.mutation import Build, Mutation, Site, Work
from ops.options import Option, Whole
from ops.places import followed, shared_tensors
from ops.reading import by_channel
from ops.transfer import Mapped, Plan, Transfer

if TYPE_CHECKING:
    import numpy

__all__ = ["SPLIT_BRANCH"]

_PARTS = (0.25, 0.5, 0.75)


def _find(genome: Genome) -> Iterable[Site]:
    for node in genome.graph.nodes.values():
        if is_layer(node) and _pieces(node) > 1:
            yield Site({"node": node.id}, "exact")


def _pieces(layer: Node) -> int:
    """How many parts a layer could be split into: of one channel, or of one group each."""
    groups: int = layer.settings.get("groups", 1)
    return groups if groups > 1 else int(layer.settings["out"])


def _behind(graph: Graph, layer: Node) -> list[str]:
    """The norms and activations behind a layer that can be split with it."""
    shared, found = shared_tensors(graph), []
    for id in followed(graph, layer.id)[1:]:
        node = graph[id]
        split = not KINDS[node.kind].affine or KINDS[node.kind].normalisation
        if not split or not shared.isdisjoint(node.tensors.values()) or (node.tensors and mixed_axis(graph, layer)):
            break
        found.append(id)
    return found


def _choose(genome: Genome, place: Mapping[str, Any], rng: numpy.random.Generator) -> Mapping[str, Any]:
    node = genome.graph[place["node"]]
    pieces = _pieces(node)
    part = _PARTS[int(rng.integers(len(_PARTS)))]
    first = min(pieces - 1, max(1, round(part * pieces))) * node.settings["out"] // pieces
    return {"first": first, "through": len(_behind(genome.graph, node)) * int(rng.integers(2))}


def _options(genome: Genome, place: Mapping[str, Any]) -> Mapping[str, Option]:
    node = genome.graph[place["node"]]
    step = node.settings["out"] // _pieces(node)
    first = Whole(step, node.settings["out"] - step, step)
    return {"first": first, "through": Whole(0, len(_behind(genome.graph, node)))}


def _build(work: Work) -> Build:
    import numpy

    graph, old = work.graph, work.graph[work.place["node"]]
    first, out = work.choices["first"], old.settings["out"]
    through = _behind(graph, old)[: work.choices["through"]]
    draft, last = Draft(graph, work.born), [old.id, *through][-1]
    plans: dict[str, Plan] = {}
    parts: list[str] = []
    for start, end in ((0, first), (first, out)):
        rows = AxisMap(0, numpy.arange(start, end, dtype=numpy.int64))
        part = _layer(draft, graph, old, start, end, parts[-1] if parts else last)
        plans.update({draft.nodes[part].tensors[role]: Mapped(name, (rows,)) for role, name in old.tensors.items()})
        for id in through:
            node, each = graph[id], by_channel(graph, graph[id])
            part = draft.add(node.kind, part, after=part, **node.settings)
            names = draft.nodes[part].tensors
            plans.update(
                {names[role]: Mapped(name, (rows,) if name in each else ()) for role, name in node.tensors.items()}
            )
        parts.append(part)
    joined = draft.add("concat", parts, after=parts[-1], axis=mixed_axis(graph, old))
    draft.redirect(last, joined, [reader for reader, _ in graph.consumers[last]])
    draft.move_heads(last, joined)
    draft.remove([old.id, *through])
    return Build(draft.finish(), Transfer(plans))


def _layer(draft: Draft, graph: Graph, old: Node, start: int, end: int, after: str) -> str:
    """A layer for some of the channels of an old one; where that is grouped, with what those groups read."""
    settings, groups = {**old.settings, "out": end - start}, old.settings.get("groups", 1)
    if groups == 1:
        return draft.add(old.kind, old.inputs, after=after, **settings)
    given, out = graph.shapes[old.inputs[0]][0], old.settings["out"]
    low, high = (given * place // out for place in (start, end))
    read = draft.add("slice", old.inputs, after=after, axis=0, start=low, stop=high)
    return draft.add(old.kind, read, after=read, **{**settings, "groups": groups * (end - start) // out})


SPLIT_BRANCH = Mutation(
    name="split_branch",
    preserves="exact",
    summary="make a layer's channels by two layers side by side",
    needs="a linear layer or a convolution of two channels or more",
    find=_find,
    choose=_choose,
    build=_build,
    options=_options,
)
