"""What a module does to gradients beyond what its operations do: taken over where a node can say it, else refused.

What is computed without gradients, within `torch.no_grad()`, is marked by the trace and leaves as a detached value.
Functions with a gradient of their own and hooks on gradients have no node.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from graphs.errors import GraphError

if TYPE_CHECKING:
    from torch import nn

__all__ = ["check_hooks", "own_gradients_refused"]


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


@contextlib.contextmanager
def own_gradients_refused() -> Iterator[None]:
    """Refuses what is called within and has a gradient of its own; gradients are switched on.

    Raises:
        GraphError: A `torch.autograd.Function` of the user's is applied, or a hook put on a tensor.
    """
    import torch

    function: Any = torch.autograd.Function
    apply, hook = vars(function)["apply"], torch.Tensor.register_hook

    def refuse(kind: Any, *arguments: Any, **keywords: Any) -> Any:
        if kind.__module__.startswith("torch.") and not kind.__module__.startswith("torch.utils.checkpoint"):
            return apply.__get__(None, kind)(*arguments, **keywords)
        raise GraphError(
            f"it applies '{kind.__name__}', a torch.autograd.Function, whose gradient would be lost; write it with "
            "functions of torch, such as x + (y - x).detach() for y with the gradient of x"
        )

    def unhooked(tensor: Any, *arguments: Any) -> Any:
        raise GraphError("it puts a hook on a tensor's gradient, which would be lost; leave the hook out")

    function.apply, torch.Tensor.register_hook = classmethod(refuse), unhooked  # type: ignore[method-assign]
    try:
        with torch.enable_grad():
            yield
    finally:
        function.apply, torch.Tensor.register_hook = apply, hook  # type: ignore[method-assign]
