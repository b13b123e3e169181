"""The network from which NetworkCompress grows: two convolutions and a global maximum.

A 3×3 convolution with PReLU and dropout, a maximum pool, a 3×3 convolution with a channel for each class, and the
maximum of each over the image. Facts: github.com/luzai/NetworkCompress, 2017; built anew, with one slope for each
channel, and with the pool that the original loses on its way.
"""

from __future__ import annotations

from graphs.draft import Draft
from graphs.structure import Graph, Shape
from graphs.zoo.layers import pooled
from graphs.zoo.settings import fraction, whole

__all__ = ["networkcompress"]


def networkcompress(classes: int, input_shape: Shape, *, width: int = 128, dropout: float = 0.3) -> Graph:
    """The network as a graph.

    A pool that would leave less than one pixel is left out, so any image works.

    Args:
        classes: Number of logits.
        input_shape: (channels, height, width) of one image.
        width: Channels of the first convolution.
        dropout: Share of values dropped behind it; no such node if 0.
    """
    width = whole("networkcompress", "width", width, 1, 4096)
    dropout = fraction("networkcompress", "dropout", dropout)
    draft = Draft()
    x = draft.add("conv2d", draft.input(input_shape), path="conv1", out=width, kernel=3)
    x = draft.add("prelu", x, path="prelu1")
    if dropout:
        x = draft.add("dropout", x, path="dropout1", p=dropout)
    x, _ = pooled(draft, x, "pool1", (input_shape[1], input_shape[2]))
    x = draft.add("conv2d", x, path="conv2", out=classes, kernel=3)
    x = draft.add("adaptive_max_pool2d", x, path="maximum")
    draft.head(draft.add("flatten", x, path="flatten"))
    return draft.finish()
