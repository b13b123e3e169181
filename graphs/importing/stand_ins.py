"""What stands for traced values while a forward pass is taken in.

Numbers stand for themselves; sizes that depend on the batch are `Size`, tensors of the module `Held`, nodes of the
draft `Ref`. Every value of a draft has a batch axis; a traced tensor that does not depend on the batch has none, or one
of a single entry in front: `Ref.bare` tells the two apart. A value in which the batch is not the first axis is no node
but a `Program`, which goes on until its batch is the first axis again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from graphs.importing.observing import Seen

if TYPE_CHECKING:
    import torch
    from torch import Tensor

__all__ = [
    "TRAINING",
    "Decline",
    "Differing",
    "Held",
    "Numbering",
    "OwnType",
    "Program",
    "Ref",
    "Size",
    "Training",
    "Unknown",
    "any_of",
    "refs_of",
]


class Decline(Exception):
    """A converter's word that its kind does not do what is asked for: the call becomes an opaque node."""


@dataclass(frozen=True, slots=True)
class Size:
    """`factor` times the batch size."""

    factor: int


@dataclass(frozen=True, slots=True)
class Training:
    """Whether the network trains."""


TRAINING = Training()


@dataclass(frozen=True, slots=True)
class Differing:
    """A number that depends on the mode, such as the rate of a dropout that is written out."""

    training: float
    inference: float


@dataclass(frozen=True, slots=True)
class OwnType:
    """A type that some of the network's parameters have, asked of a value: it follows them to another precision."""

    dtype: torch.dtype


@dataclass(frozen=True, slots=True)
class Held:
    """A tensor of the module, by name; `how` is `parameter`, `buffer` or `constant`."""

    name: str
    how: str
    tensor: Tensor


@dataclass(frozen=True, slots=True)
class Ref:
    """A node of the draft. `bare`: the traced value is without the batch axis that the node's value has in front."""

    node: str
    bare: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Program:
    """A call that is no node yet, because its batch is elsewhere than in front, or because it gives several values.

    `draws`: it is known to draw random numbers.
    """

    target: str
    arguments: tuple[Any, ...]
    keywords: Mapping[str, Any]
    seen: Seen
    draws: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Numbering:
    """The numbers of the examples, 0 to N - 1, with axes of one entry behind: good for an index alone."""

    seen: Seen


@dataclass(frozen=True, slots=True)
class Unknown:
    """A value that no node computes, which may be given but not used.

    `what` names it, and what to do. `line` is where it is made, if that is what to tell: then functions may be given
    it, and what they give is unknown too.
    """

    what: str
    line: str = ""


def any_of(what: Callable[[Any], bool], value: Any) -> bool:
    """Whether something is true of a value, or of a part of it."""
    if isinstance(value, list | tuple):
        return any(any_of(what, each) for each in value)
    if isinstance(value, slice):
        return any_of(what, [value.start, value.stop, value.step])
    return what(value)


def refs_of(value: Any) -> list[Ref]:
    """The nodes that a value is made of."""
    if isinstance(value, Ref):
        return [value]
    if isinstance(value, Program):
        return refs_of([*value.arguments, *value.keywords.values()])
    return [ref for each in value for ref in refs_of(each)] if isinstance(value, list | tuple) else []
