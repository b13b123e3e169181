"""All spaces narrowed at once are the same as each narrowed in turn."""

from __future__ import annotations

import gc

import numpy
import pytest
import torch

import graphs
from graphs.errors import GraphError
from graphs.genome import Genome
from graphs.spaces import Space
from ops import MUTATIONS, replay
from ops.width import apart, change_width, changeable
from tests.strategies import SMALL_ZOO, lively, small, transformer


def one_by_one(parent: Genome, keep: dict[str, tuple[int, ...]]) -> Genome:
    """Each space in turn, found again in what the changes before it leave by the tensor that makes it."""

    def made(space: Space) -> tuple[str, int, int]:
        use = next(use for use in space.uses if use.how == "write")
        return use.tensor, use.axis, sum(other.offset < use.offset for other in _writers(parent, use.tensor, use.axis))

    now = parent
    for space in changeable(parent.graph):
        if space.name in keep:
            tensor, axis, turn = made(space)
            found = [
                each
                for each in changeable(now.graph)
                if any(use.how == "write" and (use.tensor, use.axis) == (tensor, axis) for use in each.uses)
                and [use.offset for use in _writers(now, tensor, axis)].index(
                    next(use.offset for use in each.uses if use.how == "write" and use.tensor == tensor)
                )
                == turn
            ]
            built = change_width(now.graph, found[0], numpy.asarray(keep[space.name], dtype=numpy.int64), None, 1)
            now = Genome(built.graph, built.transfer.apply(now.weights, built.graph, 0, {}))
    return now


def _writers(genome: Genome, tensor: str, axis: int) -> list:  # type: ignore[type-arg]
    uses = {
        use.offset: use
        for space in genome.graph.spaces
        for use in space.uses
        if use.how == "write" and (use.tensor, use.axis) == (tensor, axis)
    }
    return [uses[offset] for offset in sorted(uses)]


def entries(space: Space) -> set[tuple[str, int, int]]:
    """The entries of tensors' axes on which a space stands."""
    return {
        (use.tensor, use.axis, place)
        for use in space.uses
        for place in range(use.offset, use.offset + space.width // use.fold * use.inner)
    }


@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize("name", [*SMALL_ZOO, "transformer"])
def test_spaces_apart_share_no_entry_and_leave_none_out(name: str, backwards: bool) -> None:
    genome = transformer() if name == "transformer" else small(name)
    spaces = list(reversed(genome.graph.spaces)) if backwards else list(genome.graph.spaces)
    found = apart(spaces)
    taken: set[tuple[str, int, int]] = set()
    for space in spaces:
        assert (space in found) == taken.isdisjoint(entries(space)), space.name
        if space in found:
            taken |= entries(space)


def test_the_cycle_collector_is_as_it_was() -> None:
    parent = small("vgg8")
    for was in (False, True):
        (gc.enable if was else gc.disable)()
        try:
            site = MUTATIONS["narrow_all"].sites(parent)[0]
            graphs.to_torch(MUTATIONS["narrow_all"].apply(parent, site, numpy.random.default_rng(0)).genome)
            with pytest.raises(GraphError):
                graphs.from_torch(torch.nn.Linear(3, 3), torch.zeros(2, 4))
            assert gc.isenabled() == was
        finally:
            gc.enable()


# Groups that are narrowed to one channel each are a depthwise convolution, whose spaces are tied from then on.
ALONE = [name for name in SMALL_ZOO if not name.startswith("resnext")]


@pytest.mark.parametrize("name", [*ALONE, "transformer"])
def test_at_once_is_one_by_one(name: str) -> None:
    parent = lively((transformer() if name == "transformer" else small(name)).graph, 3)
    mutation = MUTATIONS["narrow_all"]
    for site in mutation.sites(parent):
        child = mutation.apply(parent, site, numpy.random.default_rng(0), born=1)
        alone = one_by_one(parent, dict(child.record.choices["keep"]))
        assert graphs.fingerprint(alone.graph) == graphs.fingerprint(child.genome.graph)
        assert all(torch.equal(alone.weights[key], tensor) for key, tensor in child.genome.weights.items())
        assert graphs.parameters(child.genome.graph) < graphs.parameters(parent.graph)
        assert replay(parent, child.record).digest == child.genome.digest
