"""Dense to separable: a convolution becomes a depthwise one and a 1×1 one behind it.

Let W be the weight, (out, in, *kernel). Take `multiplier` filters D[c, j] of the kernel's size for each input channel,
and the 1×1 weight P[o, c, j] = Σ_s W[o, c, s] D[c, j, s]: both layers together have the weight Σ_j P[o, c, j] D[c, j].
Where each channel has as many filters as the kernel has places, they are the one-hot shifts, and that is W, bit for
bit; law: exact in both modes. With fewer, they are the orthonormal ones that leave the least of W behind, the first
right singular vectors of W[:, c] (Guo, Li, Lin, Chen, Li, "Network Decoupling: From Regular to Depthwise Separable
Convolutions", 2018, arXiv 1808.05517); law: none, and the child is repaired by distillation from its parent.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import prod
from typing import TYPE_CHECKING, Any

from graphs.draft import Draft
from graphs.genome import Genome
from graphs.structure import Node
from ops.mixing import is_convolution, reads_all_channels
from ops.mutation import Build, Mutation, Site, Work
from ops.places import shared_tensors
from ops.transfer import Given, New, Projected, Transfer, shifts

if TYPE_CHECKING:
    import numpy
    from torch import Tensor

__all__ = ["DENSE_TO_SEPARABLE"]

_FEW = (1, 2, 4)
"""Filters for each channel with which something is lost."""


def _find(genome: Genome) -> Iterable[Site]:
    graph, shared = genome.graph, shared_tensors(genome.graph)
    for node in graph.nodes.values():
        if not is_convolution(node) or not reads_all_channels(node) or node.tensors["weight"] in shared:
            continue
        places, channels = prod(node.settings["kernel"]), graph.shapes[node.inputs[0]][0]
        if places == 1 or channels == 1:
            continue
        for few in _FEW:
            if few < min(places, node.settings["out"]):
                yield Site({"node": node.id, "multiplier": few}, "approximate")
        yield Site({"node": node.id, "multiplier": places}, "exact")


def _choose(genome: Genome, place: Mapping[str, Any], rng: numpy.random.Generator) -> Mapping[str, Any]:
    return {}


def _build(work: Work) -> Build:
    node, multiplier = work.graph[work.place["node"]], work.place["multiplier"]
    kernel, weight = node.settings["kernel"], node.tensors["weight"]
    channels, places = work.graph.shapes[node.inputs[0]][0], prod(kernel)
    slides = {name: node.settings[name] for name in ("kernel", "stride", "padding", "dilation")}
    draft = Draft(work.graph, work.born)
    deep = draft.add(
        node.kind, node.inputs, after=node.inputs[0], out=channels * multiplier, groups=channels, bias=False, **slides
    )
    draft.rewire(node.id, 0, deep)
    one, zero = (1,) * len(kernel), (0,) * len(kernel)
    draft.set(node.id, kernel=one, stride=one, padding=zero, dilation=one)
    filters = draft.nodes[deep].tensors["weight"]
    if multiplier == places:
        found = shifts((channels * places, 1, *kernel))
        return Build(draft.finish(), Transfer({filters: New("shifts"), weight: Projected(weight, found)}))
    given = (work.given or {}).get(filters)
    found = _filters(work.genome, node, multiplier) if given is None else given
    transfer = Transfer({filters: Given(filters), weight: Projected(weight, found)})
    return Build(draft.finish(), transfer, tensors={filters: found})


def _filters(genome: Genome, node: Node, multiplier: int) -> Tensor:
    """For each channel its first right singular vectors, (channels · multiplier, 1, *kernel), in the weight's type."""
    import torch

    weight = genome.weights[node.tensors["weight"]]
    slices = torch.nan_to_num(weight.double(), posinf=0.0, neginf=0.0).flatten(2).movedim(1, 0)
    _, vectors = torch.linalg.eigh(slices.mT @ slices)
    first: Tensor = vectors.mT.flip(1)[:, :multiplier]
    return first.reshape(-1, 1, *weight.shape[2:]).to(weight.dtype).contiguous()


DENSE_TO_SEPARABLE = Mutation(
    name="dense_to_separable",
    preserves="exact",
    summary="put a depthwise convolution in front of a 1×1 one; exact with a filter for each place of the kernel",
    needs="an ungrouped convolution with filters of its own, larger than 1×1, that reads several channels",
    find=_find,
    choose=_choose,
    build=_build,
)
