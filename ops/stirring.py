"""Stirring: the same structure with weights that hide nothing.

Zero heads, closed gates, scales of 1e-6 and dead channels make any change look exact. Stirring gives each layer a gain
and a shift so that the channels it makes have means near 0 and deviations near 1 on the probe, no two the same, and
each norm the running statistics of what it reads. A certificate that sees nothing on the real weights is taken again on
the stirred ones.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

from graphs.execution import Run, execute
from graphs.genome import Genome
from graphs.initial import start_tensor, stream, uniform
from graphs.kinds import KINDS, TensorSpec
from graphs.structure import Graph, Node

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["stir"]

_TINY = 1e-9

_LARGEST = 3.0
"""Greatest norm of the weights of one channel. What hardly varies, such as an average over an image, would be amplified
without it, by each of many such layers in turn, until rounding is all that is left."""


def stir(
    genome: Genome, inputs: Mapping[str, Tensor], seed: int = 0, keep: Collection[str] = (), wild: bool = False
) -> Genome:
    """A genome of the same graph, in float64, whose channels vary on a probe.

    Args:
        genome: What to stir; left untouched.
        inputs: The probe by argument name, (N, *shape), in float64.
        seed: Replaces weights that are zero.
        keep: Tensors that are to stay as they are. What else its node has then stays, too.
        wild: Means of channels are drawn from a wide range, and their signs, and so is what is the same for all
            examples, such as a token: it then stands now on this, now on that side of what it is compared with.
    """
    import torch

    graph = genome.graph
    weights = {
        name: tensor.double() if tensor.is_floating_point() else tensor for name, tensor in genome.weights.items()
    }
    sliced = _sliced_axes(graph)
    known: set[str] = set()
    along, kept = _channel_axes(graph, sliced), frozenset(keep)
    until = {source: number for number, node in enumerate(graph.nodes.values()) for source in node.inputs}
    values: dict[str, Tensor] = {}
    for number, node in enumerate(graph.nodes.values()):
        values = {source: value for source, value in values.items() if until.get(source, 0) >= number}
        if not kept.isdisjoint(node.tensors.values()):
            values[node.id] = _value(graph, weights, inputs, values, node)
            continue
        shapes = [graph.shapes[source] for source in node.inputs]
        specs = KINDS[node.kind].tensors(node.settings, shapes)
        if not node.inputs:
            for role, spec in specs.items():
                if not spec.buffer and spec.shape:
                    name = node.tensors[role]
                    weights[name] = (_drawn_all if wild else _alive_all)(weights[name], spec, seed, name)
        for role, spec in specs.items():
            if not spec.buffer and not spec.shape:
                weights[node.tensors[role]] = torch.full((), 0.4, dtype=torch.float64)
        mine = {role for role, name in node.tensors.items() if (node.id, name) in sliced and name not in known}
        free = {role: spec for role, spec in specs.items() if node.inputs and role in mine}
        gains = [node.tensors[role] for role, spec in free.items() if _is_gain(spec)]
        shifts = [node.tensors[role] for role, spec in free.items() if _is_shift(spec)]
        # What several nodes share is right for the first of them.
        known.update(node.tensors.values())
        for role, spec in free.items():
            name = node.tensors[role]
            if name in gains:
                weights[name] = _alive(weights[name], spec, seed, name)
            elif name in shifts:
                weights[name] = torch.zeros_like(weights[name])
            elif spec.start == "quarter":
                weights[name] = 0.5 * _differences(seed, name, len(weights[name]))[1]
        if KINDS[node.kind].normalisation and "running_var" in free:
            weights.update(_statistics(node, values[node.inputs[0]]))
        values[node.id] = _value(graph, weights, inputs, values, node)
        if gains:
            mean, deviation = _moments(values[node.id], 1 + along.get(node.id, 0))
            if not shifts:
                # Nothing can bring the mean to 0, but it can be on the side that activations let through.
                deviation = deviation.where(mean >= 0, -deviation)
            offset, factor = (_wild_differences if wild else _differences)(seed, node.id, len(mean))
            gain = factor / deviation
            slices = {name: weights[name].movedim(sliced[node.id, name], 0) for name in gains}
            for tensor in slices.values():
                if tensor.ndim > 1:
                    size = tensor.flatten(1).norm(dim=1)
                    gain = torch.copysign(torch.minimum(gain.abs(), _LARGEST / size), gain)
            for name, tensor in slices.items():
                weights[name] = (tensor * _spread(gain, tensor)).movedim(0, sliced[node.id, name]).contiguous()
            for name in shifts:
                shift = _spread(offset - mean * gain, weights[name])
                weights[name] = shift.expand_as(weights[name]).contiguous()
            values[node.id] = _value(graph, weights, inputs, values, node)
    return Genome(graph, weights, genome.about)


def _sliced_axes(graph: Graph) -> dict[tuple[str, str], int]:
    """By node and tensor, the first axis of a tensor along which it has a slice for each channel that the node makes.

    It is 0 but for tables, whose rows are entries.
    """
    uses = (use for space in graph.spaces for use in space.uses if use.how != "read")
    found: dict[tuple[str, str], int] = {}
    for use in uses:
        found[use.node, use.tensor] = min(use.axis, found.get((use.node, use.tensor), use.axis))
    return found


def _channel_axes(graph: Graph, sliced: Mapping[tuple[str, str], int]) -> dict[str, int]:
    """For each node with tensors, the axis of its value that the slices of its tensors stand for."""
    found: dict[str, int] = {}
    for space in graph.spaces:
        axes = {value.node: value.axis for value in space.values}
        uses = (use for use in space.uses if sliced.get((use.node, use.tensor)) == use.axis and use.how != "read")
        found.update({use.node: axes[use.node] for use in uses if use.node in axes})
    return found


def _is_gain(spec: TensorSpec) -> bool:
    return not spec.buffer and spec.start in ("kaiming", "fan_in", "ones")


def _is_shift(spec: TensorSpec) -> bool:
    return not spec.buffer and spec.start == "zeros" and bool(spec.shape)


def _alive(tensor: Tensor, spec: TensorSpec, seed: int, name: str) -> Tensor:
    """The tensor with fresh numbers where it is zero, and in slices that are tiny beside the largest."""
    if spec.start == "ones":
        return tensor.new_ones(tensor.shape)
    size = tensor.abs().flatten(1).amax(1)
    dead = size <= 1e-3 * max(float(size.max()), _TINY)
    fresh = start_tensor(spec, seed, f"stir/{name}").double()
    return fresh.where(_spread(dead, tensor) | (tensor == 0), tensor)


def _alive_all(tensor: Tensor, spec: TensorSpec, seed: int, name: str) -> Tensor:
    """The tensor, or fresh numbers where it hardly says anything: it is all alike, or tiny."""
    if float(tensor.abs().max()) > 1e-3 and float((tensor - tensor.flatten()[0]).abs().max()) > 0:
        return tensor
    import torch

    return torch.from_numpy(uniform(stream(seed, f"stir/{name}"), spec.shape, 0.5, 1.5))


def _drawn_all(tensor: Tensor, spec: TensorSpec, seed: int, name: str) -> Tensor:
    """Numbers of both signs, whatever the tensor says."""
    import torch

    return torch.from_numpy(uniform(stream(seed, f"stir/{name}/wild"), spec.shape, -1.5, 1.5))


def _value(
    graph: Graph,
    weights: Mapping[str, Tensor],
    inputs: Mapping[str, Tensor],
    values: Mapping[str, Tensor],
    node: Node,
) -> Tensor:
    known = Run({source: values[source] for source in node.inputs}, {})
    # What draws in train mode passes its value on as in eval mode, so that no channel lives on its noise alone.
    training = not KINDS[node.kind].random(node.settings)
    run = execute(graph, weights, inputs, training=training, known=known, keep=[node.id], double=True)
    return run.values[node.id]


def _moments(value: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    """Mean and deviation of each channel, along an axis of a value, over batch and places.

    A constant channel cannot be made to vary; it gets the deviation 1, and the mean with which it becomes 1 rather
    than 0, so that what reads it can be seen.
    """
    channels = value.movedim(axis, 0).flatten(1)
    mean, deviation = channels.mean(1), channels.std(1, correction=0)
    varies = deviation > _TINY
    return mean.where(varies, mean - 1), deviation.where(varies, deviation.new_ones(()))


def _differences(seed: int, node: str, channels: int) -> Tensor:
    """Means from 0 to .3 and deviations from .7 to 1.3: of channels that are alike, one can be taken for another."""
    import torch

    drawn = torch.from_numpy(uniform(stream(seed, f"stir/{node}"), (2, channels), 0, 1))
    return torch.stack([0.3 * drawn[0], 0.7 + 0.6 * drawn[1]])


def _wild_differences(seed: int, node: str, channels: int) -> Tensor:
    """Means from −1 to 1, and deviations as above of both signs: the other sign turns a channel upside down."""
    import torch

    means, signs = torch.from_numpy(uniform(stream(seed, f"stir/{node}/wild"), (2, channels), -1, 1))
    return torch.stack([means, torch.copysign(_differences(seed, node, channels)[1], signs)])


def _spread(channels: Tensor, like: Tensor) -> Tensor:
    """One number for each slice along axis 0, in the shape that broadcasts over `like`."""
    return channels.reshape(-1, *[1] * (like.ndim - 1))


def _statistics(node: Node, value: Tensor) -> dict[str, Tensor]:
    """Running statistics by tensor name with which a norm computes in eval mode what it does in train mode."""
    channels = value.movedim(1, 0).flatten(1)
    mean, variance = channels.mean(1), channels.var(1, correction=0)
    return {node.tensors["running_mean"]: mean, node.tensors["running_var"]: variance}
