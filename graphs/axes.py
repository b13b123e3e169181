"""Channel axes: what lies side by side on an axis of a value, and what lies within what.

An **axis** is a sequence of segments `(variable, inner)`: the variable's channels in order, each of them `inner` long.
That is a number of places, or another axis, for channels that lie across others: the rows of attention's projections
are its heads, each of which is the channels of one head.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

__all__ = ["Axis", "Dims", "Inner", "is_uniform", "leaves", "nest", "quotient", "recurring", "variables"]

Axis = tuple[tuple[int, "Inner"], ...]
"""Segments side by side. None of them: places, such as rows or tokens, which are not channels."""

Inner = int | Axis
"""What each channel is: so many places, or an axis."""

Dims = tuple[Axis, ...]
"""An axis for each axis of a value, without the batch."""


def nest(axis: Axis, inner: Inner) -> Axis:
    """Each entry of `axis` becomes `inner`."""
    return tuple((variable, _within(each, inner)) for variable, each in axis)


def _within(outer: Inner, inner: Inner) -> Inner:
    if not isinstance(outer, int):
        return nest(outer, inner)
    # Of places, all are alike: so many numbers, or so many times the same axis.
    return outer * inner if isinstance(inner, int) else inner * outer


def quotient(outer: Inner, inner: Inner) -> Inner | None:
    """What becomes `outer` when each of its entries becomes `inner`; None where nothing does."""
    if outer == inner:
        return 1
    if isinstance(outer, int):
        return outer // inner if isinstance(inner, int) and outer % inner == 0 else None
    found: list[tuple[int, Inner]] = []
    for variable, each in outer:
        part = quotient(each, inner)
        if part is None:
            return None
        found.append((variable, part))
    return tuple(found)


def variables(axis: Inner) -> Iterator[int]:
    """All variables of an axis, those within others too, each as often as it is written."""
    for variable, inner in () if isinstance(axis, int) else axis:
        yield variable
        yield from variables(inner)


def recurring(axis: Inner, outer: frozenset[int] = frozenset()) -> Iterator[int]:
    """The variables whose channels lie within channels of the same variable, as on a product of a value with itself."""
    for variable, inner in () if isinstance(axis, int) else axis:
        if variable in outer:
            yield variable
        yield from recurring(inner, outer | {variable})


def leaves(axis: Inner) -> int:
    """How many segments an axis is written with that have no other within them, or places, each for itself."""
    return axis if isinstance(axis, int) else sum(leaves(inner) for _, inner in axis)


def is_uniform(axis: Sequence[tuple[int, Inner]]) -> bool:
    """Whether all segments are the same, and all that lies within them: copying channels alike keeps every mean."""
    return len(set(axis)) == 1 and (isinstance(axis[0][1], int) or is_uniform(axis[0][1]))
