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

    base: Any = torch.autograd.Function
    plain, hook = vars(base)["apply"], torch.Tensor.register_hook

    def own(kind: Any, arguments: tuple[Any, ...], keywords: dict[str, Any], otherwise: Callable[[], Any]) -> Any:
        """What stands for the result; what the function gives `otherwise`, where it has no gradient to lose."""
        if record and not kind.__module__.startswith("torch."):
            with torch.enable_grad():
                result = record(kind, arguments, keywords)
            if result is not None:
                return result
            if not any(isinstance(each, torch.Tensor) and each.requires_grad for each in arguments):
                return otherwise()
        raise GraphError(
            f"it applies '{kind.__name__}', a torch.autograd.Function, whose gradient would be lost; write it with "
            "functions of torch, such as x + (y - x).detach() for y with the gradient of x"
        )

    def apply(kind: Any, *arguments: Any, **keywords: Any) -> Any:
        call = plain.__get__(None, kind)
        if kind.__module__.startswith("torch.") and not kind.__module__.startswith(_OTHERS):
            return call(*arguments, **keywords)
        return own(kind, arguments, keywords, lambda: call(*arguments, **keywords))

    def watched(kind: Any) -> Any:
        """The forward pass of a function whose method `apply` was taken earlier, as in `sign = Sign.apply`."""
        forward = kind.forward

        def enter(*arguments: Any, **keywords: Any) -> Any:
            given = arguments[isinstance(next(iter(arguments), None), torch.autograd.function.FunctionCtx) :]
            return own(kind, given, keywords, lambda: forward(*arguments, **keywords))

        return staticmethod(enter)

    def unhooked(tensor: Any, *arguments: Any) -> Any:
        raise GraphError("it puts a hook on a tensor's gradient, which would be lost; leave the hook out")

    apply.plain = plain  # type: ignore[attr-defined]  # for who calls it as it is
    kinds = [kind for kind in _below(base) if not kind.__module__.startswith("torch.")]
    forwards = [(kind, vars(kind).get("forward")) for kind in kinds]
    for kind, forward in [(kind, watched(kind)) for kind in kinds]:
        kind.forward = forward
    base.apply, torch.Tensor.register_hook = classmethod(apply), unhooked  # type: ignore[method-assign]
    try:
        with torch.enable_grad():
            yield
    finally:
        base.apply, torch.Tensor.register_hook = plain, hook  # type: ignore[method-assign]
        for kind, known in forwards:
            if known is None:
                del kind.forward
            else:
                kind.forward = known


def _below(kind: Any) -> list[Any]:
    """All subclasses of a class."""
    return [found for each in kind.__subclasses__() for found in (each, *_below(each))]


_OTHERS = ("torch.utils.checkpoint", "torch._functorch.autograd_function")
"""Modules of torch whose functions stand for what the user's code does."""
