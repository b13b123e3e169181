"""The transfers of several mutations in a row as one transfer, from the first parent's tensors to the last child's.

Maps along axes compose by being done in turn, so a tensor that the parent has stays a map of the parent's, and a tensor
that one of the mutations made stays what it was made as, with the later maps behind it. Applying the whole does the
same arithmetic as applying the parts, so both give the same bits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from graphs.kinds import TensorSpec
from graphs.structure import Graph
from ops.mutation import Child
from ops.transfer import Completed, Given, Made, Mapped, New, Plan, Transfer

__all__ = ["compose", "given_name"]


def given_name(number: int, name: str) -> str:
    """What the tensor `name`, computed from data by part `number`, is called among those of the whole."""
    return f"{number}/{name}"


def compose(parent: Graph, parts: Sequence[Child]) -> Transfer:
    """One transfer that does what the transfers of `parts` do, each of them the parent of the next."""
    origins: dict[str, Plan] = {name: Mapped(name) for name in parent.tensors}
    gradients: dict[str, float] = {}
    for number, part in enumerate(parts):
        found: dict[str, Plan] = {}
        factors: dict[str, float] = {}
        for name, spec in part.genome.graph.tensors.items():
            plan = part.transfer.plans.get(name, Mapped(name) if name in origins else New(spec.start))
            source = plan.source or name
            found[name] = _behind(origins, plan, spec, part.record.seed, name, number)
            factors[name] = gradients.get(source, 1.0) * part.transfer.gradients.get(name, 1.0)
        origins, gradients = found, factors
    plans: dict[str, Plan] = {name: plan for name, plan in origins.items() if plan != Mapped(name)}
    return Transfer(plans, {name: factor for name, factor in gradients.items() if factor != 1})


def _behind(origins: dict[str, Plan], plan: Plan, spec: TensorSpec, seed: int, name: str, number: int) -> Plan:
    """A part's plan, with where its source comes from in place of its source."""
    if isinstance(plan, Made):
        return plan
    if isinstance(plan, Given):
        return Made(Given(given_name(number, plan.name)), spec, seed, name)
    if isinstance(plan, New):
        return Made(plan, spec, seed, name)
    if isinstance(plan, Completed):
        plan = replace(plan, given=given_name(number, plan.given))
    origin = origins[plan.source]
    if isinstance(origin, Mapped) and isinstance(plan, Mapped):
        return origin.then(plan.axes)
    if isinstance(origin, Mapped) and not origin.axes and origin.source == plan.source:
        return Made(plan, spec, seed, name)
    whole = origin if isinstance(origin, Made) else Made(origin, spec, seed, name)
    return whole.then(Made(plan, spec, seed, name))
