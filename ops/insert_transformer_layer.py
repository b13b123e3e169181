"""Insert transformer layer: x + W_o·attention(norm(x)), then x + W_2·gelu(W_1·norm(x)), where W_o and W_2 are zero.

The layer addition of Gesmundo and Maile, "Composable Function-preserving Expansions for Transformer Architectures",
2023, arXiv 2308.06103, with the norms in front (Xiong et al., "On Layer Normalization in the Transformer Architecture",
2020, arXiv 2002.04745). Heads, the direction in which they look and the kind of norm are those of the layers around.
The two matrices learn from the first step, all else from the second. Law: exact in both modes, bit for bit.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import gcd
from typing import TYPE_CHECKING, Any

from graphs.draft import Draft
from graphs.genome import Genome
from graphs.structure import Graph, Node
from ops.mutation import Build, Mutation, Site, Work
from ops.places import junctions
from ops.transfer import New, Plan, Transfer

if TYPE_CHECKING:
    import numpy

__all__ = ["INSERT_TRANSFORMER_LAYER"]

_NORMS = ("layer_norm", "rms_norm")


def _find(genome: Genome) -> Iterable[Site]:
    graph = genome.graph
    if _nearest(graph, "", ("attention",)) is None:
        return
    for node in junctions(graph):
        # A stream of tokens, their channels last, is a sum. What a norm makes of a single channel is always the same.
        if graph[node].kind == "add" and len(graph.shapes[node]) == 2 and graph.shapes[node][-1] > 1:
            yield Site({"after": node}, "exact")


def _nearest(graph: Graph, node: str, kinds: tuple[str, ...]) -> Node | None:
    """The last node of these kinds that `node` depends on, or the first of all; None if there is none."""
    found = [each for each in graph.nodes.values() if each.kind in kinds]
    before = graph.upstream([node]) if node else frozenset()
    return next((each for each in reversed(found) if each.id in before), found[0] if found else None)


def _choose(genome: Genome, place: Mapping[str, Any], rng: numpy.random.Generator) -> Mapping[str, Any]:
    width = genome.graph.shapes[place["after"]][-1]
    model = _nearest(genome.graph, place["after"], ("attention",))
    return {"heads": gcd(width, model.settings["heads"] if model else 1), "inner": 4 * width}


def _build(work: Work) -> Build:
    after = work.place["after"]
    width = work.graph.shapes[after][-1]
    model = _nearest(work.graph, after, ("attention",))
    like = _nearest(work.graph, after, _NORMS)
    draft = Draft(work.graph, work.born)
    plans: dict[str, Plan] = {}
    last = after

    def add(kind: str, inputs: str | list[str], **settings: Any) -> str:
        nonlocal last
        last = draft.add(kind, inputs, after=last, **settings)
        return last

    def norm(value: str) -> str:
        return add(like.kind, value, axes=1, eps=like.settings["eps"]) if like else add("layer_norm", value, axes=1)

    def added(value: str, inner: str) -> str:
        zero = add("linear", inner, out=width)
        plans[draft.nodes[zero].tensors["weight"]] = New(0.0)
        return add("add", [value, zero])

    packed = add("linear", norm(after), out=3 * width)
    parts = [add("slice", packed, axis=1, start=place * width, stop=(place + 1) * width) for place in range(3)]
    causal = model is not None and model.settings["causal"]
    mixed = added(after, add("attention", parts, heads=work.choices["heads"], causal=causal))
    hidden = add("gelu", add("linear", norm(mixed), out=work.choices["inner"]))
    end = added(mixed, hidden)
    draft.redirect(after, end, [reader for reader, _ in work.graph.consumers[after]])
    return Build(draft.finish(), Transfer(plans))


INSERT_TRANSFORMER_LAYER = Mutation(
    name="insert_transformer_layer",
    preserves="exact",
    summary="add a layer of attention and a layer of features, both of which add zero at first",
    find=_find,
    choose=_choose,
    build=_build,
)
