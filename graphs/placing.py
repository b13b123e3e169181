"""Where the parts of a network stand in a module: which layer at which path, and which tensor under which name.

Layers stand where their tensors' names say, so that a `state_dict` has these names; what shares a tensor, what no layer
provides, and what is kept although nothing uses it finds its place around them.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from graphs.genome import Genome
from graphs.kinds import KINDS, TensorSpec
from graphs.names import is_free
from graphs.structure import Graph, Node

__all__ = ["Plan", "dotted", "in_order", "turns"]


class Plan:
    """Which modules stand where.

    Attributes:
        modules: path -> (name in torch.nn or "" for a bare holder, keyword arguments, tensors to add).
        paths: node id -> path of the module that is called for it.
        tied: dotted name of a module's tensor -> dotted name of the tensor that it shares.
        same: path -> path of the module that stands there, too.
        frozen: Names of the parameters that are not trained.
        users: path -> number of nodes that have tensors there.
        names: For each tensor, its further names.
        taken: Names of all tensors.
        layers: the nodes with tensors for which a module of `torch.nn` stands.
    """

    def __init__(self, genome: Genome) -> None:
        graph, state = genome.graph, genome.state
        self.names = _further_names(genome)
        self.modules: dict[str, tuple[str, dict[str, Any], dict[str, TensorSpec]]] = {}
        self.paths: dict[str, str] = {}
        self.tied: dict[str, str] = {}
        self.same: dict[str, str] = {}
        self.frozen = sorted(state.frozen & {name for name in genome.weights if state.unused.get(name) != "buffer"})
        self.users = Counter(prefix for node in graph.nodes.values() for prefix in self._prefixes(node))
        owners: dict[str, tuple[Mapping[str, str], Any]] = {}
        self.taken = {name for node in graph.nodes.values() for name in node.tensors.values()} | state.names.keys()
        self.layers = self._layers(graph, state.unused)
        provided = {name for id in self.layers for name in graph[id].tensors.values()}
        # Layers come first, then what uses tensors directly, so that nothing takes the place of a layer; what has no
        # tensors takes what is left.
        for node in sorted(graph.nodes.values(), key=self._turn):
            kind = KINDS[node.kind]
            shapes = [graph.shapes[source] for source in node.inputs]
            made = kind.module(node.settings, shapes) if kind.module is not None else None
            path = None
            if made is not None and (node.id in self.layers or not node.tensors):
                path = self._path(node, owners, (dict(node.tensors), made))
            if path is not None and made is not None:
                self.paths[node.id] = path
                self.modules.setdefault(path, (*made, {}))
                for role, tensor in node.tensors.items():
                    if tensor != f"{path}.{role}":
                        self.tied[f"{path}.{role}"] = tensor
            else:
                specs = kind.tensors(node.settings, shapes)
                for role, tensor in node.tensors.items():
                    holder, _, name = tensor.rpartition(".")
                    entry = self.modules.setdefault(holder, ("", {}, {}))
                    if tensor not in provided or not entry[0]:
                        entry[2].setdefault(name, specs[role])
        specs = graph.tensors
        for tensor in list(self.tied.values()):
            # The layer that had the shared tensor may be gone: then a holder stands in its place.
            holder, _, name = tensor.rpartition(".")
            if holder and holder not in self.modules and not specs[tensor].buffer:
                self.modules[holder] = ("", {}, {})
            if holder and self.modules[holder][0] == "":
                self.modules[holder][2].setdefault(name, specs[tensor])
        for tensor, how in state.unused.items():
            weight = genome.weights[tensor]
            spec = TensorSpec(tuple(weight.shape), "zeros", how == "buffer", not weight.is_floating_point())
            self._hold(tensor, spec)
        self._name_again(specs, owners)

    def _hold(self, name: str, spec: TensorSpec) -> None:
        """Gives a tensor a place under its name."""
        holder, _, role = name.rpartition(".")
        self.modules.setdefault(holder, ("", {}, {}))[2].setdefault(role, spec)

    def _name_again(self, specs: Mapping[str, TensorSpec], owners: Mapping[str, tuple[Mapping[str, str], Any]]) -> None:
        """Gives tensors a place under their further names, too: those of a whole layer by the layer."""
        places: dict[str, dict[str, str]] = {}
        for tensor, others in self.names.items():
            for name in others:
                holder, _, role = name.rpartition(".")
                places.setdefault(holder, {})[role] = tensor
        for holder, roles in places.items():
            if holder in owners:
                continue
            paths = [path for path, (tensors, _) in owners.items() if tensors and tensors == roles]
            if holder not in self.modules and paths:
                self.same[holder] = paths[0]
                continue
            for role, tensor in roles.items():
                name = dotted(holder, role)
                if name not in self.tied and tensor in specs:
                    self.tied[name] = tensor
                    self._hold(name, specs[tensor])

    def _turn(self, node: Node) -> tuple[bool, bool, int]:
        """Layers come first, then what uses tensors directly; of those that share tensors, those that have most."""
        shares = any(self.names.get(name) for name in node.tensors.values())
        return not node.tensors, node.id not in self.layers, -len(node.tensors) if shares else 0

    def _path(self, node: Node, owners: dict[str, tuple[Mapping[str, str], Any]], content: Any) -> str | None:
        """Where the node's module lives: where its tensors' names say, if no other module is there.

        None where all of its tensors are those of another layer and nothing else, so that it needs no module.
        """
        # Where it shares some of its tensors, its place is where most of them are, and those that it does not share.
        paths = sorted(self._prefixes(node), key=lambda prefix: (-self._matches(node, prefix), self.users[prefix]))
        free = [path for path in paths if path not in self.modules or owners.get(path) == content]
        path = next(iter(free), next(iter(paths), ""))
        lent = all(tensor.rpartition(".")[0] in owners for tensor in node.tensors.values())
        if node.tensors and not free and lent and not KINDS[node.kind].normalisation:
            return None
        plain = re.sub(r"\W", "_", node.id).lstrip("_")
        while not path or (path in self.modules and owners.get(path) != content):
            while not is_free(plain) or plain in self.taken:
                plain += "_"
            path, plain = plain, f"{plain}_"
        owners[path] = content
        return path

    def _matches(self, node: Node, path: str) -> int:
        """How many of a node's tensors stand at a path under the names of their roles."""
        return sum(dotted(path, role) in (tensor, *self.names.get(tensor, ())) for role, tensor in node.tensors.items())

    def _prefixes(self, node: Node) -> list[str]:
        """The paths of modules that would have tensors of a node under their own names, which come first."""
        own = sorted({name.rpartition(".")[0] for role, name in node.tensors.items() if name.endswith(f".{role}")})
        further = {
            name.rpartition(".")[0]
            for role, tensor in node.tensors.items()
            for name in self.names.get(tensor, ())
            if name.endswith(f".{role}")
        }
        return [*own, *sorted(further.difference(own))]

    def _layers(self, graph: Graph, unused: Collection[str]) -> frozenset[str]:
        """The nodes with tensors for which a module of `torch.nn` stands.

        Their tensors must be called as that module calls them, and nothing else may have a tensor at its path that it
        would take for its own, such as the bias of a layer without one.
        """
        able = {id for id, node in graph.nodes.items() if KINDS[node.kind].module is not None and self._prefixes(node)}
        provided = {name for id in able for name in graph[id].tensors.values()}
        others = (node for node in graph.nodes.values() if node.id not in able)
        direct = {name.rpartition(".")[0] for node in others for name in node.tensors.values() if name not in provided}
        direct.update(name.rpartition(".")[0] for name in unused)
        return frozenset(id for id in able if direct.isdisjoint(self._prefixes(graph[id])))


def _further_names(genome: Genome) -> dict[str, list[str]]:
    """For each tensor of a genome, the further names under which it stands in a module."""
    found: dict[str, list[str]] = {}
    for name, tensor in sorted(genome.state.names.items()):
        if tensor in genome.weights and name not in genome.weights:
            found.setdefault(tensor, []).append(name)
    return found


def in_order(genome: Genome) -> tuple[str, ...]:
    """The names of a genome's tensors, as the module that is made of it has them one after the other.

    What the genome knows of the order in a module that it came from; else that in which nodes use them. Either does not
    change when a genome is stored.
    """
    return genome.state.order or (*genome.graph.tensors, *sorted(genome.state.unused))


def turns(names: Iterable[str]) -> dict[str, int]:
    """For each tensor of these names, and each module around it, when it comes."""
    first: dict[str, int] = {}
    for place, name in enumerate(names):
        parts = name.split(".")
        for count in range(1, len(parts) + 1):
            first.setdefault(".".join(parts[:count]), place)
    return first


def dotted(path: str, role: str) -> str:
    """The name of a tensor: the path of its module, and its role there."""
    return f"{path}.{role}" if path else role
