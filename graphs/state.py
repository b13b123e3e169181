"""What the state of a module holds beyond what its function needs, so that a module that comes in goes out whole.

Kept among a genome's facts, under `state`, where there is something to keep: which parameters are frozen, further names
of tensors that several parts share, tensors that no node refers to, and the order in which the module has all of them,
by which the state of an optimiser knows its parameters.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from graphs.errors import GraphError

__all__ = ["State"]

KEY = "state"

_HOW = ("parameter", "buffer")


@dataclass(frozen=True, slots=True)
class State:
    """Facts about the tensors of a genome.

    Attributes:
        frozen: Parameters that are not trained, by name. Names that the genome does not have say nothing.
        names: Further names of tensors: such a name, and the one under which the genome has the tensor.
        unused: Tensors that no node refers to, by name: `parameter` or `buffer`.
        order: Names of tensors, as a module has them one after the other; those that are left out come last.
    """

    frozen: frozenset[str] = frozenset()
    names: Mapping[str, str] = field(default_factory=dict)
    unused: Mapping[str, str] = field(default_factory=dict)
    order: tuple[str, ...] = ()

    @classmethod
    def of(cls, about: Mapping[str, Any]) -> State:
        """What a genome's facts say.

        Raises:
            GraphError: It is not understood.
        """
        if KEY not in about:
            return _NOTHING
        given = about[KEY]
        if not isinstance(given, Mapping) or not given.keys() <= {"frozen", "names", "unused", "order"}:
            raise GraphError(
                f"the fact '{KEY}': expected an object with no keys but 'frozen', 'names', 'unused' and 'order'"
            )
        frozen, order = given.get("frozen", ()), given.get("order", ())
        names, unused = given.get("names", {}), given.get("unused", {})
        lists = isinstance(frozen, list | tuple) and isinstance(order, list | tuple)
        if not lists or not isinstance(names, Mapping) or not isinstance(unused, Mapping):
            raise GraphError(f"the fact '{KEY}': expected lists 'frozen' and 'order', objects 'names' and 'unused'")
        if not all(isinstance(name, str) for name in (*frozen, *order, *names.values())):
            raise GraphError(f"the fact '{KEY}': expected names of tensors")
        if not all(how in _HOW for how in unused.values()):
            raise GraphError(f"the fact '{KEY}': expected {' or '.join(_HOW)} for each tensor that is unused")
        return cls(frozenset(frozen), names, unused, tuple(order))

    def told(self, about: Mapping[str, Any]) -> dict[str, Any]:
        """A genome's facts with these; equal states are told alike."""
        found = {
            "frozen": sorted(self.frozen),
            "names": dict(self.names),
            "unused": dict(self.unused),
            "order": list(self.order),
        }
        kept = {name: value for name, value in found.items() if value}
        return {name: value for name, value in about.items() if name != KEY} | ({KEY: kept} if kept else {})

    def handed_on(self, tensors: Iterable[str], sources: Mapping[str, str | None]) -> State:
        """The state of a child with these tensors: what is made of a frozen parameter is frozen.

        Args:
            tensors: Names of those that the child's nodes refer to.
            sources: For those that are not simply the parent's, which of its tensors they start from.
        """
        there = set(tensors)
        frozen = {name for name in there if sources.get(name, name) in self.frozen}
        names = {name: known for name, known in self.names.items() if known in there or known in self.unused}
        return State(frozenset(frozen | (self.frozen & self.unused.keys())), names, self.unused, self.order)


_NOTHING = State()
