"""What can go wrong with a mutation."""

from __future__ import annotations

from graphs.errors import EvolutionError, GraphError

__all__ = ["BadChoice", "BrokenPromise", "NoSite", "ReplayError"]


class NoSite(EvolutionError, LookupError):
    """A mutation cannot be applied here, or nowhere in this network."""


class BadChoice(GraphError, ValueError):
    """What was chosen for a mutation is not possible at its site; the message says what is."""


class ReplayError(GraphError):
    """A record does not belong to this parent, or does not lead to the child that it names."""


class BrokenPromise(EvolutionError, ArithmeticError):
    """A child does not compute what its mutation promised; the message says in which mode and by how much."""

    exit_code = 1
