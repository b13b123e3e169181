"""Grow kernel: a larger convolution kernel with the old one at its centre and zeros around it.

Padding grows with it, by the dilation (the kernel morphism of Network Morphism: Wei et al., 2016, arXiv 1603.01670).
Law: exact in both modes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from graphs.draft import Draft
from graphs.genome import Genome
from ops.axis_maps import AxisMap
from ops.mixing import is_convolution
from ops.mutation import Build, Mutation, Site, Work
from ops.options import Option, Whole
from ops.places import shared_tensors
from ops.transfer import Mapped, Transfer

if TYPE_CHECKING:
    import numpy

__all__ = ["GROW_KERNEL"]

_LARGEST = 7


def _find(genome: Genome) -> Iterable[Site]:
    graph, shared = genome.graph, shared_tensors(genome.graph)
    for node in graph.nodes.values():
        if not is_convolution(node) or node.tensors["weight"] in shared:
            continue
        reach = zip(node.settings["kernel"], node.settings["dilation"], graph.shapes[node.inputs[0]][1:], strict=True)
        # A ring that only ever meets padding cannot learn anything.
        if all(kernel + 2 <= _LARGEST and dilation * (kernel + 1) // 2 < size for kernel, dilation, size in reach):
            yield Site({"node": node.id}, "exact")


def _choose(genome: Genome, place: Mapping[str, Any], rng: numpy.random.Generator) -> Mapping[str, Any]:
    return {"rings": 1}


def _options(genome: Genome, place: Mapping[str, Any]) -> Mapping[str, Option]:
    return {"rings": Whole(1, (_LARGEST - max(genome.graph[place["node"]].settings["kernel"])) // 2)}


def _build(work: Work) -> Build:
    import numpy

    node, rings = work.graph[work.place["node"]], work.choices["rings"]
    kernel, padding, dilation = (node.settings[name] for name in ("kernel", "padding", "dilation"))
    draft = Draft(work.graph, work.born)
    draft.set(
        node.id,
        kernel=tuple(size + 2 * rings for size in kernel),
        padding=tuple(pad + rings * wide for pad, wide in zip(padding, dilation, strict=True)),
    )
    ring = numpy.full(rings, -1)
    maps = tuple(
        AxisMap(axis + 2, numpy.concatenate([ring, numpy.arange(size), ring]).astype(numpy.int64))
        for axis, size in enumerate(kernel)
    )
    weight = node.tensors["weight"]
    return Build(draft.finish(), Transfer({weight: Mapped(weight, maps)}))


GROW_KERNEL = Mutation(
    name="grow_kernel",
    preserves="exact",
    summary="put a ring of zeros around a convolution's kernel",
    needs="a convolution with filters of its own, on maps wide enough for a larger kernel",
    find=_find,
    choose=_choose,
    build=_build,
    options=_options,
)
