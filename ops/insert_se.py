"""Insert SE: squeeze and excitation behind a map, blended in by a gate that is closed at first.

y = x + g·(x·s(x) − x) with g = 0, where s = sigmoid(W₂·silu(W₁·mean of x over its places)) is one factor for each
channel (Hu, Shen, Sun, "Squeeze-and-Excitation Networks", 2018, arXiv 1709.01507). The gate learns from the first step;
the factors do as soon as it has moved; SiLU, since all of a few ReLUs could be dead from the start. Not on sequences
whose channels come last, as in transformers: there a step may have to know of no later one. Law: exact in both modes,
bit for bit.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from graphs.draft import Draft
from graphs.genome import Genome
from graphs.structure import Graph
from ops.mixing import add_layer, channels, layer_for
from ops.mutation import Build, Mutation, Site, Work
from ops.options import Option, Whole
from ops.places import junctions
from ops.transfer import New, Transfer

if TYPE_CHECKING:
    import numpy

__all__ = ["INSERT_SE"]

_REDUCTIONS = (4, 16)
_FEWEST = 4


def _find(genome: Genome) -> Iterable[Site]:
    graph = genome.graph
    for node in junctions(graph):
        places, layer = _places(graph, node), layer_for(graph, node)
        # The mean over a single place is that place; and the steps of a sequence may not know of each other.
        if layer and (layer.window or len(places) > 1) and any(graph.shapes[node][axis] > 1 for axis in places):
            yield Site({"after": node}, "exact")


def _places(graph: Graph, node: str) -> list[int]:
    """The axes of a node's value that are not that of the channels."""
    return [axis for axis in range(len(graph.shapes[node])) if axis != graph.channel_axes.get(node)]


def _choose(genome: Genome, place: Mapping[str, Any], rng: numpy.random.Generator) -> Mapping[str, Any]:
    width = channels(genome.graph, place["after"])
    return {"inner": max(_FEWEST, width // _REDUCTIONS[int(rng.integers(len(_REDUCTIONS)))])}


def _options(genome: Genome, place: Mapping[str, Any]) -> Mapping[str, Option]:
    return {"inner": Whole(1)}


def _build(work: Work) -> Build:
    after = work.place["after"]
    draft = Draft(work.graph, work.born)
    last = draft.add("average", after, after=after, axes=_places(work.graph, after), keep=True)
    last = add_layer(draft, work.graph, after, last, out=work.choices["inner"])
    last = draft.add("silu", last, after=last)
    last = add_layer(draft, work.graph, after, last)
    last = draft.add("sigmoid", last, after=last)
    excited = draft.add("multiply", [after, last], after=last)
    gate = draft.add("gate", [after, excited], after=excited)
    draft.redirect(after, gate, [reader for reader, _ in work.graph.consumers[after]])
    return Build(draft.finish(), Transfer({draft.nodes[gate].tensors["gate"]: New(0.0)}))


INSERT_SE = Mutation(
    name="insert_se",
    preserves="exact",
    summary="weigh the channels of a map by squeeze and excitation behind a closed gate",
    needs="an activation, pooling, sum or concatenation that is no output, on a map of more than one place",
    find=_find,
    choose=_choose,
    build=_build,
    options=_options,
)
