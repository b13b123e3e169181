"""The VGG-like network of cifar10-experiments: 1,110,826 parameters for 10 classes.

A 5×5 stem, then blocks of 3×3 convolutions of which the last widens, each block followed by a maximum pool, then a
hidden layer on all that is left of the image. Every convolution has a bias and is followed by batch normalisation and
ReLU. Facts: github.com/theabhirath/cifar10-experiments, 2021; built anew from its layer table.
"""

from __future__ import annotations

from graphs.draft import Draft
from graphs.structure import Graph, Shape
from graphs.zoo.layers import convolved, pooled, stem
from graphs.zoo.settings import fraction, whole

__all__ = ["vgg_like"]


def vgg_like(
    classes: int,
    input_shape: Shape,
    *,
    width: int = 32,
    blocks: int = 3,
    layers: int = 2,
    hidden: int = 128,
    dropout: float = 0.2,
) -> Graph:
    """The network as a graph.

    A pool that would leave less than one pixel is left out, so any image works.

    Args:
        classes: Number of logits.
        input_shape: (channels, height, width) of one image.
        width: Channels of the stem; each block gives twice what it reads.
        blocks: Number of blocks.
        layers: Convolutions in a block.
        hidden: Features of the hidden layer.
        dropout: Share of channels dropped after each convolution but a block's last, and of values dropped in the
            hidden layer; no such node if 0.
    """
    width = whole("vgg_like", "width", width, 1, 4096)
    blocks = whole("vgg_like", "blocks", blocks, 1, 8)
    layers = whole("vgg_like", "layers", layers, 1, 100)
    hidden = whole("vgg_like", "hidden", hidden, 1, 65536)
    dropout = fraction("vgg_like", "dropout", dropout)
    draft = Draft()
    x = stem(draft, input_shape, width)
    sides = (input_shape[1], input_shape[2])
    for block in range(1, blocks + 1):
        path = f"block{block}"
        for number in range(1, layers):
            x = convolved(draft, x, path, f"{number}", width, kernel=3)
            if dropout:
                x = draft.add("dropout2d", x, path=f"{path}.dropout{number}", p=dropout)
        width *= 2
        x = convolved(draft, x, path, f"{layers}", width, kernel=3)
        x, sides = pooled(draft, x, f"{path}.pool", sides)
    x = draft.add("flatten", x, path="flatten")
    x = draft.add("linear", x, path="fc1", out=hidden)
    if dropout:
        x = draft.add("dropout", x, path="dropout", p=dropout)
    x = draft.add("relu", x, path="relu")
    draft.head(draft.add("linear", x, path="fc2", out=classes))
    return draft.finish()
