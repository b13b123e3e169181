"""Insert transformer layer: x + W_o·attention(norm(x)), then x + W_2·gelu(W_1·norm(x)), where W_o and W_2 are zero.

The layer addition of Gesmundo and Maile, "Composable Function-preserving Expansions for Transformer Architectures",
2023, arXiv 2308.06103, with the norms in front (Xiong et al., "On Layer Normalization in the Transformer Architecture",
2020, arXiv 2002.04745). Heads, the direction in which they look and the kind of norm are those of the layers around;
over an image whose channels come last all places are attended to, also where the layers around look at windows. The two
matrices learn from the first step, all else from the second. Law: exact in both modes, bit for bit.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import gcd, prod
from typing import TYPE_CHECKING, Any

from graphs.draft import Draft
from graphs.genome import Genome
from graphs.structure import Graph, Node
from ops.add_heads import ATTENDING
from ops.mutation import Build, Mutation, Site, Work
from ops.options import OneOf, Option, Whole
from ops.places import junctions
from ops.transfer import New, Plan, Transfer

if TYPE_CHECKING:
    import numpy

__all__ = ["INSERT_TRANSFORMER_LAYER"]

_NORMS = ("layer_norm", "rms_norm")

_MOST_PLACES = 1024
"""Not where there are more places: attention's cost grows with their square."""


def _find(genome: Genome) -> Iterable[Site]:
    graph = genome.graph
    if _heads(graph, "") is None:
        return
    for node in junctions(graph):
        # A stream of tokens, their channels last, is a sum. What a norm makes of a single channel is always the same.
        shape = graph.shapes[node]
        tokens = len(shape) > 1 and shape[-1] > 1 and prod(shape[:-1]) <= _MOST_PLACES
        if graph[node].kind == "add" and tokens and len(shape) - 1 in _channel_axes(graph, node):
            yield Site({"after": node}, "exact")


def _channel_axes(graph: Graph, node: str) -> set[int]:
    """The axes of a value that hold channels and not places."""
    return {value.axis for space in graph.spaces for value in space.values if value.node == node}


def _heads(graph: Graph, node: str) -> int | None:
    """How many heads the attention before `node` has; None where there is no attention."""
    found = _nearest(graph, node, ATTENDING)
    if found is None or len(graph.shapes[found.id]) < 2:
        return None
    return graph.shapes[found.id][-3] if len(graph.shapes[found.id]) > 2 else 1


def _nearest(graph: Graph, node: str, kinds: tuple[str, ...]) -> Node | None:
    """The last node of these kinds that `node` depends on, or the first of all; None if there is none."""
    found = [each for each in graph.nodes.values() if each.kind in kinds]
    before = graph.upstream([node]) if node else frozenset()
    return next((each for each in reversed(found) if each.id in before), found[0] if found else None)


def _choose(genome: Genome, place: Mapping[str, Any], rng: numpy.random.Generator) -> Mapping[str, Any]:
    width = genome.graph.shapes[place["after"]][-1]
    return {"heads": gcd(width, _heads(genome.graph, place["after"]) or 1), "inner": 4 * width}


def _options(genome: Genome, place: Mapping[str, Any]) -> Mapping[str, Option]:
    width = genome.graph.shapes[place["after"]][-1]
    return {"heads": OneOf([count for count in range(1, width + 1) if width % count == 0]), "inner": Whole(1)}


def _build(work: Work) -> Build:
    after = work.place["after"]
    *places, width = work.graph.shapes[after]
    heads, tokens = work.choices["heads"], prod(places)
    model = _nearest(work.graph, after, ATTENDING)
    like = _nearest(work.graph, after, _NORMS)
    draft = Draft(work.graph, work.born)
    plans: dict[str, Plan] = {}
    last = after

    def add(kind: str, inputs: str | list[str], **settings: Any) -> str:
        nonlocal last
        last = draft.add(kind, inputs, after=last, **settings)
        return last

    def norm(value: str) -> str:
        return add(like.kind, value, **{**like.settings, "axes": 1}) if like else add("layer_norm", value, axes=1)

    def added(value: str, inner: str) -> str:
        zero = add("linear", inner, out=width)
        plans[draft.nodes[zero].tensors["weight"]] = New(0.0)
        return add("add", [value, zero])

    def part(packed: str, place: int) -> str:
        one = add("slice", packed, axis=len(places), start=place * width, stop=(place + 1) * width)
        return add("permute", add("reshape", one, shape=(tokens, heads, width // heads)), order=(1, 0, 2))

    packed = add("linear", norm(after), out=3 * width)
    causal = model is not None and model.settings.get("causal", False)
    found = add("attention", [part(packed, place) for place in range(3)], causal=causal)
    mixed = added(after, add("reshape", add("permute", found, order=(1, 0, 2)), shape=(*places, width)))
    hidden = add("gelu", add("linear", norm(mixed), out=work.choices["inner"]))
    end = added(mixed, hidden)
    draft.redirect(after, end, [reader for reader, _ in work.graph.consumers[after]])
    return Build(draft.finish(), Transfer(plans))


INSERT_TRANSFORMER_LAYER = Mutation(
    name="insert_transformer_layer",
    preserves="exact",
    summary="add a layer of attention and a layer of features, both of which add zero at first",
    needs="an attention over all places, and a residual sum of tokens with their channels last",
    find=_find,
    choose=_choose,
    build=_build,
    options=_options,
)
