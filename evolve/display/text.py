"""How figures and facts of a candidate read for a person: short, aligned, and without control characters.

An *entry* is a candidate as `evolve log --json` shows it, with exactly those keys; everything that is displayed is made
from entries.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

__all__ = [
    "Entry",
    "accuracy",
    "came_about",
    "clean",
    "count",
    "duration",
    "failure",
    "line_of",
    "sizes",
    "verdict",
    "where",
]

Entry = Mapping[str, Any]
"""A candidate as a JSON object with the keys of `evolve log --json`."""

NONE = "–"
"""Stands for a figure that does not exist, or not yet."""


def clean(text: object) -> str:
    r"""`text` in one line, with characters that could steer a terminal replaced.

    >>> clean("a\nb\x1b[31m")
    'a b?[31m'
    """
    return "".join(letter if letter.isprintable() else "?" for letter in " ".join(str(text).split()))


def accuracy(fraction: float | None) -> str:
    """A fraction from 0 to 1 in percent.

    >>> accuracy(0.97223)
    '97.22 %'
    """
    return NONE if fraction is None else f"{100 * fraction:.2f} %"


def count(number: float | None) -> str:
    """A count with at most four digits and a unit.

    >>> [count(n) for n in (None, 7, 9999, 12345, 270_896, 1_740_000, 2.5e9)]
    ['–', '7', '9999', '12.3k', '271k', '1.74M', '2.50G']
    """
    if number is None:
        return NONE
    if number < 10_000:
        return f"{number:.0f}"
    for unit, size in (("k", 1e3), ("M", 1e6), ("G", 1e9), ("T", 1e12)):
        value = number / size
        if value < 999.5 or unit == "T":
            break
    digits = max(0, 3 - len(str(int(value))))
    return f"{value:.{digits}f}{unit}"


def sizes(shape: Iterable[int]) -> str:
    """A shape.

    >>> sizes((3, 224, 224))
    '3×224×224'
    """
    return "×".join(map(str, shape)) or "a number"


def duration(seconds: float | None) -> str:
    """A time span.

    >>> [duration(s) for s in (None, 3.14159, 75, 3725)]
    ['–', '3.1 s', '1:15', '1:02:05']
    """
    if seconds is None:
        return NONE
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def where(site: Mapping[str, Any] | None) -> str:
    """The place of a mutation, from its site: the only name in it, or all of them with what they are.

    >>> where({"node": "conv1"}), where({"from": "add2", "to": "conv5"})
    ('conv1', 'from add2 to conv5')
    >>> where({"steps": [{"operator": "deepen", "site": {"after": "relu2"}}, {"operator": "widen", "site": {}}]})
    'deepen relu2, widen –'
    """
    if not site:
        return NONE
    if "steps" in site:
        return ", ".join(f"{clean(step['operator'])} {where(step['site'])}" for step in site["steps"])
    if len(site) == 1:
        return clean(_parts(next(iter(site.values()))))
    return clean(" ".join(f"{name} {_parts(value)}" for name, value in site.items()))


def _parts(value: Any) -> str:
    if isinstance(value, Mapping):
        return " ".join(f"{key}={_parts(item)}" for key, item in value.items())
    if isinstance(value, list | tuple):
        return ",".join(_parts(item) for item in value)
    return str(value)


def verdict(certificate: Mapping[str, Any] | None) -> str:
    """What the certificate says: one word where both modes agree, else that of eval and that of train mode.

    >>> verdict({"eval": {"verdict": "pass"}, "train": {"verdict": "approximate"}})
    'pass/approximate'
    """
    if not certificate:
        return NONE
    in_eval, in_train = certificate["eval"]["verdict"], certificate["train"]["verdict"]
    return str(in_eval) if in_eval == in_train else f"{in_eval}/{in_train}"


def failure(entry: Entry) -> str:
    """Kind and message of a failed candidate's failure; empty for any other."""
    found = entry.get("failure")
    return clean(f"{found['kind']}: {found['message']}" if found.get("message") else found["kind"]) if found else ""


def line_of(entries: Iterable[Entry], identity: int | None) -> list[Entry]:
    """The candidate `identity` and its ancestors, the starting network first; empty for None."""
    known = {entry["id"]: entry for entry in entries}
    line: list[Entry] = []
    while identity is not None and identity in known:
        line.append(known[identity])
        identity = known[identity]["parent"]
    return line[::-1]


def came_about(line: Sequence[Entry]) -> str:
    """A line of candidates in words: `0 -> 3 widen conv1 -> 7 skip add2`."""
    steps = [f"{entry['id']} {entry['operator']} {where(entry['site'])}" for entry in line[1:]]
    return " -> ".join([str(line[0]["id"]), *steps]) if line else NONE
