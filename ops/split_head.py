"""Split head: copy the network from a point to its output, and average the two outputs.

TreeNets (Lee et al., "Why M Heads are Better than One", 2015, arXiv 1511.06314). The outputs are averaged as they are:
logits, or probabilities where a network ends in them. The average is a learnable gate that starts uneven: under an even
mean two equal copies receive equal gradients and stay tied for ever, under an uneven one they part without any noise.
Law: exact in both modes; in eval mode only where the copied part draws random numbers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from graphs.draft import Draft
from graphs.genome import Genome
from graphs.structure import Graph, Head
from ops.copying import copy_nodes
from ops.mutation import Build, Mutation, Site, Work
from ops.options import Option, Share
from ops.places import junctions, kept_by_copies
from ops.transfer import New, Plan, Transfer

if TYPE_CHECKING:
    import numpy

__all__ = ["SPLIT_HEAD", "cuts"]

_SHARE = 0.375


def _find(genome: Genome) -> Iterable[Site]:
    graph = genome.graph
    if sum(not head.training_only for head in graph.heads) != 1:
        return
    wanted = set(junctions(graph))
    others = graph.upstream(head.node for head in graph.heads if head.training_only)
    for cut in cuts(graph):
        suffix = _suffix(graph, cut)
        # What an output for training reads, too, stays as it is.
        if cut in wanted and suffix.isdisjoint(others) and any(graph[node].tensors for node in suffix):
            yield Site({"cut": cut}, kept_by_copies(graph, suffix))


def _head(graph: Graph) -> Head:
    """The one output in eval mode."""
    (found,) = (head for head in graph.heads if not head.training_only)
    return found


def cuts(graph: Graph) -> list[str]:
    """Nodes through which every path from an input to the output leads."""
    trunk = graph.upstream([_head(graph).node])
    position = {id: place for place, id in enumerate(graph.nodes) if id in trunk}
    first = max(position.get(node.id, 0) for node in graph.inputs)
    reach, found = 0, []
    for id, place in position.items():
        if reach <= place and place >= first:
            found.append(id)
        reach = max([reach, *(position[reader] for reader, _ in graph.consumers[id] if reader in trunk)])
    return found


def _suffix(graph: Graph, cut: str) -> frozenset[str]:
    """What leads from a cut to the output."""
    return graph.downstream([cut]) & graph.upstream([_head(graph).node]) - {cut}


def _choose(genome: Genome, place: Mapping[str, Any], rng: numpy.random.Generator) -> Mapping[str, Any]:
    return {"share": _SHARE}


def _options(genome: Genome, place: Mapping[str, Any]) -> Mapping[str, Option]:
    return {"share": Share()}


def _build(work: Work) -> Build:
    graph, cut = work.graph, work.place["cut"]
    suffix = _suffix(graph, cut)
    head = _head(graph)
    draft = Draft(graph, work.born)
    copies, copied = copy_nodes(draft, graph, suffix, {cut: cut})
    plans: dict[str, Plan] = {**copied}
    gate = draft.add("gate", [head.node, copies[head.node]])
    share = float(work.choices["share"])
    plans[draft.nodes[gate].tensors["gate"]] = New(share)
    draft.move_heads(head.node, gate)
    rest = {name for node in graph.nodes.values() if node.id not in suffix for name in node.tensors.values()}
    originals = {plan.source for plan in copied.values()} - rest
    gradients = dict.fromkeys(originals, 1 - share) | dict.fromkeys(copied, share)
    return Build(draft.finish(), Transfer(plans, gradients))


SPLIT_HEAD = Mutation(
    name="split_head",
    preserves="exact",
    summary="copy the network behind a point and average both outputs",
    needs="one output in eval mode, and a node that all of it depends on, with layers behind it",
    find=_find,
    choose=_choose,
    build=_build,
    options=_options,
)
