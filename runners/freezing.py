"""Parts of a network in training that are frozen: no gradient, no decay, no statistics, no dropout."""

from __future__ import annotations

from collections.abc import Iterable

from torch import fx, nn

from graphs.genome import Genome
from graphs.kinds import KINDS
from graphs.modules import hold_still, module_paths
from runners.group_norms import guarded

__all__ = ["Freezer"]


class Freezer:
    """Freezes nodes of a network while its module is trained.

    A frozen node's parameters ask for no gradient and have none, so that an optimiser leaves them alone and the
    backward pass ends where all that lies before is frozen; it computes what it does in eval mode, so that batch norm
    uses its running statistics without updating them and dropout lets everything through: its module is in that mode,
    or, where it has none, the forward pass is written so. A parameter that is shared with a node
    that still learns goes on; one that the network does not train is never thawed. Group norms are `guarded`, since
    they may come to learn behind what does not.

    Args:
        genome: From which `module` was made.
        module: What is trained.
    """

    def __init__(self, genome: Genome, module: nn.Module) -> None:
        self._genome, self._graph, self._module = genome, genome.graph, module
        self._paths = module_paths(genome)
        every = module.named_parameters(remove_duplicate=False)
        self._parameters = {name: parameter for name, parameter in every if parameter.requires_grad}
        self._nodes: frozenset[str] = frozenset()
        self._still: frozenset[str] = frozenset()
        guarded(module)

    @property
    def nodes(self) -> frozenset[str]:
        """Ids of the frozen nodes."""
        return self._nodes

    def freeze(self, nodes: Iterable[str]) -> None:
        """Makes exactly `nodes` the frozen ones, and thaws all others."""
        self._nodes = frozenset(nodes)
        learning = {
            id(self._parameters[name])
            for node in self._graph.nodes.values()
            if node.id not in self._nodes
            for name in node.tensors.values()
            if name in self._parameters
        }
        for parameter in self._parameters.values():
            parameter.requires_grad_(id(parameter) in learning)
            if not parameter.requires_grad:
                parameter.grad = None
        still = frozenset(node for node in self._nodes if self._is_written(node))
        if still != self._still and isinstance(self._module, fx.GraphModule):
            hold_still(self._genome, self._module, still)
            guarded(self._module)
            self._still = still

    def _is_written(self, node: str) -> bool:
        """Whether a node computes something else in each mode, and no module does so for it."""
        kind, settings = KINDS[self._graph[node].kind], self._graph[node].settings
        return node not in self._paths and (kind.wall or kind.divides or kind.random(settings))

    def train(self) -> None:
        """Puts the module into train mode, and what is frozen into eval mode."""
        self._module.train()
        for node in self._nodes:
            if node in self._paths:
                self._module.get_submodule(self._paths[node]).eval()
