"""The kinds of nodes that a graph is made of.

`KINDS` is a literal table. Adding a layer to the engine is adding one entry; the law tests then cover it.
"""

from __future__ import annotations

from graphs.errors import GraphError, UnknownName
from graphs.kinds.activations import ACTIVATIONS
from graphs.kinds.attention import ATTENTION
from graphs.kinds.joins import JOINS
from graphs.kinds.kind import Kind, TensorSpec
from graphs.kinds.norms import BATCH_NORM, FROZEN_BATCH_NORM, GROUP_NORM, INSTANCE_NORM, LAYER_NORM, RMS_NORM
from graphs.kinds.opaque import OPAQUE
from graphs.kinds.parameters import PARAMETERS
from graphs.kinds.pointwise import MASKED_FILL, POINTWISE
from graphs.kinds.pools import POOLS
from graphs.kinds.precision import CAST
from graphs.kinds.rearranging import REARRANGING
from graphs.kinds.taking import TAKING
from graphs.kinds.weighted import CONVOLUTIONS, EMBEDDING, LINEAR, PRODUCT
from graphs.structure import Graph

__all__ = ["KINDS", "Kind", "TensorSpec", "kind_of", "tensors"]

KINDS: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        *JOINS,
        *CONVOLUTIONS,
        LINEAR,
        PRODUCT,
        EMBEDDING,
        BATCH_NORM,
        FROZEN_BATCH_NORM,
        LAYER_NORM,
        RMS_NORM,
        GROUP_NORM,
        INSTANCE_NORM,
        *ACTIVATIONS,
        *POOLS,
        POINTWISE,
        MASKED_FILL,
        CAST,
        *REARRANGING,
        *TAKING,
        *PARAMETERS,
        *ATTENTION,
        *OPAQUE,
    )
}
"""All kinds, by name."""


def kind_of(name: str) -> Kind:
    """The kind called `name`.

    Raises:
        UnknownName: There is none.
    """
    try:
        return KINDS[name]
    except KeyError:
        raise UnknownName.of("kind", name, KINDS) from None


def tensors(graph: Graph) -> dict[str, TensorSpec]:
    """What each tensor that a graph's nodes refer to must look like, by name, in execution order.

    Raises:
        GraphError: Two nodes that share a tensor expect different shapes of it, or the name is no dotted path.
    """
    found: dict[str, TensorSpec] = {}
    for node in graph.nodes.values():
        if not node.tensors:
            continue
        specs = KINDS[node.kind].tensors(node.settings, [graph.shapes[source] for source in node.inputs])
        for role, spec in specs.items():
            name = node.tensors[role]
            known = found.setdefault(name, spec)
            if (known.shape, known.buffer, known.integer) != (spec.shape, spec.buffer, spec.integer):
                raise GraphError(
                    f"node '{node.id}' expects its tensor '{name}' with shape {spec.shape}, "
                    f"another node that shares it with shape {known.shape}"
                )
    return found
