"""Running a child beside its parent, and the parent beside itself with its activations perturbed.

The prefix that a mutation leaves alone is computed once, in the parent; what is perturbed is only what the changed
nodes read.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from graphs.errors import NotComputed
from graphs.execution import Run, execute
from graphs.genome import Genome
from graphs.kinds import KINDS
from graphs.structure import Graph, Node
from ops.differences import difference, largest, measured, size, statistics_error, unit
from ops.mutation import Child
from ops.probe import Probe, cast_up, frontier, moving, prefix, run_parent
from ops.sensitivity import Edge, responses
from ops.transfer import Extended, Mapped
from ops.visibility import is_dark, makers, read, reads_nothing

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Comparison", "Measures"]

Shake = Callable[["Tensor"], "Tensor"]

_ROUNDING = 2.0**-52
_FAULT = 0.01
_UPHEAVAL = 3.0
"""By which part of themselves activations are shaken: for the floor, for power, and so that half change signs."""

_NOTHING = 1e-14
"""A response that is rounding."""


@dataclass(frozen=True, slots=True)
class Measures:
    """What a comparison found in one mode, in units.

    Attributes:
        error: Largest difference of the child from the parent; infinite if something is not a number.
        floor: Largest difference that rounding of what the changed nodes read can make.
        power: Difference that one per cent of it makes where the least can be seen: the smallest response to any one
            of the operands that a fault could come in through.
        hidden: An output, or a channel that the mutation works on, does not vary: nothing can be seen. The floor and
            the power are then not measured.
        reached: The change leads to an output in this mode.
    """

    error: float
    floor: float
    power: float
    hidden: bool
    reached: bool


class Comparison:
    """A parent and a child on one probe.

    Args:
        parent: The parent.
        child: What a mutation made of it.
        probe: The examples.
        stirred: The parent's weights hide nothing, so what shows nothing is hidden by the structure.
        settled: So it has been found on other stirred weights, too; then elements of outputs that are the same for all
            examples are constants, and what the others show is enough; and what moves none leads to none.
    """

    def __init__(
        self, parent: Genome, child: Child, probe: Probe, stirred: bool = False, settled: bool = False
    ) -> None:
        self.parent, self.child, self.probe, self.stirred, self.settled = parent, child, probe, stirred, settled
        self.inputs, self.seed = probe.inputs, probe.seed
        self.old, self.new = parent.graph, child.genome.graph
        self.changed = frozenset(
            id
            for id, node in self.new.nodes.items()
            if id not in self.old.nodes
            or self.old[id] != node
            or any(child.genome.weights[name] is not parent.weights[name] for name in node.tensors.values())
        )
        sources = {name: plan.source for name, plan in child.transfer.plans.items()}
        self.copied = {source for name, source in sources.items() if source and source != name}
        self.made = frozenset(name for name, source in sources.items() if source)
        self.makers = makers(self.old, frozenset(filter(None, sources.values())))
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

    def _watched(self, heads: Mapping[str, str]) -> frozenset[Edge]:
        """The edges at each of which something has to be seen, in a mode with these outputs.

        Not those that lead to no output, nor those of a node that is gone and of whose tensors nothing is left: there
        a fault can come in only where the remaining nodes read another value.
        """
        reached = self.old.upstream(heads.values())
        left = self.copied.union(*(node.tensors.values() for node in self.new.nodes.values()))
        return frozenset(
            (node, slot)
            for node, slot in self.edges
            if node in reached and (node in self.new.nodes or not left.isdisjoint(self.old[node].tensors.values()))
        )

    def measure(self, training: bool, strict: bool = True) -> Measures:
        """Compares in one mode.

        Args:
            training: In train mode.
            strict: Each channel for which a tensor that comes from the parent's has a slice must be seen.
        """
        one, other = self.parent.in_mode(training), self.child.genome.in_mode(training)
        if one is not self.parent or other is not self.child.genome:
            nodes = one.graph.nodes.keys() | other.graph.nodes.keys()
            seen_here = tuple(touch for touch in self.child.touched if touch.node in nodes)
            child = replace(self.child, genome=other, touched=seen_here)
            return Comparison(one, child, self.probe, self.stirred, self.settled).measure(training, strict)
        old = self._heads(self.old, training)
        new = self._heads(self.new, training)
        if old == new and self.new.downstream(self.changed).isdisjoint(new.values()):
            return Measures(0.0, 0.0, 0.0, hidden=False, reached=False)
        touched = {touch.node for touch in self.child.touched}
        moved = moving(self.new, self.changed)
        shaken = moving(self.old, (node for node, _ in self.edges))
        seen = read(self.new, self.made, self.new.upstream(new.values())) if strict else frozenset()
        looked = touched.union(source for source, _ in seen)
        wanted = frontier(self.new, moved).union(frontier(self.old, shaken), old.values(), looked)
        before = run_parent(self.parent, self.probe, training, wanted & self.old.nodes.keys())
        values = {name: before.values[node] for name, node in old.items()}
        units = {name: unit(value, self.settled) for name, value in values.items() if measured(value)}
        flat = any(found is None for found in units.values())
        scales = {name: found or 1.0 for name, found in units.items()}
        after = execute(
            self.new,
            cast_up(self.child.genome),
            self.inputs,
            training=training,
            seed=self.seed,
            known=prefix(self.new, moved, before),
            keep=looked.union(new.values()) & self.new.nodes.keys(),
            double=True,
        )
        error = math.inf if old.keys() != new.keys() else 0.0
        for name in old.keys() & new.keys():
            got, expected = after.values[new[name]], before.values[old[name]]
            error = max(error, difference(got, expected) / scales.get(name, 1.0))
        if training:
            error = max(error, self._buffer_error(before, after))
        hidden = flat or is_dark(self.child.touched, before, after, self.settled)
        if hidden or reads_nothing(seen, after):
            return Measures(error, 0.0, 0.0, hidden=True, reached=True)
        power, silent = self._power(before, old, scales, training)
        choices = {node for name, node in old.items() if name not in scales}
        if power is None and self.settled and error == 0 and choices.isdisjoint(shaken):
            return Measures(0.0, 0.0, 0.0, hidden=False, reached=False)
        floor = self._floor(before, old, scales, training)
        return Measures(error, floor, power or 0.0, hidden=strict and silent, reached=True)

    def _heads(self, graph: Graph, training: bool) -> dict[str, str]:
        return {head.name: head.node for head in graph.heads if training or not head.training_only}

    def _shaken(self, before: Run, training: bool, edges: frozenset[Edge], by: float) -> tuple[Run, Shake]:
        """The parent's run when what these edges carry is multiplied by 1 ± `by`, and what does that to a value.

        For them alone: others that read the same value may show what they hide.
        """
        import torch

        generator = torch.Generator().manual_seed(self.seed)

        def shake(value: Tensor) -> Tensor:
            if not value.is_floating_point():
                return value
            signs = torch.randint(0, 2, value.shape, generator=generator, dtype=value.dtype) * 2 - 1
            return value * (1 + by * signs)

        run = execute(
            self.old,
            cast_up(self.parent),
            self.inputs,
            training=training,
            seed=self.seed,
            known=prefix(self.old, moving(self.old, (node for node, _ in edges)), before),
            keep=self._heads(self.old, training).values(),
            adjust=lambda node, slot, value: shake(value) if (node, slot) in edges else value,
            double=True,
        )
        return run, shake

    def _floor(self, before: Run, heads: Mapping[str, str], scales: Mapping[str, float], training: bool) -> float:
        """How far the parent's outputs, and its statistics, move when what the changed nodes read is rounded."""
        run, shake = self._shaken(before, training, self.edges, _ROUNDING)
        floor = 0.0
        for name, scale in scales.items():
            node = heads[name]
            found = shake(run.values[node]) if node in self.moved else run.values[node]
            floor = max(floor, largest(found - before.values[node]) / scale)
        if training:
            for id in self.old.nodes:
                floor = max(floor, statistics_error(self.old, id, before.buffers, before.buffers, run.buffers))
        return floor

    def _power(
        self, before: Run, heads: Mapping[str, str], scales: Mapping[str, float], training: bool
    ) -> tuple[float | None, bool]:
        """How far the parent's outputs move when the edge that shows least, or an output that is moved, is shaken.

        None where they depend on none of them, as on channels that are cut away. And whether a channel moves none,
        which a tensor makes that the child has, too.
        """
        edges, reached = self._watched(heads), self.old.upstream(heads.values())
        units = {heads[name]: scale for name, scale in scales.items()}
        found, silent = responses(
            self.old,
            cast_up(self.parent),
            self.inputs,
            prefix(self.old, moving(self.old, (node for node, _ in edges)), before),
            edges,
            units,
            training=training,
            seed=self.seed,
            size=_FAULT,
            made={node: axes for node, axes in self.makers.items() if node in reached},
        )
        found.update(self._jumps(before, training, edges - found.keys(), units))
        if self.stirred:
            # Whatever the weights, the outputs do not depend on what a norm over one element reads, or a lone key.
            dark = frozenset(edge for edge, response in found.items() if response <= _NOTHING)
            jumps = self._jumps(before, training, dark, units)
            found = {edge: jumps.get(edge, found[edge]) for edge in found if edge not in dark or edge in jumps}
        moved = (_FAULT * size(before.values[node]) / scale for node, scale in units.items() if node in self.moved)
        return min((*found.values(), *moved), default=None), silent

    def _jumps(
        self, before: Run, training: bool, edges: frozenset[Edge], units: Mapping[str, float]
    ) -> dict[Edge, float]:
        """The responses to edges that have no derivative, or one of zero, as what a comparison or a sign reads.

        Such outputs jump, seldom where little is shaken, so much is, and the response is taken in proportion. What
        nothing depends on even then, such as a value that is read for its batch size only, is left out.
        """
        found: dict[Edge, float] = {}
        for edge in edges:
            try:
                run, _ = self._shaken(before, training, frozenset({edge}), _UPHEAVAL)
            except NotComputed:  # an index is out of range, say: that shows
                found[edge] = math.inf
                continue
            changes = (size(run.values[node] - before.values[node]) / scale for node, scale in units.items())
            found[edge] = _FAULT / _UPHEAVAL * max(changes, default=0.0)
        return {edge: response for edge, response in found.items() if response > _NOTHING}

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
            error = max(error, statistics_error(self.new, id, expected, expected, after.buffers))
        return error
