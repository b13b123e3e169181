"""The way in for modules that `torch.fx` cannot trace: `torch.export`, which follows Python's control flow.

It records the aten calls that the example leads to, with the batch size free; layers such as recurrent ones, and
branches on shapes, are resolved. What depends on the values of tensors cannot be recorded by it either.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from graphs.errors import GraphError
from graphs.importing.asking import Unanswered
from graphs.importing.chance import nothing_drawn
from graphs.importing.gradients import own_gradients_refused
from graphs.importing.observing import quiet
from graphs.importing.tracing import ADVICE, Trace, Untraced, where

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["trace_exported"]


def trace_exported(module: nn.Module, given: Mapping[str, Tensor], training: bool) -> Trace:
    """Records one mode.

    Args:
        module: A copy that may be changed; see `graphs.importing.copying`.
        given: The example by argument.
        training: The mode.

    Raises:
        GraphError: The forward pass cannot be recorded.
    """
    import torch
    from torch.utils import _pytree as pytree

    module.train(training)
    batch = torch.export.Dim("batch", min=1, max=2**20)
    # An example of one would be taken for a size that is always 1.
    example = {name: tensor if len(tensor) > 1 else torch.cat([tensor, tensor]) for name, tensor in given.items()}
    unanswered = Unanswered()
    try:
        with nothing_drawn(), own_gradients_refused(), quiet(), unanswered.heard():
            shapes = {name: {0: batch} for name in example}
            program = torch.export.export(module, (), dict(example), dynamic_shapes=shapes, strict=False)
            whole: Any = program.module(check_guards=False)
    except GraphError:
        raise
    except Exception as error:
        raise Untraced(where(error), _reason(error)) from error
    if unanswered.errors:
        raise Untraced(where(unanswered.errors[0]), _reason(unanswered.errors[0]))
    (output,) = (node for node in whole.graph.nodes if node.op == "output")
    spec = program.call_spec.out_spec
    output.args = (pytree.tree_unflatten(list(output.args[0]), spec) if spec is not None else output.args[0],)
    for node in list(whole.graph.nodes):
        # Batch norms count their batches in train mode, which their nodes do too.
        if str(node.target).startswith("aten.add_.") and str(node.args[0].target).endswith("num_batches_tracked"):
            node.replace_all_uses_with(node.args[0])
            whole.graph.erase_node(node)
    return Trace(whole.graph, whole, training)


def _reason(error: Exception) -> str:
    """What keeps a forward pass from being recorded, in a line."""
    text = str(error)
    if "data-dependent" in text:
        return "what it does depends on the values of tensors" + ADVICE
    if text.startswith("Constraints violated"):
        return "what it does depends on the number of examples, which would bake that in"
    return f"{type(error).__name__}: {text}".splitlines()[0]
