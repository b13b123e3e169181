"""Networks to start from.

`ZOO` is a literal table. Adding a network is adding one entry: a builder, a function `(classes, input_shape, *,
settings) -> Graph` that checks its own settings, or a builder with some of its settings given. The law tests then cover
it. What an entry gives is a default like any other: `create("wrn-40-4", widen=10)` is WRN-40-10.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from graphs.errors import UnknownName
from graphs.genome import Genome
from graphs.initial import initial_weights
from graphs.structure import Graph
from graphs.zoo.convnet import convnet
from graphs.zoo.densenet import densenet
from graphs.zoo.densenet_like import densenet_like
from graphs.zoo.networkcompress import networkcompress
from graphs.zoo.preresnet import preresnet, wide_resnet
from graphs.zoo.resnet import resnet
from graphs.zoo.resnet_like import resnet_like, resnext_like
from graphs.zoo.settings import image, whole
from graphs.zoo.vgg import vgg, vgg8
from graphs.zoo.vgg_like import vgg_like

__all__ = ["ZOO", "create", "settings_of"]

ZOO: dict[str, Callable[..., Graph]] = {
    "convnet": convnet,
    "vgg8": vgg8,
    "vgg16": partial(vgg, depth=16),
    "vgg19": partial(vgg, depth=19),
    "vgg-freezeout": partial(vgg, depth=16, dropout=0.5, head_norm=True),
    "resnet": resnet,
    "resnet-110": partial(resnet, depth=110),
    "wide-resnet-32": partial(resnet, depth=32, widen=4),
    "preresnet": preresnet,
    "preresnet-110": partial(preresnet, depth=110),
    "wrn-16-4": partial(wide_resnet, depth=16, widen=4),
    "wrn-40-4": partial(wide_resnet, depth=40, widen=4),
    "densenet": densenet,
    "densenet-bc-40-12": partial(densenet, depth=40, growth=12),
    "densenet-bc-76-12": partial(densenet, depth=76, growth=12),
    "densenet-bc-100-12": partial(densenet, depth=100, growth=12),
    "networkcompress": networkcompress,
    "vgg-like": vgg_like,
    "resnet-like-light": resnet_like,
    "resnet-like-heavy": partial(resnet_like, vanilla_chunks=2, bottleneck_chunks=3),
    "resnext-like-3": partial(resnext_like, chunks=3),
    "resnext-like-4": partial(resnext_like, chunks=4),
    "densenet-like-4-12": partial(densenet_like, chunks=4, growth=12),
    "densenet-like-5-16": partial(densenet_like, chunks=5, growth=16),
}
"""All networks, by name. Those called `-like` are the seven of github.com/theabhirath/cifar10-experiments."""


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
