"""Opaque nodes: what the engine has no kind for, as a short program of calls into `torch`.

An opaque node runs, is stored and is exported like any other; for channel spaces it is a wall. Its program is data: a
list of steps `[function, arguments, keyword arguments]`, whose functions come from `graphs.kinds.allowed`. An argument
is a plain value, a list, or a reference: `{"in": i}` an operand, `{"step": i}` what an earlier step gave,
`{"tensor": i}` one of the node's tensors, `{"batch": k}` k times the batch size, `{"training": true}` whether the
network trains, `{"dtype": "float32"}`, `{"slice": [start, stop, step]}`, `{"ellipsis": true}`, `{"tuple": [...]}`. The
one step that writes, `["method.add_", [{"tensor": i}, {"training": true}], {}]`, counts passes in train mode.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from math import isfinite
from typing import TYPE_CHECKING, Any

from graphs.errors import ShapeError
from graphs.kinds.allowed import allowed, function
from graphs.kinds.kind import REQUIRED, Kind, Settings, Tensors, TensorSpec
from graphs.kinds.values import count, whole
from graphs.structure import Node, Shape

if TYPE_CHECKING:
    from graphs.solver import Dims, Solver

__all__ = ["COUNT", "OPAQUE", "checked_program", "in_double", "references", "run_program"]

COUNT = "method.add_"
_WHETHER = {"training": True}
"""What adds one to a tensor in train mode."""

_MOST = 1000
_DEEPEST = 4  # two lists a level and four around them are what a document may hold
_DTYPES = ("float16", "bfloat16", "float32", "float64", "int8", "uint8", "int16", "int32", "int64", "bool")
_LOWER = ("float16", "bfloat16", "float32")
_TO_LOWER = ("method.half", "method.bfloat16", "method.float")
_DOUBLE: ContextVar[bool] = ContextVar("double", default=False)
_WRITING = {"out", "inplace"}
_HOW = ("parameter", "buffer", "constant")
_REFERENCES = ("in", "step", "tensor", "batch", "training", "dtype", "slice", "ellipsis", "tuple")


@contextmanager
def in_double() -> Iterator[None]:
    """Within this, programs compute in double precision where they name a lower one, or none."""
    import torch

    token, before = _DOUBLE.set(True), torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)
        _DOUBLE.reset(token)


def _shape(value: Any) -> Shape:
    if not isinstance(value, list | tuple) or len(value) > 12:
        raise ValueError("expected a list of at most 12 sizes")
    return tuple(count(size) for size in value)


def _shapes(value: Any) -> tuple[Shape, ...]:
    if not isinstance(value, list | tuple) or len(value) > _MOST:
        raise ValueError("expected a list of shapes")
    return tuple(_shape(each) for each in value)


def _tensors(value: Any) -> tuple[tuple[Shape, str, bool], ...]:
    if not isinstance(value, list | tuple) or len(value) > _MOST:
        raise ValueError("expected a list of tensors")
    found = []
    for each in value:
        if not isinstance(each, list | tuple) or len(each) != 3 or each[1] not in _HOW or not isinstance(each[2], bool):
            raise ValueError(f"expected [shape, one of {', '.join(_HOW)}, whether of integers] for each tensor")
        found.append((_shape(each[0]), str(each[1]), each[2]))
    return tuple(found)


def checked_program(value: Any) -> tuple[Any, ...]:
    """A program in its canonical form, or a `ValueError` that says what is wrong with it."""
    if not isinstance(value, list | tuple) or not 1 <= len(value) <= _MOST:
        raise ValueError("expected a list of steps")
    steps = []
    for place, step in enumerate(value):
        if not isinstance(step, list | tuple) or len(step) != 3 or not isinstance(step[0], str):
            raise ValueError(f"step {place}: expected [function, arguments, keyword arguments]")
        if not (allowed(step[0]) or _counts(step)):
            raise ValueError(f"step {place}: '{step[0]}' is none of the functions that a network's file may call")
        if not isinstance(step[1], list | tuple) or not isinstance(step[2], Mapping):
            raise ValueError(f"step {place}: expected a list and an object of arguments")
        arguments = tuple(_argument(each, place, 0) for each in step[1])
        keywords = {str(name): _argument(each, place, 0) for name, each in step[2].items()}
        if not all(name.isidentifier() for name in keywords) or not keywords.keys().isdisjoint(_WRITING):
            raise ValueError(f"step {place}: expected names of arguments, none of {', '.join(sorted(_WRITING))}")
        steps.append((step[0], arguments, keywords))
    return tuple(steps)


def _counts(step: Any) -> bool:
    """Whether a step is the one that writes."""
    first = step[1][0] if isinstance(step[1], list | tuple) and len(step[1]) == 2 else None
    return step[0] == COUNT and isinstance(first, Mapping) and first.keys() == {"tensor"} and step[1][1] == _WHETHER


def _argument(value: Any, place: int, depth: int) -> Any:
    """An argument in its canonical form."""
    if depth > _DEEPEST:
        raise ValueError(f"step {place}: arguments are nested too deep")
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, int) and abs(value) < 2**53:
        return value
    if isinstance(value, float) and isfinite(value):
        return value
    if isinstance(value, list | tuple):
        return tuple(_argument(each, place, depth + 1) for each in value)
    if isinstance(value, Mapping) and len(value) == 1:
        ((name, what),) = value.items()
        if name in ("in", "tensor", "batch"):
            return {name: whole(what)}
        if name == "step" and whole(what) < place:
            return {name: what}
        if name in ("training", "ellipsis") and what is True:
            return {name: True}
        if name == "dtype" and what in _DTYPES:
            return {name: what}
        if name in ("slice", "tuple") and isinstance(what, list | tuple) and (name == "tuple" or len(what) == 3):
            return {name: tuple(_argument(each, place, depth + 1) for each in what)}
    raise ValueError(f"step {place}: expected plain values or references ({', '.join(_REFERENCES)}) as arguments")


def _as_recorded(settings: Settings, shapes: Sequence[Shape]) -> Shape:
    if tuple(shapes) != settings["reads"]:
        raise ShapeError(f"this part of the network is only known for {settings['reads']}")
    for what, arguments, keywords in settings["program"]:
        for name, place in references([*arguments, *keywords.values()]):
            limit = {"in": len(shapes), "tensor": len(settings["held"])}.get(name)
            if limit is not None and place >= limit:
                raise ShapeError(f"'{what}' refers to the {name} {place}, of which there are {limit}")
    shape: Shape = settings["shape"]
    return shape


def references(value: Any) -> Iterator[tuple[str, int]]:
    """The operands and tensors that arguments refer to, each as (`in` or `tensor`, number)."""
    if isinstance(value, Mapping):
        ((name, what),) = value.items()
        if name in ("slice", "tuple"):
            yield from references(what)
        elif name in ("in", "tensor"):
            yield name, what
    elif isinstance(value, list | tuple):
        for each in value:
            yield from references(each)


def run_program(settings: Settings, inputs: Sequence[Any], tensors: Tensors, training: bool) -> Any:
    """Runs the program; with `fx` proxies for values, writes it down."""
    import torch

    results: list[Any] = []
    # A network that is measured in double precision computes nothing in a lower one.
    double = _DOUBLE.get()

    def resolve(value: Any) -> Any:
        if isinstance(value, list | tuple):
            return [resolve(each) for each in value]
        if not isinstance(value, Mapping):
            return value
        ((name, what),) = value.items()
        if name == "in":
            return inputs[what]
        if name == "step":
            return results[what]
        if name == "tensor":
            return tensors[str(what)]
        if name == "batch":
            size = inputs[0].shape[0]
            return size if what == 1 else what * size
        if name == "training":
            return training
        if name == "dtype":
            return torch.float64 if double and what in _LOWER else getattr(torch, what)
        if name == "slice":
            return slice(*(resolve(each) for each in what))
        return ... if name == "ellipsis" else tuple(resolve(each) for each in what)

    tracer = getattr(training, "tracer", None)
    for target, arguments, keywords in settings["program"]:
        given = tuple(resolve(each) for each in arguments)
        named = {name: resolve(each) for name, each in keywords.items()}
        if double and target in _TO_LOWER:
            target = "method.double"
        if tracer is None:
            results.append(given[0].add_(int(training)) if target == COUNT else function(target)(*given, **named))
        elif target.startswith("method."):
            results.append(tracer.create_proxy("call_method", target.partition(".")[2], given, named))
        else:
            results.append(tracer.create_proxy("call_function", function(target), given, named))
    return results[-1]


def _specs(settings: Settings, shapes: Sequence[Shape]) -> Mapping[str, TensorSpec]:
    return {
        str(place): TensorSpec(shape, "fan_in", how != "parameter", integer, how != "constant")
        for place, (shape, how, integer) in enumerate(settings["held"])
    }


def _roles(settings: Settings) -> tuple[str, ...]:
    return tuple(str(place) for place in range(len(settings["held"])))


def _wall(solver: Solver, node: Node, axes: Sequence[Dims], shapes: Sequence[Shape], out: Shape) -> Dims:
    what = node.settings["program"][-1][0].partition(".")[2]
    for dims in axes:
        solver.close(dims, node, f"computes '{what}', which is not known to treat channels apart")
    return ((),) * len(out)


def _opaque(name: str, random: bool) -> Kind:
    return Kind(
        name=name,
        settings={
            "program": (checked_program, REQUIRED),
            "reads": (_shapes, REQUIRED),
            "shape": (_shape, REQUIRED),
            "held": (_tensors, ()),
        },
        operands=(0, None),
        shape=_as_recorded,
        compute=run_program,
        roles=_roles,
        tensors=_specs,
        channels=_wall,
        random=random,
        wall=True,
    )


OPAQUE = (_opaque("opaque", False), _opaque("opaque_random", True))
"""Programs that are functions of their operands, and programs that draw random numbers."""
