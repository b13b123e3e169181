"""Fresh weights, the same on every machine and with every version of the libraries.

Each tensor's numbers come from a stream of its own, seeded by (seed, tensor name). Only the raw output of the PCG64 bit
generator is used, for which NumPy guarantees the stream (NEP 19); what the distributions of NumPy and torch draw may
change between their versions, and a replayed mutation must not.
"""

from __future__ import annotations

import hashlib
from math import prod, sqrt
from typing import TYPE_CHECKING, Any

from graphs.kinds import KINDS, TensorSpec
from graphs.structure import Graph, Shape

if TYPE_CHECKING:
    import numpy
    from torch import Tensor

    from graphs.genome import Genome

    Numbers = numpy.ndarray[Any, numpy.dtype[Any]]

__all__ = ["CONSTANT", "fresh_weights", "initial_weights", "start_tensor", "stream", "uniform"]

CONSTANT = {"zeros": 0.0, "ones": 1.0, "quarter": 0.25}
"""The starts of tensors all of whose entries are one number, and that number."""


def stream(seed: int, name: str) -> numpy.random.PCG64:
    """The bit generator for what is called `name` under `seed`."""
    from numpy.random import PCG64, SeedSequence

    words = hashlib.sha256(name.encode()).digest()[:16]
    return PCG64(SeedSequence([seed, int.from_bytes(words, "big")]))


def uniform(generator: numpy.random.PCG64, shape: Shape, low: float, high: float) -> Numbers:
    """Uniform numbers in [low, high), as float64 of `shape`."""
    import numpy

    raw = numpy.asarray(generator.random_raw(prod(shape)), dtype=numpy.uint64).reshape(shape)
    numbers: Numbers = numpy.asarray(low + (high - low) * ((raw >> numpy.uint64(11)) * 2.0**-53))
    return numbers  # an array for a scalar's shape, too, of which arithmetic would make a number


def start_tensor(spec: TensorSpec, seed: int, name: str) -> Tensor:
    """The tensor with which a node starts whose tensor `name` is as `spec` says; float32, or int64."""
    import torch

    if spec.integer:
        return torch.zeros(spec.shape, dtype=torch.int64)
    if spec.start in CONSTANT:
        return torch.full(spec.shape, CONSTANT[spec.start], dtype=torch.float32)
    fan_in = max(1, prod(spec.shape[:1] if spec.turned else spec.shape[1:]))
    bound = sqrt((6.0 if spec.start == "kaiming" else 1.0) / fan_in)
    return torch.from_numpy(uniform(stream(seed, name), spec.shape, -bound, bound)).to(torch.float32)


def initial_weights(graph: Graph, seed: int) -> dict[str, Tensor]:
    """Fresh weights for a graph: a pure function of its tensors' names and shapes, and of `seed`."""
    return {name: start_tensor(spec, seed, name) for name, spec in graph.tensors.items()}


def fresh_weights(genome: Genome, seed: int) -> dict[str, Tensor]:
    """A genome's tensors drawn anew, of the types that they have.

    That is parameters and the statistics of norms; constants, such as positions, and what no node refers to stay.
    """
    nodes, specs = genome.graph.nodes.values(), genome.graph.tensors
    statistics = {name for node in nodes if KINDS[node.kind].normalisation for name in node.tensors.values()}
    drawn = initial_weights(genome.graph, seed)
    return {
        name: drawn[name].to(old.dtype) if name in specs and (name in statistics or not specs[name].buffer) else old
        for name, old in genome.weights.items()
    }
