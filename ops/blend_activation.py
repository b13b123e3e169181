"""Blend activation: an activation becomes a blend of itself and another one, of which there is nothing at first.

y = (1 − g)·f(x) + g·h(x) with g = 0 (the parametric activations of Network Morphism: Wei et al., 2016, arXiv
1603.01670). The gate can be any number; where it learns to be 1, h has replaced f. Law: exact in both modes, bit for
bit.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from graphs.draft import Draft
from graphs.genome import Genome
from graphs.kinds import KINDS
from ops.mutation import Build, Mutation, Site, Work
from ops.options import OneOf, Option
from ops.transfer import New, Transfer

if TYPE_CHECKING:
    import numpy

__all__ = ["BLEND_ACTIVATION"]

_OTHERS = ("gelu", "silu", "hardswish", "tanh")
"""Each differs from every other kind of activation on positive values too, so that the gate gets a gradient wherever
the activation stands; ReLU and ELU, say, are the same behind a ReLU."""


def _find(genome: Genome) -> Iterable[Site]:
    outputs = {head.node for head in genome.graph.heads}
    for node in genome.graph.nodes.values():
        if KINDS[node.kind].activation and node.id not in outputs:
            yield Site({"at": node.id}, "exact")


def _choose(genome: Genome, place: Mapping[str, Any], rng: numpy.random.Generator) -> Mapping[str, Any]:
    others = [kind for kind in _OTHERS if kind != genome.graph[place["at"]].kind]
    return {"other": others[int(rng.integers(len(others)))]}


def _options(genome: Genome, place: Mapping[str, Any]) -> Mapping[str, Option]:
    kind = genome.graph[place["at"]].kind
    return {"other": OneOf([other for other in _OTHERS if other != kind])}


def _build(work: Work) -> Build:
    old = work.graph[work.place["at"]]
    draft = Draft(work.graph, work.born)
    other = draft.add(work.choices["other"], old.inputs, after=old.id)
    gate = draft.add("gate", [old.id, other], after=other)
    draft.redirect(old.id, gate, [reader for reader, _ in work.graph.consumers[old.id]])
    return Build(draft.finish(), Transfer({draft.nodes[gate].tensors["gate"]: New(0.0)}))


BLEND_ACTIVATION = Mutation(
    name="blend_activation",
    preserves="exact",
    summary="blend an activation with another one behind a closed gate",
    needs="an activation that is no output",
    find=_find,
    choose=_choose,
    build=_build,
    options=_options,
)
