"""Residual networks for small images, of depth 6n + 2: ResNet-20, -32, -44, -56, -110.

Kaiming He, Xiangyu Zhang, Shaoqing Ren, Jian Sun, "Deep Residual Learning for Image Recognition", 2015, arXiv
1512.03385, section 4.2: three stages of n blocks of two 3×3 convolutions at 16, 32 and 64 channels, ReLU
after each sum. Where a block changes the shape, its shortcut is a 1×1 convolution with batch normalisation
(option B of the paper, which itself pads with zeros on these images). ResNet-110 has 1,730,714 parameters for
10 classes.
"""

from __future__ import annotations

from graphs.draft import Draft
from graphs.structure import Graph, Shape
from graphs.zoo.layers import classified
from graphs.zoo.settings import blocks, whole

__all__ = ["resnet"]


def resnet(classes: int, input_shape: Shape, *, depth: int = 20, widen: int = 1) -> Graph:
    """The network as a graph.

    Args:
        classes: Number of logits.
        input_shape: (channels, height, width) of one image.
        depth: Layers with weights on the longest path, 6n + 2.
        widen: What all widths, the first convolution's included, are multiplied by.
    """
    count = blocks("resnet", depth, 2)
    width = 16 * whole("resnet", "widen", widen, 1, 256)
    draft = Draft()
    x = draft.input(input_shape)
    x = draft.add("conv2d", x, path="conv1", out=width, kernel=3, bias=False)
    x = draft.add("batch_norm", x, path="bn1")
    x = draft.add("relu", x, path="relu")
    for stage in range(3):
        for block in range(count):
            entry = stage > 0 and block == 0
            x = _block(draft, x, f"layer{stage + 1}.{block}", width * 2**stage, entry)
    return classified(draft, x, classes)


def _block(draft: Draft, x: str, path: str, width: int, entry: bool) -> str:
    """Two convolutions beside a shortcut; where a stage begins, both halve the image."""
    stride = 2 if entry else 1
    y = draft.add("conv2d", x, path=f"{path}.conv1", out=width, kernel=3, stride=stride, bias=False)
    y = draft.add("batch_norm", y, path=f"{path}.bn1")
    y = draft.add("relu", y, path=f"{path}.relu1")
    y = draft.add("conv2d", y, path=f"{path}.conv2", out=width, kernel=3, bias=False)
    y = draft.add("batch_norm", y, path=f"{path}.bn2")
    if entry:
        x = draft.add("conv2d", x, path=f"{path}.downsample.0", out=width, kernel=1, stride=2, bias=False)
        x = draft.add("batch_norm", x, path=f"{path}.downsample.1")
    total = draft.add("add", (y, x), path=f"{path}.add")
    return draft.add("relu", total, path=f"{path}.relu2")
