"""One mutation in a line: where, what was promised, what was measured, and what it costs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from evolve.display.text import count, verdict, where

__all__ = ["mutation"]


def mutation(made: Mapping[str, Any]) -> str:
    """The line about `made`, an object that `evolve mutate --json` prints."""
    record, certificate, before, after = (made[key] for key in ("record", "certificate", "before", "after"))
    errors = " and ".join(f"{_error(certificate[mode]['error'])} in {mode}" for mode in ("eval", "train"))
    stirred = " on stirred weights" if certificate["stirred"] else ""
    costs = ", ".join(
        f"{count(before[key])} -> {count(after[key])} {name}"
        for key, name in (("parameters", "parameters"), ("macs", "MACs"))
    )
    return (
        f"{record['operator']} {where(record['site'])}: promised {record['preserves']}, "
        f"certificate {verdict(certificate)}{stirred}, error {errors}; {costs}"
    )


def _error(value: float | None) -> str:
    return "not finite" if value is None else f"{value:.1e}" if value else "0"
