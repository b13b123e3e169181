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
from graphs.structure import Graph
from ops.copying import copy_nodes
from ops.mutation import Build, Mutation, Site, Work
from ops.places import junctions, random_nodes, shares_statistics
from ops.transfer import New, Plan, Transfer

if TYPE_CHECKING:
    import numpy

__all__ = ["SPLIT_HEAD", "cuts"]

_SHARE = 0.375


def _find(genome: Genome) -> Iterable[Site]:
    graph = genome.graph
    if len(graph.heads) != 1:
        return
    wanted = set(junctions(graph))
    for cut in cuts(graph):
        if cut not in wanted:
            continue
        suffix = _suffix(graph, cut)
        if any(graph[node].tensors for node in suffix):
            alone = not random_nodes(graph, suffix) and not shares_statistics(graph, suffix)
            yield Site({"cut": cut}, "exact" if alone else "eval-exact")


def cuts(graph: Graph) -> list[str]:
    """Nodes through which every path from an input to an output leads."""
    position = {id: place for place, id in enumerate(graph.nodes)}
    reach, found = 0, []
    for id, place in position.items():
        if reach <= place and place >= position[graph.inputs[-1].id]:
            found.append(id)
        reach = max([reach, *(position[reader] for reader, _ in graph.consumers[id])])
    return found


def _suffix(graph: Graph, cut: str) -> frozenset[str]:
    return graph.downstream([cut]) - {cut}


def _choose(genome: Genome, place: Mapping[str, Any], rng: numpy.random.Generator) -> Mapping[str, Any]:
    return {"share": _SHARE}


def _build(work: Work) -> Build:
    graph, cut = work.graph, work.place["cut"]
    suffix = _suffix(graph, cut)
    head = graph.heads[0]
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
    find=_find,
    choose=_choose,
    build=_build,
)
