"""Shrink kernel: a smaller convolution kernel, the centre of the old one.

Padding shrinks with it, by the dilation: the kernel morphism of Network Morphism (Wei et al., 2016, arXiv 1603.01670)
the other way round. Law: exact in both modes where the ring that is dropped is zero, bit for bit what `grow_kernel` was
made from; elsewhere none, and the child is repaired by distillation from its parent (LEMONADE: Elsken, Metzen, Hutter,
2019, arXiv 1804.09081).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from graphs.draft import Draft
from graphs.genome import Genome
from graphs.structure import Node
from ops.axis_maps import AxisMap
from ops.mixing import is_convolution
from ops.mutation import Build, Mutation, Site, Work
from ops.options import Option, Whole
from ops.places import shared_tensors
from ops.transfer import Mapped, Transfer

if TYPE_CHECKING:
    import numpy

__all__ = ["SHRINK_KERNEL"]


def _find(genome: Genome) -> Iterable[Site]:
    graph, shared = genome.graph, shared_tensors(genome.graph)
    for node in graph.nodes.values():
        if not is_convolution(node) or node.tensors["weight"] in shared:
            continue
        sides = zip(*(node.settings[name] for name in ("kernel", "padding", "dilation")), strict=True)
        if all(kernel >= 3 and padding >= dilation for kernel, padding, dilation in sides):
            zero = _ground(node, 1).keeps(genome.weights, graph)
            yield Site({"node": node.id}, "exact" if zero else "approximate")


def _ground(node: Node, rings: int) -> Transfer:
    """The weight with zeros in its outer rings."""
    import numpy

    maps = []
    for axis, size in enumerate(node.settings["kernel"]):
        index = numpy.arange(size, dtype=numpy.int64)
        index[:rings] = index[size - rings :] = -1
        maps.append(AxisMap(axis + 2, index))
    weight = node.tensors["weight"]
    return Transfer({weight: Mapped(weight, tuple(maps))})


def _choose(genome: Genome, place: Mapping[str, Any], rng: numpy.random.Generator) -> Mapping[str, Any]:
    return {"rings": 1}


def _options(genome: Genome, place: Mapping[str, Any]) -> Mapping[str, Option]:
    return {"rings": Whole(1, 1)}


def _build(work: Work) -> Build:
    import numpy

    node, rings = work.graph[work.place["node"]], work.choices["rings"]
    kernel, padding, dilation = (node.settings[name] for name in ("kernel", "padding", "dilation"))
    draft = Draft(work.graph, work.born)
    draft.set(
        node.id,
        kernel=tuple(size - 2 * rings for size in kernel),
        padding=tuple(pad - rings * wide for pad, wide in zip(padding, dilation, strict=True)),
    )
    maps = tuple(
        AxisMap(axis + 2, numpy.arange(rings, size - rings, dtype=numpy.int64)) for axis, size in enumerate(kernel)
    )
    weight = node.tensors["weight"]
    return Build(draft.finish(), Transfer({weight: Mapped(weight, maps)}), ground=_ground(node, rings))


SHRINK_KERNEL = Mutation(
    name="shrink_kernel",
    preserves="exact",
    summary="drop the outer ring of a convolution's kernel; exact where it is zero",
    needs="a convolution with filters of its own, at least 3 wide along each axis and padded by a ring or more",
    find=_find,
    choose=_choose,
    build=_build,
    options=_options,
    undoes="grow_kernel",
)
