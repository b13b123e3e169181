"""Residual networks that normalise and activate before each convolution: PreResNet and wide residual networks.

Kaiming He, Xiangyu Zhang, Shaoqing Ren, Jian Sun, "Identity Mappings in Deep Residual Networks", 2016, arXiv
1603.05027, on small images: three stages of n blocks of two 3×3 convolutions at 16, 32 and 64 channels, nothing after
a sum. The depth is 6n + 2. Where a block changes the shape, its shortcut is a 1×1 convolution, without a norm, of what
the block reads. PreResNet-110 has 1,730,522 parameters for 10 classes.

Sergey Zagoruyko, Nikos Komodakis, "Wide Residual Networks", 2016, arXiv 1605.07146: the same blocks at k times the
width, the first convolution apart, optionally with dropout between the two convolutions. The 1×1 shortcuts, one a stage
because the first stage widens too, read what the block has normalised and activated. The depth is the number of
convolutions, shortcuts included: 6n + 4. WRN-40-4 has 8,949,210 parameters for 10 classes.
"""

from __future__ import annotations

from graphs.draft import Draft
from graphs.structure import Graph, Shape
from graphs.zoo.layers import classified
from graphs.zoo.settings import blocks, fraction, whole

__all__ = ["preresnet", "wide_resnet"]


def preresnet(classes: int, input_shape: Shape, *, depth: int = 20) -> Graph:
    """A PreResNet as a graph.

    Args:
        classes: Number of logits.
        input_shape: (channels, height, width) of one image.
        depth: Layers with weights on the longest path, 6n + 2.
    """
    return _network(classes, input_shape, blocks("preresnet", depth, 2), widen=1, activated=False, dropout=0.0)


def wide_resnet(classes: int, input_shape: Shape, *, depth: int = 16, widen: int = 4, dropout: float = 0.0) -> Graph:
    """A wide residual network as a graph.

    Args:
        classes: Number of logits.
        input_shape: (channels, height, width) of one image.
        depth: Convolutions, shortcuts included, 6n + 4.
        widen: What the widths of the three stages are multiplied by.
        dropout: Share of values dropped between the convolutions of a block; no such node if 0.
    """
    dropout = fraction("wide_resnet", "dropout", dropout)
    widen = whole("wide_resnet", "widen", widen, 1, 256)
    count = blocks("wide_resnet", depth, 4)
    return _network(classes, input_shape, count, widen=widen, activated=True, dropout=dropout)


def _network(classes: int, input_shape: Shape, count: int, *, widen: int, activated: bool, dropout: float) -> Graph:
    draft = Draft()
    x = draft.add("conv2d", draft.input(input_shape), path="conv1", out=16, kernel=3, bias=False)
    before = 16
    for stage in range(3):
        width = 16 * widen * 2**stage
        for block in range(count):
            stride = 2 if stage and not block else 1
            path, project = f"layer{stage + 1}.{block}", before != width
            x = _block(draft, x, path, width, stride, project=project, activated=activated, dropout=dropout)
            before = width
    x = draft.add("batch_norm", x, path="bn")
    return classified(draft, draft.add("relu", x, path="relu"), classes)


def _block(
    draft: Draft, x: str, path: str, width: int, stride: int, *, project: bool, activated: bool, dropout: float
) -> str:
    """Two convolutions beside a shortcut that reads the block's input or, if `activated`, its first ReLU."""
    y = draft.add("batch_norm", x, path=f"{path}.bn1")
    y = draft.add("relu", y, path=f"{path}.relu1")
    if project and activated:
        x = y
    y = draft.add("conv2d", y, path=f"{path}.conv1", out=width, kernel=3, stride=stride, bias=False)
    y = draft.add("batch_norm", y, path=f"{path}.bn2")
    y = draft.add("relu", y, path=f"{path}.relu2")
    if dropout:
        y = draft.add("dropout", y, path=f"{path}.dropout", p=dropout)
    y = draft.add("conv2d", y, path=f"{path}.conv2", out=width, kernel=3, bias=False)
    if project:
        x = draft.add("conv2d", x, path=f"{path}.downsample.0", out=width, kernel=1, stride=stride, bias=False)
    return draft.add("add", (y, x), path=f"{path}.add")
