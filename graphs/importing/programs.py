"""Calls that have no kind, written down as programs: a function of each element, or an opaque node."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from graphs.errors import GraphError
from graphs.importing.stand_ins import TRAINING, Differing, Held, OwnType, Program, Ref, Size, Training, any_of
from graphs.kinds.allowed import ELEMENTWISE
from graphs.kinds.in_memory import remembered
from graphs.kinds.program import COUNT

if TYPE_CHECKING:
    from graphs.importing.lowering import Lowering

__all__ = ["opaque", "pointwise"]

_RANDOM = frozenset(
    """
    gru lstm rnn_relu rnn_tanh
    alpha_dropout bernoulli dropout dropout1d dropout2d dropout3d feature_alpha_dropout feature_dropout gumbel_softmax
    multi_head_attention_forward rand_like randint_like randn_like rrelu scaled_dot_product_attention
    """.split()
)

_RATES = {**dict.fromkeys(("gru", "lstm", "rnn_relu", "rnn_tanh"), 5), "scaled_dot_product_attention": 4}
"""Which argument says how much is dropped, for those that draw nothing if it is zero."""


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
    leaves = list(_leaves(made, set()))
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
        program = _like(low, program, leaves)
        random = random or _draws(program)
        # What is computed twice gets two gradients, of which a function of the user's may make something else.
        trained = remembered(program.target) and low.now.dtype.is_floating_point
        if _draws(program) or trained:
            if id(program) in low.drawing:
                what, how = ("is in the memory of this process", "called") if trained else _RANDOM_NUMBERS
                raise low.error(
                    f"what '{program.target.partition('.')[2]}' gives, which {what}, is read several times where its "
                    f"examples are not its first axis, and would be {how} anew each time; keep examples along the "
                    "first axis"
                )
            low.drawing[id(program)] = program
        arguments = [written(each) for each in program.arguments]
        keywords = {name: written(each) for name, each in program.keywords.items()}
        # A view fails where a mutation has changed how the entries lie in memory; a reshape does not.
        target = "method.reshape" if program.target == "method.view" else program.target
        if counts := _counter(low, program):
            steps.append([COUNT, [written(counts), {"training": True}], {}])
        steps.append([target, arguments, keywords])
        return len(steps) - 1

    # The batch size is read off the first operand, so one that has it comes first.
    for ref in sorted(
        (each for each in leaves if isinstance(each, Ref)), key=lambda ref: ref.bare or not low.depends(ref)
    ):
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


_RANDOM_NUMBERS = ("has random numbers in it", "drawn")


def _draws(program: Program) -> bool:
    """Whether a call draws random numbers, if only in train mode."""
    if program.draws:
        return True
    name = program.target.partition(".")[2]
    if name not in _RATES:
        return name in _RANDOM
    rest = program.arguments[_RATES[name] :]
    return bool((rest[0] if rest else program.keywords.get("dropout_p", 0)) != 0)


def _leaves(value: Any, seen: set[int]) -> Iterator[Ref | Held]:
    """The nodes and tensors that a value is made of, but for what new tensors are like if their type is said apart."""
    if isinstance(value, Ref | Held):
        yield value
    elif isinstance(value, Program) and id(value) not in seen:
        seen.add(id(value))
        yield from _leaves([*value.arguments[_is_new(value) :], *value.keywords.values()], seen)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _leaves(each, seen)


def _is_new(program: Program) -> bool:
    """Whether a call makes a new tensor of numbers whose type is said."""
    dtype = program.keywords.get("dtype")
    return program.target.startswith("method.new_") and dtype is not None and dtype.is_floating_point


def _like(low: Lowering, program: Program, leaves: Sequence[Ref | Held]) -> Program:
    """A call that makes a new tensor, whose type is that of what it meets, so that it follows that one's precision."""
    if not _is_new(program):
        return program
    dtype = program.keywords["dtype"]
    types = [(each, each.tensor.dtype if isinstance(each, Held) else low.types[each.node]) for each in leaves]
    like = next((each for each, own in types if own == dtype), None)
    if like is None:
        return program
    keywords = {name: each for name, each in program.keywords.items() if name != "dtype"}
    return replace(program, arguments=(like, *program.arguments[1:]), keywords=keywords)


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
    if isinstance(value, OwnType):
        value = value.dtype
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
