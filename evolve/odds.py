"""Odds that follow a network: `ODDS` names rules that weigh the operators by what it looks like now.

A rule is a pure function of a graph and of the greatest depth; adding one is adding a line to the table.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from graphs import Graph, Node

__all__ = ["DEPTH", "ODDS", "Rule", "depth", "networkcompress_odds", "pools", "widest"]

Rule = Callable[["Graph", int], Mapping[str, float]]
"""(network, greatest depth) -> odds, as `ops.propose` takes them."""

DEPTH = 20
"""Greatest depth where the settings name none."""


def depth(graph: Graph) -> int:
    """Layers that mix channels, on the way that has the most of them.

    >>> from graphs import zoo
    >>> depth(zoo.create("convnet").graph), depth(zoo.create("resnet", depth=20).graph)
    (4, 20)
    """
    from ops.mixing import is_layer

    return _most(graph, is_layer)


def pools(graph: Graph) -> int:
    """Pools that leave more than one place, on the way that has the most of them.

    >>> from graphs import zoo
    >>> pools(zoo.create("convnet").graph)
    2
    """
    from graphs import KINDS

    def counts(node: Node) -> bool:
        return KINDS[node.kind].pooling and any(size > 1 for size in graph.shapes[node.id][1:])

    return _most(graph, counts)


def widest(graph: Graph) -> int:
    """Channels of the widest layer; 0 where there is none."""
    from ops.mixing import is_layer

    return max((node.settings["out"] for node in graph.nodes.values() if is_layer(node)), default=0)


def _most(graph: Graph, counts: Callable[[Node], bool]) -> int:
    found: dict[str, int] = {}
    for node in graph.nodes.values():
        found[node.id] = max((found[source] for source in node.inputs), default=0) + counts(node)
    return max(found[head.node] for head in graph.heads)


def networkcompress(graph: Graph, most: int) -> Mapping[str, float]:
    """The odds of github.com/luzai/NetworkCompress: early pools, skips and groups the more the deeper."""
    sides = [size for node in graph.inputs for size in node.settings["shape"][1:]]
    return networkcompress_odds(depth(graph), pools(graph), min(sides, default=1), most)


def networkcompress_odds(deep: int, pooled: int, side: int, most: int = DEPTH) -> Mapping[str, float]:
    """The same for a network with so many layers and pools in a row, and images with so short a side.

    There are at most P = ⌊log2(side)⌋ − 2 pools. With D the greatest depth, deepening with a pool behind has the weight
    D − ⌊D/2P⌋·pools, and none from P pools on; deepening and widening have ⌊D/2⌋; a skip and a group, which is a new
    layer of two towers side by side, have 2·⌊depth/2⌋.
    """
    limit, rising = side.bit_length() - 3, 2 * (deep // 2)
    return {
        "deepen+insert_pool": max(0, most - most // (2 * limit) * pooled) if pooled < limit else 0,
        "deepen": most // 2,
        "widen": most // 2,
        "add_skip": rising,
        "deepen+split_branch": rising,
    }


ODDS: Mapping[str, Rule] = {"networkcompress": networkcompress}
"""Every rule by the name that `odds` may bear in the settings."""
