"""Branch: a second layer beside a layer, behind a gate that is closed at first.

y = (1 − g)·f(x) + g·h(x) with g = 0 (the merge of NASH: Elsken, Metzen, Hutter, 2017, arXiv 1711.04528). h is a fresh
layer, a convolution with another kernel where that fits. The gate learns from the first step; h learns as soon as the
gate has moved. Law: exact in both modes, bit for bit.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from graphs.draft import Draft
from graphs.genome import Genome
from graphs.structure import Node
from ops.mixing import is_convolution, is_layer
from ops.mutation import Build, Mutation, Site, Work
from ops.options import OneOf, Option
from ops.transfer import New, Transfer

if TYPE_CHECKING:
    import numpy

__all__ = ["BRANCH"]


def _find(genome: Genome) -> Iterable[Site]:
    outputs = {head.node for head in genome.graph.heads}
    for node in genome.graph.nodes.values():
        if is_layer(node) and node.id not in outputs:
            yield Site({"beside": node.id}, "exact")


def _kernels(node: Node) -> dict[tuple[int, ...], tuple[int, ...]]:
    """The kernels with which a convolution's output keeps its size, and the padding that each needs for that."""
    kernel, padding, dilation = (node.settings[name] for name in ("kernel", "padding", "dilation"))
    fitting = {}
    for more in (-2, 0, 2):
        larger = tuple(size + more for size in kernel)
        padded = tuple(pad + more * wide // 2 for pad, wide in zip(padding, dilation, strict=True))
        if not more or (min(larger) >= 1 and max(larger) <= 7 and min(padded) >= 0):
            fitting[larger] = padded
    return fitting


def _choose(genome: Genome, place: Mapping[str, Any], rng: numpy.random.Generator) -> Mapping[str, Any]:
    node = genome.graph[place["beside"]]
    if not is_convolution(node):
        return {}
    fitting = list(_kernels(node))
    return {"kernel": fitting[int(rng.integers(len(fitting)))]}


def _options(genome: Genome, place: Mapping[str, Any]) -> Mapping[str, Option]:
    node = genome.graph[place["beside"]]
    return {"kernel": OneOf(list(_kernels(node)))} if is_convolution(node) else {}


def _build(work: Work) -> Build:
    old = work.graph[work.place["beside"]]
    draft = Draft(work.graph, work.born)
    settings = dict(old.settings)
    if is_convolution(old):
        kernel = work.choices["kernel"]
        settings |= {"kernel": kernel, "padding": _kernels(old)[kernel]}
    other = draft.add(old.kind, old.inputs, after=old.id, **settings)
    gate = draft.add("gate", [old.id, other], after=other)
    draft.redirect(old.id, gate, [reader for reader, _ in work.graph.consumers[old.id]])
    return Build(draft.finish(), Transfer({draft.nodes[gate].tensors["gate"]: New(0.0)}))


BRANCH = Mutation(
    name="branch",
    preserves="exact",
    summary="add a parallel layer behind a closed gate",
    needs="a convolution or linear layer that is no output",
    find=_find,
    choose=_choose,
    build=_build,
    options=_options,
)
