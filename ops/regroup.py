"""Group to dense, dense to group: fewer and larger groups of a convolution, or more and smaller ones.

Merging groups puts their filters on the diagonal of a larger weight whose other blocks are zero, so that each output
channel reads more channels than before; those weights get gradients from the first step. Law: exact in both modes.

Splitting groups keeps the diagonal blocks and drops the others (as ResNeXt's grouped convolutions do from the start:
Xie et al., "Aggregated Residual Transformations for Deep Neural Networks", 2017, arXiv 1611.05431). Law: none, except
that splitting what was merged gives the parent back bit for bit; else the child is repaired by distillation from its
parent (LEMONADE: Elsken, Metzen, Hutter, 2019, arXiv 1804.09081).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from math import gcd
from typing import TYPE_CHECKING, Any

from graphs.draft import Draft
from graphs.genome import Genome
from graphs.structure import Graph, Node
from ops.mixing import is_convolution
from ops.mutation import Build, Mutation, Site, Work
from ops.places import shared_tensors
from ops.transfer import Regrouped, Transfer

if TYPE_CHECKING:
    import numpy

__all__ = ["DENSE_TO_GROUP", "GROUP_TO_DENSE"]

Options = Callable[[Graph, Node], list[int]]


def _fewer(graph: Graph, node: Node) -> list[int]:
    """The numbers of groups into which whole groups can be merged."""
    groups = node.settings["groups"]
    return [count for count in range(1, groups) if groups % count == 0]


def _more(graph: Graph, node: Node) -> list[int]:
    """The numbers of groups into which all groups can be split alike."""
    groups, most = node.settings["groups"], gcd(graph.shapes[node.inputs[0]][0], node.settings["out"])
    return [count for count in range(2 * groups, most + 1, groups) if most % count == 0]


def _mutation(name: str, options: Options, preserves: str, summary: str) -> Mutation:
    def find(genome: Genome) -> Iterable[Site]:
        graph, shared = genome.graph, shared_tensors(genome.graph)
        for node in graph.nodes.values():
            if is_convolution(node) and node.tensors["weight"] not in shared and options(graph, node):
                yield Site({"node": node.id}, preserves)

    def choose(genome: Genome, place: Mapping[str, Any], rng: numpy.random.Generator) -> Mapping[str, Any]:
        found = options(genome.graph, genome.graph[place["node"]])
        return {"groups": found[int(rng.integers(len(found)))]}

    return Mutation(name=name, preserves=preserves, summary=summary, find=find, choose=choose, build=_build)


def _build(work: Work) -> Build:
    node, groups = work.graph[work.place["node"]], work.choices["groups"]
    draft = Draft(work.graph, work.born)
    draft.set(node.id, groups=groups)
    weight = node.tensors["weight"]
    return Build(draft.finish(), Transfer({weight: Regrouped(weight, node.settings["groups"], groups)}))


GROUP_TO_DENSE = _mutation("group_to_dense", _fewer, "exact", "merge groups of a convolution, with zeros between them")
DENSE_TO_GROUP = _mutation("dense_to_group", _more, "approximate", "split a convolution into groups, dropping the rest")
