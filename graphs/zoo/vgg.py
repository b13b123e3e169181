"""Plain convolutional networks without skips: VGG-11, -13, -16 and -19, and the smaller VGG-8.

Karen Simonyan and Andrew Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition", 2014, arXiv
1409.1556: five blocks of 3×3 convolutions at 64, 128, 256, 512 and 512 channels, each followed by a maximum pool, then
two hidden layers on all that is left of the image. The paper's hidden layers have 4096 features, for images of 224
pixels; here they have 512, as is usual for 32 pixels, which leave 512 features. VGG-8 is cut down further: three blocks
of two convolutions and one hidden layer of 256 features.
"""

from __future__ import annotations

from graphs.draft import Draft
from graphs.structure import Graph, Shape
from graphs.zoo.layers import convolved, pooled
from graphs.zoo.settings import fraction, one_of, switch, whole

__all__ = ["vgg", "vgg8"]

_BLOCKS = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
"""Convolutions of each block, by depth: the paper's configurations A, B, D and E."""


def vgg(
    classes: int,
    input_shape: Shape,
    *,
    depth: int = 16,
    batch_norm: bool = True,
    dropout: float = 0.0,
    hidden: int = 512,
    head_norm: bool = False,
) -> Graph:
    """VGG-11, -13, -16 or -19 as a graph.

    A pool that would leave less than one pixel is left out, so any image works.

    Args:
        classes: Number of logits.
        input_shape: (channels, height, width) of one image.
        depth: Layers with weights.
        batch_norm: Normalise after each convolution, which then has no bias.
        dropout: Share of values dropped after each hidden layer; no such node if 0.
        hidden: Features of each of the two hidden layers.
        head_norm: Normalise the features before the first hidden layer and after each one, as FreezeOut's VGG does
            (Andrew Brock et al., "FreezeOut", 2017, arXiv 1706.04983).
    """
    counts = _BLOCKS[one_of("vgg", "depth", depth, _BLOCKS)]
    normed, head_normed = switch("vgg", "batch_norm", batch_norm), switch("vgg", "head_norm", head_norm)
    dropout = fraction("vgg", "dropout", dropout)
    hidden = whole("vgg", "hidden", hidden, 1, 65536)
    draft = Draft()
    x = draft.input(input_shape)
    sides = (input_shape[1], input_shape[2])
    for block, count in enumerate(counts):
        path = f"block{block + 1}"
        x = _convolutions(draft, x, path, min(512, 64 * 2**block), count, normed)
        x, sides = pooled(draft, x, f"{path}.pool", sides)
    x = draft.add("flatten", x, path="flatten")
    if head_normed:
        x = draft.add("batch_norm", x, path="bn")
    for number in (1, 2):
        x = draft.add("linear", x, path=f"fc{number}", out=hidden)
        if head_normed:
            x = draft.add("batch_norm", x, path=f"bn{number}")
        x = draft.add("relu", x, path=f"relu{number}")
        if dropout:
            x = draft.add("dropout", x, path=f"dropout{number}", p=dropout)
    draft.head(draft.add("linear", x, path="fc3", out=classes))
    return draft.finish()


def vgg8(classes: int, input_shape: Shape, *, batch_norm: bool = True, dropout: float = 0.0, width: int = 64) -> Graph:
    """VGG-8 as a graph.

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
    sides = (input_shape[1], input_shape[2])
    for block in range(3):
        path = f"block{block + 1}"
        x = _convolutions(draft, x, path, width * 2**block, 2, normed)
        x, sides = pooled(draft, x, f"{path}.pool", sides)
        if dropout:
            x = draft.add("dropout", x, path=f"{path}.dropout", p=dropout)
    x = draft.add("flatten", x, path="flatten")
    x = draft.add("linear", x, path="fc1", out=4 * width)
    x = draft.add("relu", x, path="relu")
    if dropout:
        x = draft.add("dropout", x, path="dropout", p=dropout)
    draft.head(draft.add("linear", x, path="fc2", out=classes))
    return draft.finish()


def _convolutions(draft: Draft, x: str, path: str, out: int, count: int, normed: bool) -> str:
    """`count` convolutions with ReLU, normalised or with bias."""
    for number in range(1, count + 1):
        if normed:
            x = convolved(draft, x, path, f"{number}", out, kernel=3, bias=False)
        else:
            x = draft.add("conv2d", x, path=f"{path}.conv{number}", out=out, kernel=3)
            x = draft.add("relu", x, path=f"{path}.relu{number}")
    return x
