"""Steps that several networks of the zoo share: a normalised convolution, a pool, and the way to the logits."""

from __future__ import annotations

from typing import Any

from graphs.draft import Draft
from graphs.structure import Graph, Shape

__all__ = ["classified", "convolved", "pooled", "stem"]

Sides = tuple[int, int]
"""Height and width of the image at some place."""


def convolved(draft: Draft, x: str, path: str, number: str, out: int, *, relu: bool = True, **settings: Any) -> str:
    """Convolution, batch normalisation and, if `relu`, ReLU, at `<path>.conv<number>` and so on."""
    x = draft.add("conv2d", x, path=f"{path}.conv{number}", out=out, **settings)
    x = draft.add("batch_norm", x, path=f"{path}.bn{number}")
    return draft.add("relu", x, path=f"{path}.relu{number}") if relu else x


def stem(draft: Draft, shape: Shape, width: int) -> str:
    """The input and a 5×5 convolution with bias, batch normalisation and ReLU."""
    return convolved(draft, draft.input(shape), "stem", "", width, kernel=5)


def pooled(draft: Draft, x: str, path: str, sides: Sides, kind: str = "max_pool2d") -> tuple[str, Sides]:
    """A pool of 2×2 and the sides behind it; nothing where it would leave less than one pixel."""
    if min(sides) < 2:
        return x, sides
    return draft.add(kind, x, path=path, kernel=2), (sides[0] // 2, sides[1] // 2)


def classified(draft: Draft, x: str, classes: int) -> Graph:
    """The graph that ends in a global average and one linear layer."""
    x = draft.add("adaptive_avg_pool2d", x, path="avgpool")
    x = draft.add("flatten", x, path="flatten")
    draft.head(draft.add("linear", x, path="fc", out=classes))
    return draft.finish()
