"""VGG-8: eight layers with weights, six convolutions and two linear layers, without skips.

Karen Simonyan and Andrew Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition",
2014, arXiv 1409.1556, cut down to small images: three blocks of two 3×3 convolutions at 64, 128 and 256
channels, each followed by a maximum pool, then a hidden layer of 256 features on all that is left of the
image.
"""

from __future__ import annotations

from graphs.draft import Draft
from graphs.structure import Graph, Shape
from graphs.zoo.settings import fraction, switch, whole

__all__ = ["vgg8"]


def vgg8(classes: int, input_shape: Shape, *, batch_norm: bool = True, dropout: float = 0.0, width: int = 64) -> Graph:
    """The network as a graph.

    A pool that would leave less than one pixel is left out, so any image works.

    Args:
        classes: Number of logits.
        input_shape: (channels, height, width) of one image.
        batch_norm: Normalise after each convolution, which then has no bias.
        dropout: Share of values dropped after each block and after the hidden layer; no such node if 0.
        width: Channels of the first block.
    """
    normed = switch("vgg8", "batch_norm", batch_norm)
    dropout = fraction("vgg8", "dropout", dropout)
    width = whole("vgg8", "width", width, 1, 4096)
    draft = Draft()
    x = draft.input(input_shape)
    sides = list(input_shape[1:])
    for block in range(3):
        path = f"block{block + 1}"
        for number in (1, 2):
            out = width * 2**block
            x = draft.add("conv2d", x, path=f"{path}.conv{number}", out=out, kernel=3, bias=not normed)
            if normed:
                x = draft.add("batch_norm", x, path=f"{path}.bn{number}")
            x = draft.add("relu", x, path=f"{path}.relu{number}")
        if min(sides) > 1:
            x = draft.add("max_pool2d", x, path=f"{path}.pool", kernel=2)
            sides = [side // 2 for side in sides]
        if dropout:
            x = draft.add("dropout", x, path=f"{path}.dropout", p=dropout)
    x = draft.add("flatten", x, path="flatten")
    x = draft.add("linear", x, path="fc1", out=4 * width)
    x = draft.add("relu", x, path="relu")
    if dropout:
        x = draft.add("dropout", x, path="dropout", p=dropout)
    draft.head(draft.add("linear", x, path="fc2", out=classes))
    return draft.finish()
