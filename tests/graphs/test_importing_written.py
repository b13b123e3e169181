"""Layers that people write out: products with parameters, rows of examples and places, masks; and plain numbers."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import graphs
from graphs.errors import GraphError
from graphs.initial import initial_weights
from ops import MUTATIONS, certify

WORDS = torch.randn((4, 5, 16), generator=torch.Generator().manual_seed(0))


class Whole(nn.Module):
    """A forward pass around a layer."""

    def __init__(self, forward: Callable[..., Any], fc: nn.Module) -> None:
        super().__init__()
        self.fc, self.what = fc, forward

    def forward(self, x: Tensor) -> Any:
        return self.what(self, x)


class Turned(nn.Module):
    """A linear layer whose weight lies the other way, over rows, as GPT-2 has it."""

    def __init__(self, inner: int, out: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(inner, out) / inner**0.5)
        self.bias = nn.Parameter(torch.randn(out) / 5)

    def forward(self, x: Tensor) -> Tensor:
        rows = torch.addmm(self.bias, x.view(-1, x.size(-1)), self.weight)
        return rows.view((*x.size()[:-1], self.weight.shape[1]))


class Plain(nn.Module):
    """Two layers as products with parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Parameter(torch.randn(16, 12) / 4), nn.Parameter(torch.randn(12, 3) / 4)
        self.bias = nn.Parameter(torch.randn(12) / 5)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x @ self.first + self.bias).matmul(self.last)


class Rows(nn.Module):
    """Layers over rows that are examples and places."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.inner, self.last = nn.Linear(16, 12), nn.Linear(12, 16), nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        count, places, width = x.shape
        rows = self.inner(functional.gelu(self.first(x.reshape(-1, width))))
        return self.last((x + rows.view(count, places, -1)).mean(1))


class Attention(nn.Module):
    """Attention with a causal mask, written out."""

    def __init__(self, mask: Callable[[Tensor, Tensor], Tensor], layer: Callable[[int, int], nn.Module]) -> None:
        super().__init__()
        self.norm, self.packed, self.out, self.mask = nn.LayerNorm(16), layer(16, 48), layer(16, 16), mask
        self.register_buffer("seen", torch.ones(8, 8).tril().view(1, 1, 8, 8), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        count, places, width = x.size()
        parts = self.packed(self.norm(x)).split(16, dim=2)
        query, key, value = (part.view(count, places, 4, 4).transpose(1, 2) for part in parts)
        seen: Any = self.seen
        scores = self.mask(query @ key.transpose(-2, -1) * 0.5, seen[:, :, :places, :places])
        mixed = functional.softmax(scores, dim=-1) @ value
        out: Tensor = x + self.out(mixed.transpose(1, 2).contiguous().view(count, places, width))
        return out


MASKS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "filled": lambda scores, seen: scores.masked_fill(seen == 0, float("-inf")),
    "filled with a large number": lambda scores, seen: scores.masked_fill(seen == 0, -1e9),
    "filled in place": lambda scores, seen: scores.masked_fill_(seen == 0, -1e4),
    "where": lambda scores, seen: torch.where(seen > 0, scores, float("-inf")),
    "where not": lambda scores, seen: torch.where(seen == 0, torch.tensor(-1e9), scores),
    "where, with a number of the same type": lambda scores, seen: torch.where(
        seen.bool(), scores.to(scores.dtype), torch.full([], -1e9, dtype=scores.dtype)
    ),
}

WRITTEN: dict[str, tuple[Callable[[], nn.Module], tuple[str, ...]]] = {
    "products with parameters": (Plain, ("widen", "widen_zero", "narrow")),
    "rows": (Rows, ("widen", "widen_gradmax", "deepen", "branch")),
    "layers that lie the other way": (
        lambda: nn.Sequential(Turned(16, 12), nn.GELU(), Turned(12, 3)),
        ("widen", "widen_zero", "narrow", "insert_block"),
    ),
    "attention of layers that lie the other way": (
        lambda: Attention(MASKS["filled"], Turned),
        ("add_heads", "drop_heads", "widen_keys", "widen"),
    ),
    **{
        f"attention, {name}": (
            lambda mask=mask: Attention(mask, nn.Linear),
            ("add_heads", "drop_heads", "widen_keys", "widen"),
        )
        for name, mask in MASKS.items()
    },
}
"""Modules, and what can be done to them."""


@pytest.mark.parametrize("name", WRITTEN)
def test_what_is_written_out_comes_in_and_goes_out(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = WRITTEN[name][0]()
    genome = graphs.from_torch(module, WORDS)
    graphs.save(genome, tmp_path / "genome.safetensors")
    made = graphs.to_torch(graphs.load(tmp_path / "genome.safetensors"))
    assert made.state_dict().keys() == module.state_dict().keys()
    for x in (WORDS, WORDS[:1], torch.cat([WORDS, WORDS.flip(0)])):
        torch.testing.assert_close(made(x), module(x), rtol=0, atol=0)
    made(WORDS).square().sum().backward()
    module(WORDS).square().sum().backward()
    found = dict(made.named_parameters())
    for each, parameter in module.named_parameters():
        torch.testing.assert_close(found[each].grad, parameter.grad)


@pytest.mark.parametrize("name", WRITTEN)
def test_what_is_written_out_can_be_changed(name: str) -> None:
    torch.manual_seed(0)
    make, operators = WRITTEN[name]
    genome = graphs.from_torch(make(), WORDS)
    for operator in operators:
        site, *_ = MUTATIONS[operator].sites(genome)
        child = MUTATIONS[operator].apply(genome, site, numpy.random.default_rng(0))
        assert certify(genome, child).require().eval.verdict == (
            "pass" if site.preserves == "exact" else site.preserves
        )
        assert graphs.to_torch(child.genome)(WORDS).shape == graphs.to_torch(genome)(WORDS).shape


def test_a_matrix_that_lies_the_other_way_starts_by_how_much_it_adds_up() -> None:
    genome = graphs.from_torch(nn.Sequential(Turned(16, 400), nn.ReLU(), Turned(400, 3)), WORDS)
    weights = initial_weights(genome.graph, 0)
    assert 0.9 / 4 < weights["0.weight"].abs().max() <= 1 / 4
    assert 0.9 / 20 < weights["2.weight"].abs().max() <= 1 / 20


def test_rows_that_are_mixed_are_no_places() -> None:
    """What takes the mean over rows sees all examples: no layer for each row alone."""

    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(16, 16)

        def forward(self, x: Tensor) -> Tensor:
            rows = self.fc(x.reshape(-1, 16))
            return (rows - rows.mean(0)).view(x.shape)

    module = Mixed()
    made = graphs.to_torch(graphs.from_torch(module, WORDS))
    torch.testing.assert_close(made(WORDS[:3]), module(WORDS[:3]))


NUMBERS: dict[str, Callable[[Any, Tensor], Tensor]] = {
    "a starred shape": lambda s, x: s.fc(x).view(*x.shape[:-1], 4, 4).sum(-1),
    "a starred shape in a list": lambda s, x: s.fc(x).reshape([*x.shape[:2], -1, 2]).amax(-1),
    "a loop over places": lambda s, x: torch.stack([s.fc(x[:, place]) * place for place in range(x.shape[1])], 1),
    "a loop over parts": lambda s, x: sum(s.fc(part) for part in x.split([2, 3], 1) if part.size(1) > 2),
    "all parts": lambda s, x: torch.cat([*map(s.fc, x.chunk(2, 1))], 1),
    "a branch on a size": lambda s, x: s.fc(x).relu() if x.shape[1] % 2 else s.fc(x),
    "a branch on the axes": lambda s, x: s.fc(x).relu() if x.dim() == 3 and len(x.shape) != 2 else s.fc(x),
    "a root": lambda s, x: s.fc(x) / math.sqrt(x.size(-1)) * int(x.shape[1] ** 0.5),
    "a large one": lambda s, x: s.fc(x)[:, : min(x.size(1), 3)] * max(x.shape[1], 2),
}


@pytest.mark.parametrize("name", NUMBERS)
def test_numbers_that_do_not_depend_on_the_batch_are_known(name: str) -> None:
    """They are, while `torch.fx` traces: layers keep their names."""
    module = Whole(NUMBERS[name], fc=nn.Linear(16, 16))
    genome = graphs.from_torch(module, WORDS)
    assert {node.id.partition("#")[0] for node in genome.graph.nodes.values() if node.kind == "linear"} == {"fc"}
    made = graphs.to_torch(genome)
    for x in (WORDS, WORDS[:1], torch.cat([WORDS, WORDS])):
        torch.testing.assert_close(made(x), module(x), rtol=0, atol=0)


UNKNOWN: dict[str, Callable[[Any, Tensor], Tensor]] = {
    "an example": lambda s, x: s.fc(x) if x.shape[0] == 1 else s.fc(x).relu(),
    "some examples": lambda s, x: s.fc(x).relu() if x.shape[0] > 1 else s.fc(x),
    "more entries": lambda s, x: s.fc(x).relu() if x.numel() > 90 else s.fc(x),
    "a remainder": lambda s, x: s.fc(x).relu() if len(x) // len(x) == 1 and len(x) % 7 else s.fc(x),
    "entries": lambda s, x: s.fc(x).relu() if x.sum() > 0 else s.fc(x),
    "an entry": lambda s, x: s.fc(x) * int(x[0, 0, 0]),
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_numbers_that_depend_on_the_batch_are_not(name: str) -> None:
    with pytest.raises(GraphError, match=r"values of tensors|number of examples|batch"):
        graphs.from_torch(Whole(UNKNOWN[name], fc=nn.Linear(16, 16)), WORDS)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_a_starred_shape_leaves_types_to_the_network(dtype: torch.dtype) -> None:
    module = Whole(lambda s, x: s.fc(x.float().view(*x.shape[:-1], 16).sin().to(x.dtype)), fc=nn.Linear(16, 16))
    made = graphs.to_torch(graphs.from_torch(module, WORDS)).to(dtype)
    torch.testing.assert_close(made(WORDS.to(dtype)), module.to(dtype)(WORDS.to(dtype)), rtol=0, atol=0)


class Tied(nn.Module):
    """A code and its way back by the same matrix, written in one of several ways."""

    def __init__(self, back: Callable[[nn.Module, Tensor], Tensor]) -> None:
        super().__init__()
        self.inner, self.last, self.back = nn.Linear(16, 12, bias=False), nn.Linear(16, 3), back

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.last(self.back(self.inner, torch.tanh(self.inner(x))))
        return out


@pytest.mark.parametrize(
    "back",
    [
        lambda code, y: y @ code.weight,
        lambda code, y: functional.linear(y, code.weight.t()),
        lambda code, y: functional.linear(y, code.weight.T),
        lambda code, y: y @ code.weight.transpose(0, 1).transpose(0, 1),
    ],
)
def test_a_matrix_that_is_used_in_both_ways_comes_in_again_as_it_came_out(back: Callable[..., Tensor]) -> None:
    module = Tied(back)
    genome = graphs.from_torch(module, WORDS)
    made = graphs.to_torch(genome)
    torch.testing.assert_close(made(WORDS), module(WORDS))
    assert graphs.from_torch(made, WORDS).graph.fingerprint == genome.graph.fingerprint


def test_a_product_with_a_turned_weight_is_a_linear_layer() -> None:
    class Logits(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc, self.table = nn.Linear(16, 8), nn.Parameter(torch.randn(5, 8))

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(x).relu() @ self.table.t()

    genome = graphs.from_torch(Logits(), WORDS)
    assert [node.kind for node in genome.graph.nodes.values()] == ["input", "linear", "relu", "linear"]
    assert len(MUTATIONS["widen"].sites(genome)) == 1


def decorated(forward: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(forward)
    def wrapper(self: nn.Module, *given: Any, **keywords: Any) -> Any:
        keywords.pop("unused", None)
        return forward(self, *given, **keywords)

    return wrapper


class Decorated(nn.Module):
    """A forward pass behind a decorator, with arguments of any name."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(16, 12), nn.Linear(12, 3)

    @decorated
    def forward(self, x: Tensor, scale: Tensor | None = None, **keywords: Any) -> Tensor:
        hidden = nn.ReLU()(self.first(x))
        if scale is not None:
            hidden = hidden * scale
        least = torch.finfo(hidden.dtype).min
        return self.last(hidden.masked_fill(keywords["mask"], least).clamp(min=-2) if "mask" in keywords else hidden)


@pytest.mark.parametrize("names", [("x",), ("x", "scale"), ("scale", "x")])
def test_arguments_behind_a_decorator_are_known(names: tuple[str, ...]) -> None:
    module, given = Decorated(), {"x": WORDS, "scale": WORDS[..., :12].exp()}
    example = {name: given[name] for name in names}
    genome = graphs.from_torch(module, example)
    assert {node.id.partition("#")[0] for node in genome.graph.nodes.values() if node.kind == "linear"} == {
        "first",
        "last",
    }
    made = graphs.to_torch(genome)
    torch.testing.assert_close(made(**example), module(**example), rtol=0, atol=0)
    torch.testing.assert_close(made(*example.values()), module(**example), rtol=0, atol=0)


def test_the_least_number_of_a_values_type_is_known() -> None:
    def least(module: Any, x: Tensor) -> Tensor:
        y = module.fc(x)
        return torch.where(x > 0, y, torch.finfo(y.dtype).min).softmax(-1) + torch.finfo(torch.float16).eps

    module = Whole(least, fc=nn.Linear(16, 16))
    genome = graphs.from_torch(module, WORDS)
    assert {node.id.partition("#")[0] for node in genome.graph.nodes.values() if node.kind == "linear"} == {"fc"}
    torch.testing.assert_close(graphs.to_torch(genome)(WORDS), module(WORDS), rtol=0, atol=0)
    assert torch.finfo(torch.bfloat16).bits == 16 and isinstance(torch.finfo(), torch.finfo)
