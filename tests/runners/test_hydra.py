"""HydraNet: the table of totals, weights that belong to examples, norms that know them, a body that stays frozen."""

from __future__ import annotations

import itertools
from dataclasses import replace
from math import prod

import pytest
import torch
from torch import nn

from graphs import Genome, from_torch, initial_weights, parameters, to_torch, units, zoo
from graphs.errors import GraphError
from runners.hydra import Hydra, Weights, body, split, split_point
from runners.label_sets import LabelSet
from runners.recipe import Recipe
from runners.task import SPLITS, Task
from runners.training import train
from runners.weighted_norm import WeightedBatchNorm

TOTALS = {
    "resnet-110": {
        (50, 8): (5_360_480, 5_407_280),
        (53, 4): (2_620_472, 2_643_872),
        (53, 8): (3_806_816, 3_853_616),
        (55, 4): (2_176_568, 2_199_968),
    },
    "preresnet-110": {
        (50, 8): (4_325_408, 4_372_208),
        (53, 4): (2_176_760, 2_200_160),
        (53, 8): (2_771_744, 2_818_544),
        (55, 4): (1_732_856, 1_756_256),
    },
    "densenet-bc-100-12": {
        (50, 8): (950_420, 1_197_380),
        (53, 4): (779_452, 902_932),
        (53, 8): (793_172, 1_040_132),
    },
}


@pytest.mark.parametrize("name", TOTALS)
@pytest.mark.parametrize("classes", [10, 100])
def test_the_totals_of_hydranet(name: str, classes: int) -> None:
    base = zoo.create(name, classes=classes)
    for (point, heads), totals in TOTALS[name].items():
        assert parameters(split(base, heads, point).graph) == totals[classes == 100]
    assert split(base, 1, 50).graph == base.graph


@pytest.mark.parametrize("name", zoo.ZOO)
def test_heads_that_are_copied_say_what_the_network_says(name: str) -> None:
    base = zoo.create(name, **({"depth": 14} if name in ("resnet", "preresnet") else {}))
    made = split(base, 2, "auto", "copied")
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        wanted = to_torch(base).eval()(images)
        found = to_torch(made).eval()(images)
    assert list(found) == ["head0", "head1"]
    assert all(torch.equal(head, wanted) for head in found.values())
    assert 0 < split_point(base.graph) < len(units(base.graph))


def test_fresh_heads_differ_and_leave_the_body_alone() -> None:
    base = zoo.create("resnet", depth=14)
    made = split(base, 3, 6, "fresh", seed=4)
    shared = {name for node in body(made.graph) for name in made.graph[node].tensors.values()}
    assert shared and all(torch.equal(made.weights[name], base.weights[name]) for name in shared)
    kernels = [made.weights[name] for name in ("fc.weight", "head1.fc.weight", "head2.fc.weight")]
    assert len({tuple(kernel.flatten().tolist()) for kernel in [*kernels, base.weights["fc.weight"]]}) == 4


@pytest.mark.parametrize("point", [0, 12, 99, -1])
def test_a_split_that_is_not_possible_says_where_one_is(point: int) -> None:
    with pytest.raises(
        GraphError, match=r"behind unit -?\d+ is not possible: the network has 11 units, so expected 1 to 10"
    ):
        split(zoo.create("resnet", depth=14), 2, point)
    with pytest.raises(GraphError, match="has 2 outputs, expected one"):
        split(split(zoo.create("resnet", depth=14), 2), 2)


def test_heads_have_parameters_of_their_own() -> None:
    net = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 10, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )
    base = from_torch(net, torch.randn(2, 1, 8, 8))
    assert len(units(base.graph)) == 6
    for start in ("fresh", "copied"):
        for point in (3, 5):
            with pytest.raises(GraphError, match=rf"behind unit {point} gives heads without .*; expected 1 to 2$"):
                split(base, 2, point, start)
        assert len(split(base, 2, 2, start).graph.heads) == 2
    assert split(base, 1, 4).graph == base.graph
    alone = from_torch(nn.Sequential(*list(net)[2:]), torch.randn(2, 4, 8, 8))
    with pytest.raises(GraphError, match="no split of this network gives others"):
        split(alone, 2, 1)


def test_weights_belong_to_the_example_whatever_batch_it_is_in() -> None:
    weights = Weights(Hydra(), 3, 100, 10, 7)
    one, two = torch.arange(10), torch.tensor([9, 50, 3, 99])
    first, second = weights.of(one), weights.of(two)
    assert torch.allclose(first.sum(1), torch.ones(3)) and first.shape == (3, 10)
    assert torch.allclose(first[:, 9] / first[:, 3], second[:, 0] / second[:, 2])
    again = Weights(Hydra(), 3, 100, 10, 7)
    assert torch.equal(again.of(two), second)
    assert not torch.equal(Weights(Hydra(), 3, 100, 10, 8).of(two), second)
    assert len({tuple(row) for row in first.tolist()}) == 3
    place = Weights(Hydra(weights="position"), 3, 100, 10, 7)
    assert torch.equal(place.of(one), place.of(one.flip(0)))
    assert torch.allclose(Weights(Hydra(weights="even"), 2, 100, 10, 7).of(two), torch.full((2, 4), 0.25))


def test_weights_of_a_batch_are_a_draw_from_a_flat_dirichlet() -> None:
    """Their effective number, 1/Σw², is (B+1)/2 on average, and each is 1/B on average."""
    weights = Weights(Hydra(), 2000, 128, 128, 0).of(torch.arange(128)).double()
    assert weights.mean(0).sub(1 / 128).abs().max() < 5 * (1 / 128) / 2000**0.5
    assert 1 / weights.square().sum(1).mean() == pytest.approx(129 / 2, rel=0.02)


@pytest.mark.parametrize("shape", [(16, 3, 5, 4), (16, 3)])
def test_a_weighted_norm_is_the_reference_in_float64(shape: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(0)
    made = nn.BatchNorm1d(3).double() if len(shape) == 2 else nn.BatchNorm2d(3).double()
    for tensor in (made.weight.data, made.bias.data, made.running_mean, made.running_var):
        assert tensor is not None
        tensor.copy_(torch.rand(3, generator=generator, dtype=torch.float64))
    before = [made.running_mean.clone(), made.running_var.clone()]  # type: ignore[union-attr]
    holder = nn.Sequential(made)
    norm = WeightedBatchNorm.in_place_of(holder, "0")
    assert list(holder.state_dict()) == [f"0.{name}" for name in made.state_dict()]
    x = (3 + 2 * torch.randn(shape, generator=generator, dtype=torch.float64)).requires_grad_()
    weights = torch.rand(16, generator=generator, dtype=torch.float64)
    norm.weights = weights = weights / weights.sum()
    places = prod(shape[2:])
    each = weights.repeat_interleave(places) / places
    flat = x.detach().transpose(0, 1).reshape(3, 16, places).reshape(3, -1)
    mean = (flat * each).sum(1)
    variance = ((flat - mean[:, None]) ** 2 * each).sum(1)
    wanted = (flat - mean[:, None]) / (variance[:, None] + norm.eps) ** 0.5
    y = norm(x)
    view = (1, 3, *[1] * (len(shape) - 2))
    plain = (y - norm.bias.view(view)) / norm.weight.view(view)
    assert torch.allclose(plain.transpose(0, 1).reshape(3, -1), wanted, atol=1e-12)
    weighted = plain.detach().transpose(0, 1).reshape(3, -1)
    assert (weighted * each).sum(1).abs().max() < 1e-12
    assert ((weighted**2 * each).sum(1) - variance / (variance + norm.eps)).abs().max() < 1e-12
    unbiased = variance / (1 - (each**2).sum())
    assert torch.allclose(norm.running_mean, before[0] + 0.1 * (mean - before[0]))  # type: ignore[arg-type]
    assert torch.allclose(norm.running_var, before[1] + 0.1 * (unbiased - before[1]))  # type: ignore[arg-type]
    assert torch.autograd.gradcheck(lambda value: norm(value), (x,))


def test_equal_weights_make_the_norm_of_torch() -> None:
    x = torch.randn(8, 3, 4, 4, dtype=torch.float64)
    plain, holder = nn.BatchNorm2d(3).double(), nn.Sequential(nn.BatchNorm2d(3).double())
    norm = WeightedBatchNorm.in_place_of(holder, "0")
    norm.weights = torch.full((8,), 1 / 8, dtype=torch.float64)
    assert torch.allclose(norm(x), plain(x), atol=1e-12)
    assert all(torch.allclose(one, two) for one, two in zip(norm.buffers(), plain.buffers(), strict=True))
    norm.eval()
    plain.eval()
    assert torch.allclose(norm(x), plain(x), atol=1e-12)


@pytest.fixture(scope="module")
def digits() -> Task:
    return Task.named("digits", limit=150)


def trained(digits: Task, base: Genome, epochs: int, **settings: object) -> Genome:
    recipe = Recipe(epochs=epochs, hydra=Hydra(**settings))  # type: ignore[arg-type]
    outcome = train(base, recipe, digits, threads=1)
    assert outcome.genome is not None, outcome.failure
    assert all(set(entry) >= {"heads", "oracle", "disagreement"} for entry in outcome.curves)
    return outcome.genome


def test_a_frozen_body_stays_as_it_is_and_then_learns(digits: Task) -> None:
    base = zoo.create("resnet", depth=8, input_shape=(1, 8, 8))
    graph = split(base, 2, 4).graph
    names = {name for node in body(graph) for name in graph[node].tensors.values()}
    assert any(graph.tensors[name].buffer for name in names)
    frozen = trained(digits, base, 2, heads=2, split_point=4, frozen=2)
    assert all(torch.equal(frozen.weights[name], base.weights[name]) for name in names)
    assert not torch.equal(frozen.weights["fc.weight"], frozen.weights["head1.fc.weight"])
    thawed = trained(digits, base, 2, heads=2, split_point=4, frozen=1)
    assert not any(torch.equal(thawed.weights[name], base.weights[name]) for name in names if "conv" in name)


def test_the_body_of_one_head_is_frozen_too(digits: Task) -> None:
    base = zoo.create("resnet", depth=8, input_shape=(1, 8, 8))
    names = {name for node in body(base.graph, 4) for name in base.graph[node].tensors.values()}
    assert any(base.graph.tensors[name].buffer for name in names) and names < base.weights.keys()
    frozen = trained(digits, base, 1, heads=1, split_point=4, frozen=1)
    same = {name for name, tensor in frozen.weights.items() if torch.equal(tensor, base.weights[name])}
    assert same == names


def test_weights_by_position_reach_a_part_that_is_one_longer(digits: Task) -> None:
    base = zoo.create("convnet", input_shape=digits.input_shape)
    odd = replace(digits.train, images=digits.train.images[:101], labels=digits.train.labels[:101])
    fields = {name: getattr(digits, name) for name in Task.__slots__}
    recipe = Recipe(epochs=1, batch=2, hydra=Hydra(heads=2, weights="position"))
    assert train(base, recipe, Task.of(**(fields | {"train": odd})), threads=1).failure is None


def test_heads_with_different_weights_part_and_even_copies_stay_tied(digits: Task) -> None:
    base = zoo.create("resnet", depth=8, input_shape=(1, 8, 8))
    for weights, parted in (("sample", True), ("position", True), ("even", False)):
        made = trained(digits, base, 1, heads=2, split_point=4, start="copied", weights=weights)
        pairs = [(name, f"head1.{name}") for name in made.weights if f"head1.{name}" in made.weights]
        same = [torch.allclose(made.weights[one], made.weights[two], atol=1e-6) for one, two in pairs]
        assert pairs and all(same) is not parted


def test_a_hydra_of_a_hydra_goes_on_with_its_heads(digits: Task) -> None:
    base = zoo.create("resnet", depth=8, input_shape=(1, 8, 8))
    first = trained(digits, base, 1, heads=2)
    second = trained(digits, first, 1, heads=2)
    assert second.graph == first.graph


class Several(nn.Module):
    """A body and outputs by name, some of which exist in training only."""

    def __init__(self, training: tuple[str, ...], *lasting: str) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU())
        self.neck = nn.Sequential(nn.Conv2d(8, 8, 3), nn.ReLU())
        self.training_only = nn.ModuleDict({name: nn.Linear(8, 10) for name in training})
        self.lasting = nn.ModuleDict({name: nn.Linear(8, 10) for name in lasting})

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        early = self.body(images)
        late = self.neck(early).mean((2, 3))
        found = {name: layer(late) for name, layer in self.lasting.items()}
        if self.training:
            found |= {name: layer(early.mean((2, 3))) for name, layer in self.training_only.items()}
        return found


def several(*outputs: str) -> Genome:
    """`Several`, whose outputs with an exclamation mark exist in training only."""
    training = tuple(name[1:] for name in outputs if name.startswith("!"))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = Several(training, *(name for name in outputs if not name.startswith("!")))
    return from_torch(net, torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0)))


@pytest.mark.parametrize(
    ("outputs", "settings", "wanted"),
    [
        (["y", "!aux"], {"heads": 3}, ["head0", "head1", "head2"]),
        (["y", "!aux", "!more"], {"heads": 1}, ["y"]),
        (["y", "!aux"], {"tasks": ["labels", "odd"]}, ["labels", "odd"]),
        (["one", "two", "!aux"], {"heads": 2}, ["one", "two"]),
        (["one", "two"], {"heads": 3}, "has 2 outputs already, and hydra.heads is 3; say hydra.heads=2"),
        (["labels", "odd"], {"tasks": ["labels", "odd"]}, ["labels", "odd"]),
        (["labels", "odd", "!aux"], {"tasks": ["odd", "labels"]}, ["odd", "labels"]),
        (["y", "odd"], {"tasks": ["labels", "odd"]}, "the outputs y, odd already, and hydra.tasks is labels, odd;"),
        (["labels", "odd", "y"], {"tasks": ["labels", "odd"]}, "the outputs labels, odd, y already"),
    ],
)
def test_what_is_split_is_the_output_that_lasts(
    outputs: list[str], settings: dict[str, object], wanted: list[str] | str, digits: Task
) -> None:
    odd = {name: replace(digits.split(name), others={"odd": digits.split(name).labels % 2}) for name in SPLITS}
    fields = {name: getattr(digits, name) for name in Task.__slots__} | odd
    # Ten classes, of which two are seen, so that an output for ten fits either label set.
    task = Task.of(**(fields | {"others": {"odd": LabelSet(10)}}))
    hydra = Hydra(split_point=2, **settings)  # type: ignore[arg-type]
    outcome = train(several(*outputs), Recipe(epochs=1, hydra=hydra), task, threads=1)
    if isinstance(wanted, str):
        assert outcome.failure is not None and wanted in outcome.failure.message
        return
    assert outcome.genome is not None, outcome.failure
    heads = outcome.genome.graph.heads
    assert [head.name for head in heads] == wanted and not any(head.training_only for head in heads)
    (entry,) = outcome.curves
    named = [name.removeprefix("val_accuracy_") for name in entry if name.startswith("val_accuracy_")]
    if "odd" in wanted:
        assert named == wanted and entry["val_accuracy"] == entry[f"val_accuracy_{wanted[0]}"]
    else:
        assert not named and len(entry["heads"]) == len(wanted)


def test_initial_weights_of_a_network_with_heads_are_drawn_for_each() -> None:
    graph = split(zoo.create("resnet", depth=8), 4).graph
    drawn = initial_weights(graph, 0)
    heads = [drawn[name] for name in drawn if name.endswith("fc.weight")]
    assert len(heads) == 4
    assert not any(torch.equal(one, two) for one, two in itertools.combinations(heads, 2))


def normed(**settings: object) -> Genome:
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(8, **settings)  # type: ignore[arg-type]
    layers = [nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), norm, nn.ReLU(), nn.Conv2d(8, 8, 1), nn.Flatten()]
    layers.append(nn.Linear(128, 10))
    return from_torch(nn.Sequential(*layers), torch.randn(2, 1, 8, 8))


@pytest.mark.parametrize("settings", [{}, {"affine": False}])
@pytest.mark.parametrize("heads", [1, 2])
@pytest.mark.parametrize("weights", ["sample", "position"])
def test_a_norm_that_knows_no_weights_is_refused_in_a_head(
    settings: dict[str, object], heads: int, weights: str, digits: Task
) -> None:
    hydra = {"heads": heads, "split_point": 1, "weights": weights}
    base = normed(track_running_stats=False, **settings)
    outcome = train(base, Recipe(epochs=1, hydra=Hydra.model_validate(hydra)), digits, threads=1)
    assert outcome.failure is not None and outcome.failure.kind == "invalid" and not outcome.curves
    assert "of a head is a batch norm that would take every example alike" in outcome.failure.message
    assert "say hydra.weights=even" in outcome.failure.message


def test_a_norm_that_knows_no_weights_trains_with_even_ones_and_in_the_body(digits: Task) -> None:
    base = normed(track_running_stats=False)
    trained(digits, base, 1, heads=2, split_point=1, weights="even")
    trained(digits, base, 1, heads=2, split_point=len(units(base.graph)) - 1)
    trained(digits, normed(), 1, heads=2, split_point=1)


def test_a_norm_that_leaves_its_statistics_as_they_are_is_no_such_norm(digits: Task) -> None:
    class Fixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.last = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU()), nn.Conv2d(8, 10, 6)
            self.norm = nn.BatchNorm2d(10)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            out: torch.Tensor = self.norm(self.last(self.body(x))).flatten(1)
            return out

        def train(self, mode: bool = True) -> Fixed:
            super().train(mode)
            self.norm.eval()
            return self

    trained(digits, from_torch(Fixed().train(), torch.randn(2, 1, 8, 8)), 1, heads=2, split_point=1)
