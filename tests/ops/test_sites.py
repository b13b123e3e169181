"""Where no site is offered, or one that promises nothing: dead growth, numbered entries, draws in eval mode."""

from __future__ import annotations

import numpy
import pytest
import torch
from torch import Tensor, nn

import graphs
from graphs.draft import Draft
from graphs.errors import ShapeError
from ops import MUTATIONS, certify
from tests.strategies import lively


class Watched(nn.Module):
    """Its features are computed without gradients, or, in eval mode, by a part that train mode leaves out."""

    def __init__(self, grown: bool) -> None:
        super().__init__()
        self.body, self.other, self.head = nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 3)
        self.grown = grown

    def forward(self, x: Tensor) -> Tensor:
        if self.grown:
            hidden = torch.relu(self.body(x))
            if not self.training:
                hidden = torch.relu(self.other(hidden))
        else:
            with torch.no_grad():
                hidden = torch.relu(self.other(torch.relu(self.body(x))))
        out: Tensor = self.head(hidden)
        return out


@pytest.mark.parametrize("grown", [False, True])
def test_nothing_is_grown_where_nothing_would_learn(grown: bool) -> None:
    genome = graphs.from_torch(Watched(grown), torch.randn(4, 6))
    taught = genome.graph.taught
    idle = {
        id for id, node in genome.graph.nodes.items() if id not in taught and "other.weight" in node.tensors.values()
    }
    assert len(idle) == 1
    for name, mutation in MUTATIONS.items():
        if mutation.preserves != "approximate" and mutation.undoes is None:
            places = {str(value) for site in mutation.sites(genome) for value in site.place.values()}
            assert taught.issuperset(places & genome.graph.nodes.keys()), name
    (head,) = (id for id, node in genome.graph.nodes.items() if "head.weight" in node.tensors.values())
    assert head in taught


class Noisy(nn.Module):
    """It draws in both modes."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.middle, self.head = nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.relu(self.middle(torch.relu(self.body(x))))
        out: Tensor = self.head(hidden + torch.rand_like(hidden))
        return out


@pytest.mark.parametrize("name", ["split_head", "split_outputs"])
def test_copies_of_what_draws_in_eval_mode_promise_nothing(name: str) -> None:
    genome = graphs.from_torch(Noisy(), torch.randn(4, 6))
    promises = set()
    for site in MUTATIONS[name].sites(genome):
        promises.add(site.preserves)
        certify(genome, MUTATIONS[name].apply(genome, site, numpy.random.default_rng(0))).require()
    assert "approximate" in promises and "eval-exact" not in promises


@pytest.mark.parametrize("kind", ["pick", "take"])
def test_a_map_whose_places_are_numbered_keeps_them(kind: str) -> None:
    draft = Draft()
    image = draft.input((3, 8, 8))
    hidden = draft.add("relu", draft.add("conv2d", image, out=4))
    if kind == "pick":
        places = draft.add("input", (), name="places", shape=(), dtype="integer", most=8)
        row = draft.add("pick", [hidden, places], axis=1, size=8)
    else:
        row = draft.add("take", hidden, axis=1, size=8, shape=(2,))
    draft.head(draft.add("linear", draft.add("flatten", row), out=3))
    assert MUTATIONS["insert_pool"].sites(lively(draft.finish())) == []
    with pytest.raises(ShapeError, match="expected 8 entries along axis 1, which are numbered"):
        pooled = Draft(draft.finish())
        pooled.rewire(row, 0, pooled.add("max_pool2d", hidden, after=hidden, kernel=2, stride=2))
        pooled.finish()


class AllResidual(nn.Module):
    """One sum around all layers there are."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 4), nn.Linear(4, 6)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(self.first(x).relu())


def test_the_last_layers_are_no_block_to_remove() -> None:
    alone = graphs.from_torch(AllResidual(), torch.ones(2, 6))
    assert not MUTATIONS["remove_block"].sites(alone)
    followed = graphs.from_torch(nn.Sequential(AllResidual(), nn.Linear(6, 3)), torch.ones(2, 6))
    assert MUTATIONS["remove_block"].sites(followed)
