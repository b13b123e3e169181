"""Laws of the channel spaces: what the analysis calls changeable, an independent oracle can widen by hand.

The oracle knows nothing of spaces. It is told which outputs of a layer are copied, follows the copies forwards through
the network kind by kind, insists that operands agree, and indexes each tensor by what arrives at its node.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from math import prod

import numpy
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from graphs import explain, report
from graphs.draft import Draft
from graphs.execution import execute
from graphs.genome import Genome
from graphs.kinds import KINDS, TensorSpec
from graphs.spaces import Space
from graphs.structure import Graph, Node, Shape
from ops.width import change_width
from tests.strategies import SMALL_ZOO, around, budget, inputs, lively, networks, small, transposed

Origin = list[int]
"""For each entry of one axis of a child's value, the parent's entry that it is a copy of."""

Origins = list[Origin]
"""That for each axis of a value. An axis that a layer makes anew is empty until it is filled in."""


# The oracle ---------------------------------------------------------------------------------------------------------


def _whole(size: int) -> Origin:
    return list(range(size))


def _unchanged(node: Node, graph: Graph, operands: Sequence[Origins]) -> None:
    for operand, source in zip(operands, node.inputs, strict=True):
        assert operand == [_whole(size) for size in graph.shapes[source]], f"what {node.id} reads has changed"


def _operand(node: Node, graph: Graph, operands: Sequence[Origins]) -> Origins:
    assert all(operand == operands[0] for operand in operands), f"operands of {node.id} differ"
    return operands[0]


def _own(node: Node, graph: Graph, operands: Sequence[Origins]) -> Origins:
    return [[] for _ in graph.shapes[node.id]]


def _wall(node: Node, graph: Graph, operands: Sequence[Origins]) -> Origins:
    _unchanged(node, graph, operands)
    return [_whole(size) for size in graph.shapes[node.id]]


def _window(node: Node, graph: Graph, operands: Sequence[Origins]) -> Origins:
    """Works on places, which do not change, for each channel apart."""
    assert operands[0][1:] == [_whole(size) for size in graph.shapes[node.inputs[0]][1:]]
    return [operands[0][0], *(_whole(size) for size in graph.shapes[node.id][1:])]


def _conv(node: Node, graph: Graph, operands: Sequence[Origins]) -> Origins:
    channels, places = graph.shapes[node.inputs[0]][0], _window(node, graph, operands)[1:]
    if 1 < node.settings["groups"] == channels:
        times = node.settings["out"] // channels
        return [[entry * times + place for entry in operands[0][0] for place in range(times)], *places]
    return [[], *places]


def _last(node: Node, graph: Graph, operands: Sequence[Origins]) -> Origins:
    return [*operands[0][:-1], []]


def _embedded(node: Node, graph: Graph, operands: Sequence[Origins]) -> Origins:
    return [*operands[0], []]


def _broadcast(node: Node, graph: Graph, operands: Sequence[Origins]) -> Origins:
    found: Origins = []
    for axis, whole in enumerate(graph.shapes[node.id]):
        given = [
            operand[axis]
            for operand, source in zip(operands, node.inputs, strict=True)
            if graph.shapes[source][axis] == whole
        ]
        assert all(operand[axis] in (given[0], [0]) for operand in operands), f"operands of {node.id} differ"
        found.append(given[0])
    return found


def _concat(node: Node, graph: Graph, operands: Sequence[Origins]) -> Origins:
    axis, found, before = node.settings["axis"], [], 0
    for operand, source in zip(operands, node.inputs, strict=True):
        assert [*operand[:axis], *operand[axis + 1 :]] == [*operands[0][:axis], *operands[0][axis + 1 :]]
        found += [before + entry for entry in operand[axis]]
        before += graph.shapes[source][axis]
    return [*operands[0][:axis], found, *operands[0][axis + 1 :]]


def _rearranged(shape: Shape, origins: Origins, sizes: Sequence[int], before: Shape) -> Origins:
    """Where entries come from once a value (of `shape`, `origins`) is seen with `sizes`, the parent's with `before`."""
    entries = numpy.arange(prod(shape)).reshape(shape)[numpy.ix_(*origins)].reshape(sizes)
    found: Origins = []
    for axis, places in enumerate(numpy.unravel_index(entries, before)):
        rows = numpy.moveaxis(places, axis, 0).reshape(sizes[axis], -1)
        assert (rows == rows[:, :1]).all(), "copies lie across the axes"
        found.append(rows[:, 0].tolist())
    return found


def _flatten(node: Node, graph: Graph, operands: Sequence[Origins]) -> Origins:
    size = prod(len(origin) for origin in operands[0])
    return _rearranged(graph.shapes[node.inputs[0]], operands[0], [size], graph.shapes[node.id])


def _reshape(node: Node, graph: Graph, operands: Sequence[Origins]) -> Origins:
    """Which axis of the result is longer is written down; the entries must lie accordingly."""
    return _rearranged(graph.shapes[node.inputs[0]], operands[0], node.settings["shape"], graph.shapes[node.id])


def _permute(node: Node, graph: Graph, operands: Sequence[Origins]) -> Origins:
    return [operands[0][axis] for axis in node.settings["order"]]


def _slice(node: Node, graph: Graph, operands: Sequence[Origins]) -> Origins:
    axis, start, stop = (node.settings[name] for name in ("axis", "start", "stop"))
    part = [entry - start for entry in operands[0][axis] if start <= entry < stop]
    if node.settings["step"] > 1:
        assert operands[0][axis] == _whole(graph.shapes[node.inputs[0]][axis])
        part = _whole(graph.shapes[node.id][axis])
    return [*operands[0][:axis], part, *operands[0][axis + 1 :]]


def _select(node: Node, graph: Graph, operands: Sequence[Origins]) -> Origins:
    axis = node.settings["axis"]
    assert operands[0][axis] == _whole(graph.shapes[node.inputs[0]][axis])
    return [*operands[0][:axis], *operands[0][axis + 1 :]]


def _average(node: Node, graph: Graph, operands: Sequence[Origins]) -> Origins:
    gone, kept = node.settings["axes"], node.settings["keep"]
    assert all(operands[0][axis] == _whole(graph.shapes[node.inputs[0]][axis]) for axis in gone)
    found = [[0] if axis in gone else origin for axis, origin in enumerate(operands[0])]
    return found if kept else [origin for axis, origin in enumerate(found) if axis not in gone]


def _pad(node: Node, graph: Graph, operands: Sequence[Origins]) -> Origins:
    found: Origins = []
    for axis, margins in enumerate(node.settings["margins"]):
        if any(margins):
            assert operands[0][axis] == _whole(graph.shapes[node.inputs[0]][axis])
        found.append(_whole(graph.shapes[node.id][axis]) if any(margins) else operands[0][axis])
    return found


def _expand(node: Node, graph: Graph, operands: Sequence[Origins]) -> Origins:
    return operands[0]


def _attention(node: Node, graph: Graph, operands: Sequence[Origins]) -> Origins:
    """What lies in front of the last two axes is alike, or so many times as long, in all operands."""
    query, _, value = operands[:3]
    places = [[*origin[:-2], *whole[-2:]] for origin, whole in zip(operands, _shapes(node, graph), strict=True)]
    assert [each[-2:] for each in operands[:2]] == [each[-2:] for each in places[:2]], f"{node.id} compares"
    assert value[-2] == places[2][-2] and operands[3:] == [
        [*o[:-2], *p[-2:]] for o, p in zip(operands[3:], places[3:], strict=True)
    ]
    apart = query[:-2]
    for operand, whole in zip(operands[1:], _shapes(node, graph)[1:], strict=True):
        for place, origin in enumerate(operand[:-2]):
            times = graph.shapes[node.id][place] // len(whole[place])
            wanted = [entry * times + each for entry in origin for each in range(times)]
            assert len(whole[place]) == 1 or wanted == apart[place], f"heads of {node.id} differ"
    return [*apart, query[-2], value[-1]]


def _shapes(node: Node, graph: Graph) -> list[Origins]:
    return [[_whole(size) for size in graph.shapes[source]] for source in node.inputs]


def _matmul(node: Node, graph: Graph, operands: Sequence[Origins]) -> Origins:
    one, other = operands
    whole = _whole(graph.shapes[node.inputs[0]][-1])
    assert one[-1] == other[-2] == whole, f"{node.id} sums over them"
    assert len(one) == len(other)
    apart: Origins = []
    for place, (a, b) in enumerate(zip(one[:-2], other[:-2], strict=True)):
        assert a == b or min(len(a), len(b)) == 1, f"operands of {node.id} differ"
        apart.append(a if len(a) == graph.shapes[node.id][place] or len(a) > len(b) else b)
    return [*apart, one[-2], other[-1]]


def _across(node: Node, graph: Graph, operands: Sequence[Origins]) -> Origins:
    """All along an axis depends on all of it."""
    axis = node.settings["axis"]
    assert operands[0][axis] == _whole(graph.shapes[node.inputs[0]][axis])
    return operands[0]


def _take(node: Node, graph: Graph, operands: Sequence[Origins]) -> Origins:
    axis, found = node.settings["axis"], _across(node, graph, operands)
    return [*found[:axis], _whole(graph.shapes[node.id][axis]), *found[axis + 1 :]]


def _pick(node: Node, graph: Graph, operands: Sequence[Origins]) -> Origins:
    value, numbers = operands
    axis = node.settings["axis"]
    assert value[axis] == _whole(graph.shapes[node.inputs[0]][axis]), f"{node.id} takes some of them"
    return [*numbers, *value[:axis], *value[axis + 1 :]]


def _roll(node: Node, graph: Graph, operands: Sequence[Origins]) -> Origins:
    for axis, shift in enumerate(node.settings["shifts"]):
        assert not shift or operands[0][axis] == _whole(graph.shapes[node.id][axis])
    return operands[0]


PASSING = {
    *(name for name, kind in KINDS.items() if kind.activation or name.startswith("dropout")),
    *("batch_norm", "frozen_batch_norm", "layer_norm", "rms_norm", "group_norm", "instance_norm"),
    *("identity", "detach", "stochastic_depth", "cast"),
    *("add", "mean", "gate", "by_mode"),
}
"""Kinds whose channels are those of their operands."""

FORWARDS: dict[str, Callable[[Node, Graph, Sequence[Origins]], Origins]] = {
    **dict.fromkeys(PASSING, _operand),
    **dict.fromkeys((name for name, kind in KINDS.items() if kind.pooling), _window),
    **dict.fromkeys(("input", "parameter", "constant"), _own),
    **dict.fromkeys(("conv1d", "conv2d", "conv3d"), _conv),
    **dict.fromkeys(("multiply", "pointwise", "masked_fill"), _broadcast),
    **dict.fromkeys(("softmax", "normalize"), _across),
    **dict.fromkeys(("opaque", "opaque_random"), _wall),
    "attention": _attention,
    "matmul": _matmul,
    "take": _take,
    "pick": _pick,
    "roll": _roll,
    "linear": _last,
    "product": _last,
    "embedding": _embedded,
    "concat": _concat,
    "flatten": _flatten,
    "reshape": _reshape,
    "permute": _permute,
    "slice": _slice,
    "select": _select,
    "average": _average,
    "pad": _pad,
    "expand": _expand,
}
"""How copies pass through each kind."""


def claimed(space: Space, graph: Graph, node: str, axis: int, copies: Origin) -> Origin:
    """What the analysis says: the entries of a value's axis when the space's channels become `copies`."""
    entries: Origin = []
    position = 0
    for value in sorted(space.values, key=lambda value: value.offset):
        if (value.node, value.axis) == (node, axis):
            entries += range(position, value.offset)
            entries += [value.offset + c * value.inner + place for c in copies for place in range(value.inner)]
            position = value.offset + space.width * value.inner
    return [*entries, *range(position, graph.shapes[node][axis])]


def follow(graph: Graph, space: Space, copies: Origin) -> dict[str, Origins]:
    """Where the copies of a space's channels turn up; asserts that the network still fits together."""
    origins: dict[str, Origins] = {}
    for node in graph.nodes.values():
        wanted = [claimed(space, graph, node.id, axis, copies) for axis in range(len(graph.shapes[node.id]))]
        if node.kind == "reshape":
            # Entries alone do not tell more heads from wider ones; into what they are laid out is for us to say.
            node = replace(node, settings={"shape": tuple(map(len, wanted))})
        found = FORWARDS[node.kind](node, graph, [origins[source] for source in node.inputs])
        origins[node.id] = [origin or claim for origin, claim in zip(found, wanted, strict=True)]
    return origins


def widened(genome: Genome, origins: Mapping[str, Origins]) -> Genome:
    """The network by hand: each tensor indexed by what arrives at its node and what leaves it, readers divided."""
    graph, draft = genome.graph, Draft(genome.graph)
    weights: dict[str, Tensor] = {}
    for node in graph.nodes.values():
        out = origins[node.id]
        given = origins[node.inputs[0]] if node.inputs else []
        sizes = tuple(map(len, out))
        made = {role: genome.weights[name] for role, name in node.tensors.items()}
        if node.kind in ("conv1d", "conv2d", "conv3d"):
            groups, channels = node.settings["groups"], graph.shapes[node.inputs[0]][0]
            made = {role: tensor[out[0]] for role, tensor in made.items()}
            if 1 < groups == channels:
                draft.set(node.id, out=len(out[0]), groups=len(given[0]))
            else:
                made["weight"] = _divided(made["weight"], _within(given[0], groups, channels))
                draft.set(node.id, out=len(out[0]))
        elif node.kind == "linear":
            made = {role: tensor[out[-1]] for role, tensor in made.items()}
            made["weight"] = _divided(made["weight"], _within(given[-1], 1, graph.shapes[node.inputs[0]][-1]))
            draft.set(node.id, out=len(out[-1]))
        elif node.kind == "product":
            made = {role: tensor[..., out[-1]] for role, tensor in made.items()}
            within = _within(given[-1], 1, graph.shapes[node.inputs[0]][-1])
            made["weight"] = _divided(made["weight"].t(), within).t()
            draft.set(node.id, out=len(out[-1]))
        elif node.kind == "embedding":
            made["weight"] = made["weight"][:, out[-1]]
            draft.set(node.id, out=len(out[-1]))
        elif node.kind in ("batch_norm", "frozen_batch_norm", "group_norm", "instance_norm") or (
            node.kind == "prelu" and node.settings["per_channel"]
        ):
            made = {role: tensor[out[0]] if tensor.ndim else tensor for role, tensor in made.items()}
        elif node.kind in ("layer_norm", "rms_norm"):
            made = {role: _along(tensor, out[-node.settings["axes"] :]) for role, tensor in made.items()}
        elif node.kind == "parameter":
            value = _along(made["value"].reshape(node.settings["view"]), out)
            longer = iter(size for size in sizes if size > 1)
            shape = tuple(next(longer) if size > 1 else 1 for size in node.settings["shape"])
            made["value"] = value.reshape(shape)
            draft.set(node.id, shape=shape, view=sizes)
        elif node.kind == "slice" and node.settings["step"] == 1:
            ends = {
                name: sum(entry < node.settings[name] for entry in given[node.settings["axis"]])
                for name in ("start", "stop")
            }
            draft.set(node.id, **ends)
        elif node.kind == "reshape":
            draft.set(node.id, shape=sizes)
        for role, tensor in made.items():
            known = weights.setdefault(node.tensors[role], tensor)
            assert torch.equal(known, tensor), f"who shares {node.tensors[role]} disagrees"
    return Genome(draft.finish(), weights)


def _along(tensor: Tensor, origins: Origins) -> Tensor:
    for axis, origin in enumerate(origins):
        tensor = tensor.index_select(axis, torch.tensor(origin))
    return tensor


def _within(given: Origin, groups: int, channels: int) -> Origin:
    """What one group reads; all groups read alike, each its own channels."""
    before, after = channels // groups, len(given) // groups
    assert len(given) % groups == 0
    found = [[entry - group * before for entry in given[group * after :][:after]] for group in range(groups)]
    assert all(each == found[0] for each in found)
    assert set(found[0]) == set(range(before))
    return found[0]


def _divided(weight: Tensor, within: Origin) -> Tensor:
    counts = Counter(within)
    shares = torch.tensor([1 / counts[entry] for entry in within], dtype=weight.dtype)
    return weight[:, within] * shares.reshape(1, -1, *[1] * (weight.ndim - 2))


# Laws ---------------------------------------------------------------------------------------------------------------


def test_the_oracle_knows_every_kind() -> None:
    assert KINDS.keys() - FORWARDS.keys() == set(), "say in FORWARDS how copies pass through the new kind"


@pytest.mark.parametrize("name", SMALL_ZOO)
def test_zoo(name: str) -> None:
    genome = _double(small(name))
    check_partition(genome.graph)
    for number, space in enumerate(genome.graph.spaces[:5]):
        check_space(genome, space, number)
    fixed = [space.reason for space in genome.graph.spaces if space.reason]
    assert len(fixed) == 2, "only the input and the output of these networks are fixed"


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind(kind: str) -> None:
    for seed in range(6):
        check(_double(lively(around(kind, seed), seed)), seed)


@budget(100)
@given(networks(), st.integers(0, 99))
def test_random_networks(genome: Genome, seed: int) -> None:
    check(_double(genome), seed)


def check(genome: Genome, seed: int) -> None:
    check_partition(genome.graph)
    for space in genome.graph.spaces:
        check_space(genome, space, seed)


def check_partition(graph: Graph) -> None:
    """Spaces divide each channel axis, of values and of tensors, without gap or overlap, and have different names.

    What overlaps lies within a channel of another, as the channels of a head do. Several spaces can share the groups of
    a convolution; then they are fixed, and have no places of their own there.
    """
    assert len({space.name for space in graph.spaces}) == len(graph.spaces)
    values: dict[tuple[str, int], list[Run]] = defaultdict(list)
    uses: dict[tuple[str, int, str], list[Run]] = defaultdict(list)
    for space in graph.spaces:
        for value in space.values:
            values[value.node, value.axis].append((value.offset, value.offset + space.width * value.inner, value.inner))
        for use in space.uses:
            if use.fold == 1 or space.reason is None:
                end = use.offset + space.width // use.fold * use.inner
                uses[use.tensor, use.axis, use.node].append((use.offset, end, use.inner))
    for (node, axis), parts in values.items():
        assert _covered(parts) == graph.shapes[node][axis], node
    sizes = {name: spec.shape for node in graph.nodes.values() for name, spec in _specs(graph, node).items()}
    for (tensor, axis, _), parts in uses.items():
        assert _covered(parts) == sizes[tensor][axis], (tensor, axis)
    for node in graph.nodes:
        text = explain(graph, node)
        assert text.startswith("The ") and text.endswith("."), text
    assert all(space.name in report(graph) for space in graph.spaces)


def _specs(graph: Graph, node: Node) -> dict[str, TensorSpec]:
    specs = KINDS[node.kind].tensors(node.settings, [graph.shapes[source] for source in node.inputs])
    return {node.tensors[role]: spec for role, spec in specs.items()}


Run = tuple[int, int, int]
"""Where channels start and end along an axis, and how many entries each has."""


def _covered(parts: list[Run]) -> int:
    """Where the last part ends, if each begins where the one before it ends, or fills a channel of one around it."""
    position = 0
    outer: list[Run] = []
    for start, end, inner in sorted(set(parts), key=lambda part: (part[0], -part[1], -part[2])):
        while outer and start >= outer[-1][1]:
            outer.pop()
        if outer:
            first, _, size = outer[-1]
            channel = first + (start - first) // size * size
            assert end <= channel + size, "it lies across two channels"
        else:
            assert start == position
            position = end
        outer.append((start, end, inner))
    return position


def check_space(genome: Genome, space: Space, seed: int) -> None:
    """What can be changed can be widened by hand, preserves the function, and is what the engine makes."""
    if space.reason is not None:
        return
    graph, block = genome.graph, space.width // space.blocks
    draws = numpy.random.default_rng(seed)
    more = numpy.arange(block) if space.balanced else draws.integers(block, size=draws.integers(1, block + 2))
    within = numpy.concatenate([numpy.arange(block), more]).astype(numpy.int64)
    copies = [start * block + int(entry) for start in range(space.blocks) for entry in within]
    origins = follow(graph, space, copies)
    for node in graph.nodes:
        for axis, origin in enumerate(origins[node]):
            assert origin == claimed(space, graph, node, axis, copies), node
    child = widened(genome, origins)
    check_equal(genome, child, training=False)
    if not space.draws:
        check_equal(genome, child, training=True)
    after = numpy.array([numpy.count_nonzero(within[place:] == entry) for place, entry in enumerate(within)])
    built = change_width(graph, space, within, 1 / after, born=1)
    made = built.transfer.apply(genome.weights, built.graph, 0, {})
    assert built.graph.shapes == child.graph.shapes
    for name, tensor in child.weights.items():
        torch.testing.assert_close(made[name], tensor, rtol=1e-14, atol=0)


def check_equal(parent: Genome, child: Genome, training: bool) -> None:
    examples = inputs(parent.graph, 5, seed=1)
    runs = [execute(genome.graph, genome.weights, examples, training=training, seed=3) for genome in (parent, child)]
    for head in parent.graph.heads:
        before, after = (run.values[head.node] for run in runs)
        torch.testing.assert_close(after, before, rtol=1e-10, atol=1e-10)


def _double(genome: Genome) -> Genome:
    weights = genome.weights.items()
    return Genome(
        genome.graph, {name: tensor.double() if tensor.is_floating_point() else tensor for name, tensor in weights}
    )


# By hand ------------------------------------------------------------------------------------------------------------


def uses(space: Space) -> set[tuple[str, str, int, int, int]]:
    return {(use.how, use.tensor, use.axis, use.offset, use.inner) for use in space.uses}


def named(graph: Graph) -> dict[str, Space]:
    return {space.name: space for space in graph.spaces}


def finished(draft: Draft, value: str) -> Graph:
    draft.head(draft.add("linear", value, path="fc", out=2))
    return draft.finish()


def test_resnet_by_hand() -> None:
    spaces = named(small("resnet").graph)
    assert [(space.name.partition("#")[0], space.width) for space in spaces.values()] == [
        ("input", 3),
        ("conv1", 16),
        ("layer1.0.conv1", 16),
        ("layer2.0.conv1", 32),
        ("layer2.0.conv2", 32),
        ("layer3.0.conv1", 64),
        ("layer3.0.conv2", 64),
        ("fc", 5),
    ]
    stream = next(space for space in spaces.values() if space.name.startswith("layer2.0.conv2#"))
    norms = {
        ("carry", f"layer2.0.{norm}.{role}", 0, 0, 1)
        for norm in ("bn2", "downsample.1")
        for role in ("weight", "bias", "running_mean", "running_var")
    }
    assert uses(stream) == norms | {
        ("write", "layer2.0.conv2.weight", 0, 0, 1),
        ("write", "layer2.0.downsample.0.weight", 0, 0, 1),
        ("read", "layer3.0.conv1.weight", 1, 0, 1),
        ("read", "layer3.0.downsample.0.weight", 1, 0, 1),
    }


def test_densenet_concatenations_by_hand() -> None:
    """Growth 4: the second block reads 4 channels of its transition and 4 of its first layer, side by side."""
    spaces = named(small("densenet").graph)
    layer = next(space for space in spaces.values() if space.name.startswith("dense2.0.conv2#"))
    assert layer.width == 4
    assert {(how, tensor, offset) for how, tensor, _, offset, _ in uses(layer) if how != "carry"} == {
        ("write", "dense2.0.conv2.weight", 0),
        ("read", "trans2.conv.weight", 6),
    }
    assert ("carry", "trans2.bn.running_var", 0, 6, 1) in uses(layer)


def test_a_flatten_by_hand() -> None:
    draft = Draft()
    image = draft.add("conv2d", draft.input((2, 4, 3)), path="conv", out=5)
    flat = draft.add("batch_norm", draft.add("flatten", image), path="bn")
    space = named(finished(draft, flat))[f"{image}:0"]
    assert ("read", "fc.weight", 1, 0, 12) in uses(space) and ("carry", "bn.bias", 0, 0, 12) in uses(space)
    assert [(value.offset, value.inner) for value in space.values] == [(0, 1), (0, 12), (0, 12)]


def test_groups_by_hand() -> None:
    """Both sides of a grouped convolution stay in equal blocks, and its weight has one group's channels."""
    draft = Draft()
    before = draft.add("conv2d", draft.input((3, 4, 4)), path="before", out=8)
    grouped = draft.add("conv2d", before, path="grouped", out=12, groups=4)
    graph = finished(draft, draft.add("flatten", draft.add("adaptive_avg_pool2d", grouped)))
    one, other = named(graph)[f"{before}:0"], named(graph)[f"{grouped}:0"]
    assert (one.width, one.blocks, other.width, other.blocks) == (8, 4, 12, 4)
    (read,) = [use for use in one.uses if use.how == "read"]
    assert (read.tensor, read.axis, read.offset, read.fold) == ("grouped.weight", 1, 0, 4)
    assert "in 4 blocks that stay equal" in explain(graph, grouped)


def test_a_depthwise_convolution_by_hand() -> None:
    """Its output is its input's space, here with two outputs for each channel."""
    draft = Draft()
    before = draft.add("conv2d", draft.input((3, 4, 4)), path="before", out=6)
    deep = draft.add("conv2d", before, path="deep", out=12, groups=6)
    graph = finished(draft, draft.add("flatten", draft.add("adaptive_avg_pool2d", deep)))
    assert [space.width for space in graph.spaces] == [3, 6, 2]
    assert {("carry", "deep.weight", 0, 0, 2), ("carry", "deep.bias", 0, 0, 2), ("read", "fc.weight", 1, 0, 2)} <= uses(
        named(graph)[f"{before}:0"]
    )


def test_squeeze_and_excitation_by_hand() -> None:
    """The factors have the channels of what they scale; the squeezed layer has its own."""
    draft = Draft()
    image = draft.add("conv2d", draft.input((3, 4, 4)), path="image", out=6)
    squeezed = draft.add("conv2d", draft.add("adaptive_avg_pool2d", image), path="down", out=2, kernel=1)
    factors = draft.add("conv2d", draft.add("relu", squeezed), path="up", out=6, kernel=1)
    scaled = draft.add("multiply", [image, draft.add("sigmoid", factors)])
    spaces = named(finished(draft, draft.add("flatten", draft.add("adaptive_avg_pool2d", scaled))))
    assert [space.width for space in spaces.values()] == [3, 6, 2, 2]
    written = {tensor for how, tensor, *_ in uses(spaces[f"{image}:0"]) if how == "write"}
    assert written == {"image.weight", "image.bias", "up.weight", "up.bias"}


def test_a_sum_divides_the_space_of_a_plain_layer() -> None:
    draft = Draft()
    x = draft.input((3, 4, 4))
    parts = [draft.add("conv2d", x, path=f"part{width}", out=width) for width in (2, 5)]
    whole = draft.add("conv2d", x, path="whole", out=7)
    total = draft.add("add", [whole, draft.add("concat", parts)])
    spaces = named(finished(draft, draft.add("flatten", draft.add("adaptive_avg_pool2d", total))))
    assert [space.width for space in spaces.values()] == [3, 2, 5, 2]
    assert ("write", "whole.weight", 0, 0, 1) in uses(spaces[f"{parts[0]}:0"])
    assert ("write", "whole.weight", 0, 2, 1) in uses(spaces[f"{parts[1]}:0"])
    assert ("read", "fc.weight", 1, 2, 1) in uses(spaces[f"{parts[1]}:0"])


def test_a_value_concatenated_with_itself_is_one_space_at_two_places() -> None:
    draft = Draft()
    image = draft.add("conv2d", draft.input((3, 4, 4)), path="image", out=4)
    twice = draft.add("flatten", draft.add("adaptive_avg_pool2d", draft.add("concat", [image, image])))
    space = named(finished(draft, twice))[f"{image}:0"]
    assert {("read", "fc.weight", 1, 0, 1), ("read", "fc.weight", 1, 4, 1)} <= uses(space)


def shuffled(draft: Draft, x: str) -> str:
    """A channel shuffle: the first channels of two groups, then the second ones, and so on, of 8 on 4×4 places."""
    parts = draft.add("reshape", x, shape=(2, 4, 4, 4))
    return draft.add("reshape", draft.add("permute", parts, order=(1, 0, 2, 3)), shape=(8, 4, 4))


def test_what_a_shuffle_lays_side_by_side_changes_together() -> None:
    draft = Draft()
    image = draft.input((3, 4, 4))
    sides = [draft.add("conv2d", image, path=path, out=4) for path in ("left", "right")]
    mixed = shuffled(draft, draft.add("concat", sides))
    halves = [draft.add("slice", mixed, start=start, stop=start + 4) for start in (0, 4)]
    again = shuffled(draft, draft.add("concat", [halves[0], draft.add("conv2d", halves[1], path="own", out=4)]))
    graph = finished(draft, draft.add("conv2d", again, path="last", out=5))
    written = [{use.tensor for use in space.uses if use.how == "write"} for space in graph.spaces if not space.reason]
    both = {f"{path}.{role}" for path in ("left", "right") for role in ("weight", "bias")}
    assert any(both <= tensors for tensors in written)
    for node in (*sides, mixed, *halves, again):
        assert "can be changed" in explain(graph, node), node
    for seed in range(4):
        check(_double(lively(graph, seed)), seed)


def test_channels_in_an_arrangement_that_cannot_be_followed_are_still_channels() -> None:
    """Twelve channels of 16 places in rows of 24, which begin in the middle of channels."""
    draft = Draft()
    image = draft.input((3, 4, 4))
    both = draft.add("concat", [draft.add("conv2d", image, path=path, out=6) for path in ("left", "right")])
    parts = draft.add("reshape", both, shape=(8, 24))
    graph = finished(draft, parts)
    assert "channels that start at" in explain(graph, parts) and f"'{parts}' divides them" in explain(graph, both)
    check_partition(graph)


def test_channels_that_meet_themselves_and_are_laid_out_flat_are_fixed() -> None:
    draft = Draft()
    tokens = draft.add("linear", draft.input((5, 6)), path="tokens", out=4)
    pairs = draft.add("matmul", [draft.add("permute", tokens, order=(1, 0)), tokens])
    graph = finished(draft, draft.add("flatten", pairs))
    assert "its channels lie across each other at 'flatten" in explain(graph, tokens)
    check(_double(lively(graph)), 0)


@pytest.mark.parametrize(
    ("kind", "settings", "shape", "why"),
    [
        ("slice", {"stop": 8, "step": 2}, 4, "cuts through them"),
        ("pad", {"margins": [[1, 1], [0, 0], [0, 0]]}, 10, "adds to them"),
    ],
)
def test_fixed_channels_are_not_taken_for_places(kind: str, settings: dict[str, object], shape: int, why: str) -> None:
    draft = Draft()
    image = draft.add("conv2d", draft.input((3, 4, 4)), path="image", out=8)
    changed = draft.add(kind, image, **settings)
    graph = finished(draft, draft.add("relu", changed))
    for node, width in ((image, 8), (changed, shape)):
        text = f"The {width} channels that start at '{node}:0' cannot be changed: '{changed}' {why}."
        assert explain(graph, node) == text


def test_what_is_opaque_is_said_to_be_so() -> None:
    draft = Draft()
    image = draft.add("linear", draft.input((6,)), path="image", out=8)
    program = [["torch.cumsum", [{"in": 0}, 1], {}]]
    total = draft.add("opaque", image, program=program, reads=[[8]], shape=[8], held=[])
    joined = draft.add("concat", [total, image])
    graph = finished(draft, joined)
    assert "not known to treat channels apart" in explain(graph, total)
    assert f"'{joined}' mixes what is not known to be channels" in explain(graph, joined)


def test_channels_that_are_doubled_for_ever_are_followed_no_further_than_can_be() -> None:
    """Thirty concatenations lay 2³⁰ copies side by side; a small file can ask for that."""
    draft = Draft()
    first = last = draft.add("linear", draft.input((4,)), path="first", out=4)
    for _ in range(30):
        last = draft.add("concat", [last, last])
    draft.head(draft.add("relu", last))
    graph = draft.finish()
    assert sum(len(space.values) + len(space.uses) for space in graph.spaces) < 2**17
    assert "laid side by side more often than can be followed" in explain(graph, first)
    check_partition(graph)


def test_channels_that_lie_across_each_other_are_fixed_to_the_end() -> None:
    """Two entries a channel on one side, three on the other: nothing behind that place can change either."""
    draft = Draft()
    x, y = draft.input((2, 1, 2)), draft.input((2, 1, 3), "y")
    pairs = draft.add("flatten", draft.add("conv2d", x, out=3, kernel=1))
    triples = draft.add("flatten", draft.add("conv2d", y, out=2, kernel=1))
    ends = [draft.add("linear", draft.add("flatten", each), out=4) for each in (x, y)]
    total = draft.add("add", [draft.add("concat", [pairs, ends[0]]), draft.add("concat", [triples, ends[1]])])
    graph = finished(draft, draft.add("relu", total))
    assert all(space.reason for space in graph.spaces)
    assert "another arrangement" in explain(graph, ends[0])
    check_partition(graph)


def test_filters_shared_by_a_depthwise_and_a_plain_convolution_keep_to_one_channel() -> None:
    draft = Draft()
    narrow = draft.add("conv2d", draft.input((1, 5, 5)), out=1)
    plain = draft.add("conv2d", narrow, out=4)
    deep = draft.add("conv2d", plain, out=4, groups=4, tensors=draft.nodes[plain].tensors)
    graph = finished(draft, draft.add("flatten", draft.add("adaptive_avg_pool2d", deep)))
    assert named(graph)[f"{narrow}:0"].reason is not None
    assert named(graph)[f"{plain}:0"].reason is None
    check(_double(lively(graph)), 0)


def test_norms_over_channels_ask_for_whole_multiples() -> None:
    draft = Draft()
    image = draft.add("conv2d", draft.input((3, 4, 4)), path="image", out=4)
    normed = draft.add("dropout", draft.add("layer_norm", image, axes=3))
    graph = finished(draft, draft.add("flatten", normed))
    space = named(graph)[f"{image}:0"]
    assert space.balanced and len(space.draws) == 1
    assert "by whole multiples" in explain(graph, image) and "in eval mode only" in explain(graph, image)


def test_what_a_wall_uses_transposed_is_fixed_wherever_it_is_used() -> None:
    """A tied autoencoder: neither side of the layer can change, but what is in front of it and behind it can."""
    draft = Draft()
    first = draft.add("linear", draft.input((6,)), path="first", out=7)
    hidden = draft.add("linear", first, path="hidden", out=8)
    code = draft.add("linear", draft.add("relu", hidden), path="codes", out=5)
    last = draft.add("linear", transposed(draft, code, code, (5,), 8), path="last", out=4)
    graph = finished(draft, draft.add("relu", last))
    (wall,) = (node.id for node in graph.nodes.values() if node.kind == "opaque")
    told = f"its tensor 'codes.weight' is used by '{wall}', too, which does not tell channels apart"
    assert explain(graph, hidden) == f"The 8 channels that start at '{hidden}:0' cannot be changed: {told}."
    assert [space.width for space in graph.spaces if space.reason is None] == [7, 4]
    check(_double(lively(graph)), 0)


def test_words_whose_vectors_score_words_keep_their_number() -> None:
    """The layer that makes scores has the embedding's weights; behind it, there could else be more words."""
    draft = Draft()
    ids = draft.add("input", (), name="ids", shape=(3,), dtype="integer", most=7)
    words = draft.add("embedding", ids, path="words", entries=7, out=4)
    scores = draft.add("linear", words, out=7, bias=False, tensors={"weight": "words.weight"})
    graph = finished(draft, draft.add("flatten", draft.add("relu", scores)))
    assert f"is used by '{words}', too" in explain(graph, scores)
    check(_double(lively(graph)), 0)
