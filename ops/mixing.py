"""Layers that mix channels: which of a network's nodes are such, and which kind of them fits a value.

All of it is read off the table of kinds (`Kind.window`) and the channel spaces (`Graph.channel_axes`), so it holds for
sequences, images and volumes, and for values whose channels come last.
"""

from __future__ import annotations

from typing import Any

from graphs.draft import Draft
from graphs.kinds import KINDS, Kind
from graphs.structure import Graph, Node
from ops.options import Whole

__all__ = [
    "add_layer",
    "channels",
    "fitting_kernel",
    "is_convolution",
    "is_layer",
    "kernels",
    "layer_for",
    "mixed_axis",
    "norm_near",
    "reads_all_channels",
]


def is_layer(node: Node) -> bool:
    """Whether a node is a layer that sums over channels: a linear one, or a convolution, grouped or not."""
    return KINDS[node.kind].window is not None


def is_convolution(node: Node) -> bool:
    """Whether a node is a layer that slides over places."""
    return bool(KINDS[node.kind].window)


def reads_all_channels(node: Node) -> bool:
    """Whether each output of a node is a weighted sum over all channels of its one operand."""
    return is_layer(node) and node.settings.get("groups", 1) == 1


def mixed_axis(graph: Graph, layer: Node) -> int:
    """The axis whose channels a layer mixes: the last one for linear layers, the first one for convolutions."""
    return len(graph.shapes[layer.inputs[0]]) - 1 - (KINDS[layer.kind].window or 0)


def channels(graph: Graph, node: str) -> int:
    """How many channels a node's value has."""
    return graph.shapes[node][graph.channel_axes[node]]


def layer_for(graph: Graph, node: str) -> Kind | None:
    """The kind of layer that mixes the channels of a node's value and keeps its places.

    A convolution where the channels come first, a linear layer where they come last; None where they lie between
    places, and where there are none.
    """
    axis, last = graph.channel_axes.get(node), len(graph.shapes[node]) - 1
    if axis not in (0, last):
        return None
    return next((kind for kind in KINDS.values() if kind.window == last - axis), None)


def fitting_kernel(graph: Graph, node: str) -> int:
    """3 where such a layer slides over more than one place along each axis; else 1."""
    kind = layer_for(graph, node)
    return 3 if kind and kind.window and min(graph.shapes[node][1:]) > 1 else 1


def kernels(graph: Graph, node: str) -> Whole:
    """The kernels that such a layer may have."""
    kind = layer_for(graph, node)
    return Whole(1, 7 if kind and kind.window else 1, 2)


def add_layer(
    draft: Draft,
    graph: Graph,
    like: str,
    source: str,
    *,
    out: int | None = None,
    kernel: int = 1,
    bias: bool = True,
    after: str | None = None,
) -> str:
    """Adds a layer for values such as that of `like` behind `source`, and returns its id.

    Args:
        draft: Where to.
        graph: In which `like` is a node that has such a layer, see `layer_for`.
        like: The node.
        source: What the layer reads.
        out: How many channels it makes; as many as `like` has if None.
        kernel: Its kernel along each axis of places, if it slides over places.
        bias: Whether it has a bias.
        after: Behind which node it runs; behind `source` if None.
    """
    kind = layer_for(graph, like)
    assert kind is not None  # noqa: S101 (sites are where there is one)
    window: dict[str, Any] = {"kernel": kernel} if kind.window else {}
    return draft.add(kind.name, source, after=after or source, out=out or channels(graph, like), bias=bias, **window)


def norm_near(graph: Graph, node: str) -> bool:
    """Whether the network normalises values such as that of `node` by the statistics of batches."""
    rank = len(graph.shapes[node])
    return graph.channel_axes.get(node) == 0 and any(
        KINDS[found.kind].normalisation and len(graph.shapes[found.id]) == rank for found in graph.nodes.values()
    )
