"""Running a child beside its parent, and the parent beside itself with its activations perturbed.

The prefix that a mutation leaves alone is computed once, in the parent; what is perturbed is only what the changed
nodes read.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from graphs.execution import Run, execute
from graphs.genome import Genome
from graphs.kinds import KINDS
from graphs.structure import Graph, Node
from ops.mutation import Child
from ops.transfer import Extended, Mapped

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Comparison", "Measures", "Probe"]


@dataclass(frozen=True, slots=True)
class Measures:
    """What a comparison found in one mode, in units.

    Attributes:
        error: Largest difference of the child from the parent; infinite if something is not a number.
        floor: Largest difference that rounding of what the changed nodes read can make.
        power: Largest difference that one per cent of it makes.
        hidden: An output, or a channel that the mutation works on, does not vary: nothing can be seen.
        reached: The change leads to an output in this mode.
    """

    error: float
    floor: float
    power: float
    hidden: bool
    reached: bool


@dataclass(frozen=True, slots=True, eq=False)
class Probe:
    """Examples in float64 by argument name, and a seed. Equal if all of that is, so that runs on it are remembered."""

    inputs: Mapping[str, Tensor]
    seed: int

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Probe) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def _key(self) -> tuple[object, ...]:
        digests = (
            (name, hashlib.sha256(value.numpy().tobytes()).digest()) for name, value in sorted(self.inputs.items())
        )
        return (self.seed, *digests)


@lru_cache(maxsize=2)
def _run_parent(parent: Genome, probe: Probe, training: bool) -> Run:
    return execute(parent.graph, _cast_up(parent), probe.inputs, training=training, seed=probe.seed)


@lru_cache(maxsize=2)
def _cast_up(genome: Genome) -> Mapping[str, Tensor]:
    return {name: tensor.double() if tensor.is_floating_point() else tensor for name, tensor in genome.weights.items()}


class Comparison:
    """A parent and a child on one probe."""

    def __init__(self, parent: Genome, child: Child, probe: Probe) -> None:
        self.parent, self.child, self.probe = parent, child, probe
        self.inputs, self.seed = probe.inputs, probe.seed
        self.old, self.new = parent.graph, child.genome.graph
        self.changed = frozenset(
            id
            for id, node in self.new.nodes.items()
            if id not in self.old.nodes
            or self.old[id] != node
            or any(child.genome.weights[name] is not parent.weights[name] for name in node.tensors.values())
        )
        plans = child.transfer.plans.items()
        self.copied = {plan.source for name, plan in plans if isinstance(plan, Mapped) and plan.source != name}
        self.edges = frozenset((node.id, slot) for node in self.old.nodes.values() for slot in self._reads(node))
        self.moved = {head.node for head in self.new.heads} ^ {head.node for head in self.old.heads}

    def _reads(self, node: Node) -> Iterable[int]:
        """The operands of one of the parent's nodes through which a fault of the mutation would come in."""
        slots = range(len(node.inputs))
        if node.id not in self.new.nodes or not self.copied.isdisjoint(node.tensors.values()):
            return slots
        if node.id not in self.changed:
            return ()
        others = zip(node.inputs, self.new[node.id].inputs, strict=False)
        return [slot for slot, (old, new) in enumerate(others) if old != new] or slots

    def measure(self, training: bool) -> Measures:
        """Compares in one mode."""
        old = self._heads(self.old, training)
        new = self._heads(self.new, training)
        touched = self.new.downstream(self.changed)
        moved = old != new
        if not moved and not any(node in touched for node in new.values()):
            return Measures(0.0, 0.0, 0.0, hidden=False, reached=False)
        before = _run_parent(self.parent, self.probe, training)
        units = {name: _unit(before.values[node]) for name, node in old.items()}
        flat = any(unit is None for unit in units.values())
        scales = {name: unit or 1.0 for name, unit in units.items()}
        after = execute(
            self.new,
            _cast_up(self.child.genome),
            self.inputs,
            training=training,
            seed=self.seed,
            known=_prefix(self.new, touched, before),
        )
        error = math.inf if old.keys() != new.keys() else 0.0
        for name in old.keys() & new.keys():
            got, expected = after.values[new[name]], before.values[old[name]]
            fits = got.shape == expected.shape
            error = max(error, _largest(got - expected) / scales[name] if fits else math.inf)
        if training:
            error = max(error, self._buffer_error(before, after))
        return Measures(
            error=error,
            floor=max(self._response(before, old, scales, training, 2.0**-52)),
            power=self._response(before, old, scales, training, 0.01)[0],
            hidden=flat or self._dark(before, after),
            reached=True,
        )

    def _heads(self, graph: Graph, training: bool) -> dict[str, str]:
        return {head.name: head.node for head in graph.heads if training or not head.training_only}

    def _dark(self, before: Run, after: Run) -> bool:
        """Whether a channel that the mutation works on is zero on the whole probe, or cannot be looked at."""
        import torch

        for touch in self.child.touched:
            value = before.values.get(touch.node, after.values.get(touch.node))
            if value is None:
                return True
            entries = value.movedim(1 + touch.axis, 0).flatten(1).abs().amax(1)
            count = (len(entries) - touch.offset) // touch.inner
            channels = entries[touch.offset :][: count * touch.inner].reshape(count, touch.inner).amax(1)
            if bool((channels[torch.from_numpy(touch.channels)] == 0).any()):
                return True
        return False

    def _response(
        self, before: Run, heads: Mapping[str, str], scales: Mapping[str, float], training: bool, size: float
    ) -> tuple[float, float]:
        """How far the parent's outputs, and its statistics, move when what the changed nodes read is shaken by `size`.

        For them alone: others that read it may show what they hide.
        """
        import torch

        generator = torch.Generator().manual_seed(self.seed)

        def shake(value: Tensor) -> Tensor:
            if not value.is_floating_point():
                return value
            signs = torch.randint(0, 2, value.shape, generator=generator, dtype=value.dtype) * 2 - 1
            return value * (1 + size * signs)

        run = execute(
            self.old,
            _cast_up(self.parent),
            self.inputs,
            training=training,
            seed=self.seed,
            known=_prefix(self.old, self.old.downstream(node for node, _ in self.edges), before),
            adjust=lambda node, slot, value: shake(value) if (node, slot) in self.edges else value,
        )
        outputs = statistics = 0.0
        for name, node in heads.items():
            found = shake(run.values[node]) if node in self.moved else run.values[node]
            outputs = max(outputs, _largest(found - before.values[node]) / scales[name])
        if training:
            statistics = max(
                (_statistics_error(self.old, id, before.buffers, before.buffers, run.buffers) for id in self.old.nodes),
            )
        return outputs, statistics

    def _buffer_error(self, before: Run, after: Run) -> float:
        """Largest difference of a running statistic of the child from the parent's that it comes from."""
        error = 0.0
        for id, node in self.new.nodes.items():
            if not KINDS[node.kind].normalisation:
                continue
            expected: dict[str, Tensor] = {}
            for name in node.tensors.values():
                plan = self.child.transfer.plans.get(name)
                if name not in after.buffers:
                    continue
                if isinstance(plan, Mapped) and plan.source in before.buffers:
                    expected[name] = plan.apply(before.buffers)
                elif isinstance(plan, Extended) and plan.source in before.buffers:
                    expected[name] = plan.fill(before.buffers, after.buffers[name])
                elif plan is None and name in before.buffers:
                    expected[name] = before.buffers[name]
            error = max(error, _statistics_error(self.new, id, expected, expected, after.buffers))
        return error


def _prefix(graph: Graph, moved: frozenset[str], before: Run) -> Run:
    """What of the parent's run holds for a graph of which the nodes `moved` compute something else.

    A norm whose statistics a moved node shares is not part of it: each use updates them, in turn.
    """
    while True:
        updated = {name for id in moved for name in graph[id].tensors.values() if name in before.buffers}
        partners = [node.id for node in graph.nodes.values() if updated.intersection(node.tensors.values())]
        if moved.issuperset(partners):
            break
        moved = graph.downstream([*moved, *partners])
    kept = {id: before.values[id] for id in graph.nodes if id not in moved}
    names = [name for id in kept for name in graph[id].tensors.values()]
    return Run(kept, {name: before.buffers[name] for name in names if name in before.buffers})


def _unit(value: Tensor) -> float | None:
    """Root mean square of the elements' deviations over the batch; None if an element hardly varies."""
    deviations = value.detach().flatten(1).std(0, correction=0)
    unit = float(deviations.square().mean().sqrt())
    return unit if math.isfinite(unit) and unit > 0 and float(deviations.min()) >= 0.01 * unit else None


def _largest(difference: Tensor) -> float:
    """Largest magnitude; infinite if something is not a number."""
    largest = float(difference.abs().max()) if difference.numel() else 0.0
    return largest if math.isfinite(largest) else math.inf


def _statistics_error(
    graph: Graph,
    id: str,
    expected: Mapping[str, Tensor],
    scale: Mapping[str, Tensor],
    found: Mapping[str, Tensor],
) -> float:
    """Largest difference of a norm's buffers: means in deviations of their channel, variances in themselves."""
    node = graph[id]
    if not KINDS[node.kind].normalisation:
        return 0.0
    variance = scale.get(node.tensors["running_var"])
    error = 0.0
    for role, name in node.tensors.items():
        if name not in expected or name not in found:
            continue
        difference = (found[name] - expected[name]).abs()
        if not difference.is_floating_point():
            error = math.inf if bool(difference.any()) else error
        elif variance is not None:
            size = variance.clamp(min=node.settings["eps"])
            error = max(error, _largest(difference / (size.sqrt() if role == "running_mean" else size)))
    return error
