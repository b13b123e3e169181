"""The DenseNet-like networks of cifar10-experiments: convolution first, then normalisation and ReLU.

A 5×5 stem, then chunks of a dense block and a transition, then one more dense block, a global average and one linear
layer. Every convolution has a bias. Parameters for 10 classes: 508,447 (4 chunks, growth 12) and 1,098,724 (5 chunks,
growth 16). Facts: github.com/theabhirath/cifar10-experiments, 2021; built anew from its layer tables.
"""

from __future__ import annotations

from graphs.draft import Draft
from graphs.structure import Graph, Shape
from graphs.zoo.layers import classified, convolved, pooled, stem
from graphs.zoo.settings import share, whole

__all__ = ["densenet_like"]


def densenet_like(
    classes: int,
    input_shape: Shape,
    *,
    chunks: int = 4,
    growth: int = 12,
    layers: int = 8,
    bottleneck: int = 4,
    compression: float = 0.5,
) -> Graph:
    """The network as a graph.

    A pool that would leave less than one pixel is left out, so any image works.

    Args:
        classes: Number of logits.
        input_shape: (channels, height, width) of one image.
        chunks: Dense blocks that a transition follows.
        growth: Channels that each layer appends; the stem has four times as many.
        layers: Layers of a dense block.
        bottleneck: What `growth` is multiplied by for the channels between the two convolutions of a layer.
        compression: Share of the channels that a transition keeps, above 0 and up to 1.
    """
    chunks = whole("densenet_like", "chunks", chunks, 0, 16)
    growth = whole("densenet_like", "growth", growth, 1, 1024)
    layers = whole("densenet_like", "layers", layers, 1, 200)
    middle = growth * whole("densenet_like", "bottleneck", bottleneck, 1, 64)
    compression = share("densenet_like", "compression", compression)
    draft = Draft()
    channels = 4 * growth
    x = stem(draft, input_shape, channels)
    sides = (input_shape[1], input_shape[2])
    for chunk in range(1, chunks + 2):
        for layer in range(layers):
            path = f"dense{chunk}.{layer}"
            y = convolved(draft, x, path, "1", middle, kernel=1)
            y = convolved(draft, y, path, "2", growth, kernel=3)
            x = draft.add("concat", (x, y), path=f"{path}.concat")
        channels += layers * growth
        if chunk <= chunks:
            channels = max(1, int(channels * compression))
            x = convolved(draft, x, f"trans{chunk}", "", channels, kernel=1)
            x, sides = pooled(draft, x, f"trans{chunk}.pool", sides, "avg_pool2d")
    return classified(draft, x, classes)
