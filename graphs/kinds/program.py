"""Programs: calls into `torch` as data.

A program is a list of steps `[function, arguments, keyword arguments]`, whose functions come from
`graphs.kinds.allowed`, or, in the process that took the network in, from `graphs.kinds.in_memory`. An argument is a
plain value, a list, or a reference: `{"in": i}` an operand, `{"step": i}` what an earlier step gave, `{"tensor": i}`
one of the node's tensors, `{"batch": k}` k times the batch size, `{"training": true}` whether the network trains,
`{"dtype": "float32"}`, `{"slice": [start, stop, step]}`, `{"ellipsis": true}`, `{"tuple": [...]}`, `{"number": "-inf"}`
one of the three numbers that JSON has no word for.

No program writes into a tensor, its own statistics apart, but for the one step that counts passes in train mode,
`["method.add_", [{"tensor": i}, {"training": true}], {}]`; and none computes with anything but tensors: Python's
operators do other things with texts and lists, of any size. Every call has a tensor where its function works on one,
and the arguments that it cannot do without, so that it can be written as Python; what else it makes of them is known
once it runs.
"""

from __future__ import annotations

import inspect
import keyword
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from math import isfinite
from typing import Any

from graphs.errors import GraphError
from graphs.kinds.allowed import ELEMENTWISE, allowed
from graphs.kinds.in_memory import function, remembered
from graphs.kinds.values import LIMIT, whole

__all__ = ["COUNT", "checked_program", "references"]

COUNT = "method.add_"
"""What adds one to a tensor in train mode."""

_WHETHER = {"training": True}

_MOST = 100
_LONGEST = 256
_DEEPEST = 4  # two lists a level and four around them are what a document may hold
_DTYPES = ("float16", "bfloat16", "float32", "float64", "int8", "uint8", "int16", "int32", "int64", "bool")
_REFERENCES = ("in", "step", "tensor", "batch", "training", "dtype", "number", "slice", "ellipsis", "tuple")

_TENSORS = ("in", "step", "tensor")
"""References to what is a tensor, or several."""

_KINDS = frozenset({"Tensor", "List[Tensor]"})

_WITHOUT_END = ("inf", "-inf", "nan")
"""Numbers that JSON has no word for."""

_WRITING = frozenset({"out", "inplace", "max_norm"})
"""Arguments that make a function change a tensor that it is given."""

_STATISTICS = frozenset({"running_mean", "running_var"})
"""Arguments that a function may change: they are tensors of the node itself."""

_NORMALISING = ("input", "weight", "bias", "running_mean", "running_var")

_PARAMETERS = {"torch.batch_norm": _NORMALISING, "torch.instance_norm": _NORMALISING}
"""First parameters of the functions that have such arguments and no signature; other such ones take `out` by name."""

_SEVERAL = frozenset(
    """
    adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool2d_with_indices adaptive_max_pool3d
    adaptive_max_pool3d_with_indices aminmax broadcast_tensors chunk cummax cummin embedding_bag gru kthvalue lstm
    lstm_cell max max_pool1d max_pool1d_with_indices max_pool2d max_pool2d_with_indices max_pool3d
    max_pool3d_with_indices median meshgrid min mode multi_head_attention_forward rnn_relu rnn_tanh sort split
    std_mean tensor_split topk unbind var_mean where
    """.split()
)
"""Functions that give several tensors, some of them only if asked."""


def checked_program(value: Any) -> tuple[Any, ...]:
    """A program in its canonical form, or a `ValueError` that says what is wrong with it."""
    if not isinstance(value, list | tuple) or not 1 <= len(value) <= _MOST:
        raise ValueError("expected a list of steps")
    steps: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []
    single: list[bool] = []
    for place, step in enumerate(value):
        if not isinstance(step, list | tuple) or len(step) != 3 or not isinstance(step[0], str):
            raise ValueError(f"step {place}: expected [function, arguments, keyword arguments]")
        if not (allowed(step[0]) or remembered(step[0]) or _counts(step)):
            raise ValueError(f"step {place}: '{step[0]}' is none of the functions that a network's file may call")
        if not isinstance(step[1], list | tuple) or not isinstance(step[2], Mapping):
            raise ValueError(f"step {place}: expected a list and an object of arguments")
        arguments = tuple(_argument(each, place, 0) for each in step[1])
        keywords = {_keyword(name, place): _argument(each, place, 0) for name, each in step[2].items()}
        try:
            _check_numbers(step[0], [*arguments, *keywords.values()])
            _check_writes(step[0], arguments, keywords)
            _check_operator(step[0], arguments, keywords, single)
            _check_call(step[0], arguments, keywords)
        except ValueError as error:
            raise ValueError(f"step {place}: '{step[0]}': {error}") from None
        steps.append((step[0], arguments, keywords))
        single.append(_gives_one(step[0], arguments, keywords, single))
    return tuple(steps)


def _counts(step: Any) -> bool:
    """Whether a step is the one that writes."""
    first = step[1][0] if isinstance(step[1], list | tuple) and len(step[1]) == 2 else None
    counter = isinstance(first, Mapping) and first.keys() == {"tensor"}
    return step[0] == COUNT and counter and step[1][1] == _WHETHER and not step[2]


def _argument(value: Any, place: int, depth: int) -> Any:
    """An argument in its canonical form."""
    if depth > _DEEPEST:
        raise ValueError(f"step {place}: arguments are nested too deep")
    if value is None or isinstance(value, bool) or (isinstance(value, str) and len(value) <= _LONGEST):
        return value
    if isinstance(value, int) and abs(value) < 2**53:
        return value
    if isinstance(value, float) and isfinite(value):
        return value
    if isinstance(value, list | tuple):
        return tuple(_argument(each, place, depth + 1) for each in value)
    if isinstance(value, Mapping) and len(value) == 1:
        ((name, what),) = value.items()
        if name in ("in", "tensor", "batch"):
            return {name: whole(what)}
        if name == "step" and whole(what) < place:
            return {name: what}
        if name in ("training", "ellipsis") and what is True:
            return {name: True}
        if (name == "dtype" and what in _DTYPES) or (name == "number" and what in _WITHOUT_END):
            return {name: what}
        if name in ("slice", "tuple") and isinstance(what, list | tuple) and (name == "tuple" or len(what) == 3):
            return {name: tuple(_argument(each, place, depth + 1) for each in what)}
    raise ValueError(f"step {place}: expected plain values or references ({', '.join(_REFERENCES)}) as arguments")


def _keyword(name: Any, place: int) -> str:
    """The name of an argument, which Python reads as it is written."""
    text = str(name)
    if not text.isascii() or not text.isidentifier() or keyword.iskeyword(text):
        raise ValueError(f"step {place}: expected names of arguments, got {text[:_LONGEST]!a}")
    return text


def _check_numbers(target: str, value: Any) -> None:
    """Refuses whole numbers that are no size of anything; what is computed with may be larger."""
    prefix, _, name = target.partition(".")
    if prefix == "operator" or name in ELEMENTWISE:
        return
    if isinstance(value, int) and value > LIMIT:
        raise ValueError(f"expected no whole number above {LIMIT}, got {value}")
    for each in value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else ():
        _check_numbers(target, each)


def _check_writes(target: str, arguments: Sequence[Any], keywords: Mapping[str, Any]) -> None:
    """Refuses arguments, by name or by position, that make the function write, other than into its statistics."""
    if remembered(target):
        return  # that it does not write has been seen
    by_position = zip(_parameters(target), arguments, strict=False) if arguments else ()
    for name, value in (*by_position, *keywords.items()):
        if name in _WRITING and value is not None and value is not False:
            raise ValueError(f"expected none of the arguments {', '.join(sorted(_WRITING))}, which write in place")
        if name in _STATISTICS and not (value is None or _names(value, "tensor")):
            raise ValueError(f"expected a tensor of the node for {name}, which may be changed")


def _parameters(target: str) -> tuple[str, ...]:
    """Names of a function's parameters by position, as far as they are known."""
    signature = _signature(target)
    return _PARAMETERS.get(target) or (tuple(signature.parameters) if signature else ())


def _check_call(target: str, arguments: Sequence[Any], keywords: Mapping[str, Any]) -> None:
    """Refuses calls that lack a tensor where the function works on one, or arguments that it cannot do without."""
    if not _has_tensor([*arguments, *keywords.values()]):
        raise ValueError("expected a tensor")
    if target.startswith("method.") and not (arguments and _names(arguments[0], *_TENSORS)):
        raise ValueError("expected a tensor, whose method it is, as the first argument")
    first, least = _schema(target)
    if first and arguments and not _has_tensor(arguments[0]):
        raise ValueError("expected a tensor as the first argument")
    signature = _signature(target)
    try:
        if signature:
            signature.bind(*arguments, **keywords)
        elif len(arguments) + len(keywords) < least:
            raise TypeError(f"expected {least} arguments or more")
    except TypeError as error:
        raise ValueError(str(error)) from None


@cache
def _schema(target: str) -> tuple[bool, int]:
    """Whether a function of torch works on its first argument as on a tensor, and the least number of arguments."""
    import torch

    prefix, _, name = target.partition(".")
    full = f"aten::{prefix}_{name}" if prefix in ("special", "linalg", "fft") else f"aten::{name}"
    found = [] if prefix == "operator" else torch._C._jit_get_schemas_for_operator(full)
    needed = [sum(not each.has_default_value() for each in schema.arguments) for schema in found]
    kinds = {str(schema.arguments[0].type) for schema in found if schema.arguments}
    return bool(kinds) and kinds <= _KINDS and name not in ELEMENTWISE, min(needed, default=0)


@cache
def _signature(target: str) -> inspect.Signature | None:
    """The parameters of a function that Python knows them of."""
    try:
        return inspect.signature(function(target))
    except (GraphError, TypeError, ValueError):
        return None


def _has_tensor(value: Any) -> bool:
    """Whether an argument is a tensor, or holds one."""
    if isinstance(value, Mapping):
        return _names(value, *_TENSORS) or any(_has_tensor(each) for each in value.values())
    return isinstance(value, list | tuple) and any(_has_tensor(each) for each in value)


def _check_operator(target: str, arguments: Sequence[Any], keywords: Mapping[str, Any], single: Sequence[bool]) -> None:
    """Refuses what Python's operators would do with anything but tensors."""
    prefix, _, name = target.partition(".")
    if prefix != "operator":
        return
    if keywords:
        raise ValueError("an operator has no named arguments")
    if name == "getitem":
        if len(arguments) != 2 or not _names(arguments[0], *_TENSORS) or _has_text(arguments[1]):
            raise ValueError("expected a tensor and an index")
        return
    for each in arguments:
        if _names(each, "step") and not single[each["step"]]:
            raise ValueError("expected a tensor, not several")
        if not isinstance(each, int | float) and not _names(each, *_TENSORS, "batch", "training", "number"):
            raise ValueError("expected tensors and numbers")


def _gives_one(target: str, arguments: Sequence[Any], keywords: Mapping[str, Any], single: Sequence[bool]) -> bool:
    """Whether what a step gives is surely one tensor."""
    name = target.partition(".")[2]
    if name == "getitem" and target.startswith("operator."):
        source, index = arguments
        return isinstance(index, int) or not _names(source, "step") or single[source["step"]]
    if name in ("max", "min", "median") and len(arguments) == 1:
        return not keywords  # over all entries
    return name not in _SEVERAL or (name == "where" and len(arguments) == 3)


def _names(value: Any, *what: str) -> bool:
    """Whether an argument is a reference to one of these things."""
    return isinstance(value, Mapping) and not value.keys().isdisjoint(what)


def _has_text(value: Any) -> bool:
    if isinstance(value, Mapping):
        return not _names(value, "dtype") and any(_has_text(each) for each in value.values())
    return isinstance(value, str) or (isinstance(value, list | tuple) and any(map(_has_text, value)))


def references(value: Any) -> Iterator[tuple[str, int]]:
    """The operands and tensors that arguments refer to, each as (`in` or `tensor`, number).

    The batch size, which is that of operand 0, is (`batch`, 0).
    """
    if isinstance(value, Mapping):
        ((name, what),) = value.items()
        if name in ("slice", "tuple"):
            yield from references(what)
        elif name in ("in", "tensor"):
            yield name, what
        elif name == "batch":
            yield "batch", 0
    elif isinstance(value, list | tuple):
        for each in value:
            yield from references(each)
