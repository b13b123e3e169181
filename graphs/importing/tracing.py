"""The forward pass of a module as graphs of `torch.fx`, for each mode."""

from __future__ import annotations

import functools
import inspect
import itertools
import operator
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import MethodType
from typing import TYPE_CHECKING, Any

from graphs.errors import GraphError
from graphs.importing.asking import Unanswered, modes_seen
from graphs.importing.chance import nothing_drawn, own_file
from graphs.importing.counting import Counter
from graphs.importing.gradients import own_gradients
from graphs.importing.hints import causal_unasked, limits_known
from graphs.importing.lengths import lengths
from graphs.importing.stand_ins import any_of
from graphs.kinds.in_memory import entrance

if TYPE_CHECKING:
    from torch import Tensor, fx, nn

__all__ = ["IN_PLACE", "Trace", "Untraced", "batches", "examples", "leave_counting", "trace", "where"]


class Untraced(GraphError):
    """`torch.fx` cannot trace a forward pass, though `torch.export` may record it.

    Attributes:
        place: The line of the user's code where it stopped; empty if there is none.
    """

    def __init__(self, place: str, reason: str) -> None:
        super().__init__(f"cannot trace {place or 'this module'}: {reason}")
        self.place = place


@dataclass(frozen=True, slots=True)
class Trace:
    """One mode.

    Attributes:
        graph: The calls.
        root: The module that they call and whose constants they name.
        training: Which mode it is.
        asked: The forward pass may have asked for the mode; if not, the other mode has the same calls.
        modes: The mode of each layer that was called, by path: parts may be kept in one mode.
    """

    graph: fx.Graph
    root: nn.Module
    training: bool
    asked: bool = True
    modes: Mapping[str, bool] = field(default_factory=dict)


def examples(module: nn.Module, example: Any) -> dict[str, Tensor]:
    """The example by the names of the forward pass's arguments.

    Raises:
        GraphError: It does not fit the arguments, or is no batch of tensors.
    """
    import torch
    from torch import Tensor

    signature = inspect.signature(module.forward).parameters
    parameters = [
        name
        for name, parameter in signature.items()
        if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
    ]
    if not parameters:
        taken = ", ".join(map(str, signature.values()))
        raise GraphError(f"forward takes no arguments by names of their own, but ({taken})")
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
        if value.layout != torch.strided or value.is_nested:
            raise GraphError(f"the example for '{name}' is sparse or nested; give a dense tensor, as to_dense() does")
        if value.is_meta:
            raise GraphError(f"the example for '{name}' is on the meta device, where it has no numbers; give some")
        if value.is_complex():
            raise GraphError(
                f"the example for '{name}' is complex; take in real and imaginary parts, as torch.view_as_real gives"
            )
    if not given:
        raise GraphError("expected an example of at least one input, a tensor (N, ...)")
    return given


def batches(given: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Two examples and one of what is given, in memory of their own; where there is but one, it is taken twice.

    The second one is then the first one backwards.
    """
    import torch

    two = {name: tensor if len(tensor) > 1 else torch.cat([tensor, tensor.flip(-1)]) for name, tensor in given.items()}
    return {name: each[:2].clone() for name, each in two.items()}, {
        name: each[:1].clone() for name, each in two.items()
    }


def trace(
    module: nn.Module,
    given: Mapping[str, Tensor],
    training: bool,
    lines: bool = False,
    in_memory: bool = False,
) -> Trace:
    """Traces one mode; layers that have a kind are called, all other modules traced through.

    Args:
        module: A copy that may be changed; see `graphs.importing.copying`.
        given: The example by argument.
        training: The mode.
        lines: Calls know which line of the user's code they come from, which takes long.
        in_memory: Functions with a gradient of their own are recorded as the calls that they are, else refused.

    Raises:
        GraphError: The forward pass cannot be traced; names the line where it stopped.
    """
    import torch
    from torch import fx

    from graphs.importing.layers import layer_of

    writable = _writable()
    modes: dict[str, bool] = {}
    parts = set(module.modules())
    autocast = _autocast()
    unanswered, counter = Unanswered(), Counter(module, given)

    class Tracer(fx.Tracer):
        proxy_buffer_attributes = True

        def proxy(self, node: fx.Node) -> fx.Proxy:
            return writable(node, self)

        def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, Any]) -> Any:
            return attr_val if counter.running else super().getattr(attr, attr_val, parameter_proxy_cache)

        def call_module(self, m: nn.Module, forward: Any, args: Any, kwargs: Any) -> Any:
            if counter.running:
                return forward(*args, **kwargs)
            if m not in parts and next(itertools.chain(m.parameters(), m.buffers()), None) is not None:
                raise GraphError(
                    f"it calls a layer, a {type(m).__name__}, that is no part of the module, so its weights are none "
                    "of the module's; keep it under a name of its own, in an nn.ModuleList or an nn.ModuleDict"
                )
            if m not in parts or not layer_of(m):
                return forward(*args, **kwargs)
            path = self.path_of_module(m)
            modes[path] = m.__dict__["training"]
            return self.create_proxy("call_module", path, args, kwargs)

        def create_node(self, *args: Any, **kwargs: Any) -> fx.Node:
            if _autocast() != autocast:
                raise GraphError("it computes within torch.autocast; leave that to whoever runs the network")
            node = super().create_node(*args, **kwargs)
            node.meta["no gradient"] = not torch.is_grad_enabled()
            return node

        def number(self, obj: fx.Proxy) -> int | float:
            found = counter.number(obj.node)
            if found is None:
                found = unanswered.put(super().to_bool, obj)
            return found

        def to_bool(self, obj: fx.Proxy) -> bool:
            return bool(self.number(obj))

        def entries(self, obj: fx.Proxy) -> int:
            count = counter.entries(obj.node)
            return int(self.number(obj)) if count is None else count

        def iter(self, obj: fx.Proxy) -> Iterator[Any]:
            count = counter.entries(obj.node)
            if count is not None:
                return (obj[place] for place in range(count))  # type: ignore[index]
            entries: Iterator[Any] = unanswered.put(super().iter, obj)
            return entries

    def length(value: Any) -> fx.Proxy | None:
        return tracer.create_proxy("call_function", len, (value,), {}) if isinstance(value, fx.Proxy) else None

    def record(kind: Any, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> fx.Proxy | None:
        if not any_of(lambda each: isinstance(each, fx.Proxy), [*arguments, *keywords.values()]):
            return None
        return tracer.create_proxy("call_function", entrance(kind), arguments, keywords)

    module.train(training)
    if module._forward_hooks or module._forward_pre_hooks:
        _call_hooks(module)
    if _is_wrapped(module):
        _name_arguments(module, [*given])
    tracer = Tracer()
    tracer.record_stack_traces = lines
    left_out = {
        name: parameter.default
        for name, parameter in inspect.signature(module.forward).parameters.items()
        if name not in given and parameter.default is not parameter.empty
    }
    with nothing_drawn(lines):
        try:
            with (
                own_gradients(record if in_memory else None),
                _asking(module) as asked,
                lengths(module, length),
                causal_unasked(),
                limits_known(lambda value: counter.dtype(value.node) if isinstance(value, fx.Proxy) else None),
            ):
                graph = tracer.trace(module, concrete_args=left_out or None)
        except GraphError as error:
            raise GraphError(f"cannot trace {where(error) or 'this module'}: {error}") from error
        except Exception as error:
            raise _untraced(error) from error
    if unanswered.errors:
        raise _untraced(unanswered.errors[0])
    for path, part in module.named_modules():
        for name, buffer in part._buffers.items():
            if isinstance(buffer, fx.Proxy):
                own = f"{path}.{name}".lstrip(".")
                raise GraphError(
                    f"the forward pass assigns to the buffer '{own}', which no node does; "
                    "keep such a state outside of the module"
                )
    leave_counting(graph)
    return Trace(graph, module, training, bool(asked), modes)


def leave_counting(graph: fx.Graph) -> None:
    """Takes out the counting of batches, which batch norms do in train mode: their nodes do it too."""
    for node in list(graph.nodes):
        counter: Any = next(iter(node.all_input_nodes), None)
        added = str(node.target) == "add_" or str(node.target).startswith("aten.add_.")
        if added and str(counter.target).endswith("num_batches_tracked"):
            node.replace_all_uses_with(counter)
            graph.erase_node(node)
            if not counter.users:
                graph.erase_node(counter)


def _untraced(error: Exception) -> Untraced:
    return Untraced(where(error), str(error).split("\n")[0] + ADVICE)


IN_PLACE = frozenset("add sub mul truediv floordiv pow mod and or xor matmul".split())
"""The operators that work in place too, as in `x += y`."""


@functools.cache
def _writable() -> type[fx.Proxy]:
    """Stand-ins that note what is done to them in place: `x += y` and `x[i] = y`, which others do not.

    Whatever asks for their value is answered as what asks for their truth.
    """
    from torch import fx

    def noted(name: str) -> Any:
        function = getattr(operator, name)

        def note(self: fx.Proxy, *arguments: Any) -> fx.Proxy:
            return self.tracer.create_proxy("call_function", function, (self, *arguments), {})

        return note

    names = (*(f"i{name}" for name in IN_PLACE), "setitem")
    asking: dict[str, Any] = {
        "__int__": lambda self: int(self.tracer.number(self)),
        "__float__": lambda self: float(self.tracer.number(self)),
        "__complex__": lambda self: complex(self.tracer.number(self)),
        "__index__": lambda self: operator.index(self.tracer.number(self)),
        "__len__": lambda self: self.tracer.entries(self),
    }
    return type("Writable", (fx.Proxy,), asking | {f"__{name}__": noted(name) for name in names})


def _autocast() -> tuple[bool, ...]:
    """For which devices types are cast by themselves."""
    import torch

    return tuple(map(torch.is_autocast_enabled, ("cpu", "cuda")))


def _call_hooks(module: nn.Module) -> None:
    """Makes the hooks of a whole module, which a trace leaves out, part of its forward pass."""
    from torch import nn

    kind = type(module)
    if "forward" in vars(module):  # it is so already
        return
    plain = kind.forward

    @functools.wraps(plain)
    def forward(self: nn.Module, *arguments: Any, **keywords: Any) -> Any:
        return nn.Module.__call__(self, *arguments, **keywords)

    module.__class__ = type(kind.__name__, (kind,), {"forward": forward, "__module__": kind.__module__})
    module.forward = MethodType(plain, module)


def _is_wrapped(module: nn.Module) -> bool:
    """Whether a forward pass hides its arguments, behind a decorator or in `**keywords`, which `torch.fx` reads."""
    forward = type(module).forward
    kinds = {each.kind for each in inspect.signature(forward).parameters.values()}
    hidden = {inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL}
    known = "forward" in vars(module) or "_arguments_are_named" in vars(type(module))
    return not known and (hasattr(forward, "__wrapped__") or not hidden.isdisjoint(kinds))


def _name_arguments(module: nn.Module, names: Sequence[str]) -> None:
    """Gives a module a forward pass with these arguments alone."""
    kind = type(module)
    plain = kind.forward
    only = {each.name for each in inspect.signature(plain).parameters.values() if each.kind is each.POSITIONAL_ONLY}

    def forward(self: nn.Module, *given: Any) -> Any:
        values = dict(zip(names, given, strict=True))
        return plain(self, *(values.pop(name) for name in names if name in only), **values)

    def shown(self: nn.Module) -> None:
        """What `torch.fx` looks at to see which arguments there are."""

    seen = ("self", *names)
    shown.__code__ = shown.__code__.replace(co_argcount=len(seen), co_nlocals=len(seen), co_varnames=seen)
    forward.__wrapped__ = shown  # type: ignore[attr-defined]
    made = {"forward": forward, "__module__": kind.__module__, "_arguments_are_named": True}
    module.__class__ = type(kind.__name__, (kind,), made)


@contextmanager
def _asking(module: nn.Module) -> Iterator[set[str]]:
    """Notes the classes of modules that are asked for their mode, or that may keep it elsewhere."""
    asked = {type(each).__name__ for each in module.modules() if _has_modes(each)}
    with modes_seen(lambda owner: asked.add(type(owner).__name__)):
        yield asked


def _has_modes(part: nn.Module) -> bool:
    """Whether a module does something else when it is told the mode than take it over."""
    from torch import nn

    own = type(part).train is not nn.Module.train or type(part).eval is not nn.Module.eval
    return own or not vars(part).keys().isdisjoint(("train", "eval"))


def where(error: BaseException) -> str:
    """The last line of the user's own code before an error; empty if there is none."""
    frames = inspect.getinnerframes(error.__traceback__) if error.__traceback__ else []
    own = [frame for frame in frames if own_file(frame.filename)]
    if not own:
        return ""
    last = own[-1]
    line = last.code_context[0].strip() if last.code_context else ""
    return f"{last.filename}:{last.lineno}, in {last.function}: '{line}'"


ADVICE = (
    "; a forward pass can be taken in if its control flow does not depend on the values of tensors: "
    "move such decisions into the constructor, or into a torch operation such as torch.where"
)
