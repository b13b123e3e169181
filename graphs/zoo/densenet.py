"""Densely connected networks with bottlenecks and compression (DenseNet-BC), of depth 6n + 4.

Gao Huang, Zhuang Liu, Laurens van der Maaten, Kilian Weinberger, "Densely Connected Convolutional Networks",
2016, arXiv 1608.06993: three blocks of n layers. A layer reads all values before it in its block and appends
`growth` channels (normalise, ReLU, 1×1 to 4 · growth channels, normalise, ReLU, 3×3). Between blocks,
normalise, ReLU, 1×1 to a share of the channels, and an average pool. Depth 100 with growth 12 has 769,162
parameters for 10 classes. (FreezeOut, which uses depth 76, puts the ReLU of a transition before its norm; the
counts are the same.)
"""

from __future__ import annotations

from graphs.draft import Draft
from graphs.structure import Graph, Shape
from graphs.zoo.layers import classified, pooled
from graphs.zoo.settings import blocks, share, whole

__all__ = ["densenet"]


def densenet(classes: int, input_shape: Shape, *, depth: int = 22, growth: int = 12, compression: float = 0.5) -> Graph:
    """The network as a graph.

    A pool that would leave less than one pixel is left out, so any image works.

    Args:
        classes: Number of logits.
        input_shape: (channels, height, width) of one image.
        depth: Layers with weights on the longest path, 6n + 4.
        growth: Channels that each layer appends.
        compression: Share of the channels that a transition keeps, above 0 and up to 1.
    """
    count = blocks("densenet", depth, 4)
    growth = whole("densenet", "growth", growth, 1, 1024)
    compression = share("densenet", "compression", compression)
    draft = Draft()
    x = draft.input(input_shape)
    sides = (input_shape[1], input_shape[2])
    channels = 2 * growth
    x = draft.add("conv2d", x, path="conv1", out=channels, kernel=3, bias=False)
    for block in (1, 2, 3):
        for layer in range(count):
            x = _layer(draft, x, f"dense{block}.{layer}", growth)
            channels += growth
        if block < 3:
            path = f"trans{block}"
            channels = max(1, int(channels * compression))
            x = _convolved(draft, x, f"{path}.", "", channels, 1)
            x, sides = pooled(draft, x, f"{path}.pool", sides, "avg_pool2d")
    x = draft.add("batch_norm", x, path="bn")
    return classified(draft, draft.add("relu", x, path="relu"), classes)


def _layer(draft: Draft, x: str, path: str, growth: int) -> str:
    y = _convolved(draft, x, f"{path}.", "1", 4 * growth, 1)
    y = _convolved(draft, y, f"{path}.", "2", growth, 3)
    return draft.add("concat", (x, y), path=f"{path}.concat")


def _convolved(draft: Draft, x: str, path: str, number: str, out: int, kernel: int) -> str:
    """Batch normalisation, ReLU and convolution, in that order."""
    x = draft.add("batch_norm", x, path=f"{path}bn{number}")
    x = draft.add("relu", x, path=f"{path}relu{number}")
    return draft.add("conv2d", x, path=f"{path}conv{number}", out=out, kernel=kernel, bias=False)
