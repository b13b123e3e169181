"""Group norms that learn although nothing before them does, as behind a frozen body or at the start of a network.

On a processor, torch's backward pass of a group norm ends the process where the operand lies channels last in memory
and needs no gradient. In whichever way it came to lie so, `guarded` has such a norm read a copy in the layout of its
shape instead. No other layer that a network may have is known to do so.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, fx, nn
from torch.nn import functional

__all__ = ["guarded"]

FUNCTIONS = (functional.group_norm, torch.group_norm)


def guarded(module: nn.Module) -> None:
    """Puts what makes the copy in front of each group norm of a module's generated forward pass.

    Its layers, tensors and their names stay as they are.
    """
    if not isinstance(module, fx.GraphModule):
        return
    norms = list(_norms(module))
    for node, parameters in norms:
        named = "input" in node.kwargs
        value = node.kwargs["input"] if named else node.args[0]
        with module.graph.inserting_before(node):
            read = [module.graph.get_attr(each) if isinstance(each, str) else each for each in parameters]
            copied = module.graph.call_function(_apart, (value, *read))
        if named:
            node.kwargs = {**node.kwargs, "input": copied}
        else:
            node.args = (copied, *node.args[1:])
    if norms:
        module.recompile()


def _norms(module: fx.GraphModule) -> Iterator[tuple[fx.Node, list[fx.Node | str]]]:
    """The group norms, each with its parameters or the names of these."""
    for node in module.graph.nodes:
        if node.op == "call_function" and node.target in FUNCTIONS:
            rest = (*node.args[1:], *(value for name, value in node.kwargs.items() if name != "input"))
            yield node, [each for each in rest if isinstance(each, fx.Node)]
        elif node.op == "call_module" and isinstance(layer := module.get_submodule(node.target), nn.GroupNorm):
            yield node, [f"{node.target}.{name}" for name, _ in layer.named_parameters()]


def _apart(value: Tensor, *parameters: Tensor) -> Tensor:
    """The value, or a copy where its norm's backward pass would not come through.

    `contiguous` is not enough: it leaves the strides of another layout where an axis has size 1.
    """
    learns = torch.is_grad_enabled() and any(each.requires_grad for each in parameters)
    if learns and not value.requires_grad and value.device.type == "cpu":
        return value.clone(memory_format=torch.contiguous_format)
    return value
