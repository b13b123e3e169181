"""Insert block: y = x + F(x), where the last scale of F is zero.

The preferred way to deepen networks with batch norm or with activations that are not idempotent (NASH: Elsken, Metzen,
Hutter, 2017, arXiv 1711.04528; zero last scale: Goyal et al., 2017, arXiv 1706.02677). Where the network has batch
norm, F ends in a norm whose scale is zero, never in a zero convolution before a norm, whose gradient would explode;
elsewhere F ends in a zero layer, and its activation lets a tenth of what is below zero through: nothing centres what
it is given, and a block of which every unit is closed would never learn. Inner weights are random. Law: exact in both
modes, bit for bit.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from graphs.draft import Draft
from graphs.genome import Genome
from ops.mixing import add_layer, channels, fitting_kernel, kernels, layer_for, norm_near
from ops.mutation import Build, Mutation, Site, Work
from ops.options import Option, Whole
from ops.places import junctions
from ops.transfer import New, Plan, Transfer

if TYPE_CHECKING:
    import numpy

__all__ = ["INSERT_BLOCK"]

_SLOPE = 0.1


def _find(genome: Genome) -> Iterable[Site]:
    for node in junctions(genome.graph):
        if layer_for(genome.graph, node) is not None:
            yield Site({"after": node}, "exact")


def _choose(genome: Genome, place: Mapping[str, Any], rng: numpy.random.Generator) -> Mapping[str, Any]:
    graph, after = genome.graph, place["after"]
    width = channels(graph, after)
    return {"inner": width if rng.integers(2) else max(1, width // 2), "kernel": fitting_kernel(graph, after)}


def _options(genome: Genome, place: Mapping[str, Any]) -> Mapping[str, Option]:
    return {"inner": Whole(1), "kernel": kernels(genome.graph, place["after"])}


def _build(work: Work) -> Build:
    after = work.place["after"]
    norm = norm_near(work.graph, after)
    draft = Draft(work.graph, work.born)
    kernel, inner = work.choices["kernel"], work.choices["inner"]
    last = add_layer(draft, work.graph, after, after, out=inner, kernel=kernel, bias=not norm)
    if norm:
        last = draft.add("batch_norm", last, after=last)
        last = draft.add("relu", last, after=last)
    else:
        last = draft.add("leaky_relu", last, after=last, negative_slope=_SLOPE)
    last = add_layer(draft, work.graph, after, last, kernel=kernel, bias=not norm)
    plans: dict[str, Plan] = {}
    if norm:
        last = draft.add("batch_norm", last, after=last)
    plans[draft.nodes[last].tensors["weight"]] = New(0.0)
    total = draft.add("add", [after, last], after=last)
    draft.redirect(after, total, [reader for reader, _ in work.graph.consumers[after]])
    return Build(draft.finish(), Transfer(plans))


INSERT_BLOCK = Mutation(
    name="insert_block",
    preserves="exact",
    summary="add a residual block whose last scale is zero",
    needs="an activation, pooling, sum or concatenation that is no output, of features, tokens or an image",
    find=_find,
    choose=_choose,
    build=_build,
    options=_options,
)
