"""How settings are checked: each function returns the canonical form of what was given, or says what it expects."""

from __future__ import annotations

import math
from typing import Any

__all__ = [
    "boolean",
    "choice",
    "count",
    "fraction",
    "number",
    "optional",
    "pair",
    "positive",
    "positives",
    "sizes",
    "whole",
    "wholes",
]

LIMIT = 2**24
"""No setting counts more than this; a file that says otherwise is damaged or hostile."""


def whole(value: Any) -> int:
    """A whole number from 0."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= LIMIT:
        raise ValueError(f"expected a whole number from 0 to {LIMIT}")
    return value


def count(value: Any) -> int:
    """A whole number from 1."""
    if whole(value) == 0:
        raise ValueError("expected a whole number from 1")
    return int(value)


def number(value: Any) -> float:
    """A finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError("expected a finite number")
    return float(value)


def positive(value: Any) -> float:
    """A finite number above 0."""
    if number(value) <= 0:
        raise ValueError("expected a number above 0")
    return float(value)


def fraction(value: Any) -> float:
    """A number from 0 to 1."""
    if not 0 <= number(value) <= 1:
        raise ValueError("expected a number from 0 to 1")
    return float(value)


def boolean(value: Any) -> bool:
    """True or False."""
    if not isinstance(value, bool):
        raise ValueError("expected true or false")
    return value


def pair(value: Any) -> tuple[int, int]:
    """Two whole numbers, height first; one stands for both."""
    if isinstance(value, int):
        value = (value, value)
    if not isinstance(value, list | tuple) or len(value) != 2:
        raise ValueError("expected a whole number or two of them")
    return (whole(value[0]), whole(value[1]))


def sizes(value: Any) -> tuple[int, int]:
    """Two whole numbers from 1, height first; one stands for both."""
    if 0 in pair(value):
        raise ValueError("expected numbers from 1")
    return pair(value)


class optional:
    """Makes a check that lets None through."""

    def __init__(self, check: Any) -> None:
        self.check = check

    def __call__(self, value: Any) -> Any:
        """None, or what the wrapped check says."""
        return None if value is None else self.check(value)


class choice:
    """Makes a check for one of a few words."""

    def __init__(self, *words: str) -> None:
        self.words = words

    def __call__(self, value: Any) -> str:
        """The word, if it is one of them."""
        if value not in self.words:
            raise ValueError(f"expected one of {', '.join(self.words)}")
        return str(value)


class wholes:
    """Makes a check for so many whole numbers from 0; one stands for all."""

    def __init__(self, length: int) -> None:
        self.length = length

    def __call__(self, value: Any) -> tuple[int, ...]:
        """The numbers."""
        if isinstance(value, int):
            value = (value,) * self.length
        if not isinstance(value, list | tuple) or len(value) != self.length:
            raise ValueError(f"expected a whole number or {self.length} of them")
        return tuple(whole(each) for each in value)


class positives(wholes):
    """Makes a check for so many whole numbers from 1; one stands for all."""

    def __call__(self, value: Any) -> tuple[int, ...]:
        """The numbers."""
        found = super().__call__(value)
        if 0 in found:
            raise ValueError("expected numbers from 1")
        return found
