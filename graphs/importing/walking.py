"""Walking through a traced graph, call by call, with stand-ins for its values (`graphs.importing.stand_ins`).

What a call becomes is said in two tables, `graphs.importing.layers` and `graphs.importing.calls`.
"""

from __future__ import annotations

import inspect
import operator
from collections.abc import Callable, Mapping, Sequence
from types import FunctionType
from typing import TYPE_CHECKING, Any

from graphs.errors import GraphError
from graphs.importing.aten import home_of, public
from graphs.importing.calls import ALONE, attention_layer, convert, layer_elsewhere, written
from graphs.importing.chance import own_file
from graphs.importing.held import reach
from graphs.importing.layers import in_mode, layer_of
from graphs.importing.lowering import Lowering
from graphs.importing.memory import Memory
from graphs.importing.sharing import shared
from graphs.importing.stand_ins import TRAINING, Differing, Held, Numbering, Program, Ref, Unknown
from graphs.importing.tracing import IN_PLACE, Trace

if TYPE_CHECKING:
    from torch import fx, nn

__all__ = ["line_of", "walk"]


def walk(low: Lowering, trace: Trace, other: Trace | None) -> Any:
    """Adds the nodes of one mode to a lowering's draft.

    Args:
        low: Where nodes are added.
        trace: The mode.
        other: The other mode, if its graph has the same nodes in the same order.

    Returns:
        The output, with stand-ins for its tensors.

    Raises:
        GraphError: Something cannot be taken in; names the line of the user's code.
    """
    low.begin(trace, alone=other is None)
    values: dict[fx.Node, Any] = {}
    memory = Memory([trace] if other is None else [trace, other], low.given)
    for node, twin in zip(trace.graph.nodes, (other or trace).graph.nodes, strict=True):
        low.at(line_of(node))
        if node.op == "output":
            return _value(node.args[0], values, node.args[0])
        if node.target is operator.getitem and not node.users:
            continue  # a trace takes all of several values, also those that nothing reads
        memory.note(node, own=node.op == "call_module" and _is_weighted(low, str(node.target)))
        try:
            values[node] = _step(low, node, twin, values, memory)
        except GraphError:
            raise
        except Exception as error:  # whatever a call of the user's does not like about what it is given
            raise low.error(f"{type(error).__name__}: {error}".splitlines()[0]) from error
    raise GraphError("the traced forward pass has no output")


def _step(low: Lowering, node: fx.Node, twin: fx.Node, values: dict[fx.Node, Any], memory: Memory) -> Any:
    from torch import fx

    (own, own_names), (others, other_names) = _called(node, twin), _called(twin, node)
    if len(own) != len(others) or own_names.keys() != other_names.keys():
        raise low.error("it is called with other arguments in train mode than in eval mode")
    try:
        arguments = [_value(each, values, other) for each, other in zip(own, others, strict=True)]
        keywords = {name: _value(each, values, other_names[name]) for name, each in own_names.items()}
    except KeyError as error:
        raise low.error(f"it reads '{error.args[0]}' from outside of the forward pass that is traced") from None
    except ValueError as error:
        raise low.error(str(error)) from None
    for each in (*arguments, *keywords.values()):
        if isinstance(each, Unknown) and (not each.line or node.op not in ("call_function", "call_method")):
            raise low.refusal(each)
    if node.op == "placeholder":
        return low.input(str(node.target))
    if node.op == "get_attr":
        return low.attribute(str(node.target))
    fields = getattr(node.target, "_fields", None) or tuple(getattr(node.target, "__dataclass_fields__", ()))
    if fields:  # a named tuple, or a class of data
        return {**dict(zip(fields, arguments, strict=False)), **keywords}
    if node.op == "call_module":
        result, in_place = _layer(low, str(node.target), arguments, keywords)
    elif name := _own(node.target):
        result, in_place = low.call_in_memory(node.target, name, arguments, keywords), False  # type: ignore[arg-type]
    else:
        target, in_place = _target(node)
        called: Any = _method(str(node.target)) if node.op == "call_method" else node.target
        low.about(called, arguments, keywords, None if in_place else _unlisted(node))
        arguments, keywords, asked = _without_in_place(node.target, arguments, keywords)
        in_place = in_place or asked or node.kwargs.get("out") is not None
        if target.partition(".")[2].startswith("_assert"):
            return None
        if keywords.get("out") is not None:
            raise low.error(_writing(low, keywords["out"]))
        plain = target.rpartition(".")[2]
        if hasattr(node.target, "_schema"):
            target, arguments, keywords = public(plain, arguments, keywords) or (target, arguments, keywords)
        result = convert(low, target, arguments, keywords)
    result = shared(low, result, node)
    changed = node.kwargs.get("out") or next(iter(node.all_input_nodes), None) if in_place else None
    if in_place and isinstance(result, Unknown):
        raise low.refusal(result)
    if isinstance(changed, fx.Node) and values[changed] is not None:
        _change(low, node, changed, result, values, memory)
    if node.meta.get("no gradient") and any(not user.meta.get("no gradient") for user in node.users):
        result = _detached(low, result)
    return result


def _change(
    low: Lowering, node: fx.Node, changed: fx.Node, result: Any, values: dict[fx.Node, Any], memory: Memory
) -> None:
    """Gives a value that a call changes in place its new value, wherever that is read from here on."""
    old = values[changed]
    if isinstance(old, Held):
        raise low.error(f"it changes the tensor '{old.name}' of the module in place")
    if node.meta.get("no gradient") and not _apart(changed):
        raise low.error("it changes a tensor in place where no gradients are kept")
    sharing = memory.sharing(changed, node)
    twins = [each for each, same in sharing.items() if same or (values[each] == old and memory.alike(each, changed))]
    parts = [each for each in sharing if each not in twins]
    held = next((each for each in sharing if isinstance(values[each], Held)), None)
    if held:
        raise low.error(f"it changes the tensor '{values[held].name}' of the module in place")
    # What is a part of another by an index alone is written back into it.
    whole = next(iter(changed.all_input_nodes), None) if changed.target is operator.getitem else None
    if parts and whole in parts and all(values[each] == values[whole] for each in parts):
        index = changed.args[1]
        written_into = written(low, values[whole], _value(index, values, index), result)
        values.update(dict.fromkeys(parts, written_into))
    elif parts:
        raise low.error(
            f"it changes in place what shares memory with '{parts[0].name}', which is read later; "
            "work on a copy, such as x = x * 2 for x.mul_(2)"
        )
    values.update(dict.fromkeys([changed, *twins], result))


def _apart(value: fx.Node) -> bool:
    """Whether a value is made, and read, where no gradients are kept and nowhere else."""
    return all(each.meta.get("no gradient") for each in (value, *value.users))


def _called(node: fx.Node, other: fx.Node) -> tuple[list[Any], dict[str, Any]]:
    """The arguments of a call, with the defaults of those that another call of the same function is given."""
    schema = getattr(node.target, "_schema", None)
    if schema is None:
        return list(node.args), dict(node.kwargs)
    defaults = [each.default_value for each in schema.arguments[len(node.args) : len(other.args)]]
    names = {each.name: each.default_value for each in schema.arguments if each.name in other.kwargs}
    return [*node.args, *defaults], {**names, **node.kwargs}


def _detached(low: Lowering, value: Any) -> Any:
    """A value that was computed without gradients, for those who read it with gradients."""
    if isinstance(value, Ref):
        return low.add("detach", [value]) if low.types[value.node].is_floating_point else value
    if isinstance(value, Program) and not value.seen.several:
        return low.call_anew("method.detach", [value])
    if isinstance(value, Program):
        raise low.error("it gives several values that are computed without gradients; take them apart there")
    return type(value)(_detached(low, each) for each in value) if type(value) in (list, tuple) else value


def _without_in_place(
    function: Any, arguments: list[Any], keywords: dict[str, Any]
) -> tuple[list[Any], dict[str, Any], bool]:
    """The arguments of a function without the one that asks it to work in place, and whether it does."""
    if getattr(function, "__module__", "") != "torch.nn.functional":
        return arguments, keywords, keywords.get("inplace") is True
    names = list(inspect.signature(function).parameters)
    if "inplace" not in names:
        return arguments, keywords, False
    place = names.index("inplace")
    asked = arguments[place] if place < len(arguments) else keywords.get("inplace", False)
    rest = {name: each for name, each in keywords.items() if name != "inplace"}
    return [*arguments[:place], *arguments[place + 1 :]], rest, asked is True


def _value(argument: Any, values: Mapping[fx.Node, Any], twin: Any) -> Any:
    """An argument with stand-ins for traced values; what differs between the modes is `TRAINING` or `Differing`."""
    from torch import fx

    if isinstance(argument, fx.Node):
        return values[argument]
    if isinstance(argument, bool) and isinstance(twin, bool) and argument != twin:
        if twin:
            raise ValueError("a flag is False in train mode, but True in eval mode")
        return TRAINING
    if isinstance(argument, int | float) and isinstance(twin, int | float) and not _equal(argument, twin):
        return Differing(argument, twin)
    if type(argument) is str and argument != twin:
        raise ValueError(f"an argument is {argument} in train mode, but {twin} in eval mode")
    if isinstance(argument, tuple) and hasattr(argument, "_fields"):
        return dict(zip(argument._fields, _parts(argument, values, twin), strict=True))
    if isinstance(argument, list | tuple):
        return type(argument)(_parts(argument, values, twin))
    if isinstance(argument, Mapping):
        return dict(zip(argument, _parts([*argument.values()], values, [twin[name] for name in argument]), strict=True))
    if isinstance(argument, slice):
        ends, others = ([each.start, each.stop, each.step] for each in (argument, twin))
        return slice(*_parts(ends, values, others))
    return argument


def _parts(arguments: Sequence[Any], values: Mapping[fx.Node, Any], twins: Sequence[Any]) -> list[Any]:
    return [_value(each, values, twin) for each, twin in zip(arguments, twins, strict=True)]


def _equal(one: float, other: float) -> bool:
    """Whether two numbers are the same; what is no number is."""
    return one == other or (one != one and other != other)


def _method(name: str) -> Callable[..., Any]:
    """A tensor's method as a function."""
    return lambda tensor, *arguments, **keywords: getattr(tensor, name)(*arguments, **keywords)


def _own(function: Any) -> str | None:
    """What is called, where that is neither Python's nor torch's, or an operator of a library; None where it is."""
    name = getattr(function, "_qualified_op_name", None) or getattr(getattr(function, "_schema", None), "name", None)
    if isinstance(name, str):
        space, _, plain = name.partition("::")
        return None if space in _SPACES else f"{space}.{plain}"
    if not isinstance(function, FunctionType) or str(function.__module__).partition(".")[0] in _HOMES:
        return None
    return f"{function.__module__}.{function.__qualname__}"


_SPACES, _HOMES = ("aten", "prim", "prims"), ("torch", "torchvision")
"""Where operators and functions are from that have a public name in torch, or a converter of their own."""


def _unlisted(node: fx.Node) -> Callable[..., Any] | None:
    """A function of torch that can be called in memory where no file may name it."""
    import torch

    found = getattr(torch.Tensor, str(node.target), None) if node.op == "call_method" else node.target
    name = getattr(found, "__name__", "_")
    # What is in memory that nothing has been written to is as if drawn.
    return found if callable(found) and not name.startswith("_") and "empty" not in name else None


def _target(node: fx.Node) -> tuple[str, bool]:
    """The name under which people call what is called, such as `torch.flatten`, and whether it works in place."""
    if node.op == "call_method":
        name = str(node.target)
        if name in _OTHERWISE:
            return _OTHERWISE[name], True
        plain = name.rstrip("_") if not name.startswith("__") else name.strip("_")
        return f"method.{plain}", name.endswith("_") and not name.startswith("__")
    function = node.target
    schema = getattr(function, "_schema", None)
    if schema is not None:  # an aten call
        return _aten(schema.name.partition("::")[2])
    name = getattr(function, "__name__", str(function))
    home = getattr(function, "__module__", "") or ""
    if home in ("_operator", "operator"):
        plain = name.rstrip("_") if name not in ("and_", "or_", "not_") else name
        if plain == "setitem":
            return "operator.setitem", True
        in_place = plain.startswith("i") and plain[1:] in IN_PLACE
        return f"operator.{plain[1:] if in_place else plain}", in_place
    if function is getattr or (home, name) == ("builtins", "len"):
        return f"python.{name}", False
    if home.startswith("torch.nn.functional") or home == "torch._C._nn":
        return f"functional.{name.rstrip('_')}", name.endswith("_")
    if home.startswith("torch") and not home.startswith("torchvision"):
        known = {f"torch._C._{each}": each for each in ("fft", "linalg", "special")}
        plain = name.removeprefix(f"{known[home]}_") if home in known else name
        return f"{known.get(home, 'torch')}.{plain.rstrip('_')}", plain.endswith("_")
    if home == "math":
        return f"math.{name}", False
    if type(function).__name__ == "builtin_function_or_method":
        return f"torch.{name.rstrip('_')}", name.endswith("_")
    return f"{home}.{name}", False


_OTHERWISE = {"normal_": "method.normal", "bernoulli_": "method.bernoulli_"}
"""Functions in place that the ones without an underscore differ from: in arguments, or in what they take for a rate."""


def _aten(name: str) -> tuple[str, bool]:
    """Where people call an aten function, and whether it works in place."""
    if name in _OTHERWISE:
        return _OTHERWISE[name], True
    in_place = name.endswith("_") and not name.endswith("__")
    return home_of(name.rstrip("_") if in_place else name), in_place


def _layer(low: Lowering, path: str, arguments: Sequence[Any], keywords: Mapping[str, Any]) -> tuple[Any, bool]:
    layer = low.layers[path]
    found = layer_of(layer)
    if found is None:
        raise low.error(f"the layer '{path}' has changed while it was traced")
    mode = low.fixed.get(path)
    if mode is not None:
        found = in_mode(found, mode)
    if found is None:
        raise low.error(f"the layer '{path}' is in train mode also when the module is in eval mode")
    kind, settings, roles = found
    if kind == "attention":
        return attention_layer(low, path, layer, settings, arguments, keywords), False
    operand = arguments[0] if arguments else keywords.get("input")
    if isinstance(operand, Numbering):
        raise low.error(ALONE)
    if kind.startswith("functional."):
        return low.call_anew(kind, [operand, settings["p"], True]), bool(layer.inplace)
    held = {role: low.hold(reach(layer, own), f"{path}.{own}") for role, own in roles.items()}
    lacks = kind.endswith("batch_norm") and not held.keys() >= {"weight", "bias"}
    if isinstance(operand, Program) or lacks:
        return layer_elsewhere(low, kind, operand, settings, held), bool(getattr(layer, "inplace", False))
    names = {role: low.use(each) for role, each in held.items()}
    if isinstance(operand, Held | Ref):
        return low.add(kind, [low.ref(operand)], tensors=names, path=path, **settings), bool(
            getattr(layer, "inplace", False)
        )
    raise low.error(f"the layer '{path}' is not given a tensor")


def _writing(low: Lowering, out: Any) -> str:
    """Why a call that is given a tensor for its result is refused."""
    normed = [path for path, part in low.module.named_modules() if _is_spectral(part)]
    if normed and isinstance(out, Held):
        path = normed[0].partition(".parametrizations")[0]
        return (
            f"the spectral norm of '{path}' changes its buffers in each pass, which no node does; remove it first, by "
            "torch.nn.utils.parametrize.remove_parametrizations or torch.nn.utils.remove_spectral_norm"
        )
    return "it writes its result into a tensor that it is given, 'out'; use what the call gives"


def _is_spectral(part: nn.Module) -> bool:
    """Whether a module norms a weight by its greatest singular value, or is such a norm."""
    kinds = [type(each).__name__ for each in (part, *part._forward_pre_hooks.values())]
    return not {"_SpectralNorm", "SpectralNorm"}.isdisjoint(kinds)


def _is_weighted(low: Lowering, path: str) -> bool:
    """Whether a layer has weights: what it computes is in memory of its own."""
    parts = low.layers[path].modules()
    return any(tensor is not None for part in parts for tensor in part._parameters.values())


def line_of(node: fx.Node) -> str:
    """The line of the user's code that a traced value comes from."""
    lines = [line.strip() for line in (node.stack_trace or "").splitlines() if line.strip()]
    own = [place for place, line in enumerate(lines) if line.startswith("File ") and own_file(line.split('"')[1])]
    if not own:
        return f"'{node.name}'"
    code = lines[own[-1] + 1] if own[-1] + 1 < len(lines) else ""
    return f"{lines[own[-1]].removeprefix('File ')}: '{code}'"
