"""The forward pass of a module as `torch.fx` graphs, with the shapes of all values for two batch sizes.

What differs between the two runs depends on the batch; nothing else does, so no batch size is baked in.
"""

from __future__ import annotations

import contextlib
import copy
import inspect
import io
import logging
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from graphs.errors import GraphError

if TYPE_CHECKING:
    from torch import Tensor, fx, nn

__all__ = ["BATCHES", "Seen", "Trace", "copied", "examples", "observe", "quiet", "trace"]

BATCHES = (2, 3)
"""Batch sizes for which shapes are observed."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What was observed of one value: its shapes for each of `BATCHES`, and its type; of a container, its `parts`."""

    shapes: tuple[tuple[int, ...], ...] = ()
    dtype: str = ""
    parts: tuple[Seen, ...] | None = None
    names: tuple[str, ...] = ()

    @property
    def batched(self) -> bool:
        """Whether the first axis, and it alone, is the batch."""
        one, other = self.shapes
        return (one[:1], other[:1]) == (BATCHES[:1], BATCHES[1:]) and one[1:] == other[1:]

    @property
    def constant(self) -> bool:
        """Whether the shape does not depend on the batch."""
        return self.shapes[0] == self.shapes[1]


@dataclass(frozen=True, slots=True)
class Trace:
    """One mode: the graph, what was observed of each of its values, and the module that has its constants."""

    graph: fx.Graph
    seen: Mapping[str, Seen]
    root: nn.Module


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
    return Trace(graph, observe(copied(module), graph, given), module)


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


def observe(module: nn.Module, graph: fx.Graph, given: Mapping[str, Tensor]) -> dict[str, Seen]:
    """The shapes of all values for each of `BATCHES`, without computing them."""
    import torch
    from torch import fx
    from torch._subclasses.fake_tensor import FakeTensorMode

    runs: list[dict[str, Any]] = []
    whole = module if isinstance(module, fx.GraphModule) else fx.GraphModule(module, graph)
    for batch in BATCHES:
        found: dict[str, Any] = {}

        class Observer(fx.Interpreter):
            def run_node(self, node: fx.Node, found: dict[str, Any] = found) -> Any:
                if node.op == "placeholder" and node.target not in given:
                    return None
                found[node.name] = result = super().run_node(node)
                return result

            def fetch_attr(self, target: str) -> Any:
                value = super().fetch_attr(target)
                return value.clone() if isinstance(value, torch.Tensor) else value

        with quiet(), FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
            inputs = [
                torch.empty((batch, *given[node.target].shape[1:]), dtype=given[node.target].dtype)
                if node.target in given
                else None
                for node in graph.nodes
                if node.op == "placeholder"
            ]
            try:
                Observer(whole).run(*inputs, enable_io_processing=False)
            except Exception as error:
                raise GraphError(
                    f"the forward pass fails for a batch of {batch}: {str(error).splitlines()[0]}"
                ) from error
        runs.append(found)
    return {name: _seen(value, runs[1][name]) for name, value in runs[0].items()}


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keeps torch from printing and logging what becomes an error of ours, or no error at all."""
    loggers = [logging.getLogger(name) for name in _TALKATIVE]
    before = [logger.disabled for logger in loggers]
    try:
        for logger in loggers:
            logger.disabled = True
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, disabled in zip(loggers, before, strict=True):
            logger.disabled = disabled


_TALKATIVE = (
    "torch._subclasses.fake_tensor",
    "torch.export",
    "torch.fx.experimental.symbolic_shapes",
    "torch.fx.experimental.recording",
)
"""Loggers that tell of what fails while a forward pass is tried."""


def _seen(one: Any, other: Any) -> Seen:
    from torch import Tensor

    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return Seen((tuple(one.shape), tuple(other.shape)), str(one.dtype).removeprefix("torch."))
    if isinstance(one, list | tuple) and isinstance(other, list | tuple) and len(one) == len(other):
        names = tuple(getattr(type(one), "_fields", getattr(type(one), "__match_args__", ())))
        return Seen(parts=tuple(_seen(a, b) for a, b in zip(one, other, strict=True)), names=names)
    return Seen()
