"""Another number of outputs: the last layer drawn anew, all before it as it was.

What a network has learnt for one set of classes serves another one, but for the layer that tells the classes apart.
That layer is found through the graph, whatever it is called and whatever stands behind it (a pool, an activation, a
flatten): it is what writes the channels of the output.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from graphs.draft import Draft
from graphs.errors import GraphError
from graphs.genome import Genome
from graphs.initial import start_tensor
from graphs.structure import Graph

if TYPE_CHECKING:
    from graphs.spaces import Space

__all__ = ["with_outputs"]


def with_outputs(genome: Genome, count: int | Mapping[str, int], seed: int) -> Genome:
    """The network with so many channels at each output that has another number of them.

    Args:
        genome: The network; each of its outputs is a row of channels `(N, C)`.
        count: Of channels, at each output, or by the output's name.
        seed: Of the fresh weights: of the layers that make the outputs, and of what else lies along their channels.

    Raises:
        GraphError: An output is no row of channels, or these are not made by one layer.
    """
    graph = genome.graph
    draft = Draft(graph)
    wanted = count if isinstance(count, Mapping) else {head.name: count for head in graph.heads}
    for head in graph.heads:
        if graph.shapes[head.node] == (wanted[head.name],):
            continue
        for node in _writers(graph, head.node, _space(graph, head.node, head.name), head.name):
            draft.set(node, out=wanted[head.name])
    changed = draft.finish()
    for head in changed.heads:
        if changed.shapes[head.node] != (wanted[head.name],):
            raise GraphError(
                f"output '{head.name}' cannot be given {wanted[head.name]} channels: what makes them is shared"
            )
    weights = {
        name: start_tensor(spec, seed, name).to(genome.weights[name].dtype)
        if spec.shape != graph.tensors[name].shape
        else genome.weights[name]
        for name, spec in changed.tensors.items()
    }
    return genome.changed(changed, weights)


def _space(graph: Graph, node: str, name: str) -> Space:
    """The channels that the value of `node` is a row of."""
    shape = graph.shapes[node]
    for space in graph.spaces:
        for value in space.values:
            if (value.node, value.offset, value.inner) == (node, 0, 1) and shape == (space.width,):
                return space
    raise GraphError(f"output '{name}' has the shape {shape} and is no single row of channels, as classes are")


def _writers(graph: Graph, node: str, space: Space, name: str) -> list[str]:
    """The layers that make the channels of a space."""
    found = list(dict.fromkeys(use.node for use in space.uses if use.how == "write"))
    if not found or not all("out" in graph[each].settings for each in found):
        raise GraphError(f"output '{name}' is not made by a layer that can be drawn anew; it comes from '{node}'")
    return found
