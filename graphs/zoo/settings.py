"""Checks of what a caller asks a zoo network for; each returns the value or says what was expected."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from graphs.errors import GraphError
from graphs.structure import Shape

__all__ = ["blocks", "fraction", "image", "one_of", "share", "switch", "whole"]


def whole(network: str, name: str, value: object, least: int, most: int) -> int:
    """A whole number from `least` to `most`.

    Raises:
        GraphError: `value` is none; the message names network, setting and value.
    """
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise GraphError(f"zoo network '{network}': {name}={value!r}; expected a whole number from {least} to {most}")
    return value


def fraction(network: str, name: str, value: object) -> float:
    """A number from 0 up to, but not including, 1.

    Raises:
        GraphError: `value` is none; the message names network, setting and value.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1:
        raise GraphError(f"zoo network '{network}': {name}={value!r}; expected a number from 0 up to, but not, 1")
    return float(value)


def share(network: str, name: str, value: object) -> float:
    """A number above 0 and up to 1.

    Raises:
        GraphError: `value` is none; the message names network, setting and value.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 1:
        raise GraphError(f"zoo network '{network}': {name}={value!r}; expected a number above 0 and up to 1")
    return float(value)


def one_of(network: str, name: str, value: object, known: Collection[int]) -> int:
    """One of a few whole numbers.

    Raises:
        GraphError: `value` is none of them; the message names network, setting and value.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value not in known:
        raise GraphError(
            f"zoo network '{network}': {name}={value!r}; expected one of {', '.join(map(str, sorted(known)))}"
        )
    return value


def blocks(network: str, depth: object, extra: int) -> int:
    """Number n of blocks in each of three stages of a network whose depth is 6n + `extra`.

    Raises:
        GraphError: The depth is no such number; the message names network, depth and the nearest depths.
    """
    depth = whole(network, "depth", depth, 6 + extra, 2000)
    count, rest = divmod(depth - extra, 6)
    if rest:
        raise GraphError(
            f"zoo network '{network}': depth={depth}; expected 6n + {extra}, "
            f"such as {6 * count + extra} or {6 * count + extra + 6}"
        )
    return count


def switch(network: str, name: str, value: object) -> bool:
    """True or False.

    Raises:
        GraphError: `value` is neither; the message names network, setting and value.
    """
    if not isinstance(value, bool):
        raise GraphError(f"zoo network '{network}': {name}={value!r}; expected True or False")
    return value


def image(network: str, shape: Sequence[int]) -> Shape:
    """The shape of one image, (channels, height, width).

    Raises:
        GraphError: `shape` is not three whole numbers from 1; the message names network and value.
    """
    sizes = list(shape) if isinstance(shape, list | tuple) else []
    if len(sizes) != 3:
        raise GraphError(
            f"zoo network '{network}': input_shape={shape!r}; expected (channels, height, width), such as (3, 32, 32)"
        )
    return tuple(whole(network, "input_shape", size, 1, 65536) for size in sizes)
