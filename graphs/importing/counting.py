"""Numbers that a trace can be told: sizes other than the batch's, and what is computed from such.

What was traced up to there is run without numbers, for batches of two sizes. Where a value is a plain number that does
not depend on the batch, or has as many entries for any, the code may go on with it, as in `range(x.shape[1])`,
`first, *rest = x.shape` or `map(f, x.chunk(3))`. What depends on entries of tensors, or on the batch, stays unknown.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from graphs.importing.observing import BATCHES

if TYPE_CHECKING:
    import torch
    from torch import Tensor, fx, nn

__all__ = ["Counter"]

_SIZES = frozenset({"shape", "ndim", "size", "dim", "ndimension", "numel", "nelement", len})
"""What may be asked of a tensor: all else may depend on its entries, on its type, or on whether it is trained."""


class Counter:
    """Runs a trace as far as it is, each call once.

    Attributes:
        running: It does so now: what is called is no part of the trace.
    """

    def __init__(self, module: nn.Module, given: Mapping[str, Tensor]) -> None:
        self.module, self.given, self.running = module, given, False
        self._values: list[dict[fx.Node, Any]] = [{} for _ in BATCHES]

    def number(self, node: fx.Node) -> int | float | bool | None:
        """The plain number that a node is for batches of any size; None if it is none, or not known."""
        found = self._found(node)
        plain = found is not None and isinstance(found[0], int | float)
        return found[0] if found and plain and self._is_settled(node) else None

    def entries(self, node: fx.Node) -> int | None:
        """How many entries the value of a node has; None if that is not known, or depends on the batch."""
        found = self._found(node)
        try:
            lengths = {len(each) for each in found or ()}
        except TypeError:
            return None
        return lengths.pop() if len(lengths) == 1 else None

    def dtype(self, node: fx.Node) -> torch.dtype | None:
        """The type of numbers that a node names; None if it names none."""
        import torch

        found = self._found(node)
        return found[0] if found and isinstance(found[0], torch.dtype) else None

    def _is_settled(self, node: fx.Node) -> bool:
        """Whether a number is made of numbers that are the same for any batch, and of what tensors are."""
        from torch import Tensor

        one, other = (values[node] for values in self._values)
        if one != other:
            return False
        asked = node.args[1] if node.target is getattr else node.target
        for source in node.all_input_nodes:
            made = [values[source] for values in self._values]
            if isinstance(made[0], int | float) and not self._is_settled(source):
                return False
            if isinstance(made[0], Tensor) and asked not in _SIZES:
                return False
            # Of several numbers, one may be the batch's.
            part = node.target in (operator.getitem, len)
            if not isinstance(made[0], int | float | Tensor) and not part and made[0] != made[1]:
                return False
        return True

    def _found(self, node: fx.Node) -> list[Any] | None:
        """The value of a node for each size of the batch; None where it cannot be computed without numbers."""
        with self._run():
            try:
                return [self._value(node, place) for place in range(len(BATCHES))]
            except Exception:  # whatever a call of the user's does not like about values without numbers
                return None

    @functools.cached_property
    def _fake(self) -> Any:
        from torch._subclasses import FakeTensorMode

        return FakeTensorMode(allow_non_fake_inputs=True)

    @contextmanager
    def _run(self) -> Iterator[None]:
        import torch

        self.running = True
        try:
            with torch.no_grad(), self._fake:
                yield
        finally:
            self.running = False

    def _value(self, node: fx.Node, place: int) -> Any:
        values = self._values[place]
        for each in node.graph.nodes:
            if each not in values:
                values[each] = self._called(each, values, place)
            if each is node:
                break
        return values[node]

    def _called(self, node: fx.Node, values: Mapping[fx.Node, Any], place: int) -> Any:
        from torch.fx.node import map_arg

        if node.op == "placeholder":
            example = self.given[str(node.target)]
            return self._fake.from_tensor(example[:1].expand(BATCHES[place], *example.shape[1:]))
        if node.op == "get_attr":
            return self._reached(str(node.target))
        arguments = map_arg(node.args, lambda each: values[each])
        keywords = map_arg(node.kwargs, lambda each: values[each])
        if node.op == "call_method":
            value, *rest = arguments
            return getattr(value, str(node.target))(*rest, **keywords)
        called: Callable[..., Any] = node.target  # type: ignore[assignment]
        if node.op == "call_module":
            called = self._reached(str(node.target))
        return called(*arguments, **keywords)

    def _reached(self, path: str) -> Any:
        found: Any = self.module
        for part in path.split("."):
            found = getattr(found, part)
        return found
