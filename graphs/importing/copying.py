"""A copy of a module to work on, made in the time that its parts take to be counted."""

from __future__ import annotations

import copy
from collections import OrderedDict
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

__all__ = ["copied"]


def copied(module: nn.Module) -> nn.Module:
    """A copy with the same parameters and with buffers of its own, so that running it leaves the original as it is.

    It is what `copy.deepcopy` gives, which spends most of its time on the many empty dictionaries of each module.
    """
    memo: dict[int, Any] = {id(tensor): tensor for tensor in module.parameters()}
    made: nn.Module = _copy(module, memo)
    return made


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
    if kind in _DICTIONARIES and all(type(key) in _ATOMS for key in value):
        made = memo[id(value)] = kind()
        made.update((key, _copy(each, memo)) for key, each in value.items())
        return made
    if _plain(kind):
        made = memo[id(value)] = kind.__new__(kind)
        made.__setstate__(_state(value.__dict__, memo))
        return made
    return copy.deepcopy(value, memo)


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
