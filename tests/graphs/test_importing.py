"""Modules that nobody here wrote come in and go out: same outputs in both modes, same state, no batch size baked in."""

from __future__ import annotations

import itertools
import math
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import graphs
import ops
from graphs.errors import GraphError
from graphs.genome import Genome
from graphs.kinds import KINDS

Pair = namedtuple("Pair", ["main", "side"])


class Functional(nn.Module):
    """Functions and methods instead of layers."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.fc = nn.Linear(8 * 3 * 2, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.norm(self.conv(x)), inplace=True)
        x = functional.max_pool2d(x, 2)
        x = functional.dropout(x, 0.3, training=self.training)
        return self.fc(x.view(x.size(0), -1))


class Residual(nn.Module):
    """In-place activation, an in-place sum, an average by method."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(6)
        self.block = nn.Sequential(nn.Conv2d(6, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(inplace=True))
        self.fc = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.stem(x)).relu_()
        y = self.block(x)
        y += x
        return self.fc(y.mean((2, 3)))


class Parts(nn.Module):
    """Chunks, a permutation, a parameter used directly, a buffer, arithmetic with numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 1)
        self.scale = nn.Parameter(torch.linspace(0.5, 1.5, 4).reshape(4, 1, 1))
        self.offset = nn.Parameter(torch.linspace(-1, 1, 4))
        self.register_buffer("shift", torch.tensor([0.1, 0.2, 0.3, 0.4]).reshape(1, 4, 1, 1))
        self.register_buffer("hidden", torch.tensor([1.0, 2.0]), persistent=False)
        self.fc = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.conv(x).chunk(2, dim=1)
        y = self.scale * a + (b - self.shift) / 2.0
        y = y.permute(0, 2, 3, 1) + self.offset
        y = torch.tanh(y).mean(dim=[1, 2]) * math.sqrt(2) + 1
        return self.fc(y) * self.hidden[0] + self.hidden[1]


class Shared(nn.Module):
    """One layer called twice, and one tensor under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(6, 6)
        self.again = nn.Linear(6, 6)
        self.again.weight = self.first.weight

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.first(x))
        x = torch.relu(self.first(x))
        return self.again(x)


class Several(nn.Module):
    """Two inputs, and a dictionary of outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.image = nn.Conv2d(1, 4, 3, stride=2)
        self.facts = nn.Linear(5, 4)
        self.a, self.b = nn.Linear(4, 3), nn.Linear(4, 2)

    def forward(self, picture: Tensor, facts: Tensor, extra: Tensor | None = None) -> dict[str, Tensor]:
        joined = torch.sigmoid(self.image(picture).mean((-2, -1))) + self.facts(facts)
        if extra is not None:
            joined = joined + extra
        return {"a": self.a(joined), "b": self.b(joined)}


class Auxiliary(nn.Module):
    """A named tuple with an output that exists in train mode only."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.main, self.side = nn.Linear(4, 6), nn.Linear(6, 3), nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Any:
        x = torch.relu(self.body(x))
        if self.training:
            return Pair(self.main(x), self.side(x))
        return self.main(x)


class Signal(nn.Module):
    """One-dimensional convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv1d(2, 4, 3, padding=1), nn.BatchNorm1d(4), nn.GELU(), nn.Conv1d(4, 4, 3, stride=2)
        )
        self.fc = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.net(x).mean(-1))


class Volume(nn.Module):
    """Three-dimensional convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv3d(1, 4, 3, padding=1), nn.BatchNorm3d(4), nn.ReLU(), nn.Conv3d(4, 4, 2, stride=2)
        )
        self.fc = nn.Linear(4 * 2 * 2 * 1, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(torch.flatten(self.net(x), 1))


class Words(nn.Module):
    """Tokens, positions, attention, a class token, layer norms."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens = nn.Embedding(20, 8)
        self.token = nn.Parameter(torch.randn(1, 1, 8))
        self.position = nn.Parameter(torch.randn(1, 7, 8))
        self.norm, self.last = nn.LayerNorm(8), nn.LayerNorm(8)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(8, 12), nn.GELU(), nn.Dropout(0.1), nn.Linear(12, 8))
        self.fc = nn.Linear(8, 4)

    def forward(self, words: Tensor) -> Tensor:
        x = self.tokens(words)
        n = x.shape[0]
        x = torch.cat([self.token.expand(n, -1, -1), x], dim=1) + self.position
        y = self.norm(x)
        x = x + self.attention(y, y, y, need_weights=False)[0]
        return self.fc(self.last(x + self.mlp(x))[:, 0])


class Causal(nn.Module):
    """Heads by view and transpose, the function for attention with a dropout that is written out, tied embeddings."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.places, self.out = nn.Embedding(9, 8), nn.Embedding(6, 8), nn.Linear(8, 9, bias=False)
        self.qkv, self.proj, self.norm = nn.Linear(8, 24), nn.Linear(8, 8), nn.LayerNorm(8)
        self.tokens.weight = self.out.weight

    def forward(self, words: Tensor) -> Tensor:
        n, length = words.size()
        x = self.tokens(words) + self.places(torch.arange(0, length, device=words.device))
        q, k, v = self.qkv(self.norm(x)).split(8, dim=2)
        q, k, v = (each.view(n, length, 2, 8 // 2).transpose(1, 2) for each in (q, k, v))
        rate = 0.2 if self.training else 0.0
        y = functional.scaled_dot_product_attention(q, k, v, dropout_p=rate, is_causal=True)
        return self.out(x + self.proj(y.transpose(1, 2).contiguous().view(n, length, 8)))


class Ended(nn.Module):
    """A text is read off where it ends, which each example's words say, and at two places that it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.place = nn.Embedding(9, 8), nn.Parameter(torch.randn(6, 8))
        self.first, self.norm, self.out = nn.Linear(8, 10), nn.LayerNorm(10), nn.Linear(10, 4)

    def forward(self, words: Tensor, places: Tensor) -> Tensor:
        x = self.norm(torch.relu(self.first(self.tokens(words) + self.place)))
        end = x[torch.arange(len(x), device=x.device), words.argmax(dim=-1)]
        two = x[torch.arange(x.shape[0]).unsqueeze(1), places]
        return self.out(end + two.view(len(x), -1).view(-1, 2, 10).mean(1))


class Laid(nn.Module):
    """Queries, keys and values by one permutation that moves the batch, norms within heads, a mask and a scale."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.proj = nn.Linear(6, 18), nn.Linear(6, 6)
        self.query, self.key = nn.LayerNorm(3), nn.LayerNorm(3)
        self.register_buffer("mask", torch.ones(5, 5, dtype=torch.bool).tril())

    def forward(self, x: Tensor) -> Tensor:
        n, length, width = x.shape
        q, k, v = self.qkv(x).reshape(n, length, 3, 2, 3).permute(2, 0, 3, 1, 4).unbind(0)
        y = functional.scaled_dot_product_attention(self.query(q), self.key(k), v, attn_mask=self.mask, scale=0.5)
        return (x + self.proj(y.transpose(1, 2).reshape(n, length, width))).mean(1)


class ByHand(nn.Module):
    """Products of matrices around a softmax, once as an einsum, with a bias for each head from a table."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.proj = nn.Linear(6, 18), nn.Linear(6, 6)
        self.table = nn.Parameter(torch.randn(9, 2))
        self.register_buffer("index", torch.arange(5)[:, None] - torch.arange(5)[None, :] + 4)

    def forward(self, x: Tensor) -> Tensor:
        n, length, width = x.shape
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        q, k, v = (each.unflatten(-1, (2, 3)).transpose(1, 2) for each in (q, k, v))
        scores = torch.einsum("b h i d, b h j d -> b h i j", q, k) * (1.0 / math.sqrt(k.size(-1)))
        bias = self.table[self.index.view(-1)].view(length, length, -1).permute(2, 0, 1).contiguous().unsqueeze(0)
        scores = functional.dropout(torch.softmax(scores + bias, dim=-1), 0.1, self.training)
        return (x + self.proj((scores @ v).transpose(1, 2).reshape(n, length, width))).mean(1)


class Roots(nn.Module):
    """Root-mean-square norms as a layer and as a function, over one axis and over two."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.norm, self.both = nn.Linear(6, 8), nn.RMSNorm(8), nn.RMSNorm((5, 8), eps=1e-3)
        self.scale = nn.Parameter(torch.linspace(0.5, 1.5, 8))
        self.out = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.both(torch.relu(self.norm(self.fc(x))))
        return self.out(functional.rms_norm(x, (8,), self.scale, eps=1e-5).mean(1))


class Odd(nn.Module):
    """What has no kind: softmax, top k, a sort, a batch that is not in front for a while, an einsum."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.out = nn.Linear(6, 6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.fc(x).softmax(-1)
        z = y.transpose(0, 1).cumsum(0).transpose(0, 1)
        top, _ = torch.topk(z, 6, dim=1)
        w = torch.einsum("ni,nj->nij", top, y).sum(1)
        values = w.sort(dim=1)[0]
        return self.out(values + torch.where(y > 0.2, y, torch.zeros_like(y)))


class Merged(nn.Module):
    """Windows are merged with the batch, and parted from it again."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 3, padding=1)
        self.fc = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        n, c, h, w = x.shape
        x = x.view(n, c, h // 2, 2, w // 2, 2).permute(0, 2, 4, 1, 3, 5).reshape(n * (h // 2) * (w // 2), c, 4)
        x = torch.softmax(x, -1) * x
        x = x.view(n, (h // 2) * (w // 2), c, 4).mean((1, 3))
        return self.fc(x)


class Copies(nn.Module):
    """Changes in place of copies, of what others read, and of what they read before."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.out = nn.Linear(6, 6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.fc(x)
        kept = y.clone()
        y.mul_(2).add_(1)
        functional.elu(y, 0.5, True)
        again = y
        again += kept
        return self.out(torch.tanh(y) - kept)


class Recurrent(nn.Module):
    """Layers and control flow that only recording resolves."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.norm = nn.Linear(5, 8), nn.BatchNorm1d(8)
        self.rnn = nn.LSTM(8, 6, num_layers=2, batch_first=True, dropout=0.2)
        self.drop, self.fc = nn.Dropout(0.3), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[1] > 3:
            x = x * 2
        steps = [self.norm(self.embed(x[:, step])) for step in range(x.shape[1])]
        y, _ = self.rnn(torch.stack(steps, 1))
        return self.fc(self.drop(torch.relu(y[:, -1])))


CASES: dict[str, tuple[Callable[[], nn.Module], Callable[[int], Any]]] = {
    "functional": (Functional, lambda n: torch.randn(n, 3, 6, 4)),
    "residual": (Residual, lambda n: torch.randn(n, 3, 5, 7)),
    "parts": (Parts, lambda n: torch.randn(n, 3, 4, 4)),
    "shared": (Shared, lambda n: torch.randn(n, 6)),
    "several": (Several, lambda n: (torch.randn(n, 1, 6, 6), torch.randn(n, 5))),
    "auxiliary": (Auxiliary, lambda n: torch.randn(n, 4)),
    "signal": (Signal, lambda n: torch.randn(n, 2, 9)),
    "volume": (Volume, lambda n: torch.randn(n, 1, 4, 4, 2)),
    "words": (Words, lambda n: torch.randint(0, 20, (n, 6))),
    "causal": (Causal, lambda n: torch.randint(0, 9, (n, 6))),
    "ended": (Ended, lambda n: (torch.randint(0, 9, (n, 6)), torch.randint(0, 6, (n, 2)))),
    "laid": (Laid, lambda n: torch.randn(n, 5, 6)),
    "by hand": (ByHand, lambda n: torch.randn(n, 5, 6)),
    "roots": (Roots, lambda n: torch.randn(n, 5, 6)),
    "odd": (Odd, lambda n: torch.randn(n, 6)),
    "merged": (Merged, lambda n: torch.randn(n, 2, 6, 4)),
    "copies": (Copies, lambda n: torch.randn(n, 6)),
    "recurrent": (Recurrent, lambda n: torch.randn(n, 5, 5)),
}

REWRITTEN = {"words"}
"""Modules of which a part is computed in another order: equal up to rounding, not bit for bit."""


def made(name: str) -> tuple[nn.Module, Genome]:
    make, example = CASES[name]
    torch.manual_seed(3)
    module = make()
    for tensor in module.state_dict().values():
        if tensor.is_floating_point() and tensor.ndim:
            tensor.add_(0.1 * torch.rand_like(tensor))
    return module, graphs.from_torch(module, example(4))


def outputs(module: nn.Module, given: Any, training: bool) -> tuple[list[Tensor], dict[str, Tensor]]:
    """Outputs of a copy of the module, and the state that the run leaves."""
    import copy

    work = copy.deepcopy(module).train(training)
    torch.manual_seed(5)
    with torch.no_grad():
        found = work(*given) if isinstance(given, tuple) else work(given)
    values = found.values() if isinstance(found, dict) else found if isinstance(found, tuple) else [found]
    return list(values), work.state_dict()


@pytest.fixture(autouse=True)
def without_the_fast_path() -> Any:
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    yield
    torch.backends.mha.set_fastpath_enabled(before)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("training", [False, True])
def test_outputs_and_state_are_the_originals(name: str, training: bool) -> None:
    module, genome = made(name)
    back = graphs.to_torch(genome)
    assert back.state_dict().keys() == module.state_dict().keys()
    for batch in (4, 7):
        given = CASES[name][1](batch)
        (expected, state), (found, after) = (outputs(each, given, training) for each in (module, back))
        assert len(expected) == len(found)
        for one, other in zip(expected, found, strict=True):
            if name in REWRITTEN:
                assert float((one - other).abs().max()) <= 1e-6 * float(one.std())
            else:
                assert torch.equal(one, other)
        assert all(torch.equal(state[key], after[key]) for key in state)


@pytest.mark.parametrize("name", CASES)
def test_the_module_is_left_as_it_is(name: str) -> None:
    make, example = CASES[name]
    module = make()
    module.eval()
    next(module.children()).train()
    state = {key: tensor.clone() for key, tensor in module.state_dict().items()}
    modes = [child.training for child in module.modules()]
    graphs.from_torch(module, example(3))
    assert [child.training for child in module.modules()] == modes
    assert all(torch.equal(state[key], tensor) for key, tensor in module.state_dict().items())


@pytest.mark.parametrize("name", CASES)
def test_files(name: str, tmp_path: Path) -> None:
    _, genome = made(name)
    graphs.save(genome, tmp_path / "it.safetensors")
    again = graphs.load(tmp_path / "it.safetensors")
    assert again.digest == genome.digest
    assert graphs.fingerprint(again.graph) == graphs.fingerprint(genome.graph)


@pytest.mark.parametrize("name", CASES)
def test_the_source_text_alone_gives_the_module_back(name: str) -> None:
    from graphs.source_text import constants_of, source

    _, genome = made(name)
    names: dict[str, Any] = {"constants": {name: genome.weights[name] for name in constants_of(genome)}}
    exec(source(genome, "Network"), names)  # noqa: S102
    network = names["Network"]()
    network.load_state_dict(graphs.to_torch(genome).state_dict())
    given = CASES[name][1](3)
    for training in (False, True):
        found, expected = outputs(network, given, training)[0], outputs(graphs.to_torch(genome), given, training)[0]
        assert all(torch.equal(one, other) for one, other in zip(expected, found, strict=True))


@pytest.mark.parametrize("name", CASES)
def test_mutations_keep_the_function(name: str) -> None:
    """Each operator at some of its sites, on a network that was taken in."""
    _, genome = made(name)
    probe = {node.settings["name"]: value for node, value in zip(genome.graph.inputs, _probe(name), strict=True)}
    tried = 0
    for mutation in ops.MUTATIONS.values():
        sites = mutation.sites(genome)
        for site in sites[:: max(1, len(sites) // 3)][:3]:
            child = mutation.apply(genome, site, numpy.random.default_rng(2))
            certificate = ops.certify(genome, child, probe=probe)
            assert not certificate.broken, (mutation.name, site, certificate)
            assert "blind" not in (certificate.eval.verdict, certificate.train.verdict), (
                mutation.name,
                site,
                certificate,
            )
            tried += 1
    assert tried > 1


def _probe(name: str) -> list[Tensor]:
    torch.manual_seed(11)
    given = CASES[name][1](8)
    return list(given) if isinstance(given, tuple) else [given]


def test_heads_of_train_mode_alone_are_marked() -> None:
    _, genome = made("auxiliary")
    assert [(head.name, head.training_only) for head in genome.graph.heads] == [("main", False), ("side", True)]
    module = graphs.to_torch(genome)
    x = torch.randn(3, 4)
    assert set(module(x)) == {"main", "side"}
    assert isinstance(module.eval()(x), Tensor)


def test_inputs_keep_names_types_and_ranges() -> None:
    _, genome = made("several")
    assert [(node.settings["name"], node.settings["shape"]) for node in genome.graph.inputs] == [
        ("picture", (1, 6, 6)),
        ("facts", (5,)),
    ]
    _, genome = made("words")
    (node,) = genome.graph.inputs
    assert node.settings["dtype"] == "integer" and node.settings["most"] <= 20


class Indexing(nn.Module):
    """Whole numbers that index tables."""

    def __init__(self, padding: int | None = None) -> None:
        super().__init__()
        self.words, self.places, self.fc = nn.Embedding(9, 4, padding), nn.Embedding(7, 4), nn.Linear(4, 3)

    def forward(self, ids: Tensor) -> Tensor:
        known = (ids != 0).unsqueeze(-1)
        out: Tensor = self.fc(self.words(ids) * known + self.places(ids.flip(1)))
        return out


class Scaled(Indexing):
    """The numbers are computed with before they are looked up."""

    def forward(self, ids: Tensor) -> Tensor:
        out: Tensor = self.fc(self.words(ids * 4))
        return out


class Laid(Indexing):
    """The numbers are moved about before they are looked up."""

    def forward(self, ids: Tensor) -> Tensor:
        out: Tensor = self.fc(self.words(ids.reshape(-1, 2, 2).transpose(1, 2).flatten(1)) + self.places(ids[:, :1]))
        return out


@pytest.mark.parametrize(
    ("module", "most"),
    [(Laid(), 7), (Laid(0), 7), (Scaled(), 1), (Indexing(), 1)],
    ids=["laid", "padded", "scaled", "turned"],
)
def test_whole_numbers_reach_as_far_as_the_tables_that_they_index(module: nn.Module, most: int) -> None:
    genome = graphs.from_torch(module, torch.zeros(2, 4, dtype=torch.int64))
    assert genome.graph.inputs[0].settings["most"] == most


@pytest.mark.parametrize("function", [False, True])
@pytest.mark.parametrize(("padding", "kernel", "found"), [("same", 3, (2, 2)), ("valid", 3, (0, 0)), ("same", 2, None)])
def test_padding_that_has_a_name_is_numbers(padding: str, kernel: int, found: Any, function: bool) -> None:
    """But for even kernels, which `same` pads more behind than before the map."""
    layer = nn.Conv2d(3, 4, kernel, padding=padding, dilation=2 if found else 1)
    module = Function(layer) if function else layer
    images = torch.randn(2, 3, 7, 6)
    genome = graphs.from_torch(module, images)
    node = list(genome.graph.nodes.values())[-1]
    if found is None:
        assert node.kind == "opaque"
    else:
        assert node.kind == "conv2d" and node.settings["padding"] == found
    assert torch.equal(graphs.to_torch(genome)(images), module(images))


class Function(nn.Module):
    """A convolution as a function."""

    def __init__(self, layer: nn.Conv2d) -> None:
        super().__init__()
        self.weight, self.how = layer.weight, {"padding": layer.padding, "dilation": layer.dilation}

    def forward(self, x: Tensor) -> Tensor:
        return functional.conv2d(x, self.weight, **self.how)


class Columns(nn.Module):
    """A row of data, each of whose columns indexes a table of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.tables = nn.ModuleList(nn.Embedding(count, 3) for count in (4, 6, 3, 3))
        self.fc = nn.Linear(12, 2)

    def forward(self, row: Tensor) -> Tensor:
        found = [table(row[:, place]) for place, table in enumerate(self.tables[:2])]
        rest = [table(part) for table, part in zip(self.tables[2:], row[:, 2:].unbind(1), strict=True)]
        out: Tensor = self.fc(torch.cat([*found, *rest], 1))
        return out


@pytest.mark.parametrize(("rows", "most"), [([[3, 5, 2, 0], [1, 0, 1, 2]], (4, 6, 3, 3)), ([[0, 1, 2, 2]], 3)])
def test_columns_of_whole_numbers_have_ranges_of_their_own(rows: list[list[int]], most: Any, tmp_path: Path) -> None:
    """Where the example shows that they have; a network of which each row may be drawn is certified without a probe."""
    genome = graphs.from_torch(Columns(), torch.tensor(rows))
    assert genome.graph.inputs[0].settings["most"] == most
    graphs.save(genome, tmp_path / "columns.safetensors")
    again = graphs.load(tmp_path / "columns.safetensors")
    assert again.digest == genome.digest and again.graph == genome.graph
    child = ops.MUTATIONS["widen"].apply(again, ops.MUTATIONS["widen"].sites(again)[0], numpy.random.default_rng(0))
    assert ops.certify(again, child).require().eval.verdict == "pass"


def test_keyword_examples() -> None:
    module = Several()
    given = {"facts": torch.randn(2, 5), "picture": torch.randn(2, 1, 6, 6), "extra": torch.randn(2, 4)}
    genome = graphs.from_torch(module, given)
    found = graphs.to_torch(genome).eval()(**given)
    assert torch.equal(found["a"], module.eval()(**given)["a"])


def test_nothing_of_ours_is_inside() -> None:
    for name in CASES:
        module = graphs.to_torch(made(name)[1])
        for each in module.modules():
            assert type(each).__module__.startswith("torch") or "GraphModule" in type(each).__name__
        assert not any(word in module.code for word in ("graphs.", "ops.", "evolve."))


def test_kinds_are_found_where_there_are_some() -> None:
    """Only what has no kind becomes an opaque node."""
    for name in set(CASES) - {"odd", "merged", "parts", "recurrent"}:
        kinds = {node.kind for node in made(name)[1].graph.nodes.values()}
    assert kinds <= KINDS.keys()


# What cannot be taken in --------------------------------------------------------------------------------------------


class Branching(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        if x.sum() > 0:
            return x
        return -x


class Baked(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.view(4, -1) * x.shape[0]


class Changing(nn.Module):
    """It depends on state that no trace shows and no copy holds."""

    turns = itertools.count(1)

    def forward(self, x: Tensor) -> Tensor:
        return x * next(self.turns)


class Loose(nn.Module):
    """The output has no batch in front."""

    def forward(self, x: Tensor) -> Tensor:
        return x.transpose(0, 1)


class Writing(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(3))

    def forward(self, x: Tensor) -> Tensor:
        self.seen.add_(1)
        return x + self.seen


class Different(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.other = nn.Linear(3, 3), nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.one(x) if self.training else self.other(x)


REFUSED: dict[str, tuple[Callable[[], nn.Module], Any, str]] = {
    "branch on values": (Branching, torch.randn(2, 3), "if x.sum() > 0"),
    "a batch size in the code": (Baked, torch.randn(4, 3), "batch"),
    "no batch in front": (Loose, torch.randn(2, 3), "batch is not the first axis"),
    "a buffer written to": (Writing, torch.randn(2, 3), "in place"),
    "another shape in train mode": (Different, torch.randn(2, 3), "of another shape or type in train mode"),
    "too many inputs": (Branching, (torch.randn(2, 3), torch.randn(2, 3)), "forward takes 1"),
    "no tensor": (Branching, "image", "no tensor"),
    "an unknown argument": (Branching, {"y": torch.randn(2, 3)}, "no argument 'y'"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refusals_say_where_and_why(name: str) -> None:
    make, example, message = REFUSED[name]
    with pytest.raises(GraphError) as caught:
        graphs.from_torch(make(), example)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_the_example_shows_what_no_trace_does_unless_that_is_left_out() -> None:
    with pytest.raises(GraphError, match="does not compute what the module does"):
        graphs.from_torch(Changing(), torch.randn(2, 3))
    graphs.from_torch(Changing(), torch.randn(2, 3), verify=False)


class Remembering(nn.Module):
    """Its forward pass writes down what it has seen, in containers of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.seen, self.last = nn.Linear(3, 3), [], None
        self.shared = self.kept = {}

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(1)
        self.last = self.kept["x"] = self.fc(x)
        return self.shared["x"]


def test_what_a_forward_pass_leaves_behind_stays_on_a_copy() -> None:
    module = Remembering()
    genome = graphs.from_torch(module, torch.randn(2, 3))
    assert (module.seen, module.last, module.kept) == ([], None, {}) and module.shared is module.kept
    assert genome.weights["fc.weight"].data_ptr() != module.fc.weight.data_ptr()


class Modes(nn.Module):
    """It asks for the mode by way of a part, or keeps a mode of its own."""

    def __init__(self, own: bool) -> None:
        super().__init__()
        self.fc, self.own, self.wide = nn.Linear(3, 3), own, True

    def train(self, mode: bool = True) -> Modes:
        self.wide = mode
        return super().train(mode)

    def forward(self, x: Tensor) -> Tensor:
        training = self.wide if self.own else self.fc.training
        return functional.dropout(self.fc(x), 0.25, training)


@pytest.mark.parametrize("own", [False, True])
def test_a_mode_that_is_asked_for_is_found(own: bool) -> None:
    genome = graphs.from_torch(Modes(own), torch.randn(2, 3))
    assert [node.kind for node in genome.graph.nodes.values()] == ["input", "linear", "dropout"]


def test_no_module() -> None:
    with pytest.raises(GraphError, match=r"expected a torch\.nn\.Module"):
        graphs.from_torch(torch.relu, torch.randn(2, 3))  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["words", "causal", "laid", "by hand"])
def test_heads_can_change_however_attention_is_written(name: str) -> None:
    _, genome = made(name)
    assert not any(KINDS[node.kind].wall for node in genome.graph.nodes.values())
    (site,) = ops.MUTATIONS["add_heads"].sites(genome)
    child = ops.MUTATIONS["add_heads"].apply(genome, site, numpy.random.default_rng(0))
    assert ops.certify(genome, child).eval.verdict == "pass"
    assert len(ops.MUTATIONS["widen_keys"].sites(genome)) == (0 if name == "laid" else 1)


class OverPlaces(nn.Module):
    """Pools and dropouts over one or three axes, as layers and as functions."""

    def __init__(self, places: int) -> None:
        super().__init__()
        self.places = places
        self.conv = getattr(nn, f"Conv{places}d")(2, 4, 3, padding=1)
        self.pool = getattr(nn, f"MaxPool{places}d")(2, padding=1)
        self.mean = getattr(nn, f"AvgPool{places}d")(2, stride=1)
        self.drop = getattr(nn, f"Dropout{places}d")(0.3)
        self.last = getattr(nn, f"AdaptiveAvgPool{places}d")(2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.mean(self.pool(self.conv(x)))
        x = getattr(functional, f"max_pool{self.places}d")(x, 2, 1)
        x = getattr(functional, f"dropout{self.places}d")(self.drop(x), 0.2, self.training)
        return self.last(x).flatten(1)


@pytest.mark.parametrize("places", [1, 3])
def test_pools_and_dropouts_over_one_and_three_axes(places: int) -> None:
    module = OverPlaces(places)
    x = torch.randn((3, 2, *[8] * places), generator=torch.Generator().manual_seed(0))
    genome = graphs.from_torch(module, x)
    kinds = [node.kind for node in genome.graph.nodes.values()]
    names = ("input", "conv", "max_pool", "avg_pool", "max_pool", "dropout", "dropout", "adaptive_avg_pool", "flatten")
    assert kinds == [name if name in ("input", "flatten") else f"{name}{places}d" for name in names]
    again = graphs.to_torch(genome)
    for training in (False, True):
        found = []
        for each in (module, again):
            torch.manual_seed(1)
            found.append(each.train(training)(x))
        assert torch.equal(*found)


def test_a_pool_over_what_is_no_map_is_taken_in_all_the_same() -> None:
    """Over two axes of which the first is the batch torch takes the batch for channels."""
    module = nn.Sequential(nn.Linear(4, 8), nn.MaxPool1d(2), nn.Linear(4, 3))
    x = torch.randn((5, 4), generator=torch.Generator().manual_seed(0))
    genome = graphs.from_torch(module, x)
    assert torch.equal(graphs.to_torch(genome).eval()(x), module.eval()(x))


class Shifted(nn.Module):
    """What windows that are shifted are made of: turned maps, a table of biases, and blocks that are left out."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.fc = nn.Conv2d(3, 6, 1), nn.Conv2d(6, 6, 1)
        self.table = nn.Parameter(torch.randn(5, 6))
        self.register_buffer("index", torch.tensor([3, 0, 4]), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        y = self.enter(x)
        y = y.expand(-1, 6, x.shape[2], -1).expand(y.shape)
        z = torch.roll(self.fc(y), (-1, 2), (2, 3)) * self.table.index_select(0, self.index).sum(0).view(1, 6, 1, 1)
        z = torch.feature_dropout(z.unsqueeze(0), 0.4, self.training).squeeze(0)
        return (y + torch.roll(z, shifts=1, dims=-2)).mean((2, 3))


def test_turned_maps_and_dropped_examples_are_no_walls() -> None:
    module, x = Shifted(), torch.randn(4, 3, 6, 6)
    genome = graphs.from_torch(module, x)
    kinds = [node.kind for node in genome.graph.nodes.values()]
    assert kinds.count("roll") == 2 and {"take", "stochastic_depth"} <= set(kinds)
    for training in (True, False):
        pairs = []
        for each in (module.train(training), graphs.to_torch(genome).train(training)):
            torch.manual_seed(1)
            pairs.append(each(x))
        assert torch.equal(*pairs)


@pytest.mark.parametrize("name", [*CASES, "shifted"])
def test_what_has_come_out_comes_in_again_with_the_same_places(name: str) -> None:
    genome = graphs.from_torch(Shifted(), torch.randn(4, 3, 6, 6)) if name == "shifted" else made(name)[1]
    example = torch.randn(4, 3, 6, 6) if name == "shifted" else CASES[name][1](4)
    out = graphs.to_torch(genome)
    again = graphs.from_torch(out, example)
    assert list(graphs.to_torch(again).state_dict()) == list(out.state_dict())
    for operator in ("widen", "add_heads", "grow_kernel", "insert_block"):
        assert len(ops.MUTATIONS[operator].sites(again)) >= len(ops.MUTATIONS[operator].sites(genome)), operator
