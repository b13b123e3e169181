"""The forward pass of a module as graphs of `torch.fx`, for each mode."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from graphs.errors import GraphError

if TYPE_CHECKING:
    from torch import Tensor, fx, nn

__all__ = ["Trace", "copied", "examples", "trace"]


@dataclass(frozen=True, slots=True)
class Trace:
    """One mode: the graph, the module that it calls and whose constants it names, and which mode it is."""

    graph: fx.Graph
    root: nn.Module
    training: bool


def examples(module: nn.Module, example: Any) -> dict[str, Tensor]:
    """The example by the names of the forward pass's arguments.

    Raises:
        GraphError: It does not fit the arguments, or is no batch of tensors.
    """
    from torch import Tensor

    parameters = [
        name
        for name, parameter in inspect.signature(module.forward).parameters.items()
        if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
    ]
    if isinstance(example, Mapping):
        given = dict(example)
    else:
        values = example if isinstance(example, tuple | list) else (example,)
        if len(values) > len(parameters):
            raise GraphError(
                f"the example has {len(values)} inputs, but forward takes {len(parameters)}: {', '.join(parameters)}"
            )
        given = dict(zip(parameters, values, strict=False))
    for name, value in given.items():
        if name not in parameters:
            raise GraphError(f"forward has no argument '{name}'; it takes {', '.join(parameters)}")
        if not isinstance(value, Tensor) or value.ndim < 1 or len(value) < 1:
            raise GraphError(f"the example for '{name}' is no tensor with a batch axis; give one, or leave it out")
    if not given:
        raise GraphError("expected an example of at least one input, a tensor (N, ...)")
    return given


def copied(module: nn.Module) -> nn.Module:
    """A copy with the same parameters and with buffers of its own, so that running it leaves the original as it is."""
    return copy.deepcopy(module, {id(tensor): tensor for tensor in module.parameters()})


def trace(module: nn.Module, given: Mapping[str, Tensor], training: bool) -> Trace:
    """Traces one mode; layers that have a kind are called, all other modules traced through.

    Args:
        module: A copy that may be changed; see `copied`.
        given: The example by argument.
        training: The mode.

    Raises:
        GraphError: The forward pass cannot be traced; names the line where it stopped.
    """
    from torch import fx

    from graphs.importing.layers import layer_of

    class Tracer(fx.Tracer):
        proxy_buffer_attributes = True

        def is_leaf_module(self, submodule: nn.Module, path: str) -> bool:
            return layer_of(submodule) is not None

    module.train(training)
    tracer = Tracer()
    tracer.record_stack_traces = True
    left_out = {
        name: parameter.default
        for name, parameter in inspect.signature(module.forward).parameters.items()
        if name not in given and parameter.default is not parameter.empty
    }
    try:
        graph = tracer.trace(module, concrete_args=left_out or None)
    except Exception as error:
        raise GraphError(f"{_where(error)}{error}".split("\n")[0] + _advice(error)) from error
    return Trace(graph, module, training)


def _where(error: BaseException) -> str:
    """The last line of the user's own code before tracing stopped."""
    frames = inspect.getinnerframes(error.__traceback__) if error.__traceback__ else []
    own = [frame for frame in frames if "torch" not in frame.filename.split("site-packages")[-1].split("/")[1:2]]
    own = [frame for frame in own if not frame.filename.endswith("importing/tracing.py")]
    if not own:
        return "cannot trace this module: "
    last = own[-1]
    line = last.code_context[0].strip() if last.code_context else ""
    return f"cannot trace {last.filename}:{last.lineno}, in {last.function}: '{line}': "


def _advice(error: BaseException) -> str:
    return (
        "; a forward pass can be taken in if its control flow does not depend on the values of tensors: "
        "move such decisions into the constructor, or into a torch operation such as torch.where"
    )
