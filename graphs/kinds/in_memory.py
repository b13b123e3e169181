"""Functions of the user's own that a network calls as they are: in this process alone, by name, never from a file.

What neither is among `graphs.kinds.allowed` nor can be written with it, such as a `torch.autograd.Function` with a
backward pass of its own, is remembered here for as long as the process lives. Its name, `memory.MODULE.NAME`, with a
number behind where several are called the same, may stand in a program like that of any other function. A name is no
code, so what is stored would be worth nothing elsewhere: files that have such names are neither written nor read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import FunctionType, MethodDescriptorType
from typing import TYPE_CHECKING, Any

from graphs.errors import GraphError
from graphs.kinds import allowed

if TYPE_CHECKING:
    from graphs.structure import Graph

__all__ = ["check_stored", "entrance", "function", "in_memory", "named", "remember", "remembered"]

_PREFIX = "memory."


@dataclass(frozen=True, slots=True)
class _Own:
    """A function of the user's: what is called, and the lines that call it, as far as they are known."""

    call: Callable[..., Any]
    lines: set[str]


_OWN: dict[str, _Own] = {}
_NAMES: dict[int, str] = {}
_ENTRANCES: dict[int, tuple[Any, Callable[..., Any]]] = {}
"""What is called in place of a function, by the identity of both, which are kept so that no other gets it."""


def entrance(own: Any) -> Callable[..., Any]:
    """What is called in place of a function or a subclass of `torch.autograd.Function`: one call in any trace.

    It is the same object each time. Traced values record it as they record functions of torch.
    """
    if id(own) not in _ENTRANCES:
        made = _entrance(own)
        _ENTRANCES[id(own)] = _ENTRANCES[id(made)] = (own, made)
    return _ENTRANCES[id(own)][1]


def _entrance(own: Any) -> Callable[..., Any]:
    import torch
    from torch.overrides import handle_torch_function, has_torch_function

    call: Callable[..., Any] = own
    if isinstance(own, type) and issubclass(own, torch.autograd.Function):
        # A class may have an `apply` that calls this one with more arguments; while a trace runs, another one is there.
        apply: Any = vars(torch.autograd.Function)["apply"]
        call = getattr(getattr(apply, "__func__", None), "plain", apply).__get__(None, own)
    elif not isinstance(own, FunctionType | MethodDescriptorType):
        return call  # torch's, which are one call in any trace

    def enter(*arguments: Any, **keywords: Any) -> Any:
        given = tuple(_within([*arguments, *keywords.values()]))
        if has_torch_function(given):
            return handle_torch_function(enter, given, *arguments, **keywords)
        return call(*arguments, **keywords)

    enter.__name__, enter.__qualname__ = own.__name__, own.__qualname__
    # A method of a tensor has a class, and no module.
    enter.__module__ = getattr(own, "__module__", None) or own.__objclass__.__name__
    if isinstance(own, FunctionType):
        enter.__wrapped__ = own  # type: ignore[attr-defined]  # whose parameters it has
    return enter


def _within(values: Any) -> Iterator[Any]:
    for value in values:
        if isinstance(value, list | tuple):
            yield from _within(value)
        else:
            yield value


def remember(own: Any, called: str, line: str = "") -> str:
    """The name under which programs of this process may call a function, or apply a `torch.autograd.Function`.

    Args:
        own: The function or the class, or its `entrance`.
        called: What it is called, such as `nets.Sign`.
        line: The line of the user's code that calls it, for messages.
    """
    call = entrance(own)
    if id(call) not in _NAMES:
        plain, number = f"{_PREFIX}{called}", 1
        name = plain
        while name in _OWN:
            number += 1
            name = f"{plain}#{number}"
        _OWN[name], _NAMES[id(call)] = _Own(call, set()), name
    name = _NAMES[id(call)]
    if line:
        _OWN[name].lines.add(line)
    return name


def named(target: Any) -> bool:
    """Whether a name is one of a function in memory, if only of another process."""
    return isinstance(target, str) and target.startswith(_PREFIX)


def remembered(target: str) -> bool:
    """Whether a function of this name is in the memory of this process."""
    return target in _OWN


def function(target: str) -> Callable[..., Any]:
    """The function called `target`: one in memory, or one of `graphs.kinds.allowed`.

    Raises:
        GraphError: There is none.
    """
    own = _OWN.get(target)
    return own.call if own else allowed.function(target)


def in_memory(settings: Mapping[str, Any]) -> Iterator[str]:
    """Names of functions in memory that a node's settings have in their program, which may not have been checked."""
    program = settings.get("program")
    for step in program if isinstance(program, list | tuple) else ():
        if isinstance(step, list | tuple) and step and named(step[0]):
            yield step[0]


def check_stored(graph: Graph) -> None:
    """Passes networks that are data, so that they can be stored, sent to another process and exported.

    Raises:
        GraphError: A node calls a function in memory; names it, the line that calls it, and what to do.
    """
    for node in graph.nodes.values():
        for target in in_memory(node.settings):
            lines = _OWN[target].lines if target in _OWN else ()
            place = f" in {next(iter(lines))}," if len(lines) == 1 else ","
            raise GraphError(
                f"the network can be neither stored nor exported nor sent elsewhere: node '{node.id}' calls "
                f"'{target.removeprefix(_PREFIX)}'{place} which is in the memory of this process alone; train the "
                "network here, or write that with functions of torch, such as x + (y - x).detach() for y with the "
                "gradient of x"
            )
