"""Which values of a network are of another type than its weights: those of a part that it casts, and no fractions.

A new layer has weights of the network's type, and cannot read them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from graphs.errors import GraphError
from graphs.execution import execute
from graphs.genome import Genome
from graphs.kinds.allowed import ELEMENTWISE
from graphs.structure import Graph

if TYPE_CHECKING:
    import torch
    from torch import Tensor

__all__ = ["cast_nodes"]


def cast_nodes(genome: Genome) -> frozenset[str]:
    """Ids of the nodes whose values are of another type than new weights have.

    Where all weights are of one type, all inputs are floating-point numbers, and no program does more than compute with
    those, there are none, and nothing is run.
    """
    types = {tensor.dtype for tensor in genome.weights.values() if tensor.is_floating_point()}
    if not types or (len(types) == 1 and not _casts(genome.graph)):
        return frozenset()
    own = next(tensor.dtype for tensor in genome.weights.values() if tensor.is_floating_point())
    found: set[str] = set()
    for training in (False, True):
        found.update(id for id, value in _values(genome, own, training).items() if value.dtype != own)
    return frozenset(found)


def _casts(graph: Graph) -> bool:
    """Whether there may be values of another type than the weights."""
    programs = (step for node in graph.nodes.values() for step in node.settings.get("program", ()))
    named = (node for node in graph.nodes.values() if node.kind == "cast" and node.settings["dtype"] != "own")
    return (
        any(node.settings["dtype"] != "float" for node in graph.inputs)
        or next(named, None) is not None
        or not all(target.partition(".")[2] in ELEMENTWISE for target, _, _ in programs)
    )


def _values(genome: Genome, own: torch.dtype, training: bool) -> Mapping[str, Tensor]:
    """A value of each node; without numbers, if the network computes so."""
    import torch

    def inputs(device: str) -> dict[str, Tensor]:
        types = {"float": own, "integer": torch.int64, "boolean": torch.bool}
        nodes = ((node.settings, node.settings["name"]) for node in genome.graph.inputs)
        return {name: torch.zeros((2, *a["shape"]), dtype=types[a["dtype"]], device=device) for a, name in nodes}

    try:
        weights = {name: tensor.to("meta") for name, tensor in genome.weights.items()}
        return execute(genome.graph, weights, inputs("meta"), training=training).values
    except GraphError:
        return execute(genome.graph, genome.weights, inputs("cpu"), training=training).values
