"""A small convolutional network, the starting point of most searches.

Three stages of convolution, batch normalisation and ReLU at `width`, twice and four times `width` channels,
with a maximum pool between stages, then a global average and one linear layer. With 16 channels and three of
colour it has 24,346 parameters.
"""

from __future__ import annotations

from graphs.draft import Draft
from graphs.structure import Graph, Shape
from graphs.zoo.layers import convolved, pooled
from graphs.zoo.settings import whole

__all__ = ["convnet"]


def convnet(classes: int, input_shape: Shape, *, width: int = 16) -> Graph:
    """The network as a graph.

    A pool that would leave less than one pixel is left out, so any image works.

    Args:
        classes: Number of logits.
        input_shape: (channels, height, width) of one image.
        width: Channels of the first stage.
    """
    width = whole("convnet", "width", width, 1, 4096)
    draft = Draft()
    x = draft.input(input_shape)
    sides = (input_shape[1], input_shape[2])
    for stage in range(3):
        path = f"stage{stage + 1}"
        if stage:
            x, sides = pooled(draft, x, f"{path}.pool", sides)
        x = convolved(draft, x, path, "", width * 2**stage, kernel=3, bias=False)
    x = draft.add("adaptive_avg_pool2d", x, path="pool")
    x = draft.add("flatten", x, path="flatten")
    draft.head(draft.add("linear", x, path="fc", out=classes))
    return draft.finish()
