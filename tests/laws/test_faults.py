"""A fault planted in an operator is found by its certificate, however small, and also in networks that hide things.

The faults are planted in what an operator builds, so that they are there again when a record is replayed on stirred
weights. `planted` makes those that follow from the transfer: one wrong index, one wrong share, one entry off by a
millionth, a zero that is 1e-9. `GRAPH_FAULTS` holds those of structure, for each exact operator.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any

import numpy
import pytest
import torch
from torch import Tensor

from graphs.draft import Draft
from graphs.errors import GraphError
from graphs.genome import Genome
from graphs.kinds import KINDS, TensorSpec, tensors
from graphs.structure import Graph
from ops import MUTATIONS, Site, certify
from ops.axis_maps import Axis, AxisMap, AxisMean, AxisSum, AxisTwins
from ops.bypass import bypass
from ops.mutation import Build, Work
from ops.stirring import stir
from ops.transfer import Completed, Extended, Given, Mapped, New, Plan, Projected, Regrouped, Transfer
from tests.strategies import channels_last, inputs, lively, mapped, residual, small, transformer, written_out

EXACT = [name for name, mutation in MUTATIONS.items() if mutation.preserves == "exact"]


# Planting -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class BentMap(Mapped):
    """A mapped tensor, one entry of which is off."""

    entry: int = 0
    by: float = 0.0

    def apply(self, weights: Any) -> Tensor:
        return bend(Mapped(self.source, self.axes).apply(weights), self.entry, self.by)


@dataclass(frozen=True)
class BentExtension(Extended):
    """An extended tensor, one entry of which is off."""

    entry: int = 0
    by: float = 0.0

    def fill(self, weights: Any, fresh: Tensor) -> Tensor:
        return bend(Extended(self.source, self.axes, self.along).fill(weights, fresh), self.entry, self.by)


@dataclass(frozen=True)
class BentCompletion(Completed):
    """A completed tensor, one entry of which is off."""

    entry: int = 0
    by: float = 0.0

    def apply(self, weights: Any, given: Any) -> Tensor:
        made = Completed(self.source, self.axes, self.along, self.given).apply(weights, given)
        return bend(made, self.entry, self.by)


@dataclass(frozen=True)
class BentStart(New):
    """A new tensor, one entry of which is off."""

    entry: int = 0
    by: float = 0.0

    def apply(self, spec: TensorSpec, seed: int, name: str) -> Tensor:
        return bend(New(self.start).apply(spec, seed, name), self.entry, self.by)


@dataclass(frozen=True)
class BentGroups(Regrouped):
    """The weight of a convolution whose groups were merged, an entry of which is off, or whose blocks are displaced."""

    entry: tuple[int, ...] = ()
    by: float = 0.0
    roll: int = 0

    def apply(self, weights: Any) -> Tensor:
        made = Regrouped(self.source, self.groups).apply(weights).roll(self.roll, 1)
        return bend(made, int(numpy.ravel_multi_index(self.entry, made.shape)), self.by) if self.entry else made


@dataclass(frozen=True, eq=False)
class BentProjection(Projected):
    """The weight of a 1×1 convolution behind a depthwise one, with an entry that is off, or displaced columns."""

    entry: int = 0
    by: float = 0.0
    roll: int = 0

    def apply(self, weights: Any) -> Tensor:
        made = Projected(self.source, self.filters).apply(weights).roll(self.roll, 1)
        return bend(made, self.entry, self.by)


def bend(tensor: Tensor, entry: int, by: float) -> Tensor:
    bent = tensor.clone()
    bent.view(-1)[entry] += by
    return bent


def planted(build: Build, parent: Genome) -> Iterator[tuple[str, Build]]:
    """Every build with one fault in its transfer, with a name for it."""
    for name, plan in build.transfer.plans.items():
        if isinstance(plan, Mapped):
            for number, axis in enumerate(plan.axes):
                for what, wrong in wrong_axes(axis, parent.weights[plan.source].shape[axis.axis]):
                    axes = (*plan.axes[:number], wrong, *plan.axes[number + 1 :])
                    yield f"{what} of {name}", with_plan(build, name, Mapped(plan.source, axes))
            made = plan.apply(parent.weights)
            if made.is_floating_point():
                by = 1e-6 * float(made.abs().max())
                yield (
                    f"an entry of {name} off by a millionth",
                    with_plan(build, name, BentMap(plan.source, plan.axes, 0, by)),
                )
            zeros = [axis for axis in plan.axes if isinstance(axis, AxisMap) and (axis.index < 0).any()]
            if zeros and not any(isinstance(axis, AxisMean) for axis in zeros):
                place = int((made == 0).flatten().nonzero()[0])
                yield (
                    f"a new entry of {name} not zero",
                    with_plan(build, name, BentMap(plan.source, plan.axes, place, 1e-9)),
                )
        elif isinstance(plan, Extended):
            old = parent.weights[plan.source]
            for number, axis in enumerate(plan.axes):
                for what, wrong in wrong_axes(axis, old.shape[axis.axis]):
                    axes = (*plan.axes[:number], wrong, *plan.axes[number + 1 :])
                    yield f"{what} of {name}", with_plan(build, name, Extended(plan.source, axes, plan.along))
            by = 1e-6 * float(old.abs().max())
            yield (
                f"an entry of {name} off by a millionth",
                with_plan(build, name, BentExtension(plan.source, plan.axes, plan.along, 0, by)),
            )
        elif isinstance(plan, Completed):
            old = parent.weights[plan.source]
            for number, axis in enumerate(plan.axes):
                for what, wrong in wrong_axes(axis, old.shape[axis.axis]):
                    axes = (*plan.axes[:number], wrong, *plan.axes[number + 1 :])
                    yield f"{what} of {name}", with_plan(build, name, replace(plan, axes=axes))
            bent = BentCompletion(plan.source, plan.axes, plan.along, plan.given, 0, 1e-6 * float(old.abs().max()))
            yield f"an entry of {name} off by a millionth", with_plan(build, name, bent)
        elif isinstance(plan, New):
            shape = tensors(build.graph)[name].shape
            # At the centre of a kernel, since on small images a corner may meet dark pixels only; and off the
            # diagonal, since beside a 1 nothing so small is kept in float32.
            where = [size // 2 if axis > 1 else axis * (size - 1) for axis, size in enumerate(shape)]
            place = int(numpy.ravel_multi_index(where, shape)) if shape else 0
            yield f"the start of {name} off by 1e-9", with_plan(build, name, BentStart(plan.start, place, 1e-9))
        elif isinstance(plan, Given):
            off = bend(build.tensors[name], -1, 1e-6)
            yield f"{name} off by a millionth", replace(build, tensors={**build.tensors, name: off})


def wrong_axes(axis: Axis, size: int) -> Iterator[tuple[str, Any]]:
    """The map with two entries swapped, with one entry from elsewhere, and with one share off by a millionth."""
    if isinstance(axis, AxisSum):
        into = axis.into.copy()
        twin = numpy.flatnonzero(numpy.bincount(into)[into] > 1)[-1]
        into[twin] = (into[twin] + 1) % (into.max() + 1)
        yield f"a share along axis {axis.axis} given to another", replace(axis, into=into)
        return
    if isinstance(axis, AxisTwins):
        yield from wrong_axes(AxisMap(axis.axis, numpy.unique(axis.into, return_index=True)[1]), size)
        return
    index = axis.index
    different = numpy.flatnonzero(index != index[-1])
    if len(different):
        swapped = index.copy()
        swapped[[different[0], -1]] = swapped[[-1, different[0]]]
        yield f"two entries of axis {axis.axis}", replace(axis, index=swapped)
    if size > 1 and index[-1] >= 0 and axis.take is None:
        elsewhere = index.copy()
        elsewhere[-1] = (elsewhere[-1] + 1) % size
        yield f"the last entry of axis {axis.axis}", replace(axis, index=elsewhere)
    if axis.take is not None:
        counts = numpy.bincount(index)
        copied = numpy.flatnonzero(counts[index] > 1)
        take = axis.take.copy()
        take[copied[-1]] *= 1 + 1e-6
        yield f"a share along axis {axis.axis}", replace(axis, take=take)


def with_plan(build: Build, name: str, plan: Plan) -> Build:
    return replace(build, transfer=Transfer({**build.transfer.plans, name: plan}))


def fresh_nodes(build: Build, parent: Genome, *kinds: str) -> list[str]:
    return [id for id, node in build.graph.nodes.items() if id not in parent.graph.nodes and node.kind in kinds]


def rebuilt(build: Build, change: Callable[[Draft], None]) -> Build:
    draft = Draft(build.graph)
    change(draft)
    return replace(build, graph=draft.finish())


def without_plans(build: Build, parent: Genome) -> Iterator[tuple[str, Build]]:
    """A tensor that should be a copy is new."""
    for name, plan in build.transfer.plans.items():
        if isinstance(plan, Mapped) and not plan.axes and parent.weights[plan.source].is_floating_point():
            yield f"{name} new", with_plan(build, name, New("ones"))


def no_copies(build: Build, parent: Genome) -> Iterator[tuple[str, Build]]:
    """A tensor in which copies are missing does not fit the graph."""
    for name, plan in build.transfer.plans.items():
        if isinstance(plan, Mapped):
            yield f"{name} as it was", with_plan(build, name, Mapped(plan.source))


def deepened(build: Build, parent: Genome) -> Iterator[tuple[str, Build]]:
    layer = fresh_nodes(build, parent, *(name for name, kind in KINDS.items() if kind.window is not None))[0]
    end = [id for id in build.graph.nodes if id not in parent.graph.nodes][-1]
    names = build.graph[layer].tensors
    yield "a weight that is no identity", with_plan(build, names["weight"], BentStart("identity", 0, -1e-6))
    if "bias" in names:
        yield "a bias that is not zero", with_plan(build, names["bias"], BentStart("zeros", 0, 1e-9))
    for norm in fresh_nodes(build, parent, "batch_norm"):
        eps = build.graph[norm].settings["eps"]
        yield "another eps", altered(build, norm, eps=eps * 1.1)

    def smooth(draft: Draft) -> None:
        source = draft.nodes[end].inputs[0]
        other = draft.add("gelu", source, after=source)
        draft.rewire(end, 0, other)

    yield "an activation that is not idempotent", rebuilt(build, smooth)


def inserted(build: Build, parent: Genome) -> Iterator[tuple[str, Build]]:
    last = fresh_nodes(build, parent, "conv2d", "linear", "batch_norm")[-1]
    bias = build.graph[last].tensors["bias"]
    # Of one channel: what all have in common a layer norm takes away.
    yield "a last shift that is not zero", with_plan(build, bias, BentStart("zeros", 0, 1e-9))
    (total,) = fresh_nodes(build, parent, "add")
    yield "a mean for a sum", rebuilt(build, lambda draft: exchange(draft, total, "mean"))


def layered(build: Build, parent: Genome) -> Iterator[tuple[str, Build]]:
    for total in fresh_nodes(build, parent, "add"):
        value, zero = build.graph[total].inputs
        bias = build.graph[zero].tensors["bias"]
        yield f"a shift in {zero} that is not zero", with_plan(build, bias, BentStart("zeros", 0, 1e-9))
        yield f"a mean for a sum at {total}", rebuilt(build, partial(exchange, node=total, kind="mean"))
        yield f"a lost sum at {total}", rebuilt(build, partial(Draft.rewire, node=total, position=0, source=zero))
        twice = partial(doubled, total=total, given=value, projected=zero)
        yield f"the old value twice at {total}", rebuilt(build, twice)


def doubled(draft: Draft, total: str, given: str, projected: str) -> None:
    """Adds the first operand of a sum once more."""
    draft.rewire(total, 1, draft.add("add", [given, projected], after=projected))


def exchange(draft: Draft, node: str, kind: str) -> None:
    """Makes the readers of a node read another one of the same operands."""
    other = draft.add(kind, draft.nodes[node].inputs, after=node)
    readers = [id for id, reader in draft.nodes.items() if node in reader.inputs]
    draft.redirect(node, other, readers)
    draft.move_heads(node, other)
    draft.remove([node])


def branched(build: Build, parent: Genome) -> Iterator[tuple[str, Build]]:
    (gate,) = fresh_nodes(build, parent, "gate")
    old, new = build.graph[gate].inputs

    def reverse(draft: Draft) -> None:
        draft.rewire(gate, 0, new)
        draft.rewire(gate, 1, old)

    yield "a gate the wrong way round", rebuilt(build, reverse)


def excited(build: Build, parent: Genome) -> Iterator[tuple[str, Build]]:
    yield from branched(build, parent)
    (gate,) = fresh_nodes(build, parent, "gate")
    (factor,) = fresh_nodes(build, parent, "multiply")
    yield "a product for the gate", product_for(build, gate, factor)


def product_for(build: Build, gate: str, product: str) -> Build:
    def replace_gate(draft: Draft) -> None:
        draft.redirect(gate, product, [id for id, node in draft.nodes.items() if gate in node.inputs])
        draft.remove([gate])

    return replace(rebuilt(build, replace_gate), transfer=Transfer())


def merged(build: Build, parent: Genome) -> Iterator[tuple[str, Build]]:
    ((name, plan),) = build.transfer.plans.items()
    assert isinstance(plan, Regrouped)
    made = plan.apply(parent.weights)
    centre = tuple(size // 2 for size in made.shape[2:])
    between = (0, made.shape[1] - 1, *centre)
    largest = tuple(int(place) for place in numpy.unravel_index(int(made.abs().argmax()), made.shape))
    groups = (plan.source, plan.groups)
    by = 1e-6 * float(made[largest].abs())
    yield "a weight between groups not zero", with_plan(build, name, BentGroups(*groups, entry=between, by=1e-9))
    yield "a weight off by a millionth", with_plan(build, name, BentGroups(*groups, entry=largest, by=by))
    yield "blocks beside their place", with_plan(build, name, BentGroups(*groups, roll=made.shape[1] // 2))
    yield "a weight as it was", with_plan(build, name, Mapped(plan.source))


def parted(build: Build, parent: Genome) -> Iterator[tuple[str, Build]]:
    (node,) = (id for id in build.graph.nodes if build.graph[id] != parent.graph[id])
    yield "as few groups as before", altered(build, node, groups=parent.graph[node].settings["groups"])
    yield from (pair for pair in merged(build, parent) if "between groups" not in pair[0])


def separated(build: Build, parent: Genome) -> Iterator[tuple[str, Build]]:
    (deep,) = build.graph.nodes.keys() - parent.graph.nodes.keys()
    ((name, plan),) = ((name, plan) for name, plan in build.transfer.plans.items() if isinstance(plan, Projected))
    made = plan.apply(parent.weights)
    largest = int(made.abs().argmax())
    by = 1e-6 * float(made.abs().max())
    given = (plan.source, plan.filters)
    yield "a weight off by a millionth", with_plan(build, name, BentProjection(*given, entry=largest, by=by))
    yield "columns beside their place", with_plan(build, name, BentProjection(*given, roll=1))
    yield "filters all alike", with_plan(build, build.graph[deep].tensors["weight"], New(1.0))
    yield "no padding", altered(build, deep, padding=tuple(0 for _ in build.graph[deep].settings["padding"]))
    wide = tuple(size + 1 for size in build.graph[deep].settings["dilation"])
    paddings = zip(build.graph[deep].settings["padding"], build.graph[deep].settings["kernel"], strict=True)
    padding = tuple(pad + (size - 1) // 2 for pad, size in paddings)
    yield "another dilation", altered(build, deep, dilation=wide, padding=padding)


def skipped(build: Build, parent: Genome) -> Iterator[tuple[str, Build]]:
    # Where a part of the network is copied, with what is concatenated there, it is the last one.
    joined = fresh_nodes(build, parent, "concat")[-1]
    given, source = build.graph[joined].inputs

    def reverse(draft: Draft) -> None:
        draft.rewire(joined, 0, source)
        draft.rewire(joined, 1, given)

    yield "a concatenation the wrong way round", rebuilt(build, reverse)


def divided(build: Build, parent: Genome) -> Iterator[tuple[str, Build]]:
    yield from skipped(build, parent)
    for part in fresh_nodes(build, parent, *(name for name, kind in KINDS.items() if kind.affine)):
        names = build.graph[part].tensors
        if "bias" in names:
            yield f"{names['bias']} new", with_plan(build, names["bias"], New("zeros"))


def shared_out(build: Build, parent: Genome) -> Iterator[tuple[str, Build]]:
    yield from skipped(build, parent)
    yield from without_plans(build, parent)


def added(build: Build, parent: Genome) -> Iterator[tuple[str, Build]]:
    (total,) = fresh_nodes(build, parent, "add")
    given, projected = build.graph[total].inputs
    yield "a mean for a sum", rebuilt(build, lambda draft: exchange(draft, total, "mean"))
    yield "the old value twice", rebuilt(build, partial(doubled, total=total, given=given, projected=projected))


def grown(build: Build, parent: Genome) -> Iterator[tuple[str, Build]]:
    node = next(id for id in build.graph.nodes if build.graph[id] != parent.graph[id])
    *others, width = build.graph[node].settings["padding"]
    yield "padding that has not grown", altered(build, node, padding=parent.graph[node].settings["padding"])
    yield "padding of one side", altered(build, node, padding=(*others, width - 1))
    weight = build.graph[node].tensors["weight"]
    plan = build.transfer.plans[weight]
    assert isinstance(plan, Mapped)
    rolled = replace(plan.axes[0], index=numpy.roll(plan.axes[0].index, 1))
    yield "a kernel off its centre", with_plan(build, weight, Mapped(plan.source, (rolled, *plan.axes[1:])))


def shrunk(build: Build, parent: Genome) -> Iterator[tuple[str, Build]]:
    node = next(id for id in build.graph.nodes if build.graph[id] != parent.graph[id])
    *others, width = build.graph[node].settings["padding"]
    yield "padding that has not shrunk", altered(build, node, padding=parent.graph[node].settings["padding"])
    yield "padding of one side", altered(build, node, padding=(*others, width + 1))
    weight = build.graph[node].tensors["weight"]
    plan = build.transfer.plans[weight]
    assert isinstance(plan, Mapped)
    axis = plan.axes[0]
    assert isinstance(axis, AxisMap)
    moved = replace(axis, index=axis.index - 1)
    yield "a kernel off its centre", with_plan(build, weight, Mapped(plan.source, (moved, *plan.axes[1:])))


def unskipped(build: Build, parent: Genome) -> Iterator[tuple[str, Build]]:
    """Another operand is dropped than its weights say."""
    joined, kept = bypass_of(build, parent)
    for other in parent.graph[joined].inputs:
        if other != kept:
            yield "another operand kept", replace(build, graph=bypass(parent.graph, other, joined).finish())
    yield from no_copies(build, parent)


def bypassed(build: Build, parent: Genome) -> Iterator[tuple[str, Build]]:
    """The wrong one of two operands is kept, or what is kept is not what it was."""
    end, kept = bypass_of(build, parent)
    for other in parent.graph[end].inputs:
        if other != kept:
            yield "the other operand kept", replace(build, graph=bypass(parent.graph, other, end).finish())
    yield from bent_behind(build, parent)


def bent_behind(build: Build, parent: Genome) -> Iterator[tuple[str, Build]]:
    """What is kept is not what it was."""
    _, kept = bypass_of(build, parent)
    before = build.graph.upstream([kept])
    names = [name for id in build.graph.nodes if id in before for name in build.graph[id].tensors.values()]
    for name in [name for name in names if parent.weights[name].ndim > 1][-2:]:
        shape = parent.weights[name].shape
        place = int(numpy.ravel_multi_index([size // 2 if axis > 1 else 0 for axis, size in enumerate(shape)], shape))
        by = 1e-6 * float(parent.weights[name].abs().max())
        yield f"an entry of {name} off", with_plan(build, name, BentMap(name, (), place, by))


def bypass_of(build: Build, parent: Genome) -> tuple[str, str]:
    """The node that is bypassed, and the one that is read instead."""
    old, new = parent.graph, build.graph
    for id in new.nodes.keys() & old.nodes.keys():
        for before, now in zip(old[id].inputs, new[id].inputs, strict=True):
            if before != now:
                return before, now
    return old.heads[0].node, new.heads[0].node


def altered(build: Build, node: str, **settings: Any) -> Build:
    """The graph is made anew only when the fault is planted, for it may be refused."""
    nodes = {**build.graph.nodes, node: replace(build.graph[node], settings={**build.graph[node].settings, **settings})}
    return replace(build, graph=Graph(nodes, build.graph.heads, build.graph.counter))


def split(build: Build, parent: Genome) -> Iterator[tuple[str, Build]]:
    (gate,) = fresh_nodes(build, parent, "gate")
    yield "a sum for the mean", summed(build, gate)
    yield from without_plans(build, parent)


def summed(build: Build, gate: str) -> Build:
    plans = {name: plan for name, plan in build.transfer.plans.items() if name != build.graph[gate].tensors["gate"]}
    return replace(rebuilt(build, lambda draft: exchange(draft, gate, "add")), transfer=Transfer(plans))


def read_at_once(build: Build, parent: Genome) -> Iterator[tuple[str, Build]]:
    """What is fresh stands in the place of what was there, and readers that have not grown."""
    for name, plan in build.transfer.plans.items():
        if isinstance(plan, Extended):
            yield f"{name} fresh for all channels", with_plan(build, name, New(0.5))
    yield from no_copies(build, parent)


def started_at_zero(build: Build, parent: Genome) -> Iterator[tuple[str, Build]]:
    """What makes the new channels is drawn, though they are read."""
    for name, plan in build.transfer.plans.items():
        if isinstance(plan, Mapped) and parent.weights[name].ndim > 1:
            axes = tuple(replace(axis, index=numpy.maximum(axis.index, -1)) for axis in plan.axes)
            yield f"{name} fresh for new channels", with_plan(build, name, Extended(name, axes, axes[0].axis))
    yield from no_copies(build, parent)


def compared(build: Build, parent: Genome) -> Iterator[tuple[str, Build]]:
    """New keys that are drawn, or a scale that follows the width."""
    for attention in changed_settings(build, parent, "attention"):
        yield "another scale", altered(build, attention, scale=None)
    for name, plan in build.transfer.plans.items():
        if isinstance(plan, Extended) and parent.weights[name].ndim > 1:
            axes = tuple(replace(axis, index=numpy.maximum(axis.index, -1)) for axis in plan.axes)
            yield f"keys that are not zero in {name}", with_plan(build, name, Extended(name, axes, plan.along))
    yield from all_as_they_were(build)


def all_as_they_were(build: Build) -> Iterator[tuple[str, Build]]:
    for name, plan in build.transfer.plans.items():
        if isinstance(plan, Mapped | Extended):
            yield f"{name} as it was", with_plan(build, name, Mapped(plan.source))


def headed(build: Build, parent: Genome) -> Iterator[tuple[str, Build]]:
    yield "channels for heads", across(build)
    yield from read_at_once(build, parent)


def across(build: Build) -> Build:
    """Every value that is laid out as heads has as many heads as a head has channels, and the other way round."""
    for node in build.graph.nodes.values():
        if node.kind == "reshape" and len(node.settings["shape"]) == 3:
            places, heads, width = node.settings["shape"]
            build = altered(build, node.id, shape=(places, width, heads))
    return build


def beheaded(build: Build, parent: Genome) -> Iterator[tuple[str, Build]]:
    yield "channels for heads", across(build)
    for name, plan in build.transfer.plans.items():
        if isinstance(plan, Mapped):
            (axis,) = plan.axes
            assert isinstance(axis, AxisMap)
            size = parent.weights[name].shape[axis.axis]
            gone = numpy.setdiff1d(numpy.arange(size), axis.index)[0]
            moved = numpy.where(axis.index == gone - 1, gone, axis.index)
            yield f"another head in {name}", with_plan(build, name, Mapped(name, (replace(axis, index=moved),)))
    yield from no_copies(build, parent)


def changed_settings(build: Build, parent: Genome, kind: str) -> list[str]:
    return [
        id for id, node in build.graph.nodes.items() if node.kind == kind and node.settings != parent.graph[id].settings
    ]


def no_sums(build: Build, parent: Genome) -> Iterator[tuple[str, Build]]:
    """What a reader gave to twins is dropped, and not added up."""
    for name, plan in build.transfer.plans.items():
        for number, axis in enumerate(plan.axes if isinstance(plan, Mapped) else ()):
            if isinstance(axis, AxisSum):
                first = AxisMap(axis.axis, numpy.unique(axis.into, return_index=True)[1])
                axes = (*plan.axes[:number], first, *plan.axes[number + 1 :])
                yield (
                    f"the shares along axis {axis.axis} of {name} dropped",
                    with_plan(build, name, replace(plan, axes=axes)),
                )


def streamed(build: Build, parent: Genome) -> Iterator[tuple[str, Build]]:
    """A norm that is as it was, new channels that hold something else, or are read where they hold something."""
    for id, node in build.graph.nodes.items():
        if KINDS[node.kind].neutral is None:
            continue
        if node.settings["eps"] != parent.graph[id].settings["eps"]:
            yield f"eps of {id} as it was", altered(build, id, eps=parent.graph[id].settings["eps"])
        name = node.tensors["weight"]
        plan = build.transfer.plans[name]
        assert isinstance(plan, Extended)
        yield (
            f"scale of {id} as it was",
            with_plan(build, name, replace(plan, axes=(replace(plan.axes[0], scale=1.0),))),
        )
    makers = {name: id for id, node in build.graph.nodes.items() for name in node.tensors.values()}
    for name, plan in build.transfer.plans.items():
        if isinstance(plan, Mapped):
            (axis,) = plan.axes
            assert isinstance(axis, AxisMap)
            if isinstance(axis, AxisMean):
                if not any(KINDS[build.graph[id].kind].neutral for id in build.graph.downstream([makers[name]])):
                    continue  # what no norm reads can be anything
                zeros = AxisMap(axis.axis, axis.index)
                yield f"zeros for means in {name}", with_plan(build, name, Mapped(name, (zeros,)))
            drawn = AxisMap(axis.axis, numpy.maximum(axis.index, -1))
            yield f"{name} fresh for new channels", with_plan(build, name, Extended(name, (drawn,), axis.axis))
    yield from all_as_they_were(build)


GRAPH_FAULTS: dict[str, Callable[[Build, Genome], Iterator[tuple[str, Build]]]] = {
    "widen": no_copies,
    "deepen": deepened,
    "insert_block": inserted,
    "branch": branched,
    "skip": skipped,
    "grow_kernel": grown,
    "split_head": split,
    "split_outputs": shared_out,
    "insert_se": excited,
    "blend_activation": branched,
    "group_to_dense": merged,
    "dense_to_group": parted,
    "dense_to_separable": separated,
    "split_branch": divided,
    "add_skip": added,
    "replicate_branch": split,
    "widen_zero": read_at_once,
    "widen_gradmax": started_at_zero,
    "merge_twins": no_sums,
    "remove_branch": bypassed,
    "remove_block": bypassed,
    "remove_head": bent_behind,
    "remove_skip": unskipped,
    "shrink_kernel": shrunk,
    "widen_keys": compared,
    "add_heads": headed,
    "drop_heads": beheaded,
    "insert_transformer_layer": layered,
    "widen_stream": streamed,
}
"""For each exact operator, the faults that do not follow from its transfer."""

HARMLESS = {"split_head": ("gate",), "replicate_branch": ("gate",)}
"""Tensors that may be anything: the gate between two equal values."""


# Networks -----------------------------------------------------------------------------------------------------------


def mixed() -> Genome:
    """Grouped and depthwise convolutions, excitation, concatenation, flattening, and norms other than batch norm."""
    draft = Draft()
    x = draft.input((3, 6, 5))
    stem = draft.add("prelu", draft.add("conv2d", x, out=4))
    deep = draft.add("conv2d", stem, out=8, groups=4)
    grouped = draft.add("conv2d", draft.add("silu", deep), out=4, groups=2, kernel=1)
    squeezed = draft.add("adaptive_avg_pool2d", grouped)
    scale = draft.add("sigmoid", draft.add("conv2d", squeezed, out=4, kernel=1))
    excited = draft.add("multiply", [grouped, scale])
    total = draft.add("relu", draft.add("add", [excited, stem]))
    joined = draft.add("concat", [total, draft.add("group_norm", stem, groups=2)])
    more = draft.add("relu", draft.add("batch_norm", draft.add("conv2d", joined, out=4, stride=2)))
    flat = draft.add("layer_norm", draft.add("flatten", more), axes=1)
    hidden = draft.add("relu6", draft.add("linear", flat, out=6))
    draft.head(draft.add("linear", hidden, out=3))
    return lively(draft.finish(), 3)


def alive(genome: Genome) -> Genome:
    weights = stir(genome, inputs(genome.graph)).weights
    return Genome(genome.graph, {name: tensor.to(genome.weights[name].dtype) for name, tensor in weights.items()})


PARENTS: dict[str, Callable[[], Genome]] = {
    "convnet": cache(lambda: alive(small("convnet"))),
    "resnet": cache(lambda: alive(small("resnet"))),
    "densenet": cache(lambda: alive(small("densenet"))),
    "mixed": cache(lambda: alive(mixed())),
    "transformer": cache(lambda: alive(transformer())),
    "volume": cache(lambda: alive(mapped(3))),
    "channels last": cache(lambda: alive(channels_last())),
    "written out": cache(lambda: alive(written_out())),
    "stream of means": cache(lambda: alive(residual("layer_norm"))),
    "stream of squares": cache(lambda: alive(residual("rms_norm", eps=1e-3))),
}


def prepared(name: str, parent: Genome) -> Genome:
    """For an operator that undoes another one, a network in which that one has been at work, here and there."""
    undone = MUTATIONS[name].undoes
    if undone is None:
        return parent
    places = [site.place for site in MUTATIONS[undone].sites(parent) if site.preserves == "exact"]
    for place in (places[0], places[-1])[: len(places)] if places else ():
        for site in [site for site in MUTATIONS[undone].sites(parent) if site.place == place]:
            parent = MUTATIONS[undone].apply(parent, site, numpy.random.default_rng(8)).genome
    return parent


# Laws ---------------------------------------------------------------------------------------------------------------


def cases(name: str, parent: Genome, most: int = 3) -> Iterator[tuple[Site, str, Build]]:
    """(site, fault, faulty build) at some sites of a network, of each promise that is made."""
    mutation = MUTATIONS[name]
    found = [site for site in mutation.sites(parent) if site.preserves != "approximate"]
    for promise in dict.fromkeys(site.preserves for site in found):
        sites = [site for site in found if site.preserves == promise]
        for site in sites[:: max(1, len(sites) // most)][:most]:
            child = mutation.apply(parent, site, numpy.random.default_rng(4))
            build = mutation.build(Work(parent, site.place, child.record.choices, child.record.seed, child.record.born))
            for fault, faulty in (*planted(build, parent), *GRAPH_FAULTS[name](build, parent)):
                harmless = fault.endswith(tuple(f".{role} off by 1e-9" for role in HARMLESS.get(name, ())))
                if not harmless and not same_child(parent, build, faulty):
                    yield site, fault, faulty


def same_child(parent: Genome, one: Build, other: Build) -> bool:
    """Whether a fault changes nothing: one column of zeros is as good as another."""
    if one.graph != other.graph:
        return False
    made, found = (build.transfer.apply(parent.weights, build.graph, 0, build.tensors) for build in (one, other))
    return all(torch.equal(tensor, found[name]) for name, tensor in made.items())


def fails(monkeypatch: pytest.MonkeyPatch, name: str, parent: Genome, site: Site, fault: str, faulty: Build) -> str:
    """What becomes of a child of a mutation with this fault: `refused`, or the verdict."""
    mutation = MUTATIONS[name]

    def build(work: Work) -> Build:
        if work.genome is parent and work.given is None:
            return faulty
        right = mutation.build(work)
        found = (*planted(right, work.genome), *GRAPH_FAULTS[name](right, work.genome))
        return dict(found)[fault]

    with monkeypatch.context() as patch:
        patch.setitem(MUTATIONS, name, replace(mutation, build=build))
        try:
            child = MUTATIONS[name].apply(parent, site, numpy.random.default_rng(4))
            certificate = certify(parent, child)
        except GraphError:
            return "refused"
        return "broken" if certificate.broken else f"{certificate}"


def test_every_exact_operator_has_faults() -> None:
    assert set(EXACT) == GRAPH_FAULTS.keys() == KINDS_OF_FAULTS.keys(), (
        "say in GRAPH_FAULTS what can be wrong with the new operator"
    )


KINDS_OF_FAULTS = {
    "widen": {"two entries", "the last entry", "a share", "an entry", "as it was"},
    "deepen": {"the start", "identity", "a bias", "another eps", "idempotent", "running_var off", "running_mean off"},
    "insert_block": {"the start", "a last shift", "a mean for a sum"},
    "branch": {"the start", "wrong way round"},
    "skip": {"a new entry", "two entries", "wrong way round"},
    "grow_kernel": {"a new entry", "two entries", "padding", "off its centre"},
    "insert_se": {"the start", "wrong way round", "a product"},
    "blend_activation": {"the start", "wrong way round"},
    "group_to_dense": {"between groups", "off by a millionth", "beside their place", "as it was"},
    "dense_to_group": {"off by a millionth", "beside their place", "as it was", "as few groups"},
    "dense_to_separable": {"the start", "off by a millionth", "beside their place", "all alike", "padding", "dilation"},
    "split_branch": {"an entry", "two entries", "the last entry", "wrong way round", "new"},
    "add_skip": {"the start", "a mean for a sum", "twice"},
    "replicate_branch": {"an entry", "running_mean new", "running_var new", "a sum for the mean"},
    "split_head": {"an entry", "running_mean new", "running_var new", "a sum for the mean"},
    "split_outputs": {"an entry", "two entries", "the last entry", "running_mean new", "wrong way round"},
    "widen_zero": {"two entries", "a new entry", "an entry", "as it was", "fresh for"},
    "widen_gradmax": {"two entries", "a new entry", "an entry", "as it was", "fresh for"},
    "remove_branch": {"the other operand", "an entry"},
    "remove_block": {"the other operand", "an entry"},
    "remove_head": {"an entry"},
    "remove_skip": {"another operand kept", "the last entry", "two entries", "an entry", "as it was"},
    "merge_twins": {"two entries", "a share", "dropped", "an entry"},
    "shrink_kernel": {"two entries", "an entry", "padding", "off its centre"},
    "widen_keys": {"two entries", "the last entry", "an entry", "as it was", "keys that are not zero", "another scale"},
    "add_heads": {"two entries", "a new entry", "an entry", "as it was", "fresh for", "channels for heads"},
    "drop_heads": {"two entries", "the last entry", "an entry", "as it was", "another head", "channels for heads"},
    "insert_transformer_layer": {"the start", "a shift", "a mean for a sum", "the old value twice", "a lost sum"},
    "widen_stream": {"two entries", "a new entry", "an entry", "eps", "scale", "zeros for", "fresh for", "as it was"},
}
"""What must be among the faults of each operator, in the words of their names."""


@pytest.mark.parametrize("name", EXACT)
def test_every_kind_of_fault_is_planted(name: str) -> None:
    missing = set(KINDS_OF_FAULTS[name])
    for make in PARENTS.values():
        for _, fault, _ in cases(name, prepared(name, make())) if missing else ():
            missing -= {kind for kind in missing if kind in fault}
    assert not missing


@pytest.mark.parametrize("network", PARENTS)
@pytest.mark.parametrize("name", EXACT)
def test_planted_faults_are_found(name: str, network: str, monkeypatch: pytest.MonkeyPatch) -> None:
    parent = prepared(name, PARENTS[network]())
    for site, fault, faulty in cases(name, parent):
        assert fails(monkeypatch, name, parent, site, fault, faulty) in ("broken", "refused"), (site.to_json(), fault)


def test_a_sound_operator_passes_the_same_way(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in EXACT:
        parent = prepared(name, PARENTS["mixed"]())
        for site in MUTATIONS[name].sites(parent):
            certificate = certify(parent, MUTATIONS[name].apply(parent, site, numpy.random.default_rng(4)))
            assert not certificate.broken and "blind" not in (certificate.eval.verdict, certificate.train.verdict)


# Networks that hide things ------------------------------------------------------------------------------------------


def zeroed(genome: Genome, *names: str, to: float = 0.0) -> Genome:
    """The genome with some tensors set to a number."""
    weights = {name: tensor * 0 + to if name in names else tensor for name, tensor in genome.weights.items()}
    return Genome(genome.graph, weights, genome.about)


def zero_head(genome: Genome) -> Genome:
    node = genome.graph[genome.graph.heads[0].node]
    return zeroed(genome, *node.tensors.values())


def tiny_scales(genome: Genome) -> Genome:
    """Each residual branch ends in a scale of a millionth, so does what it is added to; that is how ConvNeXt starts."""
    names = [name for name in genome.weights if name.endswith("bn2.weight")]
    return zeroed(genome, *names, to=1e-6)


def dead_channels(genome: Genome) -> Genome:
    """The first half of the channels that each batch norm gives is so low that no ReLU lets it through."""
    weights = dict(genome.weights)
    for node in genome.graph.nodes.values():
        if node.kind == "batch_norm":
            bias = weights[node.tensors["bias"]].clone()
            bias[: len(bias) // 2] = -50.0
            weights[node.tensors["bias"]] = bias
    return Genome(genome.graph, weights, genome.about)


def closed_gate(genome: Genome) -> Genome:
    """A layer behind a gate that is closed, with a batch norm and an activation of its own."""
    site = MUTATIONS["branch"].sites(genome)[0]
    child = MUTATIONS["branch"].apply(genome, site, numpy.random.default_rng(2)).genome
    draft = Draft(child.graph)
    (gate,) = [id for id, node in child.graph.nodes.items() if node.kind == "gate"]
    layer = child.graph[gate].inputs[1]
    norm = draft.add("batch_norm", layer, after=layer)
    relu = draft.add("relu", norm, after=norm)
    draft.rewire(gate, 1, draft.add("conv2d", relu, after=relu, out=child.graph.shapes[layer][0]))
    graph = draft.finish()
    return Genome(graph, {**lively(graph, 1).weights, **child.weights})


def norms_of_nothing(genome: Genome) -> Genome:
    """All scales of layer and group norms, and all slopes and biases, are zero."""
    names = [name for name, spec in tensors(genome.graph).items() if not spec.buffer and len(spec.shape) == 1]
    return zeroed(genome, *names)


HIDING: dict[str, tuple[Callable[[], Genome], Callable[[Graph], set[str]]]] = {
    "zero head": (lambda: zero_head(PARENTS["convnet"]()), lambda graph: set(graph.nodes)),
    "zero head of everything": (lambda: zero_head(PARENTS["mixed"]()), lambda graph: set(graph.nodes)),
    "scales of nothing": (lambda: norms_of_nothing(PARENTS["mixed"]()), lambda graph: set(graph.nodes)),
    "tiny scales": (
        lambda: tiny_scales(PARENTS["resnet"]()),
        lambda graph: {id for id in graph.nodes if "layer1" in id and "1#" in id},
    ),
    "closed gate": (
        lambda: closed_gate(PARENTS["convnet"]()),
        lambda graph: set(graph.upstream([_gate(graph).inputs[1]])) - set(graph.upstream([_gate(graph).inputs[0]])),
    ),
    "dead channels": (lambda: dead_channels(PARENTS["convnet"]()), lambda graph: set()),
    "dead channels in residuals": (lambda: dead_channels(PARENTS["resnet"]()), lambda graph: set()),
}
"""Networks, and the nodes at which a change cannot be seen on their own weights."""


def _gate(graph: Graph) -> Any:
    return next(node for node in graph.nodes.values() if node.kind == "gate")


def places(site: Site) -> set[str]:
    return {str(value).rpartition(":")[0] or str(value) for value in site.place.values()}


@pytest.mark.parametrize("network", HIDING)
@pytest.mark.parametrize("name", MUTATIONS)
def test_networks_that_hide_things_are_stirred_and_seen(name: str, network: str) -> None:
    make, hidden = HIDING[network]
    parent = prepared(name, make())
    for site in MUTATIONS[name].sites(parent):
        child = MUTATIONS[name].apply(parent, site, numpy.random.default_rng(4))
        certificate = certify(parent, child)
        found = {certificate.eval.verdict, certificate.train.verdict}
        assert "blind" not in found and not certificate.broken, site
        if "pass" in found and places(site) <= hidden(parent.graph):
            assert certificate.stirred, site


def test_copying_a_dead_channel_is_not_seen_on_the_real_weights() -> None:
    parent = dead_channels(PARENTS["convnet"]())
    seen = []
    for seed in range(6):
        site = MUTATIONS["widen"].sites(parent)[1]
        child = MUTATIONS["widen"].apply(parent, site, numpy.random.default_rng(seed))
        copies = {int(channel) for touched in child.touched for channel in touched.channels}
        dead = any(channel < child.genome.graph.shapes["stage2.relu#7"][0] // 4 for channel in copies)
        seen.append((dead, certify(parent, child).stirred))
    assert (True, True) in seen and all(stirred == dead for dead, stirred in seen)


@pytest.mark.parametrize("network", [name for name in HIDING if not name.startswith("dead")])
@pytest.mark.parametrize("name", EXACT)
def test_faults_are_found_where_things_are_hidden(name: str, network: str, monkeypatch: pytest.MonkeyPatch) -> None:
    make, hidden = HIDING[network]
    parent = prepared(name, make())
    for site, fault, faulty in cases(name, parent, 1):
        if places(site) <= hidden(parent.graph):
            assert fails(monkeypatch, name, parent, site, fault, faulty) in ("broken", "refused"), (
                site.to_json(),
                fault,
            )


# A hidden path beside one that shows enough --------------------------------------------------------------------------


def _behind_a_closed_gate(draft: Draft, shown: str, hidden: str) -> str:
    return draft.add("gate", [shown, hidden], path="valve")


def _behind_a_zero_scale(draft: Draft, shown: str, hidden: str) -> str:
    return draft.add("add", [shown, draft.add("group_norm", hidden, groups=2, path="valve")])


def _behind_a_dead_activation(draft: Draft, shown: str, hidden: str) -> str:
    low = draft.add("conv2d", hidden, out=4, kernel=1, path="valve")
    return draft.add("add", [shown, draft.add("relu", low)])


def _behind_zero_columns(draft: Draft, shown: str, hidden: str) -> str:
    return draft.add("concat", [shown, draft.add("conv2d", hidden, out=4, kernel=1, path="valve")])


PATHS: dict[str, tuple[Callable[[Draft, str, str], str], dict[str, float]]] = {
    "closed gate": (_behind_a_closed_gate, {"gate": 0.0}),
    "zero scale": (_behind_a_zero_scale, {"weight": 0.0, "bias": 0.0}),
    "dead activation": (_behind_a_dead_activation, {"bias": -1000.0}),
    "zero columns": (_behind_zero_columns, {"weight": 0.0, "bias": 0.0}),
}
"""How one of two paths from the same value is hidden, and the numbers in the layer `valve` that hide it."""


def half_hidden(path: str) -> Genome:
    """Two layers, `shown` and `hidden`, that read the same value; nothing of the second can be seen."""
    join, numbers = PATHS[path]
    draft = Draft()
    stem = draft.add("relu", draft.add("conv2d", draft.input((3, 6, 5)), out=6, path="stem"))
    shown = draft.add("conv2d", stem, out=4, path="shown")
    hidden = draft.add("conv2d", stem, out=4, path="hidden")
    end = draft.add("relu", join(draft, shown, hidden))
    draft.head(draft.add("linear", draft.add("flatten", draft.add("conv2d", end, out=4)), out=3))
    genome = alive(lively(draft.finish(), 3))
    (valve,) = [node for id, node in genome.graph.nodes.items() if id.startswith("valve#")]
    for role, number in numbers.items():
        genome = zeroed(genome, valve.tensors[role], to=number)
    return genome


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("name", ["widen", "widen_zero", "merge_twins"])
def test_a_fault_on_a_hidden_path_does_not_hide_beside_one_that_shows(
    name: str, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mutation is at the value that both paths read, and the fault in what only the hidden one does with it."""
    parent = prepared(name, half_hidden(path))
    planted_ones = 0
    for site, fault, faulty in cases(name, parent, 10):
        if " of hidden." in fault:
            assert fails(monkeypatch, name, parent, site, fault, faulty) == "broken", (site.to_json(), fault)
            planted_ones += 1
    assert planted_ones


@pytest.mark.parametrize("name", EXACT)
def test_a_child_that_is_not_what_its_record_says_is_broken(name: str) -> None:
    """Also where the real weights show nothing, and the stirred ones show the record and not the child."""
    for make in (PARENTS["convnet"], lambda: zero_head(PARENTS["convnet"]()), PARENTS["mixed"]):
        parent = prepared(name, make())
        for site in [site for site in MUTATIONS[name].sites(parent) if site.preserves != "approximate"][:1]:
            child = MUTATIONS[name].apply(parent, site, numpy.random.default_rng(4))
            first = next(name for name, tensor in child.genome.weights.items() if tensor.ndim > 1)
            weights = {**child.genome.weights, first: bend(child.genome.weights[first], 0, 1e-3)}
            forged = replace(child, genome=Genome(child.genome.graph, weights))
            assert certify(parent, child).broken is False
            assert certify(parent, forged).broken
