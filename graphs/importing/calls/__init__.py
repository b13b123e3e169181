"""The functions and methods that become nodes of a kind.

A converter is called with the lowering and the traced call's arguments, in which nodes stand for tensors. It gives what
stands for the result, or raises `Decline`: then the call becomes a function of each element, or an opaque node.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from graphs.importing.calls.attention import ATTENTION_CALLS, attention_layer
from graphs.importing.calls.joining import JOINING_CALLS
from graphs.importing.calls.layers import LAYER_CALLS
from graphs.importing.calls.numbers import NUMBER_CALLS, attribute, number
from graphs.importing.calls.rearranging import REARRANGING_CALLS
from graphs.importing.calls.vision import VISION
from graphs.importing.lowering import Lowering
from graphs.importing.stand_ins import Decline, Held, Program, Ref

__all__ = ["attention_layer", "convert"]


def convert(low: Lowering, target: str, arguments: Sequence[Any], keywords: Mapping[str, Any]) -> Any:
    """What stands for the result of a traced call."""
    prefix, _, name = target.partition(".")
    if target == "python.getattr":
        return attribute(low, *arguments)
    if prefix == "operator" and not any(isinstance(each, Ref | Held | Program) for each in arguments):
        return number(low, name, arguments)
    converter = VISION.get(target) or (
        CALLS.get(name) if prefix in ("torch", "functional", "method", "operator", "aten") else None
    )
    if converter is not None:
        try:
            return converter(low, *arguments, **keywords)
        except (Decline, TypeError):
            pass
    return low.call(target, arguments, keywords)


CALLS: dict[str, Callable[..., Any]] = {
    **LAYER_CALLS,
    **ATTENTION_CALLS,
    **JOINING_CALLS,
    **REARRANGING_CALLS,
    **NUMBER_CALLS,
}
"""The converters by name, wherever the function is from: `torch`, `torch.nn.functional`, a method, an operator."""
