"""Whether a function of the user's own is the one that it was: a digest of what it is made of.

A training that goes on in another process is given its loss and metric anew, by the same source. What they compute is
known from what they are made of: code, defaults, what they close over, what they look up in their module, attributes
and tensors. Law: the same source gives the same digest in any process of the same Python; nothing in it is an address,
a time, or an order of hashes.

What is installed (torch, Python's own, this project, any package) is known by its name and by what it was given, not
by its code, which only another version of it changes. Of objects of installed classes that are neither modules nor
called only the class is known, of what is written in other languages only the name, and nothing of what a function
imports while it runs: what differs in nothing else is not told apart.
"""

from __future__ import annotations

import dis
import enum
import functools
import hashlib
import json
import sys
import sysconfig
import types
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

__all__ = ["likeness"]

_PLAIN = (
    types.NoneType,
    types.EllipsisType,
    types.NotImplementedType,
    bool,
    int,
    float,
    complex,
    str,
    bytes,
    range,
    slice,
    torch.dtype,
    torch.device,
    torch.layout,
    torch.memory_format,
    np.dtype,
)
"""What `repr` says all of, alike in every process."""

_NAMED = (types.BuiltinFunctionType, types.MethodWrapperType, types.WrapperDescriptorType, types.MethodDescriptorType)
"""What is written in another language; it has a name."""

_DEEPEST = 50
"""How far parts of parts are looked at."""

_OF_MODULES = frozenset(vars(nn.Module())) - {"training"}
"""Attributes in which every `nn.Module` keeps its parts and hooks."""

_INSTALLED = (
    *(Path(sysconfig.get_paths()[name]).resolve() for name in ("stdlib", "platstdlib")),
    *(Path(__file__).resolve().parents[1] / name for name in ("graphs", "ops", "runners", "evolve")),
)

_PACKAGES = frozenset({"site-packages", "dist-packages"})


def likeness(value: Any) -> str:
    """SHA-256 over what a function, a module or another object is made of, in hexadecimal.

    >>> def of(weight):
    ...     return likeness(lambda outputs, targets: weight * (outputs - targets).abs())
    >>> of(2.0) == of(2.0), of(2.0) == of(3.0)
    (True, False)
    """
    return _Walk().of(value)


class _Walk:
    """One look at an object and all that it is made of."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[Any, str]] = {}  # an object that is held keeps its number to itself
        self._depth = 0

    def of(self, value: Any) -> str:
        if isinstance(value, _PLAIN) and not isinstance(value, enum.Enum):
            return _hashed(type(value).__name__, repr(value))
        if id(value) not in self._known:
            self._known[id(value)] = (value, _hashed("again", _name(type(value))))  # what leads back to itself
            self._depth += 1
            parts = self._parts(value) if self._depth <= _DEEPEST else ("deep", _name(type(value)))
            self._known[id(value)] = (value, _hashed(*parts))
            self._depth -= 1
        return self._known[id(value)][1]

    def _parts(self, value: Any) -> Iterator[Any]:
        """What an object is made of: first what it is called, then texts and digests."""
        if isinstance(value, Tensor | np.ndarray | np.generic):
            yield from _numbers(value)
        elif isinstance(value, enum.Enum):
            yield from ("enum", _name(type(value)), value.name, self.of(value.value))
        elif isinstance(value, PurePath):
            yield from ("path", str(value))
        elif isinstance(value, tuple | list):
            yield from ("row", _name(type(value)), *map(self.of, value))
        elif isinstance(value, set | frozenset):
            yield from ("set", *sorted(map(self.of, value)))
        elif isinstance(value, Mapping):
            yield from ("table", *sorted(f"{self.of(key)} {self.of(each)}" for key, each in value.items()))
        elif isinstance(value, types.ModuleType):
            yield from ("module", value.__name__)
        elif isinstance(value, types.CodeType):
            yield from self._code(value)
        elif isinstance(value, types.FunctionType):
            yield from self._function(value)
        elif isinstance(value, types.MethodType):
            yield from ("method", self.of(value.__func__), self.of(value.__self__))
        elif isinstance(value, functools.partial):
            yield from ("partial", self.of(value.func), self.of(value.args), self.of(value.keywords))
        elif isinstance(value, _NAMED):
            yield from ("named", str(getattr(value, "__module__", "")), value.__qualname__)
        elif isinstance(value, staticmethod | classmethod):
            yield from (type(value).__name__, self.of(value.__func__))
        elif isinstance(value, property | functools.cached_property):
            yield from ("property", self.of(value.fget if isinstance(value, property) else value.func))
        elif isinstance(value, type):
            yield from self._class(value)
        else:
            yield from self._object(value)

    def _code(self, code: types.CodeType) -> Iterator[str]:
        yield from ("code", code.co_code.hex(), code.co_exceptiontable.hex(), repr(code.co_names))
        yield repr((code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags))
        yield from map(self.of, code.co_consts)

    def _function(self, function: types.FunctionType) -> Iterator[str]:
        if "_torchdynamo_orig_callable" in vars(function):  # what `torch.compile` has made of it
            yield from ("compiled", self.of(vars(function)["_torchdynamo_orig_callable"]))
            return
        yield from ("function", _name(function), self.of(function.__defaults__), self.of(function.__kwdefaults__))
        for cell in function.__closure__ or ():
            try:
                yield self.of(cell.cell_contents)
            except ValueError:
                yield "empty"
        yield from self._table(vars(function))
        if _installed(function.__globals__.get("__name__")):
            return
        yield self.of(function.__code__)
        for name, value in _looked_up(function):
            yield from (name, self.of(value))

    def _class(self, given: type) -> Iterator[str]:
        """A class: its name, and what is written in it and in its bases, where that is the user's own."""
        yield from ("class", _name(given))
        for each in given.__mro__:
            if not _installed(each.__module__):
                yield _name(each)
                yield from self._table({name: value for name, value in vars(each).items() if _written(name, value)})

    def _object(self, value: Any) -> Iterator[str]:
        yield from ("object", self.of(type(value)))
        own = not _installed(type(value).__module__)
        attributes = getattr(value, "__dict__", {})
        if isinstance(value, nn.Module):
            if "_orig_mod" in value._modules:  # what `torch.compile` has made of it
                yield self.of(value._modules["_orig_mod"])
                return
            for parts in (value._parameters, value._buffers, value._modules):
                yield from self._table(parts)
            yield from self._table({name: each for name, each in attributes.items() if name not in _OF_MODULES})
        elif own:
            slots = [name for each in type(value).__mro__ for name in _slots(each) if hasattr(value, name)]
            yield from self._table({name: getattr(value, name) for name in slots} | attributes)
        elif callable(value) or isinstance(value, types.SimpleNamespace):
            yield str(getattr(value, "__name__", ""))
            public = {name: each for name, each in attributes.items() if not name.startswith("_")}
            yield from self._table(public | {name: attributes[name] for name in attributes.keys() & {"__wrapped__"}})

    def _table(self, table: Mapping[str, Any]) -> Iterator[str]:
        for name in sorted(table):
            yield from (name, self.of(table[name]))


def _hashed(*parts: str) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _written(name: str, value: Any) -> bool:
    """Whether an attribute of a class is something that the user wrote: Python adds others, with such names."""
    if name.startswith("__") and name.endswith("__"):
        return isinstance(value, types.FunctionType | staticmethod | classmethod) and not name.startswith("__annot")
    return True


def _name(value: Any) -> str:
    return f"{value.__module__}.{value.__qualname__}"


def _numbers(value: Any) -> Iterator[str]:
    """What a tensor or an array holds; of a tensor that is laid out otherwise than in rows, the layout alone."""
    if isinstance(value, Tensor) and (value.is_nested or value.layout != torch.strided or value.is_quantized):
        yield from ("numbers", str(value.layout))
        return
    yield from ("numbers", _name(type(value)), str(value.dtype), repr(tuple(value.shape)))
    if isinstance(value, Tensor):
        if value.device.type == "meta":
            return
        value = value.detach().cpu().resolve_conj().resolve_neg().contiguous().reshape(-1).view(torch.uint8).numpy()
    if not value.dtype.hasobject:
        yield hashlib.sha256(np.ascontiguousarray(value).tobytes()).hexdigest()


def _looked_up(function: types.FunctionType) -> Iterator[tuple[str, Any]]:
    """What a function finds in the module that it stands in, and what it may find in another one of the user's own."""
    found, names, table = set(), set(), function.__globals__
    codes = [function.__code__]
    for code in codes:
        codes += [each for each in code.co_consts if isinstance(each, types.CodeType)]
        names |= set(code.co_names)
        found |= {each.argval for each in dis.get_instructions(code) if each.opname in ("LOAD_GLOBAL", "LOAD_NAME")}
    for name in sorted(found & table.keys()):
        yield name, table[name]
        if isinstance(table[name], types.ModuleType) and not _installed(table[name].__name__):
            inside = vars(table[name])
            yield from ((f"{name}.{each}", inside[each]) for each in sorted(names & inside.keys()))


def _slots(given: type) -> tuple[str, ...]:
    slots = vars(given).get("__slots__", ())
    return (slots,) if isinstance(slots, str) else tuple(slots)


@functools.cache
def _installed(module: str | None) -> bool:
    """Whether what stands in a module is Python's own or a package's, and not written by the user."""
    if module is None or module == "__main__" or module not in sys.modules:
        return False
    file = getattr(sys.modules[module], "__file__", None)
    if file is None:
        return True
    path = Path(file).resolve()
    return not _PACKAGES.isdisjoint(path.parts) or any(path.is_relative_to(each) for each in _INSTALLED)
