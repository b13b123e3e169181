"""Networks to start from.

`ZOO` is a literal table. Adding a network is adding one builder, a function `(classes, input_shape, *,
settings) -> Graph` that checks its own settings; the law tests then cover it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

from graphs.errors import UnknownName
from graphs.genome import Genome
from graphs.initial import initial_weights
from graphs.structure import Graph
from graphs.zoo.convnet import convnet
from graphs.zoo.densenet import densenet
from graphs.zoo.resnet import resnet
from graphs.zoo.settings import image, whole
from graphs.zoo.vgg import vgg8

__all__ = ["ZOO", "create", "settings_of"]

ZOO: dict[str, Callable[..., Graph]] = {
    "convnet": convnet,
    "vgg8": vgg8,
    "resnet": resnet,
    "densenet": densenet,
}
"""All networks, by name."""


def settings_of(name: str) -> dict[str, Any]:
    """The settings of a network of the zoo and their defaults.

    >>> settings_of("resnet")
    {'depth': 20, 'widen': 1}

    Raises:
        UnknownName: There is no such network.
    """
    try:
        builder = ZOO[name]
    except (KeyError, TypeError):
        raise UnknownName.of("zoo network", name, ZOO) from None
    parameters = inspect.signature(builder).parameters.values()
    return {each.name: each.default for each in parameters if each.kind is each.KEYWORD_ONLY}


def create(
    name: str,
    classes: int = 10,
    input_shape: Sequence[int] = (3, 32, 32),
    seed: int = 0,
    **settings: Any,
) -> Genome:
    """A network of the zoo with fresh weights.

    Args:
        name: Key of `ZOO`.
        classes: Number of logits.
        input_shape: (channels, height, width) of one image.
        seed: What the weights are drawn from; the same seed gives the same weights.
        **settings: Settings of that network, see `settings_of`.

    Raises:
        UnknownName: There is no such network, or it has no such setting.
        GraphError: A value is out of its range.
    """
    known = settings_of(name)
    for given in settings:
        if given not in known:
            raise UnknownName.of(f"setting of zoo network '{name}'", given, known)
    whole(name, "classes", classes, 1, 1_000_000)
    whole(name, "seed", seed, 0, 2**63 - 1)
    graph = ZOO[name](classes, image(name, input_shape), **settings)
    return Genome(graph, initial_weights(graph, seed))
