"""Calls that have no kind, written down as programs: a function of each element, or an opaque node."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from graphs.errors import GraphError
from graphs.importing.stand_ins import TRAINING, Differing, Held, Program, Ref, Size, Training, any_of, refs_of
from graphs.kinds.allowed import ELEMENTWISE
from graphs.kinds.program import COUNT

if TYPE_CHECKING:
    from graphs.importing.lowering import Lowering

__all__ = ["opaque", "pointwise"]

_RANDOM = frozenset(
    """
    gru lstm rnn_relu rnn_tanh
    alpha_dropout bernoulli dropout dropout1d dropout2d dropout3d feature_alpha_dropout feature_dropout gumbel_softmax
    multi_head_attention_forward rand_like randn_like rrelu scaled_dot_product_attention
    """.split()
)


def pointwise(low: Lowering, made: Program) -> Ref | None:
    """The node for a function of each element; None where it is none."""
    if made.target.partition(".")[2] not in ELEMENTWISE:
        return None
    tensors = [each for each in made.arguments if isinstance(each, Ref | Held)]
    plain = all(isinstance(each, Ref | Held | int | float | bool) for each in made.arguments)
    if not plain or not 1 <= len(tensors) <= 2 or any_of(_is_tensor, list(made.keywords.values())):
        return None
    refs = [each for each in tensors if isinstance(each, Ref)]
    if not refs:
        return None
    bare = all(ref.bare for ref in refs)
    rank = max(len(low.shape(ref)) for ref in refs if bare or not ref.bare)
    keywords = {name: _finite(each) for name, each in made.keywords.items()}
    given: list[Any] = []
    operands: list[Ref] = []
    for each in made.arguments:
        if isinstance(each, Ref | Held):
            if isinstance(each, Held) and each.tensor.ndim > rank + 1:
                return None
            ref = each if bare and isinstance(each, Ref) else low.ref(each, rank)
            if len(low.shape(ref)) != rank or (ref.bare and not bare):
                return None
            known = [operand.node for operand in operands]
            place = known.index(ref.node) if ref.node in known else len(operands)
            operands += [ref] if place == len(operands) else []
            given.append({"in": place})
        else:
            given.append(_finite(each))
    try:
        ref = low.add("pointwise", operands, program=[[made.target, given, keywords]], bare=bare)
    except GraphError:
        return None
    low.types[ref.node] = low.now.dtype
    return ref


def opaque(low: Lowering, made: Program) -> Ref:
    """The node for a program of which nothing but its shapes is known."""
    steps: list[Any] = []
    operands: list[Ref] = []
    tensors: list[Held] = []
    done: dict[int, int] = {}
    random = False

    def number(items: list[Any], item: Any) -> int:
        if item not in items:
            items.append(item)
        return items.index(item)

    def written(value: Any) -> Any:
        if isinstance(value, Program):
            if id(value) not in done:
                done[id(value)] = step(value)
            return {"step": done[id(value)]}
        if isinstance(value, Ref):
            if value.bare:
                steps.append(["method.squeeze", [{"in": number(operands, value)}, 0], {}])
                return {"step": len(steps) - 1}
            return {"in": number(operands, value)}
        if isinstance(value, Held):
            return {"tensor": number(tensors, value)}
        return _plain(low, value, written)

    def step(program: Program) -> int:
        nonlocal random
        random = random or program.target.partition(".")[2] in _RANDOM
        arguments = [written(each) for each in program.arguments]
        keywords = {name: written(each) for name, each in program.keywords.items()}
        # A view fails where a mutation has changed how the entries lie in memory; a reshape does not.
        target = "method.reshape" if program.target == "method.view" else program.target
        if counts := _counter(low, program):
            steps.append([COUNT, [written(counts), {"training": True}], {}])
        steps.append([target, arguments, keywords])
        return len(steps) - 1

    # The batch size is read off the first operand, so one that has it comes first.
    for ref in sorted(refs_of(made), key=lambda ref: ref.bare or not low.depends(ref)):
        if not ref.bare:
            number(operands, ref)
    if low.now.batched and not any(map(low.depends, operands)):
        # Such as what is repeated for each example: an input alone knows how many there are.
        operands.insert(0, Ref(next(iter(low.inputs.values()))))
    step(made)
    shape, bare = low.now.shapes[0], not low.now.batched
    if bare and shape[:1] != (1,):
        steps.append(["method.unsqueeze", [{"step": len(steps) - 1}, 0], {}])
    else:
        shape, bare = shape[1:], False
    ref = low.add(
        "opaque_random" if random else "opaque",
        operands,
        {str(place): low.use(held) for place, held in enumerate(tensors)},
        bare=bare,
        program=steps,
        reads=[low.shape(ref) for ref in operands],
        shape=shape,
        held=[[tuple(held.tensor.shape), held.how, not held.tensor.is_floating_point()] for held in tensors],
    )
    low.types[ref.node] = low.now.dtype
    if not low.now.batched:
        low.varying.discard(ref.node)
    return ref


def _counter(low: Lowering, program: Program) -> Held | None:
    """What counts the batches of a norm, if it learns from them."""
    statistics = [each for each in program.arguments if isinstance(each, Held) and each.name.endswith("running_mean")]
    if not program.target.endswith(".batch_norm") or not statistics or TRAINING not in program.arguments:
        return None
    return low.named(f"{statistics[0].name.removesuffix('running_mean')}num_batches_tracked")


def _plain(low: Lowering, value: Any, written: Callable[[Any], Any]) -> Any:
    import torch

    if value is None or isinstance(value, bool | int | float | str):
        return _finite(value)
    if isinstance(value, Size):
        return {"batch": value.factor}
    if isinstance(value, Training):
        return {"training": True}
    if isinstance(value, Differing):
        raise low.error(
            f"a number is {value.training} in train mode and {value.inference} in eval mode; "
            "use a layer that knows the mode itself"
        )
    if isinstance(value, torch.dtype):
        return {"dtype": str(value).removeprefix("torch.")}
    if isinstance(value, slice):
        return {"slice": [written(each) for each in (value.start, value.stop, value.step)]}
    if value is Ellipsis:
        return {"ellipsis": True}
    if isinstance(value, tuple):
        return {"tuple": [written(each) for each in value]}
    if isinstance(value, list):
        return [written(each) for each in value]
    raise low.error(f"an argument of type {type(value).__name__} cannot be written down")


def _finite(value: Any) -> Any:
    """A value as it can be written down: JSON has no word for infinity."""
    return value if not isinstance(value, float) or math.isfinite(value) else {"number": str(value)}


def _is_tensor(value: Any) -> bool:
    return isinstance(value, Ref | Held | Program)
