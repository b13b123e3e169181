"""What comes out of a traced call, for two batch sizes.

What differs between the two runs depends on the batch; nothing else does, so no batch size is baked in. Only calls that
have no shape rule of their own are observed, one by one, from the shapes of what stands for their arguments. Nothing is
computed: the runs are on the `meta` device, or, where a call names a device, with fake tensors.
"""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

from graphs.errors import GraphError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from graphs.structure import Shape

__all__ = ["BATCHES", "Seen", "observe", "performed", "quiet"]

BATCHES = (2, 3)
"""Batch sizes for which calls are observed."""


@dataclass(frozen=True)
class Seen:
    """What was observed of one value: what it was for each of `BATCHES`, tensors without numbers."""

    values: tuple[Any, ...] = ()

    @cached_property
    def shapes(self) -> tuple[Shape, ...]:
        """The shape for each batch size; none for what is no tensor."""
        from torch import Tensor

        return tuple(tuple(each.shape) for each in self.values if isinstance(each, Tensor))

    @property
    def dtype(self) -> torch.dtype:
        """The type of a tensor."""
        found: torch.dtype = self.values[0].dtype
        return found

    @property
    def several(self) -> bool:
        """Whether it is a list or a tuple."""
        return isinstance(next(iter(self.values), None), list | tuple)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of a tuple's parts, where they have some."""
        kind = type(next(iter(self.values), None))
        return tuple(getattr(kind, "_fields", getattr(kind, "__match_args__", ())))

    @property
    def batched(self) -> bool:
        """Whether the first axis, and it alone, is the batch."""
        one, other = self.shapes
        return (one[:1], other[:1]) == (BATCHES[:1], BATCHES[1:]) and one[1:] == other[1:]

    @property
    def constant(self) -> bool:
        """Whether the shape does not depend on the batch."""
        return self.shapes[0] == self.shapes[1]


def observe(
    call: Callable[..., Any],
    arguments: list[Any],
    keywords: Mapping[str, Any],
    value_of: Callable[..., Any],
) -> Seen:
    """What a call gives for each batch size.

    Args:
        call: What is called.
        arguments: Stand-ins for its arguments, maybe within lists, tuples, mappings and slices.
        keywords: The same by name.
        value_of: `(stand-in, place=number of the batch size) -> value`; of a tensor shape, strides and type count.

    Raises:
        Exception: What the call raises.
    """
    try:
        return _observed(call, arguments, keywords, value_of, "meta")
    except Exception:
        return _observed(call, arguments, keywords, value_of, "cpu")


def _observed(
    call: Callable[..., Any],
    arguments: list[Any],
    keywords: Mapping[str, Any],
    value_of: Callable[..., Any],
    device: str,
) -> Seen:
    import torch

    mode = torch.device("meta") if device == "meta" else _fake()
    values = []
    with quiet(), torch.no_grad(), mode:
        for place in range(len(BATCHES)):
            given, named = _there([arguments, keywords], partial(value_of, place=place), device)
            values.append(call(*given, **named))
    return Seen(tuple(values))


def performed(
    call: Callable[..., Any],
    arguments: list[Any],
    keywords: Mapping[str, Any],
    value_of: Callable[..., Any],
) -> tuple[Seen, bool]:
    """What a function of the user's gives for each batch size, and whether it draws random numbers.

    It is run on numbers, because it may look at them; where it does not take those that are drawn for it, it is
    observed as other functions are.

    Raises:
        GraphError: It writes into a tensor that it is given.
        Exception: What it raises, run in either way.
    """
    import torch

    values, drawn = [], False
    generator = torch.Generator().manual_seed(0)
    try:
        with quiet(), torch.no_grad():
            for place in range(len(BATCHES)):
                numbers: list[Tensor] = []

                def with_numbers(value: Any, place: int = place, numbers: list[Tensor] = numbers) -> Any:
                    found = value_of(value, place=place)
                    if not isinstance(found, torch.Tensor):
                        return found
                    numbers.append(_filled(found, generator))
                    return numbers[-1]

                given, named = _there([arguments, keywords], with_numbers, None)
                kept, before = [each.clone() for each in numbers], torch.get_rng_state()
                values.append(_there(call(*given, **named), lambda each: each, "meta"))
                drawn |= not torch.equal(before, torch.get_rng_state())
                if not all(map(_is_kept, numbers, kept)):
                    raise GraphError("it writes into a tensor that it is given; work on a copy, such as x.clone()")
    except GraphError:
        raise
    except Exception:
        return observe(call, arguments, keywords, value_of), False
    return Seen(tuple(values)), drawn


def _filled(tensor: Tensor, generator: torch.Generator) -> Tensor:
    """A tensor with numbers: its own, if it has some."""
    import torch
    from torch._subclasses.fake_tensor import FakeTensor

    if not tensor.is_meta and not isinstance(tensor, FakeTensor):
        return tensor.detach().clone()
    made = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype)
    return made.normal_(generator=generator) if made.is_floating_point() else made.zero_()


def _is_kept(tensor: Tensor, before: Tensor) -> bool:
    """Whether a tensor has the numbers that it had."""
    same = (tensor == before) | (tensor != tensor)
    return tensor.shape == before.shape and bool(same.all())


def _fake() -> contextlib.AbstractContextManager[Any]:
    from torch._subclasses.fake_tensor import FakeTensorMode

    return FakeTensorMode(allow_non_fake_inputs=True)


def _there(value: Any, value_of: Callable[[Any], Any], device: str | None) -> Any:
    """A value with empty tensors on a device in place of its tensors; with the very tensors that are given if None."""
    import torch

    if isinstance(value, Mapping):
        return {name: _there(each, value_of, device) for name, each in value.items()}
    if isinstance(value, slice):
        return slice(*(_there(each, value_of, device) for each in (value.start, value.stop, value.step)))
    if isinstance(value, list) or type(value) in (tuple, torch.Size):
        there = [_there(each, value_of, device) for each in value]
        return there if isinstance(value, list) else tuple(there)
    found = value_of(value)
    if isinstance(found, torch.Tensor):
        if device is None:
            return found
        return torch.empty_strided(found.shape, found.stride(), dtype=found.dtype, device=device)
    return found if found is value else _there(found, lambda each: each, device)


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
