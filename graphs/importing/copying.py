"""A copy of a module to work on, made in the time that its parts take to be counted."""

from __future__ import annotations

import contextlib
import copy
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from functools import cache, partial
from types import CellType, FunctionType, MethodType, SimpleNamespace
from typing import TYPE_CHECKING, Any

from graphs.errors import GraphError
from graphs.importing.asking import modes_seen

if TYPE_CHECKING:
    from torch import nn

__all__ = ["copied", "original_apart"]


def copied(module: nn.Module) -> nn.Module:
    """A copy with the same parameters and with buffers of its own, so that running it leaves the original as it is.

    It is what `copy.deepcopy` gives, which spends most of its time on the many empty dictionaries of each module.
    """
    memo: dict[int, Any] = {id(tensor): tensor for tensor in module.parameters()}
    made: nn.Module = _copy(module, memo)
    return made


@contextlib.contextmanager
def original_apart(module: nn.Module) -> Iterator[None]:
    """Passes only if no part of a module is asked for its mode, or given one, while a copy of it is worked on.

    Raises:
        GraphError: One is: something that is not copied reaches it, such as a weak dictionary.
    """
    parts = {id(part): path for path, part in module.named_modules()}

    def check(owner: nn.Module) -> None:
        if id(owner) in parts:
            what = f"the part '{parts[id(owner)]}'" if parts[id(owner)] else "the module itself"
            raise GraphError(
                f"it reaches {what} through something that cannot be copied with the module, so that its mode would be "
                "kept for ever; reach it as an attribute of a module"
            )

    with modes_seen(check):
        yield


def _copy(value: Any, memo: dict[int, Any]) -> Any:
    from torch import Tensor

    kind: Any = type(value)
    if kind in _ATOMS:
        return value
    if id(value) in memo:
        return memo[id(value)]
    if kind in (set, tuple) and all(type(each) in _ATOMS for each in value):
        return kind(value)
    if kind is Tensor and not (value.requires_grad and value.is_leaf):
        # One that was computed from parameters, as weight norms and pruning leave it, is computed anew by each pass.
        made = memo[id(value)] = value.detach().clone()
        return made
    if kind is FunctionType:
        return _rebound(value, memo)
    if kind in (list, tuple, partial) and _has_parts(value):
        return _filled(value, memo)
    if kind in _DICTIONARIES and all(type(key) in _ATOMS for key in value):
        made = memo[id(value)] = kind()
        made.update((key, _copy(each, memo)) for key, each in value.items())
        return made
    if issubclass(kind, weakref.ref) and _has_parts(value):
        referent = _copy(value(), memo)
        made = _Kept(referent)
        made.kept = referent
        return made
    if kind in weakref.ProxyTypes:
        return _copy(value.__repr__.__self__, memo)
    if kind is MethodType and _has_parts(value):
        return MethodType(value.__func__, _copy(value.__self__, memo))
    if _plain_object(kind):
        made = memo[id(value)] = kind.__new__(kind)
        made.__dict__.update((name, _copy(each, memo)) for name, each in value.__dict__.items())
        return made
    if _plain(kind):
        made = memo[id(value)] = kind.__new__(kind)
        made.__setstate__(_state(value.__dict__, memo))
        return made
    return copy.deepcopy(value, memo)


def _rebound(function: FunctionType, memo: dict[int, Any]) -> FunctionType:
    """A function that finds the copies where the original finds the parts of a module: in its cells and defaults.

    A layer may be reached through one alone, as in `self.mlp = lambda x: layer(x).relu()`.
    """
    if not _has_parts(function):
        return function
    contents = [_content(cell) for cell in function.__closure__ or ()]
    new = tuple(CellType() for _ in contents)
    made = FunctionType(function.__code__, function.__globals__, function.__name__, None, new)
    memo[id(function)] = made
    for cell, content in zip(new, contents, strict=True):
        if content is not _EMPTY:
            cell.cell_contents = _copy(content, memo) if _has_parts(content) else content
    made.__defaults__ = function.__defaults__ and tuple(_copy(each, memo) for each in function.__defaults__)
    made.__kwdefaults__ = function.__kwdefaults__ and _copy(function.__kwdefaults__, memo)
    made.__dict__.update(function.__dict__)
    made.__qualname__, made.__module__ = function.__qualname__, function.__module__
    return made


class _Kept(weakref.ref[Any]):
    """A weak reference to a copy, which no one but the reference may hold."""

    __slots__ = ("kept",)
    kept: Any


def _filled(value: Any, memo: dict[int, Any]) -> Any:
    """A list, a tuple or a call that waits for its arguments, of copies."""
    if isinstance(value, partial):
        return partial(_copy(value.func, memo), *map(_copied_by(memo), value.args), **_copy(value.keywords, memo))
    if isinstance(value, tuple):
        return tuple(map(_copied_by(memo), value))
    made = memo[id(value)] = []
    made.extend(map(_copied_by(memo), value))
    return made


def _copied_by(memo: dict[int, Any]) -> Callable[[Any], Any]:
    return lambda value: _copy(value, memo)


_EMPTY = object()
"""What stands for the content of a cell that has none yet."""


def _content(cell: CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:
        return _EMPTY


def _has_parts(value: Any) -> bool:
    """Whether modules or tensors are reached through a value."""
    from torch import Tensor, nn

    seen: set[int] = set()
    ahead = [value]
    while ahead:
        each = ahead.pop()
        if isinstance(each, nn.Module | Tensor):
            return True
        if id(each) not in seen:
            seen.add(id(each))
            ahead.extend(_reached(each))
    return False


def _reached(value: Any) -> Iterable[Any]:
    """What is reached from a value in one step."""
    if isinstance(value, FunctionType):
        cells = map(_content, value.__closure__ or ())
        return [*cells, *(value.__defaults__ or ()), *(value.__kwdefaults__ or {}).values()]
    if isinstance(value, MethodType):
        return [value.__self__]
    if isinstance(value, partial):
        return [value.func, *value.args, *value.keywords.values()]
    if isinstance(value, weakref.ref):
        return [value()]
    if isinstance(value, dict):
        return value.values()
    if isinstance(value, list | tuple):
        return value
    kind: Any = type(value)
    return vars(value).values() if _plain_object(kind) else ()


def _state(attributes: dict[str, Any], memo: dict[int, Any]) -> dict[str, Any]:
    """Copies of a module's attributes; what most of them are goes without a call."""
    copies: dict[str, Any] = {}
    own = _own_attributes()
    for name, value in attributes.items():
        kind = type(value)
        if kind in _ATOMS:
            copies[name] = value
        elif kind in _DICTIONARIES and not value and name in own:
            copies[name] = kind()
        else:
            copies[name] = _copy(value, memo)
    return copies


_ATOMS = frozenset((bool, int, float, str, type(None)))
"""Types of values that need no copy."""

_DICTIONARIES = frozenset((dict, OrderedDict))


@cache
def _own_attributes() -> frozenset[str]:
    """The attributes that every module has, which no two of them share."""
    from torch import nn

    return frozenset(vars(nn.Module()))


@cache
def _plain(kind: type) -> bool:
    """Whether instances of a class are modules that are copied attribute by attribute."""
    from torch import nn

    if not issubclass(kind, nn.Module) or any("__slots__" in vars(each) for each in kind.__mro__):
        return False
    names = ("__deepcopy__", "__reduce__", "__reduce_ex__", "__getstate__", "__new__")
    return all(getattr(kind, name, None) is getattr(nn.Module, name, None) for name in names)


@cache
def _plain_object(kind: type) -> bool:
    """Whether instances of a class that is no module's are their attributes and nothing else."""
    if kind is SimpleNamespace:
        return True
    own = ("__reduce__", "__reduce_ex__", "__getstate__", "__new__")
    others = ("__deepcopy__", "__setstate__", "__getnewargs__", "__getnewargs_ex__")
    usual = all(getattr(kind, name, None) is getattr(object, name, None) for name in own)
    slots = any(vars(each).get("__slots__") for each in kind.__mro__)
    return usual and not slots and kind.__dictoffset__ != 0 and not any(hasattr(kind, name) for name in others)
