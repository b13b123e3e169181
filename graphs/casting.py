"""Which values of a network are of another floating-point type than its weights: those of a part that it casts.

A new layer has weights of the network's type, and cannot read them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from graphs.errors import GraphError
from graphs.execution import execute
from graphs.genome import Genome
from graphs.structure import Graph

if TYPE_CHECKING:
    import torch
    from torch import Tensor

__all__ = ["cast_nodes"]

_CASTING = frozenset("half bfloat16 float double type_as to complex polar view_as_complex stft".split())
"""Functions that give a tensor another type, also where their arguments name none."""


def cast_nodes(genome: Genome) -> frozenset[str]:
    """Ids of the nodes whose values are floating-point or complex numbers of another type than new weights have.

    Where no program casts and all weights are of one type there are none, and nothing is run.
    """
    types = {tensor.dtype for tensor in genome.weights.values() if tensor.is_floating_point()}
    if not types or (len(types) == 1 and not _casts(genome.graph)):
        return frozenset()
    own = next(tensor.dtype for tensor in genome.weights.values() if tensor.is_floating_point())
    found: set[str] = set()
    for training in (False, True):
        values = _values(genome, own, training)
        found.update(id for id, value in values.items() if value.dtype != own and _has_fractions(value))
    return frozenset(found)


def _has_fractions(value: Tensor) -> bool:
    return value.is_floating_point() or value.is_complex()


def _casts(graph: Graph) -> bool:
    return any(_named(node.settings.get("program")) for node in graph.nodes.values())


def _named(value: Any) -> bool:
    """Whether a part of a program names a type, or a function that casts."""
    if isinstance(value, Mapping):
        return "dtype" in value or any(map(_named, value.values()))
    if isinstance(value, str):
        return value.startswith("fft.") or value.partition(".")[2] in _CASTING
    return isinstance(value, list | tuple) and any(map(_named, value))


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
