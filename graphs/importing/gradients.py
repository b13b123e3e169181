"""What a module does to gradients beyond what its operations do: taken over where a node can say it, else refused.

What is computed without gradients, within `torch.no_grad()`, is marked by the trace and leaves as a detached value.
A function with a gradient of its own is one call, of which nothing else can be said: what is taken in with it runs in
this process alone (`graphs.kinds.in_memory`). Hooks on gradients have no node.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from graphs.errors import GraphError

if TYPE_CHECKING:
    from torch import nn

__all__ = ["check_hooks", "own_gradients"]


def check_hooks(module: nn.Module) -> None:
    """Passes modules whose gradients nothing watches or changes.

    Raises:
        GraphError: A parameter or a part has a backward hook; names it.
    """
    for name, parameter in module.named_parameters():
        if parameter._backward_hooks or getattr(parameter, "_post_accumulate_grad_hooks", None):
            raise GraphError(
                f"parameter '{name}' has a hook on its gradient, which would be lost; remove the hook first"
            )
    for path, part in module.named_modules():
        if part._backward_hooks or part._backward_pre_hooks:
            raise GraphError(f"the part '{path}' has a backward hook, which would be lost; remove the hook first")


Recorder = Callable[[Any, tuple[Any, ...], dict[str, Any]], Any]
"""Notes that a `torch.autograd.Function` is applied to arguments and gives what stands for the result; None where
there is no stand-in among the arguments."""


@contextlib.contextmanager
def own_gradients(record: Recorder | None = None) -> Iterator[None]:
    """What is called within and has a gradient of its own is recorded as one call, or refused; gradients are on.

    Args:
        record: Refused if None.

    Raises:
        GraphError: A `torch.autograd.Function` of the user's is applied and not recorded, or a hook put on a tensor.
    """
    import torch

    # A method that was taken from a class earlier, as in `sign = Sign.apply`, comes by here too.
    below: Any = torch.autograd.function._SingleLevelFunction
    hook = torch.Tensor.register_hook

    def apply(kind: Any, *arguments: Any, **keywords: Any) -> Any:
        home = kind.__module__
        if home.startswith("torch.") and not home.startswith(_OTHERS):
            return super(below, kind).apply(*arguments, **keywords)
        if record and not home.startswith("torch."):
            result = record(kind, arguments, keywords)
            if result is not None:
                return result
            if not any(isinstance(each, torch.Tensor) and each.requires_grad for each in arguments):
                return super(below, kind).apply(*arguments, **keywords)
        raise GraphError(
            f"it applies '{kind.__name__}', a torch.autograd.Function, whose gradient would be lost; write it with "
            "functions of torch, such as x + (y - x).detach() for y with the gradient of x"
        )

    def unhooked(tensor: Any, *arguments: Any) -> Any:
        raise GraphError("it puts a hook on a tensor's gradient, which would be lost; leave the hook out")

    below.apply, torch.Tensor.register_hook = classmethod(apply), unhooked  # type: ignore[method-assign]
    try:
        with torch.enable_grad():
            yield
    finally:
        del below.apply
        torch.Tensor.register_hook = hook  # type: ignore[method-assign]


_OTHERS = ("torch.utils.checkpoint", "torch._functorch.autograd_function")
"""Modules of torch whose functions stand for what the user's code does."""
