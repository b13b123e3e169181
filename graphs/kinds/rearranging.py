"""Moving values without computing: reshape, permute, slice, select, mean over axes, repeating over the batch.

Axes are counted without the batch, which stays in front. Channels are followed through all of it as far as
`graphs.solver` has words for the arrangement; where it has none, they are fixed, and the reason says where.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import TYPE_CHECKING, Any

from graphs.axes import leaves, nest
from graphs.errors import ShapeError
from graphs.kinds.kind import REQUIRED, Change, Kind, Settings, Tensors
from graphs.kinds.values import boolean, count, pair, whole
from graphs.structure import Node, Shape

if TYPE_CHECKING:
    from graphs.solver import Axis, Dims, Solver

__all__ = ["REARRANGING", "merged", "runs", "sizes_of"]

_MOST_AXES = 12

_MOST_COPIES = 2**14
"""No axis is a list of more segments: each costs time and memory whenever channels are asked for."""


def sizes_of(value: Any) -> Shape:
    """A few sizes."""
    if not isinstance(value, list | tuple) or len(value) > _MOST_AXES:
        raise ValueError(f"expected a list of at most {_MOST_AXES} sizes")
    return tuple(count(size) for size in value)


def _axes(value: Any) -> tuple[int, ...]:
    if not isinstance(value, list | tuple) or len(value) > _MOST_AXES or len({*value}) != len(value):
        raise ValueError("expected a list of different axes")
    return tuple(whole(axis) for axis in value)


def merged(solver: Solver, node: Node, dims: Sequence[Axis], shape: Shape) -> Axis:
    """The axis on which axes of these sizes lie one within the other, the last one fastest."""
    axis: Axis = ()
    size = 1
    for inner, length in zip(dims, shape, strict=True):
        copies = leaves(axis) if axis else size
        if inner and copies * leaves(inner) > _MOST_COPIES:
            axis = solver.instead([axis, inner], size * length, node, f"lays them at {copies} places")
        elif axis:
            axis = nest(axis, inner or length)
        elif inner:
            axis = solver.join([inner] * size)
        size *= length
    return axis


# Reshape ------------------------------------------------------------------------------------------------------------


def runs(before: Shape, after: Shape) -> list[tuple[range, range]]:
    """The smallest runs of axes, before and after, that hold the same entries; axes of one entry may stand alone."""
    found: list[tuple[range, range]] = []
    i = j = 0
    while i < len(before) or j < len(after):
        start, end = (i, j)
        have = want = 1
        while True:
            if have == want and (i > start or j > end):
                break
            if have <= want and i < len(before):
                have *= before[i]
                i += 1
            elif j < len(after):
                want *= after[j]
                j += 1
            else:
                have *= before[i]
                i += 1
        found.append((range(start, i), range(end, j)))
    return found


def _reshaped(settings: Settings, shapes: Sequence[Shape]) -> Shape:
    shape: Shape = settings["shape"]
    if prod(shape) != prod(shapes[0]):
        raise ShapeError(f"expected {prod(shape)} entries for the shape {shape}")
    return shape


def _reshape(settings: Settings, inputs: Sequence[Any], tensors: Tensors, training: bool) -> Any:
    return inputs[0].reshape(-1, *settings["shape"])


def _reshape_channels(solver: Solver, node: Node, axes: Sequence[Dims], shapes: Sequence[Shape], out: Shape) -> Dims:
    dims: list[Axis] = [()] * len(out)
    for before, after in runs(shapes[0], out):
        whole = merged(solver, node, [axes[0][place] for place in before], tuple(shapes[0][place] for place in before))
        long = [place for place in after if out[place] > 1]
        if not long:
            solver.close([whole], node, "keeps no axis for them")
            continue
        parts = solver.divide(whole, [out[place] for place in long])
        if parts is None:
            parts = [solver.instead([whole], out[place], node, "divides them into several axes") for place in long]
        for place, part in zip(long, parts, strict=True):
            dims[place] = part
    return tuple(dims)


def _reshape_resize(settings: Settings, change: Change) -> Settings:
    return {**settings, "shape": change.out}


# Permute, slice, select, mean ---------------------------------------------------------------------------------------


def _permuted(settings: Settings, shapes: Sequence[Shape]) -> Shape:
    if sorted(settings["order"]) != list(range(len(shapes[0]))):
        raise ShapeError(f"expected as many axes as there are in the order {settings['order']}")
    return tuple(shapes[0][axis] for axis in settings["order"])


def _permute(settings: Settings, inputs: Sequence[Any], tensors: Tensors, training: bool) -> Any:
    return inputs[0].permute(0, *(1 + axis for axis in settings["order"]))


def _permute_channels(solver: Solver, node: Node, axes: Sequence[Dims], shapes: Sequence[Shape], out: Shape) -> Dims:
    return tuple(axes[0][axis] for axis in node.settings["order"])


def _sliced(settings: Settings, shapes: Sequence[Shape]) -> Shape:
    axis, start, stop = settings["axis"], settings["start"], settings["stop"]
    if axis >= len(shapes[0]) or not 0 <= start < stop <= shapes[0][axis]:
        raise ShapeError(f"expected entries {start} to {stop} along axis {axis}")
    return (*shapes[0][:axis], -(-(stop - start) // settings["step"]), *shapes[0][axis + 1 :])


def _slice(settings: Settings, inputs: Sequence[Any], tensors: Tensors, training: bool) -> Any:
    axis, start, stop, step = (settings[name] for name in ("axis", "start", "stop", "step"))
    if step == 1:
        return inputs[0].narrow(1 + axis, start, stop - start)
    return inputs[0][(*[slice(None)] * (1 + axis), slice(start, stop, step))]


def _slice_channels(solver: Solver, node: Node, axes: Sequence[Dims], shapes: Sequence[Shape], out: Shape) -> Dims:
    axis = node.settings["axis"]
    part: Axis | None = None
    if node.settings["step"] == 1:
        part = solver.cut(axes[0][axis], node.settings["start"], node.settings["stop"])
    if not part:
        part = solver.instead([axes[0][axis]], out[axis], node, "cuts through them")
    return (*axes[0][:axis], part, *axes[0][axis + 1 :])


def _slice_resize(settings: Settings, change: Change) -> Settings:
    start, stop = (change.moved(0, settings["axis"], settings[end]) for end in ("start", "stop"))
    return {**settings, "start": start, "stop": stop}


def _selected(settings: Settings, shapes: Sequence[Shape]) -> Shape:
    axis = settings["axis"]
    if axis >= len(shapes[0]) or settings["index"] >= shapes[0][axis]:
        raise ShapeError(f"expected an entry {settings['index']} along axis {axis}")
    return (*shapes[0][:axis], *shapes[0][axis + 1 :])


def _select(settings: Settings, inputs: Sequence[Any], tensors: Tensors, training: bool) -> Any:
    return inputs[0].select(1 + settings["axis"], settings["index"])


def _select_channels(solver: Solver, node: Node, axes: Sequence[Dims], shapes: Sequence[Shape], out: Shape) -> Dims:
    axis = node.settings["axis"]
    solver.close([axes[0][axis]], node, "takes one of them")
    return (*axes[0][:axis], *axes[0][axis + 1 :])


def _averaged(settings: Settings, shapes: Sequence[Shape]) -> Shape:
    if not settings["axes"] or any(axis >= len(shapes[0]) for axis in settings["axes"]):
        raise ShapeError(f"expected at least one axis, and all of the axes {settings['axes']}")
    kept = enumerate(shapes[0])
    if settings["keep"]:
        return tuple(1 if axis in settings["axes"] else size for axis, size in kept)
    return tuple(size for axis, size in kept if axis not in settings["axes"])


def _average(settings: Settings, inputs: Sequence[Any], tensors: Tensors, training: bool) -> Any:
    return inputs[0].mean([1 + axis for axis in settings["axes"]], settings["keep"])


def _average_channels(solver: Solver, node: Node, axes: Sequence[Dims], shapes: Sequence[Shape], out: Shape) -> Dims:
    gone = node.settings["axes"]
    solver.close([axes[0][axis] for axis in gone], node, "averages over them")
    if node.settings["keep"]:
        return tuple(() if place in gone else axis for place, axis in enumerate(axes[0]))
    return tuple(axis for place, axis in enumerate(axes[0]) if place not in gone)


def _margins(value: Any) -> tuple[tuple[int, int], ...]:
    if not isinstance(value, list | tuple) or not 1 <= len(value) <= _MOST_AXES:
        raise ValueError("expected margins (before, after) for each axis")
    return tuple(pair(each) for each in value)


def _padded(settings: Settings, shapes: Sequence[Shape]) -> Shape:
    if len(settings["margins"]) != len(shapes[0]):
        raise ShapeError(f"expected {len(settings['margins'])} axes")
    return tuple(low + size + high for (low, high), size in zip(settings["margins"], shapes[0], strict=True))


def _pad(settings: Settings, inputs: Sequence[Any], tensors: Tensors, training: bool) -> Any:
    from torch.nn import functional

    margins = [margin for low_high in reversed(settings["margins"]) for margin in low_high]
    while margins[-2:] == [0, 0]:
        del margins[-2:]
    return functional.pad(inputs[0], margins)


def _pad_channels(solver: Solver, node: Node, axes: Sequence[Dims], shapes: Sequence[Shape], out: Shape) -> Dims:
    return tuple(
        solver.instead([axis], size, node, "adds to them") if any(margin) else axis
        for axis, size, margin in zip(axes[0], out, node.settings["margins"], strict=True)
    )


def _expand(settings: Settings, inputs: Sequence[Any], tensors: Tensors, training: bool) -> Any:
    return inputs[0].expand(inputs[1].shape[0], *[-1] * settings["rank"])


REARRANGING = (
    Kind(
        name="reshape",
        settings={"shape": (sizes_of, REQUIRED)},
        shape=_reshaped,
        compute=_reshape,
        silent=True,
        even=True,
        channels=_reshape_channels,
        resize=_reshape_resize,
    ),
    Kind(
        name="permute",
        settings={"order": (_axes, REQUIRED)},
        shape=_permuted,
        compute=_permute,
        silent=True,
        even=True,
        channels=_permute_channels,
    ),
    Kind(
        name="slice",
        settings={"axis": (whole, 0), "start": (whole, 0), "stop": (count, REQUIRED), "step": (count, 1)},
        shape=_sliced,
        compute=_slice,
        silent=True,
        even=True,
        channels=_slice_channels,
        resize=_slice_resize,
    ),
    Kind(
        name="select",
        settings={"axis": (whole, 0), "index": (whole, 0)},
        shape=_selected,
        compute=_select,
        silent=True,
        even=True,
        channels=_select_channels,
    ),
    Kind(
        name="average",
        settings={"axes": (_axes, REQUIRED), "keep": (boolean, False)},
        shape=_averaged,
        compute=_average,
        silent=True,
        even=True,
        channels=_average_channels,
    ),
    Kind(
        name="pad",
        settings={"margins": (_margins, REQUIRED)},
        shape=_padded,
        compute=_pad,
        silent=True,
        even=True,
        channels=_pad_channels,
    ),
    Kind(
        name="expand",
        settings={"rank": (whole, REQUIRED)},
        operands=(2, 2),
        compute=_expand,
        silent=True,
        even=True,
    ),
)
