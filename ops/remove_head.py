"""Remove head: keep one of the copies whose outputs a gate averages, or drop an output that exists in training only.

Law: of copies that have not parted, one is kept exactly, in eval mode only where they draw random numbers; it is what
`split_head` was made from, bit for bit (see `ops.gates`). Without an output for training only the network is the same
in eval mode. An output that exists in eval mode is never dropped: somebody has asked for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from graphs.draft import Draft
from graphs.genome import Genome
from graphs.structure import Graph
from ops.bypass import dropped
from ops.gates import choose_why, keep_side, reasons, sides
from ops.mutation import Build, Mutation, Site, Work
from ops.options import Option
from ops.transfer import Transfer

if TYPE_CHECKING:
    import numpy

__all__ = ["REMOVE_HEAD"]


def _find(genome: Genome) -> Iterable[Site]:
    graph = genome.graph
    yield from sides(genome, outputs=True)
    for head in graph.heads:
        if head.training_only:
            lost = dropped(graph, _without(graph, head.name))
            if not any(graph[id].kind == "input" for id in lost):
                yield Site({"head": head.name}, "eval-exact")


def _without(graph: Graph, name: str, born: int = 0) -> Draft:
    draft = Draft(graph, born)
    draft.heads = [head for head in draft.heads if head.name != name]
    draft.prune()
    return draft


def _choose(genome: Genome, place: Mapping[str, Any], rng: numpy.random.Generator) -> Mapping[str, Any]:
    return {} if "head" in place else choose_why(genome, place, rng)


def _options(genome: Genome, place: Mapping[str, Any]) -> Mapping[str, Option]:
    return {} if "head" in place else reasons(genome, place)


def _build(work: Work) -> Build:
    if "head" in work.place:
        return Build(_without(work.graph, work.place["head"], work.born).finish(), Transfer())
    return keep_side(work)


REMOVE_HEAD = Mutation(
    name="remove_head",
    preserves="exact",
    summary="keep one of the copies of an output, or drop one that exists in training only",
    needs="an output that is a gate, such as 'split_head' makes, or one that exists in training only",
    find=_find,
    choose=_choose,
    build=_build,
    options=_options,
    undoes="split_head",
)
