"""Random valid networks for Hypothesis, in one place: every kind of node, joined in every way that matters.

`graphs()` draws small graphs that end in linear logits, `networks()` gives them weights that hide nothing. What a
kind needs is said once, in `UNARY`, `JOINING` or `PARTICULAR`; `MISSING` names the kinds that nobody has told this
module how to draw, and a test fails while there are any. A graph is made from a size and a seed: with one seed, a
smaller size gives a shorter beginning of the same graph, and that is what a failing example shrinks to.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import cache
from math import prod
from random import Random
from typing import Any

import torch
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from torch import Tensor

from graphs import parameters, zoo
from graphs.draft import Draft
from graphs.errors import GraphError
from graphs.genome import Genome
from graphs.initial import initial_weights, stream, uniform
from graphs.kinds import KINDS, tensors
from graphs.kinds.joins import whole_numbers
from graphs.kinds.weighted import PLACES, slide
from graphs.structure import Graph, Shape

__all__ = [
    "JOINING",
    "MADE",
    "MISSING",
    "PARTICULAR",
    "UNARY",
    "around",
    "budget",
    "channels_last",
    "graphs",
    "heads_of",
    "inputs",
    "lively",
    "mapped",
    "networks",
    "residual",
    "sketch",
    "small",
    "tied",
    "transformer",
    "transposed",
    "written_out",
]


def budget(examples: int) -> settings:
    """Settings of a property test: always the same `examples`, or as many fresh ones as HYPOTHESIS_EXAMPLES says."""
    more = os.environ.get("HYPOTHESIS_EXAMPLES")
    return settings(
        max_examples=int(more) if more else examples,
        derandomize=not more,
        deadline=None,
        database=None,
        report_multiple_bugs=False,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example],
    )


def inputs(graph: Graph, batch: int = 8, seed: int = 0, dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
    """Examples for each input of a graph, by the input's name: normal, or uniform ones of those that are allowed."""
    generator = torch.Generator().manual_seed(seed)
    found: dict[str, Tensor] = {}
    for node in graph.inputs:
        shape, settings = (batch, *node.settings["shape"]), node.settings
        found[node.settings["name"]] = {
            "float": lambda shape=shape: torch.randn(shape, generator=generator, dtype=dtype),
            "integer": lambda settings=settings: whole_numbers(settings, batch, generator),
            "boolean": lambda shape=shape: torch.randint(0, 2, shape, generator=generator).bool(),
        }[node.settings["dtype"]]()
    return found


def lively(graph: Graph, seed: int = 0) -> Genome:
    """A genome with fresh weights, but whose biases, scales, statistics, slopes and gates are not fresh ones."""
    weights = initial_weights(graph, seed)
    for name, spec in tensors(graph).items():
        if spec.integer:
            # A count of batches, or positions.
            weights[name] = torch.arange(prod(spec.shape)).reshape(spec.shape) % 3 if spec.shape else torch.tensor(3)
        elif spec.start in ("ones", "zeros", "quarter"):
            # Scales and variances from .5 to 1.5, gates half open, all else small and of both signs.
            low, high = (0.5, 1.5) if spec.start == "ones" else (0.1, 0.6) if spec.shape == () else (-0.4, 0.4)
            weights[name] = torch.as_tensor(uniform(stream(seed, f"lively/{name}"), spec.shape, low, high)).float()
    return Genome(graph, weights, {"labels": ["a", "b"]})


def networks(largest: int = 14) -> st.SearchStrategy[Genome]:
    """Random graphs with lively weights."""
    return st.builds(lively, graphs(largest), st.integers(0, 2**20))


def graphs(largest: int = 14) -> st.SearchStrategy[Graph]:
    """Random graphs of `largest` nodes and some more, all of which lead to linear logits."""
    return st.builds(sketch, st.integers(2, largest), st.randoms(use_true_random=True))


def sketch(size: int, rng: Random) -> Graph:
    """A graph of about `size` nodes before its loose ends are brought together."""
    made = Sketch(rng)
    for _ in range(size):
        if len(made.draft.nodes) <= size:
            rng.choice(MOVES)(made)
    return made.finish()


class Sketch:
    """A graph under construction: all values with their shapes, and which of them are read already."""

    def __init__(self, rng: Random) -> None:
        self.rng = rng
        self.draft = Draft(born=rng.randint(0, 2))
        self.shapes: dict[str, Shape] = {}
        self.sizes: dict[str, Shape] = {}
        self.taken: set[str] = set()
        for name in ("x", "y") if self.rarely() else ("x",):
            shape = rng.choice(_INPUTS)(rng)
            self.add("input", (), shape=shape, name=name)

    def rarely(self) -> bool:
        """True in one case of eight."""
        return self.rng.random() < 1 / 8

    def add(self, kind: str, sources: str | Sequence[str], **given: Any) -> str:
        """Adds a node that is known to fit."""
        return self.take(self.draft.add(kind, sources, **given))

    def take(self, id: str) -> str:
        """Notes a node that has been added to the draft."""
        node = self.draft.nodes[id]
        self.taken.update(node.inputs)
        self.sizes[id] = KINDS[node.kind].infer(node, [self.sizes[source] for source in node.inputs])
        self.shapes[id] = self.sizes[id]
        return id

    def divides(self, values: Sequence[str]) -> bool:
        """Whether the modes part on the way to one of these values; a choice within a choice may never be made."""
        ahead, seen = list(values), set[str]()
        while ahead:
            id = ahead.pop()
            if id not in seen:
                seen.add(id)
                ahead.extend(self.draft.nodes[id].inputs)
        return any(KINDS[self.draft.nodes[id].kind].divides for id in seen)

    def value(self) -> str:
        """A value to go on from, mostly one that nobody reads yet."""
        loose = [id for id in self.shapes if id not in self.taken]
        return self.rng.choice(list(self.shapes) if self.rng.random() < 0.3 else loose)

    def like(self, value: str) -> str:
        """Another value of the same shape: one that is there, or one made for it."""
        shape = self.shapes[value]
        if self.rng.random() < 0.5:
            return self.rng.choice([id for id in self.shapes if self.shapes[id] == shape])
        axis = mixing(shape)
        return self.mixed(self.beside(value, axis), shape[axis])

    def beside(self, value: str, axis: int) -> str:
        """A value that differs along one axis at most."""
        wanted = self.shapes[value]
        alike = [id for id, shape in self.shapes.items() if len(shape) == len(wanted)]
        return self.rng.choice([id for id in alike if _without(self.shapes[id], axis) == _without(wanted, axis)])

    def mixed(self, value: str, out: int) -> str:
        """A layer that makes `out` channels from all channels of an image, of features or of tokens."""
        if len(self.shapes[value]) != 3:
            return self.add("linear", value, out=out)
        return self.add("conv2d", value, out=out, kernel=self.rng.choice([1, 3]))

    def hidden(self, kind: str, sources: str | Sequence[str] = (), **given: Any) -> str:
        """A node for one particular reader: what does not depend on the input fits few others."""
        id = self.add(kind, sources, **given)
        del self.shapes[id]
        return id

    def held(self, kind: str, view: Shape, **given: Any) -> str:
        """A parameter or constant that is seen as `view`, and stored with fewer or more axes of one entry."""
        shape = self.rng.choice([(1, *view), view, tuple(size for size in view if size > 1) or (1,)])
        return self.hidden(kind, shape=shape, view=view, **given)

    def tokens(self) -> str | None:
        """A sequence (S, C) of at least two tokens, made from an image where there is none; None where neither is."""
        value = self.value()
        shape = self.shapes[value]
        if len(shape) == 3:
            if prod(shape[1:]) > 12:
                value = self.add("adaptive_avg_pool2d", value, size=2)
            channels, height, width = self.shapes[value]
            value = self.add("reshape", value, shape=(channels, height * width))
            value = self.add("permute", value, order=(1, 0))
        shape = self.shapes[value]
        return value if len(shape) == 2 and 2 <= shape[0] <= 16 else None

    def unary(self, kind: str, value: str) -> str:
        """A node with one operand; the value itself where the kind does not fit."""
        given = UNARY[kind](self.rng, self.shapes[value])
        if given is None:
            return value
        made = self.add(kind, value, **given)
        if kind not in ("group_norm", "layer_norm", "instance_norm"):
            return made
        # The mean over what such a norm has normalised is always the same: pooled, the network would be a constant.
        bent = self.add("gelu", made)
        del self.shapes[made]
        return bent

    def finish(self) -> Graph:
        """Brings all loose ends together, or gives one a head of its own, and adds the logits.

        No head is the same for all examples, which would show nothing.
        """
        ends = [id for id in self.shapes if id not in self.taken]
        varying = [id for id in ends if self.varies(id)] or [next(id for id in self.shapes if self.varies(id))]
        features = [self.features(id) for id in (*(id for id in ends if id not in varying), *varying)]
        if len(varying) > 1 and self.rng.random() < 0.4:
            auxiliary = self.add("linear", features.pop(), out=self.rng.randint(2, 4))
            # What eval mode takes on the way to it would be taken by neither mode.
            whole = self.rng.random() < 0.5 or self.divides([auxiliary])
            self.draft.head(auxiliary, "auxiliary", training_only=not whole)
        whole = features[0] if len(features) == 1 else self.add("concat", features)
        if self.rarely():
            whole = self.unary(self.rng.choice(_ACTIVATIONS), self.add("linear", whole, out=4))
        self.draft.head(self.add("linear", whole, out=self.rng.randint(2, 4)))
        return self.draft.finish()

    def varies(self, value: str) -> bool:
        """Whether a value depends on the numbers of an input."""
        node = self.draft.nodes[value]
        # What is repeated for each example is the same for all.
        sources = node.inputs[:1] if node.kind == "expand" else node.inputs
        return node.kind == "input" or any(self.varies(source) for source in sources)

    def features(self, value: str) -> str:
        """A value as (F,)."""
        shape = self.shapes[value]
        if len(shape) == 1:
            return value
        if len(shape) == 3 and (prod(shape) > 64 or self.rng.random() < 0.5):
            value = self.add("adaptive_avg_pool2d", value, size=self.rng.choice([1, 2]))
        while prod(self.shapes[value]) > 96 and len(self.shapes[value]) > 1:
            value = self.add("average", value, axes=(len(self.shapes[value]) - 2,))
        if len(self.shapes[value]) == 1:
            return value
        return self.add("flatten", value)


def mixing(shape: Shape) -> int:
    """The axis whose channels `Sketch.mixed` makes."""
    return 0 if len(shape) == 3 else len(shape) - 1


def _without(shape: Shape, axis: int) -> tuple[Shape, Shape, int]:
    return shape[:axis], shape[axis + 1 :], len(shape)


_INPUTS: list[Callable[[Random], Shape]] = [
    *[lambda rng: (rng.randint(1, 4), rng.randint(3, 8), rng.randint(3, 8))] * 6,
    lambda rng: (rng.randint(2, 8),),
    *[lambda rng: (rng.randint(2, 5), rng.randint(4, 6))] * 2,
    lambda rng: (rng.randint(1, 2), 3, rng.randint(2, 3), rng.randint(2, 3)),
]
"""Shapes of an input: an image, features, a sequence, or a volume, on which only some kinds work."""

Settings = dict[str, Any] | None
"""Settings of a node; None where its kind does not fit the value."""


def _conv(rng: Random, shape: Shape) -> Settings:
    """For an image, a kernel of two sizes; for a sequence or a volume, sizes of all axes are drawn alike."""
    places = len(shape) - 1
    if places not in (1, 2, 3):
        return None
    channels = shape[0]
    groups = rng.choice([1, 1, 1, channels, *(size for size in range(1, channels + 1) if channels % size == 0)])
    given: dict[str, Any] = {
        "out": groups * (rng.randint(1, 2) if groups > 4 else rng.randint(1, max(1, 8 // groups))),
        "groups": groups,
        "bias": rng.random() < 0.5,
        "kernel": rng.choice([3, 3, 1, 2, (1, 3), (3, 1), (3, 2), 5]),
        "stride": rng.choice([1, 1, 1, 2, (1, 2)]),
        "dilation": rng.choice([1, 1, 1, 2, (2, 1)]),
        "padding": rng.choice([None, None, None, 0, 1, (2, 0)]),
    }
    if places != 2:
        given |= {name: value[0] for name, value in given.items() if isinstance(value, tuple)}
    if min(shape[1:]) < 3:
        given |= {"stride": 1, "dilation": 1, "padding": None}
    filled = KINDS[f"conv{places}d"].fill("", given)
    windows = zip(shape[1:], *(filled[name] for name in ("kernel", "stride", "padding", "dilation")), strict=True)
    return {**given, "padding": 0, "kernel": 1} if any(slide(*window) < 1 for window in windows) else given


def _window(rng: Random, shape: Shape) -> Settings:
    if min(shape[1:]) < 2:
        return None
    # Torch averages a volume only if it is as large as the kernel.
    if rng.random() < 0.5 or (len(shape) == 4 and min(shape[1:]) < 3):
        return {"kernel": _sizes(rng, shape, [2, (1, 2), (2, 1)]), "ceil": rng.random() < 0.5}
    stride = _sizes(rng, shape, [1, 2, (2, 1)])
    return {"kernel": 3, "padding": 1, "stride": stride, "ceil": rng.random() < 0.5}


def _adaptive(rng: Random, shape: Shape) -> Settings:
    return {"size": _sizes(rng, shape, [1, 2, (1, 2), 3])}


def _sizes(rng: Random, shape: Shape, options: Sequence[int | tuple[int, int]]) -> int | tuple[int, ...]:
    """One of several sizes for the axes of places of a map; sizes of two axes are for images only."""
    return rng.choice([size for size in options if isinstance(size, int) or len(shape) == 3])


def _layer_norm(rng: Random, shape: Shape) -> Settings:
    # A norm over two or three numbers says little but their order: its value hardly varies.
    fitting = [axes for axes in range(1, len(shape) + 1) if prod(shape[-axes:]) >= 4]
    if not fitting:
        return None
    return {"axes": rng.choice(fitting), "weight": rng.random() < 0.8, "bias": rng.random() < 0.7}


def _rms_norm(rng: Random, shape: Shape) -> Settings:
    given = _layer_norm(rng, shape)
    return given and {"axes": given["axes"], "weight": given["weight"], "eps": rng.choice([None, 1e-6, 1e-3])}


def _group_norm(rng: Random, shape: Shape) -> Settings:
    fitting = [size for size in range(1, shape[0] + 1) if shape[0] % size == 0 and prod(shape) // size >= 4]
    return {"groups": rng.choice(fitting), "affine": rng.random() < 0.8} if fitting else None


def _instance_norm(rng: Random, shape: Shape) -> Settings:
    return {"affine": rng.random() < 0.6} if 2 <= len(shape) <= 4 and prod(shape[1:]) >= 4 else None


def _batch_norm(rng: Random, shape: Shape) -> Settings:
    if len(shape) > 4 or (len(shape) == 2 and shape[1] < 3):
        return None
    return {"eps": rng.choice([1e-5, 1e-3]), "momentum": rng.choice([0.1, 0.01, 1.0, None])}


def _linear(rng: Random, shape: Shape) -> Settings:
    return {"out": rng.randint(2, 8), "bias": rng.random() < 0.5}


def _ranked(draw: Callable[[Random, Shape], Settings], rank: int) -> Callable[[Random, Shape], Settings]:
    return lambda rng, shape: draw(rng, shape) if len(shape) == rank else None


def _reshape(rng: Random, shape: Shape) -> Settings:
    """Two axes become one, one becomes two, or there is one more of one entry."""
    place = rng.randrange(len(shape))
    size = shape[place]
    halves = [(2, size // 2), (size // 2, 2)] if size % 2 == 0 and len(shape) < 4 else []
    parts = rng.choice([(1, size), (size, 1), *halves] if len(shape) < 4 else [(size,)])
    if len(shape) > 1 and rng.random() < 0.5:
        place = rng.randrange(len(shape) - 1)
        return {"shape": (*shape[:place], shape[place] * shape[place + 1], *shape[place + 2 :])}
    return {"shape": (*shape[:place], *parts, *shape[place + 1 :])}


def _permute(rng: Random, shape: Shape) -> Settings:
    return {"order": rng.sample(range(len(shape)), len(shape))} if len(shape) > 1 else None


def _slice(rng: Random, shape: Shape) -> Settings:
    axis = rng.choice([axis for axis, size in enumerate(shape) if size == max(shape)])
    if shape[axis] < 3:
        return None
    start = rng.randint(0, shape[axis] - 2)
    stop = rng.randint(start + 2, shape[axis])
    return {"axis": axis, "start": start, "stop": stop, "step": rng.choice([1, 1, 1, 2])}


def _select(rng: Random, shape: Shape) -> Settings:
    axis = rng.randrange(len(shape))
    return {"axis": axis, "index": rng.randrange(shape[axis])} if len(shape) > 1 else None


def _average(rng: Random, shape: Shape) -> Settings:
    if len(shape) < 2:
        return None
    return {"axes": rng.sample(range(len(shape)), rng.choice([1, 1, len(shape) - 1])), "keep": rng.random() < 0.3}


def _pad(rng: Random, shape: Shape) -> Settings:
    return {"margins": [rng.choice([(0, 0), (0, 0), (0, 1), (2, 1)]) for _ in shape]} if prod(shape) <= 64 else None


def _pointwise(rng: Random, shape: Shape) -> Settings:
    x = {"in": 0}
    steps = [
        ["torch.add", [x, 0.5], {}],
        ["operator.mul", [-1.5, x], {}],
        ["torch.sub", [0.25, x], {}],
        ["method.clamp", [x], {"min": -2.0}],
        ["functional.softplus", [x], {}],
    ]
    return {"program": [rng.choice(steps)]}


def _long(shape: Shape) -> list[int]:
    """Axes of some entries: what is normalised over few of them hardly varies."""
    return [axis for axis, size in enumerate(shape) if size >= 3]


def _opaque(rng: Random, shape: Shape) -> Settings:
    """Programs with one and several steps, tensors of all sorts, and references of all sorts."""
    x, last = {"in": 0}, {"step": 0}
    programs: list[tuple[list[Any], list[Any]]] = [
        ([["torch.flip", [x, [-1]], {}]], []),
        ([["functional.mish", [x], {}], ["torch.add", [last, x], {"alpha": 0.5}]], []),
        ([["operator.mul", [x, {"tensor": 0}], {}]], [[shape, "parameter", False]]),
        (
            [["operator.add", [x, {"tensor": 0}], {}], ["operator.sub", [last, {"tensor": 1}], {}]],
            [[shape, "buffer", False], [shape, "constant", False]],
        ),
        ([["torch.add", [x, {"tensor": 0}], {}]], [[shape[-1:], "constant", True]]),
        (
            [
                ["method.view", [x, {"batch": 1}, -1], {}],
                ["operator.getitem", [last, {"tuple": [{"ellipsis": True}, {"slice": [None, None, None]}]}], {}],
                ["method.reshape", [{"step": 1}, [-1, *shape]], {}],
            ],
            [],
        ),
        ([["method.to", [x, {"dtype": "float64"}], {}], ["method.type_as", [last, x], {}]], []),
    ]
    program, held = rng.choice(programs)
    return {"program": program, "reads": [shape], "shape": shape, "held": held}


def _opaque_random(rng: Random, shape: Shape) -> Settings:
    step = ["functional.dropout", [{"in": 0}], {"p": 0.3, "training": {"training": True}}]
    return {"program": [step], "reads": [shape], "shape": shape}


def _plain(rng: Random, shape: Shape) -> Settings:
    return {}


_ACTIVATIONS = [name for name, kind in KINDS.items() if kind.activation]

UNARY: dict[str, Callable[[Random, Shape], Settings]] = {
    **{name: _plain for name in _ACTIVATIONS},
    "leaky_relu": lambda rng, shape: {"negative_slope": rng.choice([0.01, 0.3])},
    "gelu": lambda rng, shape: {"approximate": rng.choice(["none", "tanh"])},
    "prelu": lambda rng, shape: {"per_channel": rng.random() < 0.7},
    "conv1d": _ranked(_conv, 2),
    "conv2d": _ranked(_conv, 3),
    "conv3d": _ranked(_conv, 4),
    "linear": _linear,
    "product": _linear,
    "batch_norm": _batch_norm,
    "frozen_batch_norm": _batch_norm,
    "layer_norm": _layer_norm,
    "rms_norm": _rms_norm,
    "group_norm": _group_norm,
    "instance_norm": _instance_norm,
    **{f"{what}_pool{places}d": _ranked(_window, 1 + places) for what in ("max", "avg") for places in PLACES},
    **{
        f"adaptive_{what}_pool{places}d": _ranked(_adaptive, 1 + places) for what in ("avg", "max") for places in PLACES
    },
    "flatten": lambda rng, shape: {} if prod(shape) <= 96 else None,
    "identity": _plain,
    "detach": _plain,
    "dropout": lambda rng, shape: {"p": rng.choice([0.5, 0.2])},
    **{f"dropout{places}d": _ranked(lambda rng, shape: {"p": 0.3}, 1 + places) for places in PLACES},
    "stochastic_depth": lambda rng, shape: {"p": 0.3, "mode": rng.choice(["row", "batch"])},
    "reshape": _reshape,
    "permute": _permute,
    "slice": _slice,
    "select": _select,
    "average": _average,
    "pad": _pad,
    "pointwise": _pointwise,
    "cast": _plain,
    "softmax": lambda rng, shape: {"axis": rng.choice(_long(shape))} if _long(shape) else None,
    "normalize": lambda rng, shape: {"axis": rng.choice(_long(shape))} if _long(shape) else None,
    "roll": lambda rng, shape: {"shifts": [rng.choice([0, 0, 1, -2]) for _ in shape]},
    "opaque": _opaque,
    "opaque_random": _opaque_random,
}
"""For each kind with one operand, how its settings are drawn for a value."""


def _alike(kind: str, most: int) -> Callable[[Sketch], None]:
    def move(made: Sketch) -> None:
        value = made.value()
        made.add(kind, [value, *(made.like(value) for _ in range(made.rng.randint(1, most - 1)))])

    return move


def _either(kind: str) -> Callable[[Sketch], None]:
    """A choice between two values: between one and itself there is none, and a gate there learns nothing."""

    def move(made: Sketch) -> None:
        value = made.value()
        other = made.like(value)
        if other != value and not (KINDS[kind].divides and made.divides([value, other])):
            made.add(kind, [value, other])

    return move


def _concat(made: Sketch) -> None:
    value = made.value()
    axis = made.rng.randrange(len(made.shapes[value]))
    operands = [value, *(made.rng.choice([value, made.beside(value, axis)]) for _ in range(made.rng.randint(0, 2)))]
    if sum(made.shapes[operand][axis] for operand in operands) <= 24:
        made.add("concat", made.rng.sample(operands, len(operands)), axis=axis)


JOINING: dict[str, Callable[[Sketch], None]] = {
    "add": _alike("add", 3),
    "mean": _alike("mean", 3),
    "multiply": _alike("multiply", 2),
    "gate": _either("gate"),
    "by_mode": _either("by_mode"),
    "concat": _concat,
}
"""For each kind with several operands, a move that adds one."""


def _parameter(made: Sketch) -> None:
    """A parameter that is added to a value, or scales it along some of its axes."""
    value = made.value()
    shape = made.shapes[value]
    if made.rng.random() < 0.6:
        made.add("add", [value, made.held("parameter", shape)])
    else:
        view = tuple(made.rng.choice([size, 1]) for size in shape)
        made.add("silu", made.hidden("multiply", [made.held("parameter", view), value]))


def _constant(made: Sketch) -> None:
    value = made.value()
    constant = made.held("constant", made.shapes[value], persistent=made.rng.random() < 0.5)
    made.add("add", [value, constant])


def _embedding(made: Sketch) -> None:
    """Tokens, or positions that are added to tokens."""
    value = made.value()
    shape = made.shapes[value]
    entries = made.rng.randint(3, 6)
    if len(shape) == 2 and made.rng.random() < 0.5:
        positions = made.held("constant", shape[:1], dtype="integer", persistent=made.rng.random() < 0.5)
        made.add("add", [value, made.hidden("embedding", positions, entries=entries, out=shape[1])])
    elif not any(node.settings.get("dtype") == "integer" and not node.inputs for node in made.draft.nodes.values()):
        size = made.rng.choice([(), (4,), (3,), (5,)])
        words = made.hidden("input", name="words", shape=size, dtype="integer", most=entries)
        made.add("embedding", words, entries=entries, out=made.rng.randint(2, 6))


def _attention(made: Sketch) -> None:
    """Queries, keys and values from layers of their own, of the same tokens or of others; behind it, often, a sum."""
    tokens = made.tokens()
    if tokens is None:
        return
    others = made.tokens() if made.rarely() else tokens
    heads, shared = made.rng.randint(1, 3), made.rng.choice([1, 1, 1, 2])
    width, values = (made.rng.randint(1, 3) for _ in range(2))
    query = _headed(made, tokens, heads * shared, width)
    key, value = (_headed(made, others or tokens, heads, each) for each in (width, values))
    places = made.shapes[tokens][0], made.shapes[others or tokens][0]
    operands = [query, key, value]
    if made.rng.random() < 0.3:
        view = tuple(made.rng.choice([1, size]) for size in (heads * shared, *places))
        operands.append(made.held("parameter", view))
    causal = len(operands) == 3 and made.rng.random() < 0.25
    given = {"causal": causal, "scale": made.rng.choice([None, 0.7]), "grouped": shared > 1}
    found = made.hidden("attention", operands, dropout=made.rng.choice([0, 0, 0.2]), **given)
    _behind_heads(made, found, tokens)


def _headed(made: Sketch, value: str, heads: int, width: int) -> str:
    """A layer of tokens (S, C), its channels laid out as heads (heads, S, width)."""
    if made.rng.random() < 0.3:
        order, sizes = (2, 0, 1), (width, heads)
    else:
        order, sizes = (1, 0, 2), (heads, width)
    layer = made.hidden("linear", value, out=heads * width)
    laid = made.hidden("reshape", layer, shape=(made.shapes[value][0], *sizes))
    return made.hidden("permute", laid, order=order)


def _behind_heads(made: Sketch, value: str, tokens: str) -> None:
    """Brings heads together, and often back into the stream of tokens."""
    heads, places, width = made.sizes[value]
    laid = made.hidden("permute", value, order=(1, 0, 2))
    found = made.add("reshape", laid, shape=(places, heads * width))
    if made.rng.random() < 0.6:
        made.add("add", [tokens, made.add("linear", found, out=made.shapes[tokens][1])])


def _written_out(made: Sketch) -> None:
    """Attention as products of matrices around a softmax, of vectors or their directions, with biases by position."""
    tokens = made.tokens()
    if tokens is None:
        return
    heads, places = made.rng.randint(1, 3), made.shapes[tokens][0]
    # The direction of a query of one number is its sign, which hardly ever changes.
    cosine = made.rng.random() < 0.4
    width, values = made.rng.randint(2 if cosine else 1, 3), made.rng.randint(1, 3)
    query, key, value = (_headed(made, tokens, heads, each) for each in (width, width, values))
    if cosine:
        query, key = (made.hidden("normalize", each, axis=2) for each in (query, key))
        query = made.hidden("multiply", [query, made.held("parameter", (heads, 1, 1))])
    else:
        query = made.hidden("pointwise", query, program=[["operator.mul", [{"in": 0}, 0.7], {}]])
    scores = made.hidden("matmul", [query, made.hidden("permute", key, order=(0, 2, 1))])
    if made.rng.random() < 0.5:
        table = made.held("parameter", (made.rng.randint(3, 5), heads))
        shape = (places, places) if made.rng.random() < 0.5 else (places * places,)
        size = made.sizes[table][0]
        rows = made.hidden("take", table, axis=0, size=size, shape=shape, persistent=made.rng.random() < 0.5)
        rows = made.hidden("reshape", rows, shape=(places, places, heads))
        scores = made.hidden("add", [scores, made.hidden("permute", rows, order=(2, 0, 1))])
    found = made.hidden("matmul", [made.hidden("softmax", scores, axis=2), value])
    _behind_heads(made, found, tokens)


def _matmul(made: Sketch) -> None:
    """Two values of which one has as many columns as the other has rows, in any order of axes."""
    value = made.value()
    shape = made.shapes[value]
    if len(shape) < 2 or prod(shape) > 96:
        return
    turned = made.hidden("permute", made.like(value), order=(*range(len(shape) - 2), len(shape) - 1, len(shape) - 2))
    # Of entries of size 1, so that products are no larger than what they are made from.
    scaled = made.hidden("pointwise", turned, program=[["torch.tanh", [{"in": 0}], {}]])
    made.add("matmul", [value, scaled] if made.rng.random() < 0.5 else [scaled, value])


def _pick(made: Sketch) -> None:
    """Entries that each example has of its own."""
    value = made.value()
    shape = made.shapes[value]
    if len(shape) > 1 and not any(node.settings.get("dtype") == "integer" for node in made.draft.nodes.values()):
        axis = made.rng.randrange(len(shape))
        several = made.rng.choice([(), (), (2,)])
        places = made.hidden("input", name="places", shape=several, dtype="integer", most=shape[axis])
        made.add("pick", [value, places], axis=axis, size=shape[axis], rank=len(several))


def _expand(made: Sketch) -> None:
    """A token of its own in front of all others, or a value that is the same for all examples."""
    value = made.value()
    shape = made.shapes[value]
    examples = next(node.id for node in made.draft.nodes.values() if node.kind == "input")
    token = made.add("expand", [made.held("parameter", (1, *shape[1:])), examples], rank=len(shape))
    made.add("concat", [token, value], axis=0)


def _pair(made: Sketch) -> None:
    value = made.value()
    step = made.rng.choice(
        [
            ["torch.maximum", [{"in": 1}, {"in": 0}], {}],
            # Of itself a value leaves something, for a constant would hide all that leads to it.
            ["torch.sub", [{"in": 0}], {"other": {"in": 1}, "alpha": 0.3}],
        ]
    )
    made.add("pointwise", [value, made.like(value)], program=[step])


def _masked(made: Sketch) -> None:
    """A value times truth values."""
    value = made.value()
    if not any(node.settings.get("dtype") == "boolean" for node in made.draft.nodes.values()):
        mask = made.hidden("input", name="mask", shape=made.shapes[value], dtype="boolean")
        made.add("multiply", [value, mask])


def _filled(made: Sketch) -> None:
    """A number in place of some entries."""
    value = made.value()
    if not any(node.settings.get("dtype") == "boolean" for node in made.draft.nodes.values()):
        mask = made.hidden("input", name="mask", shape=made.shapes[value], dtype="boolean")
        made.add("masked_fill", [value, mask], value=made.rng.choice([0.0, -0.5, 2.0]), kept=made.rng.random() < 0.5)


PARTICULAR: dict[str, Callable[[Sketch], None]] = {
    "parameter": _parameter,
    "constant": _constant,
    "embedding": _embedding,
    "attention": _attention,
    "matmul": _matmul,
    "take": _written_out,
    "pick": _pick,
    "expand": _expand,
    "masked_fill": _filled,
}
"""For each kind whose operands are made for it, or that has none, a move that adds one with what it needs."""


def _one(kinds: Sequence[str]) -> Callable[[Sketch], None]:
    def move(made: Sketch) -> None:
        made.unary(made.rng.choice(kinds), made.value())

    return move


def _on_places(made: Sketch) -> None:
    """A pool, or dropout of whole channels, on a map over as many axes of places as there are."""
    value = made.value()
    places = len(made.shapes[value]) - 1
    if places in PLACES:
        kinds = [name for name in UNARY if name.endswith(f"{places}d") and not name.startswith("conv")]
        made.unary(made.rng.choice(kinds), value)


def _residual(made: Sketch) -> None:
    """A residual sum, x + F(x), where F ends in a norm."""
    value = made.value()
    shape = made.shapes[value]
    last = made.unary("batch_norm", made.mixed(value, shape[mixing(shape)]))
    made.add("add", made.rng.sample([value, last], 2))


def _divided(made: Sketch) -> None:
    """A concatenation summed with one plain layer, whose space is thereby divided."""
    value = made.value()
    widths = [made.rng.randint(1, 4) for _ in range(made.rng.randint(2, 3))]
    whole = made.mixed(value, sum(widths))
    parts = [made.add(made.draft.nodes[whole].kind, value, **_same(made, whole, width)) for width in widths]
    made.add("add", [whole, made.add("concat", parts, axis=mixing(made.shapes[value]))])


def _divided_by_slices(made: Sketch) -> None:
    """One layer whose channels go different ways, some of them back together."""
    value = made.value()
    shape = made.shapes[value]
    axis, width = mixing(shape), made.rng.randint(3, 8)
    whole = made.mixed(value, width)
    cut = made.rng.randint(1, width - 1)
    first = made.add("slice", whole, axis=axis, start=0, stop=cut)
    rest = made.add("slice", whole, axis=axis, start=cut, stop=width)
    made.add("concat", [made.unary("relu", rest), first], axis=axis)


def _same(made: Sketch, node: str, width: int) -> dict[str, Any]:
    return {**made.draft.nodes[node].settings, "out": width}


def _excite(made: Sketch) -> None:
    """Squeeze and excitation: a factor for each channel, or for each place."""
    value = made.value()
    shape = made.shapes[value]
    if len(shape) != 3:
        return
    if made.rarely():
        scale = made.add("conv2d", value, out=1, kernel=1)
    else:
        squeezed = made.add("adaptive_avg_pool2d", value)
        hidden = made.add("relu", made.add("conv2d", squeezed, out=made.rng.randint(1, 4), kernel=1))
        scale = made.add("conv2d", hidden, out=shape[0], kernel=1)
    scaled = made.add("multiply", [value, made.add("sigmoid", scale)])
    # A norm would undo the factors, and nothing that they depend on would matter.
    made.add("silu", scaled)
    del made.shapes[scaled]


def _again(made: Sketch) -> None:
    """A layer that is already there, applied to another value with the same tensors."""
    places = [
        (node, value)
        for node in made.draft.nodes.values()
        for value, shape in made.shapes.items()
        if node.kind in ("conv2d", "linear", "batch_norm", "prelu") and shape == made.shapes[node.inputs[0]]
    ]
    if places:
        node, value = made.rng.choice(places)
        made.add(node.kind, value, tensors=node.tensors, **node.settings)


def _tied(made: Sketch) -> None:
    """A layer's weights, transposed, in a function of which nothing is known."""
    places = [
        (node, value)
        for node in made.draft.nodes.values()
        for value, shape in made.shapes.items()
        if node.kind == "linear" and shape[-1] == node.settings["out"]
    ]
    if places:
        node, value = made.rng.choice(places)
        made.take(transposed(made.draft, node.id, value, made.shapes[value], made.sizes[node.inputs[0]][-1]))


def _flat(made: Sketch) -> None:
    """Flatten, then what works on features."""
    flat = made.unary("flatten", made.value())
    if len(made.shapes[flat]) == 1:
        kinds = ["linear", "linear", "batch_norm", "layer_norm", "group_norm", "prelu", "dropout"]
        made.unary(made.rng.choice(kinds), flat)


_REARRANGING = ["reshape", "permute", "slice", "select", "average", "pad", "roll"]

MOVES: list[Callable[[Sketch], None]] = [
    *[_one(["conv2d", "linear", "conv2d", "linear", "conv1d", "conv3d"])] * 5,
    *[_one(_ACTIVATIONS)] * 3,
    *[_one(["batch_norm", "batch_norm", "layer_norm", "group_norm"])] * 2,
    *[_one([kind for kind in UNARY if kind not in {*_ACTIVATIONS, *_REARRANGING}])] * 4,
    *[_on_places] * 3,
    *[_one(_REARRANGING)] * 2,
    *JOINING.values(),
    *PARTICULAR.values(),
    _pair,
    _masked,
    _divided_by_slices,
    _residual,
    _divided,
    _excite,
    _again,
    _tied,
    _flat,
]
"""What a sketch can go on with."""

MISSING = sorted(KINDS.keys() - UNARY.keys() - JOINING.keys() - PARTICULAR.keys() - {"input"})
"""Kinds that this module cannot draw."""


def around(kind: str, seed: int) -> Graph:
    """A small graph in which there is a node of this kind."""
    rng = Random(seed)  # noqa: S311
    moves = {**{name: _one([name]) for name in UNARY}, **JOINING, **PARTICULAR}
    for _ in range(1000):
        made = Sketch(rng)
        moves.get(kind, lambda made: None)(made)
        graph = made.finish()
        if any(node.kind == kind for node in graph.nodes.values()):
            return graph
    raise AssertionError(f"no graph of a thousand has a node of kind '{kind}'")


@cache
def small(name: str, seed: int = 0) -> Genome:
    """A network of the zoo for small images, every size of it as small as its builder allows, but not below 4 or 2."""
    return zoo.create(name, classes=5, input_shape=_IMAGE, seed=seed, **_smallest(name))


@cache
def transformer() -> Genome:
    """A layer of a transformer, as those that are taken in: queries, keys and values are parts of one layer's value."""
    draft = Draft()
    stem = draft.add("linear", draft.input((6, 5)), out=8)
    packed = draft.add("linear", draft.add("layer_norm", stem, axes=1), out=24)
    found = draft.add("attention", [heads_of(draft, packed, start, 2, 4) for start in (0, 8, 16)])
    flat = draft.add("reshape", draft.add("permute", found, order=(1, 0, 2)), shape=(6, 8))
    stream = draft.add("add", [stem, draft.add("linear", flat, out=8)])
    hidden = draft.add("gelu", draft.add("linear", draft.add("rms_norm", stream, axes=1), out=10))
    stream = draft.add("add", [stream, draft.add("linear", hidden, out=8)])
    draft.head(draft.add("linear", draft.add("average", draft.add("layer_norm", stream, axes=1), axes=(0,)), out=4))
    return lively(draft.finish(), 5)


@cache
def residual(norm: str, **settings: Any) -> Genome:
    """Tokens with positions in a residual stream that nothing but norms of one kind reads, but for a skip from it."""
    draft = Draft()
    tokens = draft.add("linear", draft.input((4, 3)), path="tokens", out=6)
    total = draft.add("add", [tokens, draft.add("parameter", (), path="positions", shape=(1, 4, 6), view=(4, 6))])
    for _ in range(2):
        hidden = draft.add("linear", draft.add(norm, total, axes=1, **settings), out=8)
        total = draft.add("add", [total, draft.add("linear", draft.add("gelu", hidden), out=6)])
    skip = draft.add("linear", total, path="skip", out=5)
    last = draft.add("linear", draft.add("average", draft.add(norm, total, axes=1, **settings), axes=(0,)), out=5)
    draft.head(draft.add("add", [last, draft.add("average", skip, axes=(0,))]))
    return lively(draft.finish(), 8)


@cache
def mapped(places: int) -> Genome:
    """A network over so many axes of places, 1 to 3: residual, dense, grouped and separable."""
    draft, kind = Draft(), f"conv{places}d"

    def normed(source: str, activation: str = "relu", **settings: Any) -> str:
        return draft.add(activation, draft.add("batch_norm", draft.add(kind, source, bias=False, **settings)))

    stem = normed(draft.input((3, *[4] * places)), out=4)
    total = draft.add("relu", draft.add("add", [stem, draft.add("batch_norm", draft.add(kind, stem, out=4))]))
    grouped = normed(total, "gelu", out=6, groups=2, stride=2)
    pooled = draft.add(f"avg_pool{places}d", total, kernel=2)
    joined = draft.add("concat", [pooled, draft.add(f"max_pool{places}d", stem, kernel=2), grouped])
    dense = draft.add("relu", draft.add("batch_norm", joined))
    apart = draft.add("prelu", draft.add(kind, draft.add(kind, dense, out=6, kernel=1), out=6, groups=6))
    last = draft.add("silu", draft.add("group_norm", draft.add(kind, apart, out=4), groups=2))
    flat = draft.add("flatten", draft.add(f"adaptive_avg_pool{places}d", last, size=1))
    draft.head(draft.add("linear", flat, out=5))
    return lively(draft.finish(), 7)


@cache
def channels_last() -> Genome:
    """Images whose channels lie last between the depthwise convolutions, as in ConvNeXt and Swin."""
    draft = Draft()
    stem = draft.add("permute", draft.add("conv2d", draft.input((3, 6, 8)), out=6, kernel=2, stride=2), order=(1, 2, 0))
    hidden = draft.add("gelu", draft.add("linear", draft.add("layer_norm", stem, axes=1), out=10))
    total = draft.add("add", [stem, draft.add("linear", hidden, out=6)])
    bent = draft.add("relu", draft.add("linear", total, out=5))
    first = draft.add("permute", bent, order=(2, 0, 1))
    apart = draft.add("relu", draft.add("conv2d", first, out=5, groups=5))
    draft.head(draft.add("linear", draft.add("flatten", draft.add("adaptive_avg_pool2d", apart)), out=4))
    return lively(draft.finish(), 6)


@cache
def tied() -> Genome:
    """An autoencoder whose decoder has the weights of its encoder, transposed, between layers of their own."""
    draft = Draft()
    hidden = draft.add("linear", draft.add("relu", draft.add("linear", draft.input((6,)), out=7)), out=8)
    code = draft.add("linear", draft.add("gelu", hidden), path="codes", out=5)
    bent = draft.add("tanh", code)
    last = draft.add("relu", draft.add("linear", transposed(draft, code, bent, (5,), 8), out=6))
    draft.head(draft.add("linear", last, out=4))
    return lively(draft.finish(), 9)


MADE: dict[str, Callable[[], Genome]] = {
    "sequence": lambda: mapped(1),
    "image": lambda: mapped(2),
    "volume": lambda: mapped(3),
    "channels last": channels_last,
    "transformer": transformer,
    "stream of means": lambda: residual("layer_norm"),
    "stream of squares": lambda: residual("rms_norm", eps=1e-3),
    "tied": tied,
}
"""Networks made for the laws: over one, two and three axes of places, with channels first and last, and of tokens."""


@cache
def written_out(cosine: bool = False) -> Genome:
    """Attention as products of matrices around a softmax, with a bias for each head from a table of positions."""
    draft = Draft()
    stem = draft.add("linear", draft.input((6, 5)), out=6)
    packed = draft.add("linear", stem, out=20)
    query, key, value = (heads_of(draft, packed, *part) for part in ((0, 2, 3), (6, 2, 3), (12, 2, 4)))
    if cosine:
        query, key = (draft.add("normalize", each, axis=2) for each in (query, key))
        query = draft.add("multiply", [query, draft.add("parameter", (), shape=(2, 1, 1), view=(2, 1, 1))])
    else:
        query = draft.add("pointwise", query, program=[["operator.mul", [{"in": 0}, 0.6], {}]])
    scores = draft.add("matmul", [query, draft.add("permute", key, order=(0, 2, 1))])
    table = draft.add("parameter", (), shape=(3, 2), view=(3, 2))
    bias = draft.add("reshape", draft.add("take", table, size=3, shape=(36,)), shape=(6, 6, 2))
    bias = draft.add("permute", bias, order=(2, 0, 1))
    scores = draft.add("pointwise", [scores, bias], program=[["operator.add", [{"in": 0}, {"in": 1}], {}]])
    found = draft.add("matmul", [draft.add("softmax", scores, axis=2), value])
    flat = draft.add("reshape", draft.add("permute", found, order=(1, 0, 2)), shape=(6, 8))
    stream = draft.add("add", [stem, draft.add("linear", flat, out=6)])
    draft.head(draft.add("linear", draft.add("average", draft.add("tanh", stream), axes=(0,)), out=4))
    return lively(draft.finish(), 5)


def transposed(draft: Draft, layer: str, value: str, shape: Shape, width: int) -> str:
    """A linear layer's weights, the other way round, on a value of this shape; the layer reads so many channels."""
    program = [["method.t", [{"tensor": 0}], {}], ["functional.linear", [{"in": 0}, {"step": 0}], {}]]
    given = {"reads": [shape], "shape": (*shape[:-1], width), "held": [[(shape[-1], width), "parameter", False]]}
    return draft.add("opaque", value, tensors={"0": draft.nodes[layer].tensors["weight"]}, program=program, **given)


def heads_of(draft: Draft, packed: str, start: int, heads: int, width: int) -> str:
    """A part of the channels of six tokens, laid out as heads."""
    part = draft.add("slice", packed, axis=1, start=start, stop=start + heads * width)
    return draft.add("permute", draft.add("reshape", part, shape=(6, heads, width)), order=(1, 0, 2))


_IMAGE = (3, 8, 8)


@cache
def _smallest(name: str) -> dict[str, Any]:
    given: dict[str, Any] = {}
    for setting, value in zoo.settings_of(name).items():
        for size in range(4 if value > 4 else 2, value) if isinstance(value, int) else ():
            try:
                zoo.ZOO[name](5, _IMAGE, **given, **{setting: size})
            except GraphError:
                continue
            given[setting] = size
            break
    return given


def _different() -> dict[str, int]:
    """Names of the networks of the zoo that differ still when they are small, with their parameters."""
    seen: dict[str, str] = {}
    for name, builder in zoo.ZOO.items():
        made = getattr(builder, "func", builder).__name__
        seen.setdefault(f"{made}{zoo.settings_of(name) | _smallest(name)}", name)
    return {name: parameters(zoo.ZOO[name](5, _IMAGE, **_smallest(name))) for name in seen.values()}


WHOLE_ZOO = _different()
SMALL_ZOO = [name for name, size in WHOLE_ZOO.items() if size < 1_000_000]
"""Networks that are small enough for many trials."""
