"""The units of a network: its layers and blocks in order, each as one thing that can be frozen, split at, or shared.

A **cut** is a value through which every path to an output leads. Between two cuts lies one node, or a part with
parallel paths such as a residual body. Consecutive parts that one module of the original holds, which the paths in
the nodes' names tell, are one unit: a residual block with the activation behind it, a dense layer, a transition, a
transformer layer. A plain chain that a container holds is divided before each layer that mixes channels. What stands
directly in the network itself, such as its first convolution, stands alone; what only rearranges values, such as a
flatten, belongs to the unit that reads it.

For ResNet-110, PreResNet-110 and DenseNet-BC these are the units of the HydraNet code (59, 59 and 55), which flattens
modules by hand.

    >>> from graphs import units, zoo
    >>> [unit.name for unit in units(zoo.create("resnet", depth=8).graph)]
    ['conv1', 'bn1', 'relu', 'layer1.0', 'layer2.0', 'layer3.0', 'avgpool', 'fc']
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from graphs.structure import Graph

__all__ = ["Unit", "units"]

_VIEWS = frozenset({"expand", "flatten", "input", "permute", "reshape", "select", "slice"})
"""Kinds that hand values on as they are, in another order or shape."""


@dataclass(frozen=True, slots=True)
class Unit:
    """Some nodes between two cuts.

    Attributes:
        name: Path of the module that held the nodes, or of the only node; no two units of a network share it.
        nodes: Their ids, in execution order.
        position: Number of units before it on the way from the input; heads that leave the body at the same place
            count on side by side.
        born: Number of the youngest candidate in which one of the nodes appeared.
    """

    name: str
    nodes: tuple[str, ...]
    position: int
    born: int


@dataclass(slots=True)
class _Part:
    """Nodes between two cuts, while units are made of them."""

    nodes: list[str]
    path: tuple[str, ...]
    plain: bool


def units(graph: Graph) -> list[Unit]:
    """The units of a network, in order; every node is in one of them.

    With several heads, the units of the body come first, then those of each head, in the order of the heads (those
    that exist in training only come last).
    """
    found: list[Unit] = []
    taken: set[str] = set()
    names: set[str] = set()
    for head in sorted(graph.heads, key=lambda head: head.training_only):
        way = graph.upstream([head.node])
        position = 0
        for part in _divided(graph, _merged(graph, _parts(graph, way))):
            nodes = tuple(node for node in part.nodes if node not in taken)
            if nodes:
                name = _name(graph, part, nodes, names)
                found.append(Unit(name, nodes, position, max(graph[node].born for node in nodes)))
                names.add(name)
                taken.update(nodes)
            position += 1
    rest = tuple(node for node in graph.nodes if node not in taken)
    if rest:
        last = found[-1]
        found[-1] = Unit(last.name, last.nodes + rest, last.position, last.born)
    return found


def _parts(graph: Graph, way: frozenset[str]) -> list[_Part]:
    """The nodes on the way to one head, divided at the cuts."""
    dependent = graph.downstream(node.id for node in graph.inputs) & way
    order = [node for node in graph.nodes if node in way]
    place = {node: number for number, node in enumerate(order)}
    last = max((place[node.id] for node in graph.inputs if node.id in way), default=0)
    parts: list[_Part] = []
    start, reach = 0, last
    for node in order:
        if node in dependent and place[node] >= reach:
            parts.append(_part(order[start : place[node] + 1]))
            start = place[node] + 1
        if node in dependent:
            reach = max([reach, *(place[reader] for reader, _ in graph.consumers[node] if reader in place)])
    if start < len(order):
        parts.append(_part(order[start:]))
    return _with_views(graph, parts)


def _part(nodes: list[str]) -> _Part:
    return _Part(nodes, _common(nodes), len(nodes) == 1)


def _common(nodes: Iterable[str]) -> tuple[str, ...]:
    """Components of the path of the module that holds all nodes that name one; the nodes' own names do not count."""
    paths = [path.split(".")[:-1] for path in (node.partition("#")[0] for node in nodes) if "." in path]
    shared: list[str] = []
    for parts in zip(*paths, strict=False):
        if len(set(parts)) > 1:
            break
        shared.append(parts[0])
    return tuple(shared)


def _with_views(graph: Graph, parts: Sequence[_Part]) -> list[_Part]:
    """Each part that only rearranges its value, added to the one behind it."""
    found: list[_Part] = []
    waiting: list[str] = []
    for part in parts:
        if part is not parts[-1] and all(graph[node].kind in _VIEWS for node in part.nodes):
            waiting += part.nodes
        else:
            found.append(_Part(waiting + part.nodes, part.path, part.plain))
            waiting = []
    return found


def _merged(graph: Graph, parts: Sequence[_Part]) -> list[_Part]:
    """Neighbours that the same module holds as one part, but for blocks in a container of numbered ones."""
    children: dict[tuple[str, ...], set[str]] = {}
    for node in graph.nodes:
        names = node.partition("#")[0].split(".")
        for end in range(1, len(names)):
            children.setdefault(tuple(names[:end]), set()).add(names[end])
    containers = {path for path, names in children.items() if all(name.isdecimal() for name in names)}
    found: list[_Part] = []
    for part in parts:
        alike = bool(found and part.path and found[-1].path == part.path)
        if alike and (part.path not in containers or (part.plain and found[-1].plain)):
            found[-1].nodes += part.nodes
            found[-1].plain &= part.plain
        else:
            found.append(_Part(list(part.nodes), part.path, part.plain))
    return found


def _divided(graph: Graph, parts: Sequence[_Part]) -> list[_Part]:
    """Plain chains of several layers that mix channels, divided before each but the first of these."""
    found: list[_Part] = []
    for part in parts:
        mixing = [
            place
            for place, node in enumerate(part.nodes)
            if any(graph.tensors[name].drawn for name in graph[node].tensors.values())
        ]
        if not part.plain or len(mixing) < 2:
            found.append(part)
            continue
        starts = [0, *mixing[1:], len(part.nodes)]
        found += [_Part(part.nodes[start:end], (), True) for start, end in pairwise(starts) if end > start]
    return found


def _name(graph: Graph, part: _Part, nodes: Sequence[str], names: set[str]) -> str:
    single = next((node for node in nodes if graph[node].tensors), nodes[-1]).partition("#")[0]
    name = ".".join(part.path) if part.path and len(part.nodes) > 1 else single
    if name not in names:
        return name
    number = 2
    while f"{name}~{number}" in names:
        number += 1
    return f"{name}~{number}"
