"""Questions about values that a trace has no answer to: what goes on without the answer is no trace of the module.

A stand-in that is asked for its truth, its number or its length raises. A forward pass that catches that error, as
`except Exception` does, would be traced along a way that the module itself does not take, so the question is kept.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from graphs.importing.chance import own_file

if TYPE_CHECKING:
    from torch import nn

__all__ = ["ASKING", "Unanswered", "modes_seen"]

ASKING = ("__bool__", "__int__", "__float__", "__complex__", "__index__", "__len__")
"""Methods by which Python asks for a value."""

_GIVING = frozenset((*ASKING, "__contains__", "__array__", "item", "tolist", "numpy"))
"""Methods of a tensor that give values that are no tensors."""


@dataclass(frozen=True)
class Unanswered:
    """The errors with which questions were answered."""

    errors: list[Exception] = field(default_factory=list)

    def put(self, question: Callable[..., Any], *given: Any, **named: Any) -> Any:
        """Asks, and keeps the error if one is raised."""
        try:
            return question(*given, **named)
        except Exception as error:
            self.errors.append(error)
            raise

    @contextlib.contextmanager
    def heard(self) -> Iterator[None]:
        """Keeps what tensors, and sizes of unknown value, are asked within."""
        import torch
        from torch.overrides import TorchFunctionMode

        put = self.put

        class Hearing(TorchFunctionMode):
            def __torch_function__(self, function: Any, types: Any, arguments: Any = (), keywords: Any = None) -> Any:
                asked = getattr(function, "__name__", "") in _GIVING
                named = keywords or {}
                return put(function, *arguments, **named) if asked else function(*arguments, **named)

        def hearing(question: Callable[[Any], Any]) -> Callable[[Any], Any]:
            def ask(size: Any) -> Any:
                # Torch asks, too, and knows how to go on.
                own = own_file(sys._getframe(1).f_code.co_filename)
                return put(question, size) if own else question(size)

            return ask

        kinds = (torch.SymBool, torch.SymInt, torch.SymFloat)
        plain = [(kind, name, vars(kind)[name]) for kind in kinds for name in ASKING if name in vars(kind)]
        try:
            for kind, name, question in plain:
                setattr(kind, name, hearing(question))
            with Hearing():
                yield
        finally:
            for kind, name, question in plain:
                setattr(kind, name, question)


@contextlib.contextmanager
def modes_seen(note: Callable[[nn.Module], None]) -> Iterator[None]:
    """Calls `note` with each module that is asked for its mode, or given one, within; may be nested."""
    from torch import nn

    outer = vars(nn.Module).get("training")

    class Mode:
        def __get__(self, owner: nn.Module | None, kind: type) -> bool:
            if owner is None:
                raise AttributeError("training")
            note(owner)
            mode: bool = outer.__get__(owner, kind) if outer else owner.__dict__["training"]
            return mode

        def __set__(self, owner: nn.Module, mode: bool) -> None:
            note(owner)
            if outer:
                outer.__set__(owner, mode)
            else:
                owner.__dict__["training"] = mode

    nn.Module.training = Mode()  # type: ignore[assignment]
    try:
        yield
    finally:
        if outer:
            nn.Module.training = outer
        else:
            del nn.Module.training
