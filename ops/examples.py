"""The examples that a mutation may look at: inputs by name, and targets where there are some."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from graphs.errors import GraphError
from graphs.structure import Graph

if TYPE_CHECKING:
    from torch import Tensor

    Batch = Tensor | Mapping[str, Tensor] | tuple[Tensor | Mapping[str, Tensor], Tensor]

__all__ = ["Examples"]


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
            GraphError: An input of the network is missing.
        """
        given, targets = batch if isinstance(batch, tuple) else (batch, None)
        names = [node.settings["name"] for node in graph.inputs]
        inputs = dict(given) if isinstance(given, Mapping) else {names[0]: given}
        missing = [name for name in names if name not in inputs]
        if missing:
            raise GraphError(f"the batch has nothing for the inputs {missing}; give a mapping from {names} to tensors")
        return cls(inputs, targets)

    def like(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The inputs, those that are no whole numbers in the type of the weights."""
        kinds = (tensor.dtype for tensor in weights.values() if tensor.is_floating_point())
        dtype = next(kinds, None)
        return {
            name: tensor.to(dtype) if dtype and tensor.is_floating_point() else tensor
            for name, tensor in self.inputs.items()
        }
