"""FreezeOut: layers stop learning one after another, from the input on, and what they would cost is saved.

A. Brock, T. Lim, J.M. Ritchie, N. Weston, "FreezeOut: Accelerate Training by Progressively Freezing Layers", 2017,
arXiv:1706.04983. The network is divided into **stages** i = 0 … U. Stage i learns for the share
r_i = f(t0 + (1-t0)·i/U) of training, with f the identity, the square or the cube, at a rate that falls along a cosine
to 0 by then. Then it is in eval mode, leaves the optimiser, and its part of the backward pass is not computed.

It applies to any graph: stages are made of its units. A layer that mixes channels, or a block, is a stage of its own;
norms and activations belong to the layer before them, or behind a block to the next stage; all that follows once rows
and columns are gone is the classifier, the last stage. Nothing freezes before what it reads does, and a unit that the
newest mutation added learns to the end, and with it what reads it.

    >>> from graphs import zoo
    >>> found = FreezeOut().stages(zoo.create("densenet-bc-76-12").graph)
    >>> len(found), round(found[0].share, 4), round(found[12].share, 4), found[-1].share
    (40, 0.512, 0.6395, 1.0)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from runners.settings_errors import CheckedModel

if TYPE_CHECKING:
    from graphs.structure import Graph
    from graphs.unit import Unit

__all__ = ["SHAPES", "FreezeOut", "Stage", "published_speedup", "speedup"]

SHAPES: Mapping[str, Callable[[float], float]] = {
    "linear": lambda share: share,
    "squared": lambda share: share**2,
    "cubic": lambda share: share**3,
}
"""`how` -> f."""

_BACKWARD = 2.0
"""What a layer's backward pass costs in forward passes: the gradients of its weights and of what it reads."""


@dataclass(frozen=True, slots=True)
class Stage:
    """Units that freeze together.

    Attributes:
        nodes: Ids of their nodes.
        share: r, the share of training for which they learn, above 0 and up to 1.
        rate: Factor of the recipe's learning rate at the start.
    """

    nodes: tuple[str, ...]
    share: float
    rate: float

    def factor(self, step: float, steps: int) -> float:
        """Factor of the recipe's learning rate at iteration `step` of `steps`; 0 from the moment of freezing on.

        >>> stage = Stage((), 0.5, 2.0)
        >>> [round(stage.factor(step, 100), 12) for step in (0, 25, 50, 99)]
        [2.0, 1.0, 0.0, 0.0]
        """
        progress = min(1.0, step / (steps * self.share))
        return self.rate * 0.5 * (1 + math.cos(math.pi * progress))

    def frozen(self, step: int, steps: int) -> bool:
        """Whether iteration `step`, counted from 0, finds it frozen."""
        return step > steps * self.share


class FreezeOut(CheckedModel):
    """When which part of a network freezes.

    Attributes:
        t0: The first stage freezes after the share f(t0) of training; 1 freezes nothing.
        how: f.
        scale: Raise the rate of what freezes earlier, so that the area under each stage's rate is the same.
        const_time: Train for so many epochs more as the estimate says that freezing saves.
    """

    what: ClassVar[str] = "freezeout"

    t0: float = Field(0.8, gt=0, le=1)
    how: Literal["linear", "squared", "cubic"] = "cubic"
    scale: bool = True
    const_time: bool = False

    def share(self, place: int, last: int) -> float:
        """R of stage number `place` where the last one has the number `last`."""
        return SHAPES[self.how](self.t0 + (1 - self.t0) * place / last) if place < last else 1.0

    def stages(self, graph: Graph, newest: int | None = None) -> list[Stage]:
        """The stages of a network, in order.

        Args:
            graph: The network.
            newest: Number of the candidate whose mutation made it; units that appeared there are the last to freeze.
        """
        groups = _grouped(graph)
        numbers = sorted({position for position, _ in groups})
        place = {position: number for number, position in enumerate(numbers)}
        shares: dict[str, float] = {}
        found = []
        for position, units in groups:
            nodes = tuple(node for unit in units for node in unit.nodes)
            share = self.share(place[position], len(numbers) - 1)
            if newest and any(unit.born == newest for unit in units):
                share = 1.0
            before = {source for node in nodes for source in graph[node].inputs}
            share = max([share, *(shares[source] for source in before if source in shares)])
            shares |= dict.fromkeys(nodes, share)
            found.append(Stage(nodes, share, 1 / share if self.scale else 1.0))
        return found


def _grouped(graph: Graph) -> list[tuple[int, list[Unit]]]:
    """The units that freeze together, each group with its position on the way from the input."""
    from graphs.unit import units

    def layers(unit: Unit) -> int:
        """How many of its nodes mix channels."""
        names = [graph[node].tensors.values() for node in unit.nodes]
        return sum(any(graph.tensors[name].drawn for name in each) for each in names)

    def flat(unit: Unit) -> bool:
        """Whether it gives features alone, without rows and columns."""
        return len(graph.shapes[unit.nodes[-1]]) == 1

    images = any(len(node.settings["shape"]) > 1 for node in graph.inputs)
    groups: list[tuple[int, list[Unit]]] = []
    waiting: list[Unit] = []
    single = ended = False
    for unit in units(graph):
        start = bool(groups) and unit.position < groups[-1][1][-1].position  # another head leaves the body
        if start:
            ended = False
        count = layers(unit)
        if images and flat(unit):
            if ended:
                groups[-1][1].append(unit)
            else:
                groups.append(((waiting or [unit])[0].position, [*waiting, unit]))
                waiting = []
            ended = True
        elif count:
            groups.append(((waiting or [unit])[0].position, [*waiting, unit]))
            waiting, single = [], count == 1
        elif single and not start:
            groups[-1][1].append(unit)
        else:
            waiting.append(unit)
            single = False
    if waiting and groups:
        groups[-1][1].extend(waiting)
    return groups


def speedup(graph: Graph, settings: FreezeOut) -> float:
    """Share of the multiply-accumulates of training that freezing saves, from those of each of the network's layers.

    A backward pass is counted as two forward passes, that of the first stage as one: nobody asks for the gradient of
    the images. Evaluation, data and the optimiser are not counted, nor is any constant that was fitted to measurements.
    """
    from graphs.cost import macs_by_node

    costs = macs_by_node(graph.in_mode(training=True))
    whole = left = 0.0
    for place, stage in enumerate(settings.stages(graph)):
        cost = sum(costs.get(node, 0) for node in stage.nodes)
        backward = cost * (_BACKWARD if place else 1.0)
        whole += cost + backward
        left += cost + backward * stage.share
    return 1 - left / whole if whole else 0.0


def published_speedup(depth: int, growth: int, settings: FreezeOut) -> float:
    """The estimate of the original code for a DenseNet-BC of `depth` layers on 32 by 32 images, as it is.

    It counts the first convolution and the dense layers, takes a backward pass for as expensive as a forward pass, and
    multiplies what it finds for `linear` by 1.3.

    >>> round(100 * published_speedup(76, 12, FreezeOut(t0=0.8, how="cubic")), 2)
    17.78
    """
    costs = [3 * 2 * growth * 1024 * 9]
    multiple = 2
    for pixels in (1024, 256, 64):
        for _ in range((depth - 4) // 6):
            costs.append(multiple * 4 * growth**2 * pixels + 36 * growth**2 * pixels)
            multiple += 1
        multiple //= 2
    count = len(costs)
    shape = SHAPES[settings.how]
    left = sum(cost * (1 + shape(settings.t0 + (1 - settings.t0) * place / count)) for place, cost in enumerate(costs))
    return (1 - left / (2 * sum(costs))) * (1.3 if settings.how == "linear" else 1.0)
