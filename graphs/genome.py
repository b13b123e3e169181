"""A genome: a graph with its weights, the thing that is mutated, trained, stored and shipped to a worker."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from graphs.errors import GraphError
from graphs.names import check_tensors
from graphs.state import State
from graphs.structure import Graph, Node, frozen

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Genome"]

_NONE: Mapping[str, str | None] = MappingProxyType({})


@dataclass(frozen=True, eq=False)
class Genome:
    """A network: its structure, its tensors by name, and facts that travel with it.

    Attributes:
        graph: The structure.
        weights: All tensors that the nodes refer to, buffers included, by name, and those that are kept although none
            does. They are **immutable**: parent and child share those that a mutation leaves alone. Nothing in this
            project writes into one.
        about: Facts of JSON types about the network as a whole; `normalisation` ({"mean": [...], "std": [...]} in units
            of an input from 0 to 1) and `labels` (names of the classes) are understood by `export`, and `state` by
            `graphs.state`.

    Raises:
        GraphError: A tensor is missing, superfluous, of a shape that its node does not expect, or of a name that cannot
            stand in a module.
    """

    graph: Graph
    weights: Mapping[str, Tensor]
    about: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "weights", MappingProxyType(dict(self.weights)))
        object.__setattr__(self, "about", frozen(self.about))
        expected = self.graph.tensors
        for name, spec in expected.items():
            tensor = self.weights.get(name)
            if tensor is None:
                raise GraphError(f"tensor '{name}' is missing; its node expects shape {spec.shape}")
            if tuple(tensor.shape) != spec.shape:
                raise GraphError(f"tensor '{name}' has shape {tuple(tensor.shape)}; its node expects {spec.shape}")
        unused = self.state.unused
        for name in unused:
            if name not in self.weights:
                raise GraphError(f"tensor '{name}' is missing, which is kept although no node refers to it")
        check_tensors((*expected, *unused, *self.state.names))
        extra = self.weights.keys() - expected.keys() - unused.keys()
        if extra:
            raise GraphError(f"no node refers to tensor '{min(extra)}' (and {len(extra) - 1} more)")

    def in_mode(self, training: bool) -> Genome:
        """The network of one mode, with the tensors that it uses; see `Graph.in_mode`."""
        return self._modes[training]

    @cached_property
    def _modes(self) -> tuple[Genome, Genome]:
        return self._of(self.graph.in_mode(False)), self._of(self.graph.in_mode(True))

    def _of(self, graph: Graph) -> Genome:
        if graph is self.graph:
            return self
        return self.changed(graph, {name: self.weights[name] for name in graph.tensors})

    def with_lasting_heads(self) -> Genome:
        """The network without the outputs that exist in training only, in both modes."""
        return self._without(())

    def for_inference(self) -> Genome:
        """The network without what exists in training only."""
        from graphs.kinds import KINDS

        dividing = tuple(node for node in self.graph.nodes.values() if KINDS[node.kind].divides)
        return self._without(dividing)

    def _without(self, dividing: Sequence[Node]) -> Genome:
        """Without heads that exist in training only; of the nodes that divide, what eval mode takes."""
        from graphs.draft import Draft

        if not dividing and not any(head.training_only for head in self.graph.heads):
            return self
        draft = Draft(self.graph)
        draft.heads = [head for head in draft.heads if not head.training_only]
        for node in dividing:
            source = draft.nodes[node.id].inputs[1]
            draft.redirect(node.id, source, [reader for reader, _ in self.graph.consumers[node.id]])
            draft.move_heads(node.id, source)
        draft.prune()
        graph = draft.finish()
        return self.changed(graph, {name: self.weights[name] for name in graph.tensors})

    def changed(self, graph: Graph, weights: Mapping[str, Tensor], sources: Mapping[str, str | None] = _NONE) -> Genome:
        """A genome that comes from this one, with its facts, and with what is kept although no node refers to it.

        Args:
            graph: Its graph.
            weights: All tensors that the graph's nodes refer to.
            sources: For those that are not simply tensors of this genome, which of these they start from, if any.
        """
        kept = {name: self.weights[name] for name in self.state.unused if name not in weights}
        state = self.state.handed_on(graph.tensors, sources)
        unused = {name: how for name, how in state.unused.items() if name in kept}
        return Genome(graph, {**weights, **kept}, replace(state, unused=unused).told(self.about))

    @cached_property
    def cast(self) -> frozenset[str]:
        """The nodes whose values are of another type than new weights have; see `graphs.casting`."""
        from graphs.casting import cast_nodes

        return cast_nodes(self)

    @cached_property
    def state(self) -> State:
        """What is known of the state of the module that this network came from."""
        return State.of(self.about)

    @cached_property
    def digest(self) -> str:
        """SHA-256, in hexadecimal, over the canonical JSON and each tensor's name, type, shape and bytes."""
        from graphs.files import digest

        return digest(self)
