"""Opaque nodes: what the engine has no kind for, as a short program of calls into `torch`.

An opaque node runs, is stored and is exported like any other; for channel spaces it is a wall. Its program is data;
`graphs.kinds.program` says which ones there are. One that calls a function of the user's own runs in the process that
knows that function (`graphs.kinds.in_memory`), and is neither stored nor exported.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from graphs.errors import ShapeError
from graphs.kinds.in_memory import function, in_memory, remembered
from graphs.kinds.kind import REQUIRED, Kind, Settings, Tensors, TensorSpec
from graphs.kinds.precision import dtype_named, is_double
from graphs.kinds.program import COUNT, checked_program, references
from graphs.kinds.rearranging import sizes_of
from graphs.structure import Node, Shape

if TYPE_CHECKING:
    from graphs.solver import Dims, Solver

__all__ = ["OPAQUE", "run_program"]

_MOST = 1000
_TO_LOWER = ("method.half", "method.bfloat16", "method.float")
_HOW = ("parameter", "buffer", "constant")


def _shapes(value: Any) -> tuple[Shape, ...]:
    if not isinstance(value, list | tuple) or len(value) > _MOST:
        raise ValueError("expected a list of shapes")
    return tuple(sizes_of(each) for each in value)


def _tensors(value: Any) -> tuple[tuple[Shape, str, bool], ...]:
    if not isinstance(value, list | tuple) or len(value) > _MOST:
        raise ValueError("expected a list of tensors")
    found = []
    for each in value:
        if not isinstance(each, list | tuple) or len(each) != 3 or each[1] not in _HOW or not isinstance(each[2], bool):
            raise ValueError(f"expected [shape, one of {', '.join(_HOW)}, whether of integers] for each tensor")
        found.append((sizes_of(each[0]), str(each[1]), each[2]))
    return tuple(found)


def _as_recorded(settings: Settings, shapes: Sequence[Shape]) -> Shape:
    if tuple(shapes) != settings["reads"]:
        raise ShapeError(f"this part of the network is only known for {settings['reads']}")
    for what, arguments, keywords in settings["program"]:
        for name, place in references([*arguments, *keywords.values()]):
            limit = {"in": len(shapes), "batch": len(shapes), "tensor": len(settings["held"])}[name]
            if place >= limit:
                raise ShapeError(f"'{what}' refers to the {name} {place}, of which there are {limit}")
    shape: Shape = settings["shape"]
    return shape


def run_program(settings: Settings, inputs: Sequence[Any], tensors: Tensors, training: bool) -> Any:
    """Runs the program; with `fx` proxies for values, writes it down."""
    results: list[Any] = []
    double = is_double()

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
            return dtype_named(what)
        if name == "number":
            return float(what)
        if name == "slice":
            return slice(*(resolve(each) for each in what))
        return ... if name == "ellipsis" else tuple(resolve(each) for each in what)

    # The mode may be known where values are written down: there is a tensor among them in any program.
    tracer = next((each.tracer for each in (*inputs, *tensors.values()) if hasattr(each, "tracer")), None)
    for target, arguments, keywords in settings["program"]:
        given = tuple(resolve(each) for each in arguments)
        named = {name: resolve(each) for name, each in keywords.items()}
        if double and target in _TO_LOWER:
            target = "method.double"
        if target == "operator.pow" and isinstance(given[0], int | float):
            target = "torch.pow"  # written as an operator, a minus before the number would come after the power
        if tracer is None:
            value = given[0].add_(int(training)) if target == COUNT else function(target)(*given, **named)
            results.append(_in_full(value) if double and remembered(target) else value)
        elif target.startswith("method."):
            results.append(tracer.create_proxy("call_method", target.partition(".")[2], given, named))
        else:
            results.append(tracer.create_proxy("call_function", function(target), given, named))
    return results[-1]


def _in_full(value: Any) -> Any:
    """What a function of the user's gives, in double precision where it has computed in a lower one."""
    import torch

    if isinstance(value, list | tuple):
        return [_in_full(each) for each in value]
    return value.double() if isinstance(value, torch.Tensor) and value.is_floating_point() else value


def _specs(settings: Settings, shapes: Sequence[Shape]) -> Mapping[str, TensorSpec]:
    return {
        str(place): TensorSpec(shape, "fan_in", how != "parameter", integer, how != "constant")
        for place, (shape, how, integer) in enumerate(settings["held"])
    }


def _roles(settings: Settings) -> tuple[str, ...]:
    return tuple(str(place) for place in range(len(settings["held"])))


def _wall(solver: Solver, node: Node, axes: Sequence[Dims], shapes: Sequence[Shape], out: Shape) -> Dims:
    target = next(in_memory(node.settings), node.settings["program"][-1][0])
    what = target.partition(".")[2]
    for dims in axes:
        solver.close(dims, node, f"computes '{what}', which is not known to treat channels apart")
    return ((),) * len(out)


def _macs(settings: Settings, shapes: Sequence[Shape], out: Shape) -> int:
    return _counted(_Program(settings), tuple(shapes)) if _multiplies(settings) else 0


_MULTIPLYING = frozenset(
    """
    addbmm addmm addmv baddbmm bilinear bmm chain_matmul conv1d conv2d conv3d conv_transpose1d conv_transpose2d
    conv_transpose3d einsum gru gru_cell inner linear lstm lstm_cell matmul mm multi_dot multi_head_attention_forward mv
    outer rnn_relu rnn_relu_cell rnn_tanh rnn_tanh_cell scaled_dot_product_attention tensordot
    """.split()
)
"""Functions that are convolutions, linear layers or products of matrices, or made of such."""


def _multiplies(settings: Settings) -> bool:
    return any(step[0].partition(".")[2] in _MULTIPLYING for step in settings["program"])


@dataclass(frozen=True, slots=True, eq=False)
class _Program:
    """Settings that can be looked up, by the text that shows them."""

    settings: Settings

    def __hash__(self) -> int:
        return hash(repr(self.settings["program"]))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Program) and self.settings == other.settings


@lru_cache(maxsize=4096)
def _counted(program: _Program, shapes: tuple[Shape, ...]) -> int:
    """The products that torch counts in a program for one example, which is run without numbers.

    None are counted of a program that cannot be run so: one that looks at numbers, that takes whole numbers, or that
    fails on them too, which is said when the network runs.
    """
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    settings = program.settings
    held = {
        str(place): torch.empty(shape, dtype=torch.int64 if integer else None, device="meta")
        for place, (shape, _, integer) in enumerate(settings["held"])
    }
    inputs = [torch.empty((1, *shape), device="meta") for shape in shapes]
    try:
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            run_program(settings, inputs, held, False)
    except (RuntimeError, TypeError, ValueError, IndexError):
        return 0
    return int(counter.get_total_flops()) // 2


def _opaque(name: str, random: bool) -> Kind:
    return Kind(
        name=name,
        settings={
            "program": (checked_program, REQUIRED),
            "reads": (_shapes, REQUIRED),
            "shape": (sizes_of, REQUIRED),
            "held": (_tensors, ()),
        },
        operands=(0, None),
        shape=_as_recorded,
        compute=run_program,
        roles=_roles,
        tensors=_specs,
        channels=_wall,
        macs=_macs,
        random=lambda settings: random,
        wall=True,
    )


OPAQUE = (_opaque("opaque", False), _opaque("opaque_random", True))
"""Programs that are functions of their operands, and programs that draw random numbers."""
