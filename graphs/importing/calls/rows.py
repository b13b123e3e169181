"""Rows: examples and places merged into one axis, layers that treat each row alone, and the places apart again.

Such layers give the same where the axes stay apart, so that what they mix are channels still.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from graphs.importing.lowering import Lowering
from graphs.importing.stand_ins import Program, Ref
from graphs.kinds import KINDS

__all__ = ["apart_again"]

Converter = Callable[[Lowering, str, Sequence[Any], dict[str, Any]], Any]

_RESHAPES = frozenset({"method.view", "method.reshape", "torch.reshape", "method.flatten", "torch.flatten"})
_SPLITS = _RESHAPES | {"method.unflatten", "torch.unflatten"}

_LAYERS = {
    "torch.addmm": 1,
    **dict.fromkeys(("functional.linear", "operator.matmul", "torch.matmul", "method.matmul", "torch.mm"), 0),
    **{
        f"functional.{name}": 0
        for name in ("relu", "gelu", "silu", "tanh", "sigmoid", "elu", "leaky_relu", "hardswish")
    },
    **{f"torch.{name}": 0 for name in ("relu", "tanh", "sigmoid")},
    **{f"method.{name}": 0 for name in ("relu", "tanh", "sigmoid")},
}
"""Functions that treat each row alone, and which of their arguments has the rows."""


def apart_again(low: Lowering, convert: Converter, target: str, value: Any) -> Ref | None:
    """The node for rows that are examples and places again; None where something else is done."""
    if target not in _SPLITS or not isinstance(value, Program) or not low.now.batched:
        return None
    found = _with_places(low, convert, value)
    return found if found is not None and low.shape(found) == low.now.shapes[0][1:] else None


def _with_places(low: Lowering, convert: Converter, rows: Program) -> Ref | None:
    """What rows are where examples and places have not been merged."""
    if id(rows) in low.apart_rows:
        return low.apart_rows[id(rows)][1]
    found: Any = None
    value = rows.arguments[0] if rows.arguments else None
    if rows.target in _RESHAPES and isinstance(value, Ref) and not value.bare and low.depends(value):
        shape = low.shape(value)
        found = value if len(shape) > 1 and all(seen[1:] == shape[-1:] for seen in rows.seen.shapes) else None
    elif rows.target in _LAYERS:
        place = _LAYERS[rows.target]
        inner = rows.arguments[place] if len(rows.arguments) > place else None
        whole = _with_places(low, convert, inner) if isinstance(inner, Program) else None
        if whole is not None:
            arguments = [*rows.arguments[:place], whole, *rows.arguments[place + 1 :]]
            found = convert(low, rows.target, arguments, dict(rows.keywords))
    known = isinstance(found, Ref) and not KINDS[low.draft.nodes[found.node].kind].wall
    result = found if known else None
    low.apart_rows[id(rows)] = rows, result
    return result
