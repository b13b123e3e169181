"""Copying a part of a network, with tensors of its own."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from graphs.draft import Draft
from graphs.structure import Graph
from ops.transfer import Mapped

__all__ = ["copy_nodes"]


def copy_nodes(
    draft: Draft,
    graph: Graph,
    nodes: Collection[str],
    known: Mapping[str, str],
    after: str | None = None,
    under: str | None = None,
) -> tuple[dict[str, str], dict[str, Mapped]]:
    """Adds copies of nodes in their execution order.

    Args:
        draft: Where to.
        graph: In which the nodes are.
        nodes: Their ids.
        known: For some nodes, what stands for them as operands of the copies.
        after: Behind which node the copies run; at the end if None.
        under: Path of the module that holds the copies under the names of what they are made from; by default they have
            names of their own.

    Returns:
        What stands for each node, and by name of the copies' tensors where they come from. What shares a tensor does so
        as a copy.
    """
    copies, names = dict(known), dict[str, str]()
    for id in graph.nodes:
        if id not in nodes:
            continue
        old = graph[id]
        inputs = [copies.get(source, source) for source in old.inputs]
        path = under and f"{under}.{id.partition('#')[0]}"
        copies[id] = draft.add(old.kind, inputs, path=path, after=after, **old.settings)
        after = after and copies[id]
        fresh = draft.nodes[copies[id]].tensors
        if under:
            fresh = {role: f"{under}.{name}" for role, name in old.tensors.items()}
        draft.name_tensors(copies[id], {role: names.setdefault(old.tensors[role], fresh[role]) for role in fresh})
    return copies, {copy: Mapped(name) for name, copy in names.items()}
