"""The examples that a mutation may look at: inputs by name, and targets where there are some."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from graphs.errors import GraphError
from graphs.structure import Graph, Node

if TYPE_CHECKING:
    from torch import Tensor

    Batch = Tensor | Mapping[str, Tensor] | tuple[Tensor | Mapping[str, Tensor], Tensor]

__all__ = ["Examples", "fitting"]


def fitting(what: str, node: Node, given: Mapping[str, object], least: int) -> Tensor:
    """What is given for an input.

    Args:
        what: What the examples are called in messages.
        node: The input.
        given: Tensors by the names of inputs.
        least: How many examples are asked for.

    Raises:
        GraphError: It is no tensor of the input's type and shape, of fewer examples, or holds NaN.
    """
    import torch

    name, shape, dtype = node.settings["name"], tuple(node.settings["shape"]), node.settings["dtype"]
    start, found = f"the {what} for input '{name}'", given.get(name)
    if found is not None and not isinstance(found, torch.Tensor):
        raise GraphError(f"{start} is a {type(found).__name__}; expected a tensor ({least} or more, *{shape})")
    size = None if found is None else tuple(found.shape)
    if found is None or size is None or size[1:] != shape or not size or size[0] < least:
        raise GraphError(f"{start} has shape {size}; expected ({least} or more, *{shape})")
    kind = "float" if found.is_floating_point() else "boolean" if found.dtype == torch.bool else "integer"
    if kind != dtype or found.is_complex():
        raise GraphError(f"{start} holds numbers of type {found.dtype}; expected {dtype} ones")
    if dtype == "float" and bool(found.isnan().any()):
        raise GraphError(f"{start} holds NaN, on which nothing can be computed")
    return found


@dataclass(frozen=True, slots=True, eq=False)
class Examples:
    """Examples of a task.

    Attributes:
        inputs: (N, *shape) by argument name.
        targets: Class numbers (N,), or values of the shape of the outputs; None where they are not known.
    """

    inputs: Mapping[str, Tensor]
    targets: Tensor | None = None

    @classmethod
    def of(cls, graph: Graph, batch: Batch) -> Examples:
        """What `Mutation.apply` is given: inputs, or a pair of inputs and targets.

        Raises:
            GraphError: An input of the network is missing, or what is given does not fit it.
        """
        given, targets = batch if isinstance(batch, tuple) else (batch, None)
        names = [node.settings["name"] for node in graph.inputs]
        inputs = dict(given) if isinstance(given, Mapping) else {names[0]: given}
        missing = [name for name in names if name not in inputs]
        if missing:
            raise GraphError(f"the batch has nothing for the inputs {missing}; give a mapping from {names} to tensors")
        return cls({node.settings["name"]: fitting("batch", node, inputs, 1) for node in graph.inputs}, targets)

    def like(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The inputs, those that are no whole numbers in the type of the weights."""
        kinds = (tensor.dtype for tensor in weights.values() if tensor.is_floating_point())
        dtype = next(kinds, None)
        return {
            name: tensor.to(dtype) if dtype and tensor.is_floating_point() else tensor
            for name, tensor in self.inputs.items()
        }
