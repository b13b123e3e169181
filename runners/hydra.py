"""HydraNet: one body with several heads, each of which sees the examples with weights of its own.

What is meant, unless `tasks` are named, is the network of github.com/raghav1810/HydraNet, in structure a TreeNet
(S. Lee et al., "Why M Heads are Better than One", 2015, arXiv:1511.06314): a shared trunk, then independent branches
whose outputs are averaged. It is not "HydraNets" of CVPR 2018, whose branches are chosen by a gate for each image. With
`tasks` it is a body with a head for each of several label sets, which `runners.label_sets` makes.

`split` makes the heads, in the graph, of what follows a unit of any network. In training, head h gives example i the
weight w_hi, drawn once from an exponential distribution; over a batch, weights divided by their sum are then a
draw from Dirichlet(1, …, 1). They belong to the example, whatever batch it is in, so that a head always attends to
the same examples. The loss is Σ_h Σ_i w_hi·CE_hi / Σ_i w_hi, and batch norm in a head takes mean and variance with the
same weights.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from graphs.errors import GraphError, UnknownName
from runners.settings_errors import CheckedModel

if TYPE_CHECKING:
    from torch import Tensor, nn

    from graphs.genome import Genome
    from graphs.structure import Graph, Node
    from runners.task import Task

__all__ = ["Hydra", "Weights", "body", "split", "split_point", "weighted_norms", "with_body"]

_LEFT = 0.25
"""`split_point` leaves at most this share of the network's MACs to a head."""


_TRAINING = 5
"""At which place `batch_norm`, of torch and of `torch.nn.functional`, is told whether it averages the batch."""


class Hydra(CheckedModel):
    """How a network with several heads is made and trained.

    Attributes:
        heads: How many. One is the network itself, whose first units are its body.
        tasks: Names of the label sets that get a head each, in place of `heads` for the same classes; the first one's
            accuracy is the network's. See `runners.label_sets`.
        split_point: Number of units that make up the body; `auto` as `split_point` finds it.
        start: Heads begin with `fresh` weights, or are `copied` from the network.
        weights: What the weight of an example in a head's loss and norms goes with: the `sample` itself, its `position`
            in the batch as in the original, or nothing, when all are `even`, the default for `tasks`.
        frozen: Epochs for which the body is frozen at first, its batch norm included; for as many as there are, the
            heads alone are trained.
        average: What is averaged over the heads.
    """

    what: ClassVar[str] = "hydra"

    heads: int = Field(4, ge=1, le=1024)
    tasks: tuple[str, ...] = ()
    split_point: int | Literal["auto"] = "auto"
    start: Literal["fresh", "copied"] = "fresh"
    weights: Literal["sample", "position", "even"] = "sample"
    frozen: int = Field(0, ge=0, le=100_000)
    average: Literal["probabilities", "logits"] = "logits"

    @model_validator(mode="before")
    @classmethod
    def _even(cls, values: Any) -> Any:
        return {"weights": "even", **values} if isinstance(values, dict) and values.get("tasks") else values

    @field_validator("tasks")
    @classmethod
    def _different(cls, tasks: tuple[str, ...]) -> tuple[str, ...]:
        if tasks and len(set(tasks)) < max(2, len(tasks)):
            raise ValueError("should be the names of two label sets or more, each once")
        return tasks

    def classes(self, task: Task) -> dict[str, int]:
        """The number of classes of each label set that gets a head.

        Raises:
            UnknownName: The task has no such label set.
        """
        known = {task.main: task.classes, **{name: other.classes for name, other in task.others.items()}}
        for name in self.tasks:
            if name not in known:
                raise UnknownName.of("label set", name, known)
        return {name: known[name] for name in self.tasks}

    def heads_of(self, genome: Genome, task: Task, seed: int) -> Genome:
        """The network with the heads that are asked for, and without outputs that exist in training only.

        One that has one output besides is split. One that has several has to have as many as `heads` says, or those of
        the `tasks`, by name, which are put into their order.

        Raises:
            GraphError: It cannot be split there, or has several outputs, but others.
            UnknownName: The task has no such label set.
        """
        from graphs.draft import Draft
        from runners.label_sets import split_by_labels

        genome = genome.with_lasting_heads()
        found = {head.name: head for head in genome.graph.heads}
        if len(found) == 1:
            if not self.tasks:
                return split(genome, self.heads, self.split_point, self.start, seed)
            return split_by_labels(genome, self.classes(task), self.split_point, self.start, seed)
        if self.tasks and found.keys() != set(self.tasks):
            raise GraphError(
                f"the network has the outputs {', '.join(found)} already, and hydra.tasks is {', '.join(self.tasks)}; "
                "take a network with one output, or name its outputs after the label sets"
            )
        if not self.tasks and len(found) != self.heads:
            raise GraphError(
                f"the network has {len(found)} outputs already, and hydra.heads is {self.heads}; say "
                f"hydra.heads={len(found)}"
            )
        if not self.tasks or (*found,) == self.tasks:
            return genome
        draft = Draft(genome.graph)
        draft.heads = [found[name] for name in self.tasks]
        return genome.changed(draft.finish(), genome.weights)


def split_point(graph: Graph) -> int:
    """The number of units in front, behind which at most a quarter of the network's MACs are left, and one layer."""
    from graphs.cost import macs_by_node
    from graphs.unit import units

    costs, found = macs_by_node(graph), units(graph)
    whole, left, point = sum(costs.values()), sum(costs.values()), 1
    for count, unit in enumerate(found[:-1], start=1):
        left -= sum(costs[node] for node in unit.nodes)
        if not left:  # no layer, but pools, say
            break
        point = count
        if left <= _LEFT * whole:
            break
    return point


def with_body(genome: Genome, donor: Genome, point: int | Literal["auto"] = "auto") -> Genome:
    """The network with the weights that another one has in its `body`.

    Args:
        genome: The network.
        donor: A network that is the same up to there; a HydraNet may be, too.
        point: Number of units that make up the body of a network with one output.

    Raises:
        GraphError: It is not the same, and the message names the first node; or it cannot be split there.
    """
    graph = genome.graph
    inside = body(graph, point)
    shared = [node for node in graph.nodes.values() if node.id in inside]
    for node in shared:
        other = donor.graph.nodes.get(node.id)
        alike = other is not None and (node.kind, node.settings, node.inputs, node.tensors) == (
            other.kind,
            other.settings,
            other.inputs,
            other.tensors,
        )
        shapes = [None if name not in donor.weights else donor.weights[name].shape for name in node.tensors.values()]
        if not alike or shapes != [genome.weights[name].shape for name in node.tensors.values()]:
            raise GraphError(
                f"the body cannot be taken from that network: node '{node.id}' of the body is another one there; "
                "name the network that it was trained as, or split earlier"
            )
    given = {name: donor.weights[name] for node in shared for name in node.tensors.values()}
    return replace(genome, weights={**genome.weights, **given})


def split(
    genome: Genome, heads: int, point: int | Literal["auto"] = "auto", start: str = "fresh", seed: int = 0
) -> Genome:
    """The network with its last units several times, side by side.

    With one head it is the network itself, with the weights that it has. The first head's nodes keep their names.
    Outputs that exist in training only are left out: what they are made of may lie in the body or in the heads.

    Args:
        genome: A network with one output in eval mode.
        heads: How many.
        point: Number of its units (`graphs.units`) that stay shared, at least 1 and fewer than all.
        start: `fresh` draws new weights for all heads, `copied` gives each the network's own.
        seed: Of fresh weights; each head has others.

    Returns:
        A network whose outputs are called `head0`, `head1`, …

    Raises:
        GraphError: It has several outputs already, cannot be split there, or its heads would have no parameters; the
            message says where it can.
    """
    from graphs.draft import Draft
    from graphs.initial import fresh_weights
    from ops.copying import copy_nodes

    genome = genome.with_lasting_heads()
    graph = genome.graph
    if len(graph.heads) != 1:
        raise GraphError(f"the network has {len(graph.heads)} outputs, expected one to make heads of")
    shared = _in_front(graph, point)
    if heads == 1:
        return genome
    _check_own(graph, shared)
    draft = Draft(graph)
    draft.heads = []
    draft.head(graph.heads[0].node, "head0")
    heirs = graph.nodes.keys() - shared
    origin: dict[str, str] = {}
    for number in range(1, heads):
        copies, plans = copy_nodes(draft, graph, heirs, {}, under=f"head{number}")
        draft.head(copies[graph.heads[0].node], f"head{number}")
        origin |= {copy: plan.source for copy, plan in plans.items()}
    made = draft.finish()
    kept = {name for node in shared for name in graph[node].tensors.values()}
    inherited = {name: genome.weights[origin.get(name, name)] for name in made.tensors}
    copied = genome.changed(made, inherited, origin)
    if start == "copied":
        return copied
    drawn = fresh_weights(copied, seed)
    own = {name: tensor for name, tensor in drawn.items() if origin.get(name, name) not in kept}
    return replace(copied, weights={**copied.weights, **own})


def body(graph: Graph, point: int | Literal["auto"] = "auto") -> frozenset[str]:
    """The nodes on which all outputs depend; with one output, those of the units in front of a split at `point`.

    Raises:
        GraphError: It has one output, and cannot be split there.
    """
    ways = [graph.upstream([head.node]) for head in graph.lasting_heads]
    return frozenset.intersection(*ways) if len(ways) > 1 else _in_front(graph, point)


def _in_front(graph: Graph, point: int | Literal["auto"]) -> frozenset[str]:
    """The nodes of so many units, at least 1 and fewer than all."""
    from graphs.unit import units

    found = units(graph)
    count = split_point(graph) if point == "auto" else point
    if not 1 <= count < len(found):
        raise GraphError(
            f"a split behind unit {count} is not possible: the network has {len(found)} units, so expected 1 to "
            f"{len(found) - 1}"
        )
    return frozenset(node for unit in found[:count] for node in unit.nodes)


def _check_own(graph: Graph, shared: frozenset[str]) -> None:
    """Checks that a head, what follows the nodes `shared`, has parameters: without, all heads say the same for ever."""
    from graphs.unit import units

    found = units(graph)
    learning = [
        any(not graph.tensors[name].buffer for node in unit.nodes for name in graph[node].tensors.values())
        for unit in found
    ]
    count = sum(shared.issuperset(unit.nodes) for unit in found)
    if not any(learning[count:]):
        last = max((place for place, learns in enumerate(learning) if learns), default=0)
        raise GraphError(
            f"a split behind unit {count} gives heads without parameters, which would all say the same; "
            + (f"expected 1 to {last}" if last else "no split of this network gives others")
        )


class Weights:
    """The weight of each example for each head.

    Args:
        settings: What they go with.
        heads: How many heads.
        examples: How many examples there are.
        batch: Largest number of examples in a batch, which may have one more where a single one would be left.
        seed: Of the draw, which is made once.
        device: Where they are wanted.
    """

    def __init__(
        self, settings: Hydra, heads: int, examples: int, batch: int, seed: int, device: str | Any = "cpu"
    ) -> None:
        import torch

        self._by_position = settings.weights == "position"
        count = batch + 1 if self._by_position else examples
        generator = torch.Generator().manual_seed(seed)
        drawn = torch.empty(heads, count, dtype=torch.float64).exponential_(generator=generator)
        self._table = (torch.ones_like(drawn) if settings.weights == "even" else drawn).float().to(device)

    def of(self, rows: Tensor) -> Tensor:
        """The weights `(heads, N)` of the examples with the numbers `rows`, in that order; each row adds up to 1."""
        table = self._table
        found = table[:, : len(rows)] if self._by_position else table[:, rows.to(table.device)]
        return found / found.sum(1, keepdim=True)


def weighted_norms(
    genome: Genome, module: nn.Module, shared: Collection[str], even: bool = False
) -> dict[str, Sequence[Any]]:
    """Puts batch norms that know weights into the heads of a module that was made from `genome`.

    Args:
        genome: The network.
        module: What is changed.
        shared: The nodes of the body.
        even: All weights are equal, so that norms that do not know them serve as well.

    Returns:
        For each head the norms whose attribute `weights` is to be set, `(N,)` adding up to 1, before a forward pass in
        train mode.

    Raises:
        GraphError: A head has a batch norm that cannot be given weights, and they are not even.
    """
    from graphs.modules import module_paths
    from runners.weighted_norm import WeightedBatchNorm

    paths = module_paths(genome)
    for node in () if even else genome.graph.in_mode(True).nodes.values():
        if node.id not in shared and node.id not in paths and _averages_batch(node):
            raise GraphError(
                f"node '{node.id}' of a head is a batch norm that would take every example alike, whatever its weight: "
                "it keeps no statistics, or is no layer of its own; take a BatchNorm layer that keeps statistics "
                "(track_running_stats=True), or say hydra.weights=even"
            )
    found: dict[str, Sequence[Any]] = {}
    for head in genome.graph.heads:
        norms = []
        for id in genome.graph.upstream([head.node]).difference(shared):
            if genome.graph[id].kind == "batch_norm" and id in paths:
                norms.append(WeightedBatchNorm.in_place_of(module, paths[id]))
        found[head.name] = norms
    return found


def _averages_batch(node: Node) -> bool:
    """Whether a node takes mean and variance of the batch in train mode, as a layer or by a call of a program."""
    from graphs.kinds import KINDS

    if KINDS[node.kind].normalisation:
        return True
    return any(
        target.endswith("batch_norm") and named.get("training", given[_TRAINING] if len(given) > _TRAINING else False)
        for target, given, named in node.settings.get("program", ())
    )
