"""Who becomes a parent: `STRATEGIES` names the ways to decide. A new one is one module and one line here."""

from __future__ import annotations

from types import MappingProxyType

from evolve.strategies.aging import Aging
from evolve.strategies.plus import Plus
from evolve.strategies.random import Random
from evolve.strategies.strategy import Strategy

__all__ = ["STRATEGIES", "Strategy"]

STRATEGIES: MappingProxyType[str, Strategy] = MappingProxyType(
    {
        "aging": Aging(),
        "mu-plus-lambda": Plus(),
        "random": Random(),
    }
)
"""Every strategy by the name that settings and command line use."""
