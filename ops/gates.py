"""Gates: y = (1 − g)·a + g·b, of which one side is kept and the other dropped.

That is exact where the gate is closed to the other side, g = 0 or g = 1, and where both sides are copies of each other
that have not parted yet; elsewhere the child is repaired by distillation from its parent (LEMONADE: Elsken, Metzen,
Hutter, 2019, arXiv 1804.09081). `remove_branch` does it within a network, `remove_head` at its outputs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from graphs.genome import Genome
from graphs.structure import Graph
from ops.bypass import bypass, dropped, no_more_than
from ops.mutation import Build, Site, Work
from ops.options import OneOf, Option
from ops.places import kept_by_copies
from ops.transfer import Mapped, New, Plan, Transfer

if TYPE_CHECKING:
    import numpy

__all__ = ["choose_why", "keep_side", "reasons", "sides"]


def sides(genome: Genome, outputs: bool) -> Iterable[Site]:
    """The sides of all gates that are outputs, or of all others, each as the one to keep."""
    graph = genome.graph
    ends = {head.node for head in graph.heads}
    for node in graph.nodes.values():
        if node.kind != "gate" or (node.id in ends) != outputs:
            continue
        for side in dict.fromkeys(node.inputs):
            lost = dropped(graph, bypass(graph, side, node.id))
            if not any(graph[id].kind == "input" for id in lost):
                place = {"gate": node.id, "keep": side}
                yield Site(place, _promise(genome, place, lost))


def _promise(genome: Genome, place: Mapping[str, Any], lost: frozenset[str]) -> str:
    why = _why(genome, place)
    if why == "nothing":
        return "approximate"
    copies = _copies(genome.graph, place)
    promise = kept_by_copies(genome.graph, frozenset(copies.nodes)) if why == "copies" and copies else "exact"
    return promise if promise != "exact" else no_more_than(genome.graph, lost)


@dataclass(frozen=True, slots=True)
class _Copies:
    """What of the dropped side is a copy of what of the kept one: its nodes, and their tensors."""

    nodes: Mapping[str, str]
    tensors: Mapping[str, str]


def _copies(graph: Graph, place: Mapping[str, Any]) -> _Copies | None:
    """How the dropped side copies the kept one, down to where both are the same; None if it is built otherwise."""
    kept, other = _kept_and_other(graph, place)
    nodes: dict[str, str] = {}
    tensors: dict[str, str] = {}
    pending = [(kept, other)]
    while pending:
        one, copy = pending.pop()
        if one == copy or nodes.get(copy) == one:
            continue
        a, b = graph[one], graph[copy]
        alike = (a.kind, a.settings, len(a.inputs)) == (b.kind, b.settings, len(b.inputs))
        if not alike or a.tensors.keys() != b.tensors.keys() or copy in nodes:
            return None
        nodes[copy] = one
        for role, name in b.tensors.items():
            if tensors.setdefault(name, a.tensors[role]) != a.tensors[role]:
                return None
        pending += zip(a.inputs, b.inputs, strict=True)
    return _Copies(nodes, tensors)


def _kept_and_other(graph: Graph, place: Mapping[str, Any]) -> tuple[str, str]:
    one, other = graph[place["gate"]].inputs
    return (one, other) if place["keep"] == one else (other, one)


def _why(genome: Genome, place: Mapping[str, Any]) -> str:
    """Why the other side does not count: the gate is `closed` to it, it `copies` the kept one; or `nothing` says so."""
    import torch

    gate = genome.graph[place["gate"]]
    if float(genome.weights[gate.tensors["gate"]]) == gate.inputs.index(place["keep"]):
        return "closed"
    copies = _copies(genome.graph, place)
    if copies and all(torch.equal(genome.weights[a], genome.weights[b]) for a, b in copies.tensors.items()):
        return "copies"
    return "nothing"


def choose_why(genome: Genome, place: Mapping[str, Any], rng: numpy.random.Generator) -> Mapping[str, Any]:
    """Writes down on what the promise rests."""
    return {"because": _why(genome, place)}


def reasons(genome: Genome, place: Mapping[str, Any]) -> Mapping[str, Option]:
    """The one reason that there is."""
    return {"because": OneOf([_why(genome, place)])}


def keep_side(work: Work) -> Build:
    """The network with one side of a gate."""
    graph, place = work.graph, work.place
    gate = graph[place["gate"]]
    ground: dict[str, Plan] = {}
    transfer = Transfer()
    if work.choices["because"] == "closed":
        ground[gate.tensors["gate"]] = New(float(gate.inputs.index(place["keep"])))
    elif work.choices["because"] == "copies" and (copies := _copies(graph, place)):
        ground.update({name: Mapped(source) for name, source in copies.tensors.items()})
        transfer = _united(work.genome, place, copies)
    draft = bypass(graph, place["keep"], gate.id, work.born)
    return Build(draft.finish(), transfer, ground=Transfer(ground))


def _united(genome: Genome, place: Mapping[str, Any], copies: _Copies) -> Transfer:
    """What remains of two copies: its gradient is that of both, so what its share had, divided by that share.

    Not of tensors on which more than this gate depends.
    """
    graph, gate = genome.graph, genome.graph[place["gate"]]
    second = float(genome.weights[gate.tensors["gate"]])
    kept = second if gate.inputs.index(place["keep"]) else 1 - second
    pairs, outputs = {*copies.nodes, *copies.nodes.values()}, {head.node for head in graph.heads}
    alone = {gate.id}
    for id in reversed(list(graph.nodes)):
        if id in pairs and id not in outputs and all(reader in alone for reader, _ in graph.consumers[id]):
            alone.add(id)
    elsewhere = {name for node in graph.nodes.values() if node.id not in alone for name in node.tensors.values()}
    own = {source: name for name, source in copies.tensors.items() if {source, name}.isdisjoint(elsewhere)}
    # A side that had no share has learnt nothing.
    plans: dict[str, Plan] = {} if kept else {source: Mapped(name) for source, name in own.items()}
    parted = {source for source in copies.tensors.values() if source not in elsewhere}
    return Transfer(plans, dict.fromkeys(parted, 1 / (kept or 1.0)))
