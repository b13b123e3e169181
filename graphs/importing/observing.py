"""The shapes of all values of a traced forward pass, for two batch sizes.

What differs between the two runs depends on the batch; nothing else does, so no batch size is baked in. Nothing is
computed: the runs are on the `meta` device, or, where a forward pass names a device, with fake tensors.
"""

from __future__ import annotations

import contextlib
import copy
import io
import logging
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from graphs.errors import GraphError
from graphs.importing.tracing import Trace

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["BATCHES", "Seen", "observe", "quiet"]

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


def observe(trace: Trace, given: Mapping[str, Tensor]) -> dict[str, Seen]:
    """What can be seen of the values of one mode, by the names of the graph's nodes.

    Raises:
        GraphError: The forward pass fails for a batch of another size than the example's.
    """
    try:
        one, other = _runs(trace, given, "meta")
    except Exception:
        try:
            one, other = _runs(trace, given, "cpu")
        except Exception as error:
            sizes, reason = " and ".join(map(str, BATCHES)), str(error).splitlines()[0]
            raise GraphError(f"the forward pass fails for batches of {sizes}: {reason}") from error
    return {name: _seen(value, other[name]) for name, value in one.items()}


def _runs(trace: Trace, given: Mapping[str, Tensor], device: str) -> list[dict[str, Any]]:
    from torch import fx

    exported = isinstance(trace.root, fx.GraphModule)
    root = trace.root if exported else _elsewhere(trace.root, device).train(trace.training)
    with quiet():
        return [_run(trace, root, given, batch, device) for batch in BATCHES]


def _run(trace: Trace, root: nn.Module, given: Mapping[str, Tensor], batch: int, device: str) -> dict[str, Any]:
    """The values of a run on a device: `meta`, or `cpu` for fake tensors that say so."""
    import torch
    from torch import fx
    from torch._subclasses.fake_tensor import FakeTensorMode

    found: dict[str, Any] = {}

    class Observer(fx.Interpreter):
        def run_node(self, node: fx.Node) -> Any:
            if node.op == "placeholder" and node.target not in given:
                return None
            found[node.name] = result = super().run_node(node)
            return result

        def fetch_attr(self, target: str) -> Any:
            value = super().fetch_attr(target)
            if not isinstance(value, torch.Tensor):
                return value
            return value.to("meta") if device == "meta" else value.clone()

    fake = FakeTensorMode(allow_non_fake_inputs=True) if device == "cpu" else contextlib.nullcontext()
    with fake, torch.no_grad():
        inputs = [
            torch.empty((batch, *given[node.target].shape[1:]), dtype=given[node.target].dtype, device=device)
            if node.target in given
            else None
            for node in trace.graph.nodes
            if node.op == "placeholder"
        ]
        Observer(root, graph=trace.graph).run(*inputs, enable_io_processing=False)
    return found


def _elsewhere(module: nn.Module, device: str) -> nn.Module:
    """A copy whose tensors are on a device, so that running it leaves the original as it is."""
    import torch

    moved: dict[int, Any] = {}
    for tensor in [*module.parameters(), *module.buffers()]:
        there = tensor.detach().to(device) if device == "meta" else tensor.detach().clone()
        kept = isinstance(tensor, torch.nn.Parameter)
        moved[id(tensor)] = torch.nn.Parameter(there, tensor.requires_grad) if kept else there
    return copy.deepcopy(module, moved)


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
