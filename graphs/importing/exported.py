"""The way in for modules that `torch.fx` cannot trace: `torch.export`, which follows Python's control flow.

It records the aten calls that the example leads to, with the batch size free; layers such as recurrent ones, and
branches on shapes, are resolved. What depends on the values of tensors cannot be recorded by it either.
"""

from __future__ import annotations

import contextlib
import operator
from collections.abc import Iterator, Mapping
from math import isnan, nan
from typing import TYPE_CHECKING, Any

from graphs.errors import GraphError
from graphs.importing.asking import Unanswered
from graphs.importing.chance import nothing_drawn
from graphs.importing.gradients import own_gradients
from graphs.importing.hints import causal_unasked
from graphs.importing.layers import layer_of
from graphs.importing.lengths import lengths
from graphs.importing.observing import quiet
from graphs.importing.tracing import ADVICE, Trace, Untraced, leave_counting, where

if TYPE_CHECKING:
    from torch import Tensor, fx, nn

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
        with (
            nothing_drawn(),
            own_gradients(),
            quiet(),
            unanswered.heard(),
            lengths(module, _free_length),
            causal_unasked(),
            _some_momentum(module),
        ):
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
    leave_counting(whole.graph)
    for node in list(whole.graph.nodes):
        if str(node.target) == "aten.batch_norm.default" and isnan(node.args[6]):
            node.update_arg(6, None)
        elif str(node.target) == "aten.detach_.default" and str(node.args[0].target) == "aten.lift_fresh_copy.default":
            node.replace_all_uses_with(node.args[0])  # what torch.tensor has made of numbers has no gradient
            whole.graph.erase_node(node)
        elif str(node.target) == "wrap_with_set_grad_enabled":
            _unwrap(whole, node)
        elif str(node.target) == "wrap_with_autocast":
            _, _, enabled, _, *inner = node.args
            if enabled:
                raise GraphError("it computes within torch.autocast; leave that to whoever runs the network")
            node.args = (True, *inner)
            _unwrap(whole, node)
    for node in list(whole.graph.nodes):
        if _is_in_place(node):
            _as_index(whole.graph, node)
    if not any(_is_in_place(node) for node in whole.graph.nodes):
        _as_values(whole.graph)
    whole.graph.eliminate_dead_code(lambda node: str(node.target) not in _VIEWS)
    return Trace(whole.graph, whole, training)


@contextlib.contextmanager
def _some_momentum(module: nn.Module) -> Iterator[None]:
    """Gives norms without a momentum one that is no number: they do not look at how many batches they have seen."""
    norms: list[Any] = [part for part in module.modules() if vars(part).get("momentum", 0) is None]
    averaging = [part for part in norms if (layer_of(part) or ("",))[0] == "batch_norm"]
    try:
        for part in averaging:
            part.momentum = nan
        yield
    finally:
        for part in averaging:
            part.momentum = None


def _free_length(value: Any) -> Any:
    """The size of a tensor's first axis, where that is free; Python's `len` would make a plain number of it."""
    import torch

    free = isinstance(value, torch.Tensor) and value.ndim > 0 and isinstance(value.shape[0], torch.SymInt)
    return value.shape[0] if free else None


_VIEWS = ("aten.slice.Tensor", "aten.select.int")
"""What an assignment to a part of a tensor takes of it."""


def _is_in_place(node: fx.Node) -> bool:
    return hasattr(node.target, "_schema") and node.target.__name__.partition(".")[0].endswith("_")  # type: ignore[union-attr]


def _as_values(graph: fx.Graph) -> None:
    """Takes out what is about memory alone, where nothing is changed in place: the modes may differ in no more."""
    import torch

    for node in list(graph.nodes):
        if str(node.target) == "aten.contiguous.default":
            node.replace_all_uses_with(node.args[0])
            graph.erase_node(node)
        elif str(node.target) == "aten.view.default":
            node.target = torch.ops.aten.reshape.default


def _unwrap(whole: Any, node: fx.Node) -> None:
    """Puts the calls of a block that is run with or without gradients, such as `torch.no_grad()`, in its place."""
    enabled, block, *given = node.args
    inside: Any = getattr(whole, str(block.target))  # type: ignore[union-attr]
    names = [each for each in inside.graph.nodes if each.op == "placeholder"]
    values: dict[fx.Node, Any] = dict(zip(names, given, strict=True))
    with whole.graph.inserting_before(node):
        results = whole.graph.graph_copy(inside.graph, values)
    for each in inside.graph.nodes:
        if each in values and each.op not in ("placeholder", "output"):
            values[each].meta["no gradient"] = not enabled
    for user in list(node.users):
        user.replace_all_uses_with(results[user.args[1]])
        whole.graph.erase_node(user)
    whole.graph.erase_node(node)


def _as_index(graph: fx.Graph, node: fx.Node) -> None:
    """Makes the part that a call writes into one index of a whole, where slices and rows of it were taken in turn."""
    part: Any = node.args[0]
    whole, index = part, [slice(None)] * part.meta["val"].ndim
    while str(whole.target) in _VIEWS:
        source, axis, *rest = whole.args
        axis %= source.meta["val"].ndim
        if whole.target.__name__ == "select.int":
            index.insert(axis, *rest)
        elif index[axis] == slice(None):
            start, stop, step = [*rest, None, None, None][:3]
            index[axis] = slice(start or None, None if stop == _END else stop, step)
        else:
            break
        whole = source
    if whole is not part:
        with graph.inserting_before(node):
            node.args = (graph.call_function(operator.getitem, (whole, tuple(index))), *node.args[1:])


_END = 2**63 - 1
"""Where a slice ends that has no end."""


def _reason(error: Exception) -> str:
    """What keeps a forward pass from being recorded, in a line."""
    text = str(error)
    if "data-dependent" in text:
        return "what it does depends on the values of tensors" + ADVICE
    if text.startswith("Constraints violated"):
        return "what it does depends on the number of examples, which would bake that in"
    return f"{type(error).__name__}: {text}".splitlines()[0]
