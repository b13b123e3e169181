"""Checks of what a caller asks a zoo network for; each returns the value or says what was expected."""

from __future__ import annotations

from collections.abc import Sequence

from graphs.errors import GraphError
from graphs.structure import Shape

__all__ = ["fraction", "image", "switch", "whole"]


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
