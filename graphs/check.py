"""Is a graph valid? One check, made after every change and on every file."""

from __future__ import annotations

from graphs.errors import GraphError
from graphs.kinds import KINDS, kind_of
from graphs.names import check_label
from graphs.structure import Graph

__all__ = ["check"]


def check(graph: Graph) -> None:
    """Checks a graph whole: order, names, operands, settings, heads, reachability, shapes, tensors.

    Raises:
        GraphError: Something is wrong; the message names the node.
    """
    done: set[str] = set()
    for id, node in graph.nodes.items():
        if id != node.id:
            raise GraphError(f"node '{node.id}' stands under the name '{id}'")
        check_label(id, "a node")
        for source in node.inputs:
            if source not in graph.nodes:
                raise GraphError(f"node '{id}' reads '{source}', which is not in the graph")
            if source not in done:
                raise GraphError(f"node '{id}' reads '{source}', which runs later (a cycle, or a wrong order)")
        kind_of(node.kind).check(node)
        done.add(id)
    names = [head.name for head in graph.heads]
    if not names or len(set(names)) != len(names):
        raise GraphError(f"expected heads of different names, got {names}")
    if all(head.training_only for head in graph.heads):
        raise GraphError("the graph has no output in eval mode; at least one head must not be for training only")
    for head in graph.heads:
        check_label(head.name, "a head")
        if head.node not in done:
            raise GraphError(f"head '{head.name}' reads '{head.node}', which is not in the graph")
    if not graph.inputs:
        raise GraphError("the graph has no input")
    unread = done - graph.upstream(head.node for head in graph.heads)
    if unread:
        raise GraphError(f"node '{min(unread)}' leads to no output; remove it")
    arguments = [node.settings["name"] for node in graph.inputs]
    if len(set(arguments)) != len(arguments):
        raise GraphError(f"expected inputs of different names, got {arguments}")
    _check_batches(graph)
    # Found here once for all who ask later.
    _ = graph.shapes, graph.tensors


def _check_batches(graph: Graph) -> None:
    """What depends on an input holds a value for each example; parameters and constants hold one for all."""
    many = graph.downstream(node.id for node in graph.inputs)
    for node in graph.nodes.values():
        single = [source for source in node.inputs if source not in many]
        if KINDS[node.kind].level and single and node.id in many:
            raise GraphError(
                f"node '{node.id}' reads '{single[0]}', which is one for all examples, beside values for each; "
                "spread it by a node of kind 'expand'"
            )
