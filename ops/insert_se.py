"""Insert SE: squeeze and excitation behind a map, blended in by a gate that is closed at first.

y = x + g·(x·s(x) − x) with g = 0, where s = sigmoid(W₂·relu(W₁·mean of x over its places)) is one factor for each
channel (Hu, Shen, Sun, "Squeeze-and-Excitation Networks", 2018, arXiv 1709.01507). The gate learns from the first step;
the factors do as soon as it has moved. Law: exact in both modes, bit for bit.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from graphs.draft import Draft
from graphs.genome import Genome
from ops.mutation import Build, Mutation, Site, Work
from ops.places import junctions
from ops.transfer import New, Transfer

if TYPE_CHECKING:
    import numpy

__all__ = ["INSERT_SE"]

_REDUCTIONS = (4, 16)
_FEWEST = 4


def _find(genome: Genome) -> Iterable[Site]:
    shapes = genome.graph.shapes
    for node in junctions(genome.graph):
        # The mean over a single place is that place.
        if len(shapes[node]) == 3 and max(shapes[node][1:]) > 1:
            yield Site({"after": node}, "exact")


def _choose(genome: Genome, place: Mapping[str, Any], rng: numpy.random.Generator) -> Mapping[str, Any]:
    channels = genome.graph.shapes[place["after"]][0]
    return {"inner": max(_FEWEST, channels // _REDUCTIONS[int(rng.integers(len(_REDUCTIONS)))])}


def _build(work: Work) -> Build:
    after = work.place["after"]
    channels = work.graph.shapes[after][0]
    draft = Draft(work.graph, work.born)
    last = draft.add("adaptive_avg_pool2d", after, after=after)
    last = draft.add("conv2d", last, after=last, out=work.choices["inner"], kernel=1)
    last = draft.add("relu", last, after=last)
    last = draft.add("conv2d", last, after=last, out=channels, kernel=1)
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
)
