"""The ResNet-like and ResNeXt-like networks of cifar10-experiments.

A 5×5 stem, then chunks that double the channels and halve the image, then a global average and one linear layer. Every
convolution has a bias, and *every* block a 1×1 convolution with batch normalisation for its shortcut. Parameters for
10 classes: 310,474 (ResNet-like, light) and 3,921,994 (heavy), 1,087,114 (ResNeXt-like of 3 chunks) and 3,090,058 (of
4). Facts: github.com/theabhirath/cifar10-experiments, 2021; built anew from its layer tables.
"""

from __future__ import annotations

from graphs.draft import Draft
from graphs.structure import Graph, Shape
from graphs.zoo.layers import classified, convolved, stem
from graphs.zoo.settings import whole

__all__ = ["resnet_like", "resnext_like"]


def resnet_like(
    classes: int,
    input_shape: Shape,
    *,
    width: int = 32,
    vanilla_chunks: int = 1,
    bottleneck_chunks: int = 2,
    vanilla_blocks: int = 3,
    bottleneck_blocks: int = 3,
) -> Graph:
    """The ResNet-like network as a graph.

    Args:
        classes: Number of logits.
        input_shape: (channels, height, width) of one image.
        width: Channels of the stem.
        vanilla_chunks: Number of chunks whose blocks are two 3×3 convolutions.
        bottleneck_chunks: Number of chunks behind those, whose blocks go through a quarter of their width.
        vanilla_blocks: Blocks in a chunk of the first sort; the last one doubles the channels.
        bottleneck_blocks: Blocks in a chunk of the second sort; the last one doubles the channels.
    """
    width = whole("resnet_like", "width", width, 1, 1024)
    vanilla_chunks = whole("resnet_like", "vanilla_chunks", vanilla_chunks, 0, 6)
    bottleneck_chunks = whole("resnet_like", "bottleneck_chunks", bottleneck_chunks, 0, 6)
    vanilla_blocks = whole("resnet_like", "vanilla_blocks", vanilla_blocks, 1, 100)
    bottleneck_blocks = whole("resnet_like", "bottleneck_blocks", bottleneck_blocks, 1, 100)
    draft = Draft()
    x = stem(draft, input_shape, width)
    for chunk in range(1, vanilla_chunks + 1):
        for block in range(vanilla_blocks):
            out, stride = (2 * width, 2) if block == vanilla_blocks - 1 else (width, 1)
            x = _vanilla(draft, x, f"vanilla{chunk}.{block}", out, stride)
        width *= 2
    for chunk in range(1, bottleneck_chunks + 1):
        for block in range(bottleneck_blocks):
            out, stride = (2 * width, 2) if block == bottleneck_blocks - 1 else (width, 1)
            x = _bottleneck(draft, x, f"bottleneck{chunk}.{block}", out, stride, max(1, out // 4), 1)
        width *= 2
    return classified(draft, x, classes)


def resnext_like(
    classes: int, input_shape: Shape, *, width: int = 64, chunks: int = 4, groups: int = 64, group_width: int = 4
) -> Graph:
    """The ResNeXt-like network as a graph.

    A chunk is a block and a block that doubles the channels, beside a bare 1×1 convolution; nothing follows their sum.

    Args:
        classes: Number of logits.
        input_shape: (channels, height, width) of one image.
        width: Channels of the stem.
        chunks: Number of chunks.
        groups: Groups of each 3×3 convolution.
        group_width: Channels of a group, the same in every chunk.
    """
    width = whole("resnext_like", "width", width, 1, 1024)
    chunks = whole("resnext_like", "chunks", chunks, 1, 8)
    groups = whole("resnext_like", "groups", groups, 1, 1024)
    middle = groups * whole("resnext_like", "group_width", group_width, 1, 1024)
    draft = Draft()
    x = stem(draft, input_shape, width)
    for chunk in range(1, chunks + 1):
        path = f"chunk{chunk}"
        y = _bottleneck(draft, x, f"{path}.0", width, 1, middle, groups)
        width *= 2
        y = _bottleneck(draft, y, f"{path}.1", width, 2, middle, groups)
        x = draft.add("conv2d", x, path=f"{path}.skip", out=width, kernel=1, stride=2)
        x = draft.add("add", (y, x), path=f"{path}.add")
    return classified(draft, x, classes)


def _vanilla(draft: Draft, x: str, path: str, out: int, stride: int) -> str:
    y = convolved(draft, x, path, "1", out, kernel=3, stride=stride)
    y = convolved(draft, y, path, "2", out, kernel=3, relu=False)
    return _joined(draft, y, x, path, out, stride)


def _bottleneck(draft: Draft, x: str, path: str, out: int, stride: int, middle: int, groups: int) -> str:
    y = convolved(draft, x, path, "1", middle, kernel=1)
    y = convolved(draft, y, path, "2", middle, kernel=3, stride=stride, groups=groups)
    y = convolved(draft, y, path, "3", out, kernel=1, relu=False)
    return _joined(draft, y, x, path, out, stride)


def _joined(draft: Draft, y: str, x: str, path: str, out: int, stride: int) -> str:
    """The sum of `y` and the shortcut of `x`, and its ReLU."""
    x = draft.add("conv2d", x, path=f"{path}.shortcut.0", out=out, kernel=1, stride=stride)
    x = draft.add("batch_norm", x, path=f"{path}.shortcut.1")
    return draft.add("relu", draft.add("add", (y, x), path=f"{path}.add"), path=f"{path}.relu")
