"""What may be chosen for an operator at a site: `Mutation.options`.

A choice that is drawn fits by itself. One that a caller names is checked against these, so that nothing is recorded
which was not done, and no site is made to promise what does not hold there.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from graphs.spaces import Space

__all__ = ["GROWTH", "MOST", "Ascending", "Merged", "Named", "OneOf", "Option", "Share", "Whole", "widths"]

MOST = 2**16
"""No width, and no number of heads, is larger, but for widths that a network has already."""

GROWTH = 64
"""No space gets more than so many times as wide at once: a channel's copies would share nothing but rounding."""


class Option(Protocol):
    """What one choice may be."""

    def allows(self, value: Any) -> bool:
        """Whether it is one of them."""

    def __str__(self) -> str:
        """What is expected, for a message."""


@dataclass(frozen=True, slots=True)
class Whole:
    """Whole numbers from `low` to `high`, `step` apart."""

    low: int
    high: int = MOST
    step: int = 1

    def allows(self, value: Any) -> bool:
        """Whether it is one of them."""
        return type(value) is int and self.low <= value <= self.high and (value - self.low) % self.step == 0

    def __str__(self) -> str:
        if self.high < self.low + self.step:
            return str(self.low)
        steps = f" in steps of {self.step}" if self.step > 1 else ""
        return f"a whole number from {self.low} to {self.high}{steps}"


@dataclass(frozen=True, slots=True)
class OneOf:
    """Some values."""

    values: Sequence[Any]

    def allows(self, value: Any) -> bool:
        """Whether it is one of them."""
        return any(type(value) is type(each) and value == each for each in self.values)

    def __str__(self) -> str:
        return " or ".join(repr(value) for value in self.values)


@dataclass(frozen=True, slots=True)
class Share:
    """Numbers between 0 and 1, both left out."""

    def allows(self, value: Any) -> bool:
        """Whether it is one of them."""
        return type(value) in (int, float) and math.isfinite(value) and 0 < value < 1

    def __str__(self) -> str:
        return "a number above 0 and below 1"


@dataclass(frozen=True, slots=True)
class Ascending:
    """Some of the numbers from 0 to `below - 1`, in their order: one or more, but not all."""

    below: int

    def allows(self, value: Any) -> bool:
        """Whether it is such a list."""
        if not isinstance(value, list | tuple) or not all(type(each) is int for each in value):
            return False
        inside = bool(value) and 0 <= value[0] and value[-1] < self.below
        return inside and len(value) < self.below and all(one < other for one, other in itertools.pairwise(value))

    def __str__(self) -> str:
        return f"an ascending list of 1 to {self.below - 1} of the numbers from 0 to {self.below - 1}"


@dataclass(frozen=True, slots=True)
class Merged:
    """For each of some things the number of what it is merged into, numbered as they come; of one class only.

    Attributes:
        classes: The class of each.
    """

    classes: Sequence[int]

    def allows(self, value: Any) -> bool:
        """Whether it is such a list."""
        if not isinstance(value, list | tuple) or not all(type(each) is int for each in value):
            return False
        found = dict(zip(value, self.classes, strict=False))
        alike = len(value) == len(self.classes) and [found[each] for each in value] == list(self.classes)
        return alike and list(dict.fromkeys(value)) == list(range(len(found)))

    def __str__(self) -> str:
        return f"for each channel the number of that which remains of it, numbered as they come, at most {self.classes}"


@dataclass(frozen=True, slots=True)
class Named:
    """Choices of their own for one or more of some names."""

    parts: Mapping[str, Option]

    def allows(self, value: Any) -> bool:
        """Whether it is such a mapping."""
        named = isinstance(value, Mapping) and bool(value) and value.keys() <= self.parts.keys()
        return named and all(self.parts[name].allows(part) for name, part in value.items())

    def __str__(self) -> str:
        return ", ".join(f"{name}: {part}" for name, part in self.parts.items())


def widths(space: Space) -> Whole:
    """The larger widths for a space: whole blocks, and where a norm runs over it, multiples of what it has.

    At most `GROWTH` times as wide, and `MOST`, or the next larger width if that is more.
    """
    step = space.width if space.balanced else space.blocks
    least = space.width + step
    return Whole(least, max(min(MOST, GROWTH * space.width) // step * step, least), step)
