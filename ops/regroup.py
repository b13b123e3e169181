"""Group to dense, dense to group: fewer and larger groups of a convolution, or more and smaller ones.

Merging groups puts their filters on the diagonal of a larger weight whose other blocks are zero, so that each output
channel reads more channels than before; those weights get gradients from the first step. Law: exact in both modes.

Splitting groups keeps the diagonal blocks and drops the others (as ResNeXt's grouped convolutions do from the start:
Xie et al., "Aggregated Residual Transformations for Deep Neural Networks", 2017, arXiv 1611.05431). Law: exact in both
modes where the blocks that are dropped are zero, bit for bit what `group_to_dense` was made from; elsewhere none, and
the child is repaired by distillation from its parent (LEMONADE: Elsken, Metzen, Hutter, 2019, arXiv 1804.09081).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from math import gcd
from typing import TYPE_CHECKING, Any

from graphs.draft import Draft
from graphs.genome import Genome
from graphs.structure import Graph, Node
from ops.mixing import is_convolution
from ops.mutation import Build, Mutation, Site, Work
from ops.options import OneOf, Option
from ops.places import shared_tensors
from ops.transfer import Regrouped, Transfer

if TYPE_CHECKING:
    import numpy

__all__ = ["DENSE_TO_GROUP", "GROUP_TO_DENSE"]


def _fewer(node: Node) -> list[int]:
    """The numbers of groups into which whole groups can be merged."""
    groups = node.settings["groups"]
    return [count for count in range(1, groups) if groups % count == 0]


def _more(graph: Graph, node: Node) -> list[int]:
    """The numbers of groups into which all groups can be split alike."""
    groups, most = node.settings["groups"], gcd(graph.shapes[node.inputs[0]][0], node.settings["out"])
    return [count for count in range(2 * groups, most + 1, groups) if most % count == 0]


def _convolutions(graph: Graph) -> Iterable[Node]:
    shared = shared_tensors(graph)
    return (node for node in graph.nodes.values() if is_convolution(node) and node.tensors["weight"] not in shared)


def _find_merges(genome: Genome) -> Iterable[Site]:
    return (Site({"node": node.id}, "exact") for node in _convolutions(genome.graph) if _fewer(node))


def _find_splits(genome: Genome) -> Iterable[Site]:
    for node in _convolutions(genome.graph):
        for groups in _more(genome.graph, node):
            zero = _is_zero(genome, node, groups)
            yield Site({"node": node.id, "groups": groups}, "exact" if zero else "approximate")


def _is_zero(genome: Genome, node: Node, groups: int) -> bool:
    """Whether the weights are zero that a convolution loses when it falls into so many groups."""
    weight = genome.weights[node.tensors["weight"]]
    parts = groups // node.settings["groups"]
    # Mostly the first filter says it already.
    if bool(weight[0, weight.shape[1] // parts :].any()):
        return False
    return _ground(node, groups).keeps(genome.weights, genome.graph)


def _ground(node: Node, groups: int) -> Transfer:
    """The weight with zeros for what is lost."""
    weight, now = node.tensors["weight"], node.settings["groups"]
    return Transfer({weight: Regrouped(weight, (now, groups, now))})


def _choose_merge(genome: Genome, place: Mapping[str, Any], rng: numpy.random.Generator) -> Mapping[str, Any]:
    found = _fewer(genome.graph[place["node"]])
    return {"groups": found[int(rng.integers(len(found)))]}


def _choose_split(genome: Genome, place: Mapping[str, Any], rng: numpy.random.Generator) -> Mapping[str, Any]:
    return {}


def _options(genome: Genome, place: Mapping[str, Any]) -> Mapping[str, Option]:
    return {"groups": OneOf(_fewer(genome.graph[place["node"]]))}


def _build_merge(work: Work) -> Build:
    return _regrouped(work, work.choices["groups"])


def _build_split(work: Work) -> Build:
    node, groups = work.graph[work.place["node"]], work.place["groups"]
    return replace(_regrouped(work, groups), ground=_ground(node, groups))


def _regrouped(work: Work, groups: int) -> Build:
    node = work.graph[work.place["node"]]
    draft = Draft(work.graph, work.born)
    draft.set(node.id, groups=groups)
    weight = node.tensors["weight"]
    return Build(draft.finish(), Transfer({weight: Regrouped(weight, (node.settings["groups"], groups))}))


GROUP_TO_DENSE = Mutation(
    name="group_to_dense",
    preserves="exact",
    summary="merge groups of a convolution, with zeros between them",
    needs="a convolution in groups, with filters of its own",
    find=_find_merges,
    choose=_choose_merge,
    build=_build_merge,
    options=_options,
)

DENSE_TO_GROUP = Mutation(
    name="dense_to_group",
    preserves="exact",
    summary="split a convolution into groups and drop the rest; exact where that is zero",
    needs="a convolution with filters of its own whose groups can be split into equal parts, reading and making",
    find=_find_splits,
    choose=_choose_split,
    build=_build_split,
    undoes="group_to_dense",
)
