"""The functions and methods that become nodes of a kind.

A converter is called with the lowering and the traced call's arguments, in which nodes stand for tensors. It gives what
stands for the result, or raises `Decline`: then the call becomes a function of each element, or an opaque node.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any, get_type_hints

from graphs.importing.calls.attention import ATTENTION_CALLS, attention_layer
from graphs.importing.calls.casting import CASTS, cast
from graphs.importing.calls.elsewhere import layer_elsewhere
from graphs.importing.calls.joining import JOINING_CALLS
from graphs.importing.calls.layers import LAYER_CALLS
from graphs.importing.calls.making import MAKING_CALLS
from graphs.importing.calls.numbers import NUMBER_CALLS, attribute, length, number
from graphs.importing.calls.picking import ALONE, PICKING_CALLS, picked
from graphs.importing.calls.rearranging import REARRANGING_CALLS
from graphs.importing.calls.rows import apart_again
from graphs.importing.calls.vision import VISION
from graphs.importing.calls.writing import WRITING_CALLS, written
from graphs.importing.lowering import Lowering
from graphs.importing.stand_ins import Decline, Held, Numbering, OwnType, Program, Ref, Unknown, any_of

Converter = Callable[..., Any]

__all__ = ["ALONE", "attention_layer", "convert", "layer_elsewhere", "written"]


def convert(low: Lowering, target: str, arguments: Sequence[Any], keywords: Mapping[str, Any]) -> Any:
    """What stands for the result of a traced call."""
    prefix, _, name = target.partition(".")
    given = arguments, keywords
    arguments = [_plain_type(each) for each in arguments]
    keywords = {name: _plain_type(each) for name, each in keywords.items()}
    if unknown := next((each for each in (*arguments, *keywords.values()) if isinstance(each, Unknown)), None):
        return unknown
    if target == "python.getattr":
        return attribute(low, *arguments)
    if target == "python.len":
        return length(low, *arguments)
    if any_of(lambda each: isinstance(each, Numbering), [*arguments, *keywords.values()]):
        return low.unknown([*arguments, *keywords.values()]) or picked(low, name, arguments)
    if target in CASTS and (found := cast(low, target, *given)) is not None:
        return found
    if prefix == "operator" and not any(isinstance(each, Ref | Held | Program) for each in arguments):
        return number(low, name, arguments)
    if (unknown := low.unknown([*arguments, *keywords.values()])) is not None:
        return unknown
    converter = CALLS.get(target) or (
        CALLS.get(name) if prefix in ("torch", "functional", "method", "operator", "aten") else None
    )
    if converter is not None and _takes(converter, low, arguments, keywords):
        try:
            return converter(low, *arguments, **keywords)
        except Decline:
            pass
    found = apart_again(low, convert, target, arguments[0]) if arguments else None
    return low.call(target, arguments, keywords) if found is None else found


def _plain_type(value: Any) -> Any:
    return value.dtype if isinstance(value, OwnType) else value


def _takes(converter: Converter, low: Lowering, arguments: Sequence[Any], keywords: Mapping[str, Any]) -> bool:
    """Whether a converter has parameters for these arguments, and is given plain values where it wants them."""
    signature, plain = _parameters(converter)
    try:
        bound = signature.bind(low, *arguments, **keywords).arguments
    except TypeError:
        return False
    return all(isinstance(bound[name], wanted) for name, wanted in plain.items() if name in bound)


@cache
def _parameters(converter: Converter) -> tuple[inspect.Signature, Mapping[str, Any]]:
    """A converter's parameters, and the types of those that stand for plain values."""
    hints = get_type_hints(converter)
    plain = {name: _PLAIN[hint] for name, hint in hints.items() if hint in _PLAIN and name != "return"}
    return inspect.signature(converter), plain


_PLAIN: dict[Any, Any] = {bool: bool, int: int, int | None: int | None, float: int | float, str: str}
_PLAIN[float | None] = int | float | None


CALLS: dict[str, Callable[..., Any]] = {
    **LAYER_CALLS,
    **ATTENTION_CALLS,
    **JOINING_CALLS,
    **REARRANGING_CALLS,
    **WRITING_CALLS,
    **NUMBER_CALLS,
    **PICKING_CALLS,
    **MAKING_CALLS,
    **VISION,
}
"""The converters by name, wherever the function is from: `torch`, `torch.nn.functional`, a method, an operator.

Those that are from one place alone stand under their whole name.
"""
