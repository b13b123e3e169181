"""An optimiser through a mutation: moments that follow the tensors, and rates that keep to the parent's path.

A channel that is copied passes on the share a of its readers, so what it is made with (weights, biases, norms) has a
times the parent's gradient, and so a times its momentum and a² times its second moment; the readers' own weights have
the parent's gradient undivided (derived from the chain rule; `tests/ops/test_optimizing.py` measures it). For the same
reason a widened network leaves its parent's path under the parent's learning rate. It follows that path exactly with
the rate divided by a where a channel is made and multiplied by a where it is read, and weight decay the other way
round. Law: exact for what acts on each channel alone; under a norm over channels for equal shares only, and not where
one of several uses of a shared tensor gets a copy of its own: each then has the moments of all uses.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from graphs.cost import macs_by_node
from graphs.errors import GraphError, UnknownName
from graphs.genome import Genome
from graphs.kinds import KINDS
from graphs.modules import to_torch
from graphs.structure import Graph
from ops.mutation import Child
from ops.transfer import Given, Made, Mapped, New, Source

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["MOMENTS", "decaying", "optimizer_factors", "optimizer_groups", "transfer_optimizer"]

MOMENTS = {"momentum_buffer": 1, "exp_avg": 1, "exp_avg_sq": 2, "max_exp_avg_sq": 2, "step": None}
"""What SGD, Adam and AdamW keep for each parameter -> the power of the gradient that it goes with; None: a count."""


def decaying(graph: Graph) -> frozenset[str]:
    """The tensors that weight decay is for: the weights of layers.

    Not biases, norms, gates and slopes: decay would erode the identities that mutations build of them. Nor a parameter
    that the forward pass uses directly and that has at most one axis longer than 1: it scales or shifts channels, as
    LayerScale does, whatever its number of axes.
    """
    drawn = {name: spec.shape for name, spec in graph.tensors.items() if spec.drawn and len(spec.shape) > 1}
    narrow = {name for name, shape in drawn.items() if sum(size > 1 for size in shape) <= 1}
    return frozenset(drawn.keys() - (narrow - _of_layers(graph) if narrow else narrow))


def _of_layers(graph: Graph) -> set[str]:
    """The tensors of layers, and of opaque nodes that multiply as layers do."""
    macs = macs_by_node(graph)
    return {
        name
        for node in graph.nodes.values()
        if macs[node.id] or not (KINDS[node.kind].wall or KINDS[node.kind].operands == (0, 0))
        for name in node.tensors.values()
    }


def transfer_optimizer(
    optimizer_state: Mapping[str, Any], child: Child, target: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The child's optimiser state, from the parent's.

    The states belong to the parameters of `to_torch(parent)` and `to_torch(child.genome)`. Which is which, the groups'
    `param_names` say (an optimiser has them if it was made from `module.named_parameters()`); without them, there must
    be one group, of `module.parameters()` in their order, or of those that are trained. A new tensor has no state, and
    its optimiser makes one at its next step; new entries of an old tensor start with moments of zero and go on with its
    count of steps.

    Args:
        optimizer_state: `state_dict()` of the parent's optimiser: SGD, Adam or AdamW.
        child: What a mutation made.
        target: `state_dict()` of the child's optimiser, whose groups and settings are kept; if None, the parent's only
            group goes on with the child's parameters.

    Returns:
        What the child's optimiser can `load_state_dict`.

    Raises:
        GraphError: It cannot be told which state is whose, or a state does not fit its tensor.
        UnknownName: The optimiser keeps something that is not in `MOMENTS`.
    """
    groups = optimizer_state["param_groups"]
    old = _names(groups, child.parent)
    held = {name: optimizer_state["state"][index] for index, name in old.items() if index in optimizer_state["state"]}
    wanted = [_group(groups, child, set(old.values()))] if target is None else target["param_groups"]
    state: dict[int, dict[str, Any]] = {}
    for index, name in _names(wanted, child.genome).items():
        plan = _plan(child, name)
        if plan is not None and plan.source in held:
            scale = child.transfer.gradients.get(name, 1.0)
            shape = child.parent.weights[plan.source].shape
            state[index] = {key: _moment(key, value, plan, scale, shape) for key, value in held[plan.source].items()}
    return {"state": state, "param_groups": wanted}


def optimizer_factors(child: Child, adaptive: bool = False) -> dict[str, Tensor | float]:
    """By what to multiply the learning rate, and divide weight decay, so that a child follows its parent's path.

    A number where all entries of a tensor have the same factor f, else a tensor of its shape. `optimizer_groups` makes
    groups of the former. For SGD the latter comes to the same without another rate or decay: multiply the transferred
    momentum by f, and each gradient before the step: `parameter.register_hook(lambda gradient: gradient * f)`.

    Args:
        child: What a mutation made.
        adaptive: For Adam and AdamW, whose steps do not depend on the size of gradients (up to their `eps`): only the
            readers' shares count then. Of the two, only AdamW's decay, which is no part of the gradient, keeps to the
            path.

    Returns:
        A factor for each parameter of the child, by its name.
    """
    return {name: _factor(child, name, adaptive) for name in dict.fromkeys(_aliases(child.genome).values())}


def optimizer_groups(
    child: Child,
    module: nn.Module,
    lr: float,
    weight_decay: float = 0.0,
    adaptive: bool = False,
    decay_all: bool = True,
) -> list[dict[str, Any]]:
    """Groups of named parameters for an optimiser, with the rates and decays that `optimizer_factors` asks for.

    Gates never decay, nor does what is new and no weight of a layer (`decaying`): nothing of the parent's goes with it.

    Args:
        child: What a mutation made.
        module: `to_torch(child.genome)`.
        lr: The parent's learning rate.
        weight_decay: The parent's weight decay.
        adaptive: See `optimizer_factors`.
        decay_all: All that comes from the parent decays, as it does there if its optimiser is one of
            `module.parameters()`; else weights of layers alone, as in our own training.

    Raises:
        GraphError: The factors differ within a tensor.
    """
    aliases, graph = _aliases(child.genome), child.genome.graph
    factors = optimizer_factors(child, adaptive)
    decayed = decaying(graph)
    if decay_all:
        gates = {name for name, spec in graph.tensors.items() if not (spec.drawn or spec.shape)}
        decayed |= {name for name in factors if _plan(child, name) is not None} - gates
    groups: dict[tuple[float, bool], list[tuple[str, nn.Parameter]]] = defaultdict(list)
    for name, parameter in module.named_parameters():
        factor = factors[aliases[name]]
        if not isinstance(factor, float):
            raise GraphError(
                f"the entries of '{name}' need learning rates from {lr * float(factor.min()):.3g} to "
                f"{lr * float(factor.max()):.3g}, but a group has one; "
                "widen evenly by a whole multiple, or scale the gradients by `optimizer_factors`"
            )
        groups[factor, aliases[name] in decayed].append((name, parameter))
    return [
        {"params": named, "lr": lr * factor, "weight_decay": weight_decay / factor if decays else 0.0}
        for (factor, decays), named in groups.items()
    ]


def _aliases(genome: Genome) -> dict[str, str]:
    """Every name of a parameter in the module, in the module's order -> the genome's name of that tensor."""
    named = list(to_torch(genome).named_parameters(remove_duplicate=False))
    known = {id(parameter): name for name, parameter in named if name in genome.weights}
    return {name: known[id(parameter)] for name, parameter in named}


def _names(groups: list[dict[str, Any]], genome: Genome) -> dict[int, str]:
    """Index of a parameter in an optimiser's state -> name of the genome's tensor."""
    aliases = _aliases(genome)
    if all("param_names" in group for group in groups):
        named = [pair for group in groups for pair in zip(group["params"], group["param_names"], strict=True)]
        for _, name in named:
            if name not in aliases:
                raise GraphError(
                    f"the optimiser has a parameter '{name}', which this network lacks; take its own state"
                )
        return {index: aliases[name] for index, name in named}
    order = list(dict.fromkeys(aliases.values()))
    trained = [name for name in order if name not in genome.state.frozen]
    counts = [len(group["params"]) for group in groups]
    names = next((each for each in (order, trained) if counts == [len(each)]), None)
    if names is None:
        raise GraphError(
            f"the optimiser has groups of {counts} unnamed parameters; expected one group of {len(order)}, "
            "or names: make it from `module.named_parameters()`"
        )
    return dict(zip(groups[0]["params"], names, strict=True))


def _group(groups: list[dict[str, Any]], child: Child, old: set[str]) -> dict[str, Any]:
    """The parent's only group with the child's parameters: all that are new, or come from one of the group's."""
    if len(groups) != 1:
        raise GraphError(
            f"the parent's optimiser has {len(groups)} groups, so it is open to which new tensors belong; "
            "give `target`, the state of the child's own optimiser"
        )
    plans = {name: _plan(child, name) for name in dict.fromkeys(_aliases(child.genome).values())}
    names = [name for name, plan in plans.items() if plan is None or plan.source in old]
    return {**groups[0], "params": list(range(len(names))), "param_names": names}


def _plan(child: Child, name: str) -> Source | Made | None:
    """How a tensor of the child comes from one of the parent's; None if it is new."""
    if name not in child.transfer.plans:
        return Mapped(name) if name in child.parent.weights else None
    plan = child.transfer.plans[name]
    if isinstance(plan, New | Given):
        return None
    return plan if plan.source is not None else None


def _moment(key: str, value: Any, plan: Source | Made, scale: float, shape: tuple[int, ...]) -> Any:
    """One thing that an optimiser keeps for a parameter, in the child's optimiser."""
    if key not in MOMENTS:
        raise UnknownName.of("state of an optimiser", key, MOMENTS)
    power = MOMENTS[key]
    if value is None or power is None:
        return value.clone() if hasattr(value, "clone") else value
    if value.shape != shape:
        raise GraphError(
            f"the optimiser's '{key}' for '{plan.source}' has shape {tuple(value.shape)}, the tensor has "
            f"{tuple(shape)}; its parameters are in another order: make it from `module.named_parameters()`"
        )
    return plan.carry(value.clone(), power) * scale**power


def _factor(child: Child, name: str, adaptive: bool) -> Tensor | float:
    import torch

    plan = _plan(child, name)
    if plan is None or plan.source is None:
        return 1.0
    factor = torch.ones(child.parent.weights[plan.source].shape, dtype=torch.float64)
    factor = plan.rate(factor, adaptive)
    if not adaptive:
        factor = factor / child.transfer.gradients.get(name, 1.0)
    first = float(factor.flatten()[0])
    return first if bool(((factor - first).abs() <= 1e-12 * first).all()) else factor
