"""Code as people write it every day comes in, or is refused by one line that says where and why."""

from __future__ import annotations

import builtins
import dataclasses
import math
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import prune

import graphs
from graphs.errors import GraphError
from graphs.importing.calls import CALLS
from ops import MUTATIONS, certify


class Whole(nn.Module):
    """A forward pass around the layers that it is given."""

    def __init__(self, forward: Callable[..., Any], **parts: nn.Module) -> None:
        super().__init__()
        for name, part in parts.items():
            self.add_module(name, part)
        self.what = forward

    def forward(self, x: Tensor) -> Any:
        return self.what(self, x)


def small() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 3))


def pruned() -> nn.Module:
    module = small()
    prune.l1_unstructured(module[0], "weight", 0.5)
    return module


def unshifted() -> nn.Module:
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    module[1].register_parameter("bias", None)
    return module


def normed() -> nn.Module:
    module = small()
    torch.nn.utils.weight_norm(module[0])
    return module


def placed() -> nn.Module:
    module = Whole(whole, first=nn.Linear(16, 6), fc=nn.Linear(6, 3))
    module.register_buffer("last", torch.tensor(4))
    return module


class Masked(nn.Module):
    """Causal attention as it is written by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(16, 16)
        self.register_buffer("mask", torch.tril(torch.ones(8, 8)))

    def forward(self, x: Tensor) -> Tensor:
        y = self.fc(x)
        scores = (y @ y.transpose(1, 2)).masked_fill(self.mask[: x.shape[1], : x.shape[1]] == 0, float("-inf"))
        return scores.softmax(-1) @ y


class DropPath(nn.Module):
    """Stochastic depth as it is written by hand."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        if self.p == 0.0 or not self.training:
            return x
        kept = x.new_empty((x.shape[0],) + (1,) * (x.ndim - 1)).bernoulli_(1 - self.p)
        return x * kept.div_(1 - self.p)


def looped(module: Any, x: Tensor) -> Tensor:
    state = torch.zeros(x.shape[0], 8)
    for place in range(x.shape[1]):
        state = module.cell(x[:, place], state)
    return state


def written(module: Any, x: Tensor) -> Tensor:
    y = module.fc(x)
    kept = y
    y[:, 0] = 0
    y[:, 1:3] += 1.5
    part = y[:, 3:5]
    part += x[:, :2]
    y[..., -1] = x[:, 0]
    y[y > 1] = 1.0
    return module.fc(y) + kept


def later(places: int) -> Tensor:
    """What no place is to see: those after it."""
    return torch.ones(places, places).triu(1).bool()


def attention_layer() -> nn.MultiheadAttention:
    return nn.MultiheadAttention(16, 4, batch_first=True)


def in_heads(x: Tensor) -> Tensor:
    return x.unflatten(-1, (4, 4)).transpose(1, 2)


def shared_keys(s: Any, x: Tensor) -> Tensor:
    key, value = s.both(x).unsqueeze(1).chunk(2, -1)
    found = functional.scaled_dot_product_attention(in_heads(s.query(x)), key, value)
    return s.fc(found.transpose(1, 2).flatten(2))


def shared_query(s: Any, x: Tensor) -> Tensor:
    return functional.scaled_dot_product_attention(s.query(x)[:, None], in_heads(s.key(x)), in_heads(s.value(x)))


def noisy(s: Any, x: Tensor) -> Tensor:
    """Noise as people draw it: into tensors without numbers, in whole numbers, from a mean and a deviation."""
    y = s.fc(x)
    y = y + torch.empty_like(y).normal_(0.1, 0.3) + y.new_empty(y.shape).uniform_(-0.2, 0.3) + y.new(y.size()).normal_()
    y = y * torch.empty(y.shape[0], 1).bernoulli_(0.8) + torch.normal(0.2, 0.1, size=y.shape)
    return y + torch.randint(2, 5, (y.shape[0], 6)) + torch.zeros(len(y), 6).uniform_()


def shifted(module: Any, x: Tensor) -> Tensor:
    y = module.first(x)
    made = torch.zeros_like(y)
    made[:, :-1, :2] = y[:, 1:, :2]
    made[:, 1:, 2:4] = y[:, :-1, 2:4]
    made[:, ::2, 1::3] += 1.5
    made[:, 0, 4:] = module.fc.bias[:2]
    made[:, 1:4, 4] = y[:, :1, 0]
    made[:, 4] = module.fc.bias[None, None, 1]
    made[:, 2:][:, 1, 3:5] = y[:, 0, 4:]
    return module.fc(made) + y[..., :3]


def at_its_end(module: Any, x: Tensor) -> Tensor:
    return module.fc(module.first(x)[torch.arange(len(x), device=x.device), (x > 0).sum(-1).argmax(-1)])


def at_some(module: Any, x: Tensor) -> Tensor:
    h = module.first(x)
    best = h.norm(dim=-1).topk(2, 1).indices
    return module.fc(h[torch.arange(x.shape[0]).unsqueeze(1), best] + h[torch.arange(len(x))[:, None], -best - 1])


def in_maps(module: Any, x: Tensor) -> Tensor:
    row, column = x.mean((1, 3)).argmax(1), x.mean((1, 2)).argmax(1).int()
    h, each = module.first(x), torch.arange(0, x.size(0))
    rows = h[each, :, row] + h[each, 2, row][:, None] + h[each, None, 1:3, row].sum(2)
    return torch.cat([rows, h[each, ..., column], h[each, :, row, column, None]], -1)


def whole(module: Any, x: Tensor) -> Tensor:
    """Entries that are those of all examples, or the same in all of them, and a copy that is changed."""
    h, each = module.first(x), torch.arange(len(x))
    kept = h[each]
    kept += 1
    return module.fc(torch.stack([h[each, -1], kept[:, 0], h[each, module.last], h[each].sum(1)], 1))


def packed(module: Any, x: Tensor, h: Tensor) -> Tensor:
    """A mask that is made by index arithmetic, as language models make it: causal, within parts, without padding."""
    each, places = torch.arange(x.shape[0])[:, None, None, None], torch.arange(x.shape[1]) + 0
    query, key = places[None, None, :, None], places[None, None, None, :]
    numbers = (places * 3 // 4)[None].expand(x.shape[0], -1)
    parts = (torch.diff(numbers, prepend=numbers[:, :1] - 1, dim=-1) != 1).cumsum(-1)
    mask = (numbers[each, key] <= numbers[each, query]) & (parts[each, query] == parts[each, key])
    mask = (mask & (x.sum(-1) > 0)[each, key]).expand(x.shape[0], -1, x.shape[1], x.shape[1])
    y = module.fc(h)[:, None]
    return ((y @ y.transpose(2, 3)).masked_fill(~mask, -9.0).softmax(-1) @ y)[:, 0]


def everywhere(module: Any, x: Tensor) -> Tensor:
    """Entries at places that are the same in all examples, along an axis behind another, some of them from the end."""
    h, each, places = module.fc(module.first(x)[0]), torch.arange(x.shape[0]), torch.arange(2) - 1
    one, two = h[each[:, None, None], places[None, :, None] + 2], h[each[:, None], :, places]
    return torch.cat([one[:, :, 0].flatten(1), two.flatten(1), h[each[:, None, None], places[:, None]].flatten(1)], 1)


def unread(module: Any, x: Tensor) -> Tensor:
    """Numbers of the examples that are computed with for nothing."""
    each = torch.arange(len(x))
    torch.cat([each.flip(0), each * 2])
    return module.fc(x)


class Leaning(nn.Module):
    """Attention in windows, with a bias for each distance."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.table = nn.Linear(16, 16), nn.Parameter(torch.randn(3, 2))
        self.register_buffer("index", torch.tensor([[1, 2], [0, 1]]))

    def forward(self, x: Tensor) -> Tensor:
        windows = self.fc(x).reshape(-1, 2, 2, 8).transpose(1, 2)
        bias = self.table[self.index.view(-1)].view(2, 2, 2).permute(2, 0, 1).unsqueeze(0)
        mixed = functional.scaled_dot_product_attention(windows, windows, windows, bias)
        return mixed.transpose(1, 2).reshape(x.shape[0], -1, 16)


def chosen(module: Any, x: Tensor) -> Tensor:
    """Truths that are repeated for each example of whole numbers."""
    left = (torch.arange(4) < 2)[None, :, None].expand(x.shape[0], -1, -1)
    return torch.where(left, module.embedding(x), 0.5)


def with_a_number(module: Any, x: Tensor) -> Tensor:
    """A number as a tensor, in what is recorded."""
    return module.layer(x)[0] / torch.sqrt(torch.tensor(x.shape[-1], dtype=torch.float32) * 2)


def lengthy(module: Any, x: Tensor) -> Tensor:
    h = module.fc(x).view(len(x) * len(x[0]), -1) / len(x.shape) + len(x.chunk(2, 1)) * len(module.fc.weight)
    return h.view(len(x), -1) * len(x.transpose(0, 1))


def turned(module: Any, x: Tensor) -> Tensor:
    windows = module.fc(x).reshape(-1, 2, 16)
    directions = functional.normalize(windows, dim=-1)
    mixed = (directions @ directions.transpose(-2, -1)).softmax(-1) @ windows
    return module.fc(mixed.view(-1, 4, 16))


IMAGE, ROW, WORDS = torch.randn(4, 3, 6, 6), torch.randn(4, 6), torch.randn(4, 5, 16)

TAKEN: dict[str, tuple[Callable[[], nn.Module], Tensor]] = {
    "a mask by index arithmetic": (lambda: Whole(lambda s, x: packed(s, x, x), fc=nn.Linear(16, 6)), WORDS),
    "a recorded mask by index arithmetic": (
        lambda: Whole(
            lambda s, x: packed(s, x, s.first(x)[0]), first=nn.GRU(16, 8, batch_first=True), fc=nn.Linear(8, 6)
        ),
        WORDS,
    ),
    "places that are the same everywhere": (
        lambda: Whole(everywhere, first=nn.GRU(16, 8, batch_first=True), fc=nn.Linear(8, 6)),
        WORDS,
    ),
    "numbers of the examples that nothing reads": (lambda: Whole(unread, fc=nn.Linear(6, 3)), ROW),
    "a bias for each distance in windows": (Leaning, torch.randn(4, 8, 16)),
    "truths for each example": (lambda: Whole(chosen, embedding=nn.Embedding(9, 5)), torch.randint(9, (4, 4))),
    "a number as a tensor": (lambda: Whole(with_a_number, layer=nn.GRU(16, 8, batch_first=True)), WORDS),
    "an encoder that drops out": (
        lambda: nn.TransformerEncoder(
            nn.TransformerEncoderLayer(16, 4, 32, batch_first=True), 2, enable_nested_tensor=False
        ),
        WORDS,
    ),
    "a distance": (
        lambda: Whole(lambda s, x: functional.mse_loss(s.fc(x), x, reduction="none"), fc=nn.Linear(6, 6)),
        ROW,
    ),
    "attention that is masked by hand": (Masked, WORDS),
    "an end that is none": (lambda: Whole(lambda s, x: s.fc(x).clamp(min=0.0, max=math.inf), fc=nn.Linear(6, 6)), ROW),
    "zeros for each example": (
        lambda: Whole(
            lambda s, x: torch.cat([s.fc(x), torch.zeros(x.shape[0], 3, device=x.device)], 1), fc=nn.Linear(6, 6)
        ),
        ROW,
    ),
    "a cell in a loop": (lambda: Whole(looped, cell=nn.GRUCell(16, 8)), WORDS),
    "truths": (lambda: Whole(lambda s, x: s.fc(x) * ((x > 0) & (x < 1)), fc=nn.Linear(6, 6)), ROW),
    "an activation by its inner name": (lambda: nn.Sequential(nn.Linear(6, 6), nn.LogSigmoid()), ROW),
    "stochastic depth": (lambda: Whole(lambda s, x: x + s.drop(s.fc(x)), fc=nn.Linear(6, 6), drop=DropPath(0.3)), ROW),
    "writing into parts": (lambda: Whole(written, fc=nn.Linear(6, 6)), ROW),
    "writing along several axes": (lambda: Whole(shifted, first=nn.Linear(16, 6), fc=nn.Linear(6, 3)), WORDS),
    "norms without statistics": (
        lambda: nn.Sequential(
            nn.Conv2d(3, 4, 3),
            nn.BatchNorm2d(4, track_running_stats=False),
            nn.BatchNorm2d(4, affine=False, track_running_stats=False),
        ),
        IMAGE,
    ),
    "norms that average over all batches": (
        lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, momentum=None), nn.ReLU()),
        IMAGE,
    ),
    "norms of all sorts, that are recorded": (
        lambda: nn.Sequential(
            nn.Conv2d(3, 4, 3),
            nn.BatchNorm2d(4, track_running_stats=False),
            nn.BatchNorm2d(4, momentum=None),
            nn.BatchNorm2d(4, affine=False),
            Still(4),
            Still(4, affine=False),
        ),
        IMAGE,
    ),
    "norms that are written out": (lambda: nn.Sequential(nn.Linear(6, 6), Counting(6), Counting(6, affine=False)), ROW),
    "norms without weights": (lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, affine=False)), IMAGE),
    "a batch norm without a bias": (unshifted, IMAGE),
    "norms with the batch elsewhere": (
        lambda: Whole(
            lambda s, x: s.c(s.b(s.a(x.transpose(0, 1)))).transpose(0, 1),
            a=nn.LayerNorm(16, elementwise_affine=False),
            b=nn.RMSNorm(16),
            c=nn.LayerNorm(16, bias=False),
        ),
        WORDS,
    ),
    "directions in windows": (lambda: Whole(turned, fc=nn.Linear(16, 16)), WORDS[:, :4]),
    "random numbers for each example": (
        lambda: Whole(
            lambda s, x: s.fc(x) * (torch.rand(x.shape[0], 1) < 0.8) + torch.randn(x.shape), fc=nn.Linear(6, 6)
        ),
        ROW,
    ),
    "an attention layer with a mask of truths": (
        lambda: Whole(lambda s, x: s.mix(x, x, x, attn_mask=later(5))[0], mix=attention_layer()),
        WORDS,
    ),
    "an attention layer with a mask of numbers": (
        lambda: Whole(
            lambda s, x: s.mix(x, x, x, attn_mask=later(5).float() * -2, need_weights=False)[0], mix=attention_layer()
        ),
        WORDS,
    ),
    "encoders with a mask": (
        lambda: Whole(
            lambda s, x: s.encode(x, mask=later(5)),
            encode=nn.TransformerEncoder(
                nn.TransformerEncoderLayer(16, 4, 8, 0.0, batch_first=True), 2, enable_nested_tensor=False
            ),
        ),
        WORDS,
    ),
    "decoders with a mask": (
        lambda: Whole(
            lambda s, x: s.decode(x, x.flip(1), tgt_mask=later(5)),
            decode=nn.TransformerDecoder(nn.TransformerDecoderLayer(16, 4, 8, 0.0, batch_first=True), 2),
        ),
        WORDS,
    ),
    "keys and values that all heads share": (
        lambda: Whole(shared_keys, query=nn.Linear(16, 16), both=nn.Linear(16, 8), fc=nn.Linear(16, 4)),
        WORDS,
    ),
    "a query that all heads share": (
        lambda: Whole(shared_query, query=nn.Linear(16, 4), key=nn.Linear(16, 16), value=nn.Linear(16, 16)),
        WORDS,
    ),
    "noise that fills a tensor": (lambda: Whole(noisy, fc=nn.Linear(6, 6)), ROW),
    "zeros of the input's type": (
        lambda: Whole(lambda s, x: s.fc(x) + torch.ones(x.shape[0], 6, dtype=x.dtype), fc=nn.Linear(6, 6)),
        ROW,
    ),
    "a place of each example's own": (lambda: Whole(at_its_end, first=nn.Linear(16, 6), fc=nn.Linear(6, 3)), WORDS),
    "some places of each example's own": (lambda: Whole(at_some, first=nn.Linear(16, 6), fc=nn.Linear(6, 3)), WORDS),
    "places in maps": (lambda: Whole(in_maps, first=nn.Conv2d(3, 4, 3, padding=1)), IMAGE),
    "places that are all or the same": (placed, WORDS),
    "lengths": (lambda: Whole(lengthy, fc=nn.Linear(16, 6)), WORDS),
    "a recurrent layer from zeros": (
        lambda: Whole(
            lambda s, x: s.layer(x, torch.zeros(1, len(x), 8))[0][torch.arange(len(x)), x.sum(-1).argmax(1)],
            layer=nn.GRU(16, 8, batch_first=True),
        ),
        WORDS,
    ),
    "weights that are pruned": (pruned, ROW),
    "weights with a norm": (normed, ROW),
}


class Still(nn.BatchNorm2d):
    """A norm that never learns from what it sees."""

    def train(self, mode: bool = True) -> Still:
        super().train(False)
        return self


class Counting(nn.BatchNorm1d):
    """A norm with a forward pass of its own, which does what torch's does."""

    def forward(self, x: Tensor) -> Tensor:
        if self.training and self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
        tensors = (self.running_mean, self.running_var, self.weight, self.bias)
        return functional.batch_norm(x, *tensors, self.training, self.momentum or 0.0, self.eps).relu()


class Scaled(nn.Module):
    """A layer norm that people write for want of one without a bias."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.rand(6) + 0.5)

    def forward(self, x: Tensor) -> Tensor:
        return functional.layer_norm(x, self.weight.shape, self.weight, None, 1e-5)


NORMS: dict[str, tuple[Callable[[], nn.Module], str, bool]] = {
    "layer norm without a bias": (lambda: nn.LayerNorm(6, bias=False), "layer_norm", True),
    "layer norm without weights": (lambda: nn.LayerNorm(6, elementwise_affine=False), "layer_norm", True),
    "layer norm by hand": (Scaled, "layer_norm", True),
    "layer norm as a function": (lambda: Whole(lambda s, x: functional.layer_norm(x, (6,))), "layer_norm", True),
    "rms norm without weights": (lambda: nn.RMSNorm(6, elementwise_affine=False), "rms_norm", True),
    "group norm without weights": (lambda: nn.GroupNorm(2, 6, affine=False), "group_norm", False),
    "group norm as a function": (lambda: Whole(lambda s, x: functional.group_norm(x, 3)), "group_norm", False),
    "instance norm": (lambda: nn.InstanceNorm2d(6), "instance_norm", False),
    "instance norm with weights": (lambda: nn.InstanceNorm2d(6, affine=True), "instance_norm", False),
    "instance norm as a function": (lambda: Whole(lambda s, x: functional.instance_norm(x)), "instance_norm", False),
}
"""Norms that lack weights, their kinds, and whether they run over the last axis."""


@pytest.mark.parametrize("name", NORMS)
def test_a_norm_without_some_weights_is_no_wall(name: str, tmp_path: Path) -> None:
    make, kind, last = NORMS[name]
    torch.manual_seed(0)
    layers = [nn.Linear(6, 6), make(), nn.GELU(), nn.Linear(6, 3)] if last else [nn.Conv2d(3, 6, 3), make(), nn.GELU()]
    module = nn.Sequential(*layers, *(() if last else (nn.Flatten(), nn.Linear(96, 3))))
    example = torch.randn(4, 5, 6) if last else IMAGE
    genome = graphs.from_torch(module, example)
    (norm,) = (node.id for node in genome.graph.nodes.values() if node.kind == kind)
    assert "can be changed" in graphs.explain(genome.graph, norm)
    graphs.save(genome, tmp_path / "genome.safetensors")
    made = graphs.to_torch(graphs.load(tmp_path / "genome.safetensors"))
    assert made.state_dict().keys() == module.state_dict().keys()
    torch.testing.assert_close(made(example), module(example))


@pytest.fixture(autouse=True)
def without_the_fast_path() -> Iterator[None]:
    """The fast path of torch's encoders computes the same to rounding; compared is the ordinary one."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    yield
    torch.backends.mha.set_fastpath_enabled(before)


def tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    return [tensor for part in value for tensor in tensors(part)] if isinstance(value, list | tuple) else []


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("name", TAKEN)
@pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated")
def test_it_comes_in_right_for_any_batch(name: str, training: bool, tmp_path: Path) -> None:
    make, example = TAKEN[name]
    torch.manual_seed(0)
    module = make()
    genome = graphs.from_torch(module, example)
    graphs.save(genome, tmp_path / "genome.safetensors")
    made = graphs.to_torch(graphs.load(tmp_path / "genome.safetensors"))
    for given in (example, torch.cat([example, example.flip(0)])[:7], example[:2]):
        found = []
        for each in (module.train(training), made.train(training)):
            torch.manual_seed(1)
            with torch.no_grad():
                found.append(tensors(each(given.clone())))
        assert len(found[0]) == len(found[1]) > 0
        for one, other in zip(*found, strict=True):
            torch.testing.assert_close(other, one, rtol=1e-5, atol=1e-6, equal_nan=True)
    torch.testing.assert_close(dict(made.state_dict()), dict(module.state_dict()))


BYTES = torch.randint(256, (4, 6), dtype=torch.uint8)

CAST: dict[str, tuple[Callable[..., Tensor], Tensor]] = {
    "to a weight's type": (lambda s, x: s.fc(x.to(s.fc.weight.dtype) / 255), BYTES),
    "to a place and a type": (lambda s, x: s.fc(x.to(s.fc.weight.device, dtype=s.fc.weight.dtype)), BYTES),
    "to a weight": (lambda s, x: s.fc(x.to(s.fc.weight)), BYTES),
    "as a weight": (lambda s, x: s.fc(x.type_as(s.fc.bias)), BYTES),
    "back to an input's type": (lambda s, x: s.fc(x.float().exp().to(x.dtype)), ROW),
    "to the type of what is cast": (lambda s, x: s.fc(s.fc(x).to(x.float().dtype).exp().sin().to(x.dtype)), ROW),
    "as what is made of what is cast": (lambda s, x: s.fc(s.fc(x).type_as(x.float() + 1).exp().sin().to(x)), ROW),
    "to the type of a value": (lambda s, x: s.fc(x) * (x > 0).type(s.fc(x).dtype), ROW),
}
"""Casts to a type of the network's own."""


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("name", CAST)
def test_a_type_of_the_networks_own_follows_it_to_another(name: str, dtype: torch.dtype, tmp_path: Path) -> None:
    compute, example = CAST[name]
    torch.manual_seed(0)
    module = Whole(compute, fc=nn.Linear(6, 6))
    graphs.save(graphs.from_torch(module, example), tmp_path / "genome.safetensors")
    made = graphs.to_torch(graphs.load(tmp_path / "genome.safetensors"))
    assert made.state_dict().keys() == module.state_dict().keys()
    x = example.to(dtype) if example.is_floating_point() else example
    torch.testing.assert_close(made.to(dtype)(x), module.to(dtype)(x), rtol=0, atol=0)


def test_an_attention_layer_with_a_mask_can_be_changed() -> None:
    make, example = TAKEN["an attention layer with a mask of truths"]
    genome = graphs.from_torch(make(), example)
    kinds = [node.kind for node in genome.graph.nodes.values()]
    assert kinds.count("attention") == 1
    for operator in ("add_heads", "widen_keys"):
        (site, *_) = MUTATIONS[operator].sites(genome)
        child = MUTATIONS[operator].apply(genome, site, numpy.random.default_rng(0))
        assert certify(genome, child).require().eval.verdict == "pass"


def in_full(s: Any, x: Tensor) -> Tensor:
    """Attention whose weights are computed in single precision, as in LLaMA and its kin."""
    query, key, value = (in_heads(part(x)) for part in (s.query, s.key, s.value))
    scores = query @ key.transpose(2, 3) * 2**-0.5
    weights = functional.softmax(scores, dim=-1, dtype=torch.float32).to(query.dtype)
    return s.out((weights @ value).transpose(1, 2).reshape(len(x), -1, 16))


def in_full_again(s: Any, x: Tensor) -> Tensor:
    """The same, in other words."""
    query, key, value = (in_heads(part(x)) for part in (s.query, s.key, s.value))
    weights = torch.softmax((query @ key.transpose(2, 3) * 2**-0.5).float(), -1).type_as(query)
    return s.out((weights @ value).transpose(1, 2).flatten(2))


@pytest.mark.parametrize("exported", [False, True])
@pytest.mark.parametrize("compute", [in_full, in_full_again])
def test_attention_whose_weights_are_cast_can_be_changed(compute: Callable[..., Tensor], exported: bool) -> None:
    torch.manual_seed(0)
    layers = {name: nn.Linear(16, 16) for name in ("query", "key", "value", "out")}
    whole: Callable[..., Tensor] = (lambda s, x: compute(s, s.gru(x)[0])) if exported else compute
    module = Whole(whole, **layers, gru=nn.GRU(16, 16, batch_first=True)) if exported else Whole(whole, **layers)
    example = torch.randn(2, 5, 16)
    genome = graphs.from_torch(module, example)
    assert next(node.settings["dtype"] for node in genome.graph.nodes.values() if node.kind == "cast") == "float32"
    for operator in ("add_heads", "widen_keys", "widen"):
        (site, *_) = MUTATIONS[operator].sites(genome)
        child = MUTATIONS[operator].apply(genome, site, numpy.random.default_rng(0))
        assert certify(genome, child).require().eval.verdict == "pass"
    if not exported:
        low = example.bfloat16()
        torch.testing.assert_close(graphs.to_torch(genome).bfloat16()(low), module.bfloat16()(low), rtol=0, atol=0)


def test_a_cast_to_a_weights_type_leaves_that_layer_changeable() -> None:
    genome = graphs.from_torch(
        Whole(lambda s, x: s.fc(s.first(x.type_as(s.first.weight))), first=nn.Linear(6, 6), fc=nn.Linear(6, 3)), BYTES
    )
    first = next(node.id for node in genome.graph.nodes.values() if node.kind == "linear")
    assert "can be changed" in graphs.explain(genome.graph, first)


def autocast(module: Any, x: Tensor) -> Tensor:
    with torch.autocast("cpu", torch.bfloat16):
        y = module.fc(x)  # here
    return y.float()


class Unused(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(6, 3)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self.fc(x)


class Any_(nn.Module):
    def forward(self, *xs: Tensor) -> Tensor:
        return xs[0] * 2


def limited(module: Any, x: Tensor) -> Tensor:
    assert not x.is_sparse
    return module.fc(torch.linalg.pinv(x.unsqueeze(-1)).squeeze(-2))  # here


def scattered(module: Any, x: Tensor) -> Tensor:
    y = module.fc(x)
    y[:, ::2, None] = 1.0  # here
    return y


def laid_in(module: Any, x: Tensor) -> Tensor:
    y = module.fc(x)
    y[:, 0] = x.shape[0]
    return y


def counted(module: Any, x: Tensor) -> Tensor:
    if x.shape[0] > 3:  # here
        return module.fc(x)
    return module.fc(x * 2)


def by_examples(module: Any, x: Tensor) -> Tensor:
    for place in range(len(x)):  # here
        x = x + place
    return module.fc(x)


def numbered(what: Callable[[Tensor, Tensor], Tensor]) -> Callable[[], nn.Module]:
    """A forward pass that does something with its values and the numbers of the examples."""
    return lambda: Whole(lambda s, x: what(s.fc(x), torch.arange(len(x))), fc=nn.Linear(6, 6))


def put(y: Tensor, each: Tensor) -> Tensor:
    y[each, 0] = 1.0  # here
    return y


def mixed_in(y: Tensor, each: Tensor) -> Tensor:
    other = each.flip(0)  # here
    return torch.stack([y, y[other]])[0]


REFUSED: dict[str, tuple[Callable[[], nn.Module], Any, str]] = {
    "an argument that is not used": (Unused, (ROW, ROW), "does not use its argument 'y'"),
    "arguments without names": (Any_, (ROW, ROW), "(*xs"),
    "compiled": (lambda: torch.jit.trace(small(), ROW), ROW, "compiled by torch.jit"),
    "a compiled part": (lambda: nn.Sequential(torch.jit.script(small())), ROW, "the part '0' is compiled"),
    "compiled by dynamo": (lambda: torch.compile(small(), backend="eager"), ROW, "_orig_mod"),
    "wrapped": (lambda: nn.DataParallel(small()), ROW, ".module"),
    "types that are cast": (lambda: Whole(autocast, fc=nn.Linear(6, 3)), ROW, "module.fc(x)  # here"),
    "complex numbers": (small, torch.randn(4, 6, dtype=torch.complex64), "complex"),
    "writing in some other way": (lambda: Whole(scattered, fc=nn.Linear(6, 3)), ROW, "= 1.0  # here"),
    "writing what is no tensor of examples": (lambda: Whole(laid_in, fc=nn.Linear(6, 3)), ROW, "with torch.where"),
    "one number": (lambda: Whole(lambda s, x: s.fc(x).mean(), fc=nn.Linear(6, 3)), ROW, "one for the whole batch"),
    "a bare parameter": (lambda: Whole(lambda s, x: (s.fc(x), s.fc.weight), fc=nn.Linear(6, 3)), ROW, "not depend on"),
    "the number of examples": (lambda: Whole(counted, fc=nn.Linear(6, 3)), ROW, "if x.shape[0] > 3:  # here"),
    "as many turns as examples": (lambda: Whole(by_examples, fc=nn.Linear(6, 3)), ROW, "in range(len(x)):  # here"),
    "numbers of the examples as values": (numbered(lambda y, each: y + each[:, None]), ROW, "numbers the examples"),
    "numbers of the examples alone": (numbered(lambda y, each: each), ROW, "numbers the examples"),
    "examples in another order": (numbered(lambda y, each: y[each.flip(0)]), ROW, "numbers the examples"),
    "the first examples": (numbered(lambda y, each: y[each[:5]]), ROW, "numbers the examples"),
    "examples elsewhere": (numbered(lambda y, each: y.t()[y.argmax(1), each]), ROW, "along the first axis"),
    "what is computed of the numbers of the examples": (numbered(mixed_in), ROW, "each.flip(0)  # here"),
    "places from numbers of the examples": (numbered(lambda y, each: y[each, each + 1]), ROW, "numbers the examples"),
    "truths as places": (numbered(lambda y, each: y[each, torch.arange(6) == 2]), ROW, "numbers the examples"),
    "writing at places of each": (numbered(put), ROW, "= 1.0  # here"),
    "other numbers than those of examples": (
        lambda: Whole(lambda s, x: s.fc(x)[torch.arange(len(x) * 2) // 2], fc=nn.Linear(6, 3)),
        ROW,
        "counts with the batch size",
    ),
    "an average over all batches without weights": (
        lambda: nn.Sequential(nn.Linear(6, 3), nn.BatchNorm1d(3, affine=False, momentum=None)),
        ROW,
        "give it a momentum",
    ),
    "what comes after a norm that is written out": (
        lambda: Whole(lambda s, x: scattered(s, s.norm(x)), norm=Counting(6), fc=nn.Linear(6, 3)),
        ROW,
        "= 1.0  # here",
    ),
    "what comes after a branch": (lambda: Whole(limited, fc=nn.Linear(6, 3)), ROW, "pinv"),
}


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.filterwarnings("ignore:.*torch.jit.* is deprecated")
def test_it_is_refused_by_a_line_that_says_why(name: str) -> None:
    make, example, message = REFUSED[name]
    with pytest.raises(GraphError) as caught:
        graphs.from_torch(make(), example)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_stochastic_depth_is_found_by_what_it_does() -> None:
    kinds = [node.kind for node in made_of("stochastic depth").graph.nodes.values()]
    assert kinds == ["input", "linear", "stochastic_depth", "add"]


class Drop(nn.Module):
    """Stochastic depth in some spelling."""

    def __init__(self, p: float, spelling: Callable[[Tensor, float], Tensor]) -> None:
        super().__init__()
        self.p, self.spelling = p, spelling

    def forward(self, x: Tensor) -> Tensor:
        return self.spelling(x, self.p) if self.training else x


def ones(x: Tensor) -> tuple[int, ...]:
    return (x.shape[0],) + (1,) * (x.ndim - 1)


SPELLINGS: dict[str, Callable[[Tensor, float], Tensor]] = {
    "new_empty": lambda x, p: x * x.new_empty(ones(x)).bernoulli_(1 - p).div_(1 - p),
    "empty": lambda x, p: x * torch.empty(ones(x)).bernoulli_(1 - p) / (1 - p),
    "bernoulli": lambda x, p: x / (1 - p) * torch.bernoulli(torch.full(ones(x), 1 - p)),
    "floor": lambda x, p: x.div(1 - p) * (1 - p + torch.rand(ones(x), dtype=x.dtype)).floor_(),
    "below": lambda x, p: x * (torch.rand(ones(x)) < 1 - p) / (1 - p),
    "truths": lambda x, p: x * ((torch.rand(ones(x)) < 1 - p).float() / (1 - p)),
}


@pytest.mark.parametrize("kept", [False, True], ids=["the rate", "what is kept"])
@pytest.mark.parametrize("name", SPELLINGS)
def test_stochastic_depth_in_its_usual_spellings(name: str, kept: bool) -> None:
    spelling = SPELLINGS[name]
    drop = Drop(0.7, lambda x, p: spelling(x, 1 - p)) if kept else Drop(0.3, spelling)
    module = Whole(lambda s, x: x + s.drop(s.fc(x)), fc=nn.Linear(6, 6), drop=drop)
    genome = graphs.from_torch(module, torch.randn(2, 5, 6))
    assert "stochastic_depth" in [node.kind for node in genome.graph.nodes.values()]
    made = graphs.to_torch(genome)
    x = torch.randn(64, 5, 6)
    for mode in (True, False):
        outputs = []
        for each in (module, made):
            torch.manual_seed(4)
            outputs.append(each.train(mode)(x))
        torch.testing.assert_close(*outputs, rtol=1e-6, atol=1e-6)


HALVES: dict[str, Callable[[Tensor], Tensor]] = {
    "said, for each example": lambda x: x * x.new_empty((x.shape[0], 1, 1)).bernoulli_(0.5) / 0.5,
    "not said, for each example": lambda x: x * x.new_empty((x.shape[0], 1, 1)).bernoulli_() / 0.5,
    "said, for each entry": lambda x: x * torch.empty_like(x).bernoulli_(p=0.5) * 2,
    "not said, for each entry": lambda x: x * torch.empty_like(x).bernoulli_() * 2,
    "of the entries": lambda x: x * torch.full_like(x, 0.5).bernoulli() * 2,
}
"""Draws at a rate of a half, which is what `bernoulli_` takes where nothing is said."""


@pytest.mark.parametrize("exported", [False, True])
@pytest.mark.parametrize("name", HALVES)
def test_a_half_is_drawn(name: str, exported: bool) -> None:
    def compute(module: Any, x: Tensor) -> Tensor:
        y = module.fc(x) if not exported or not x.is_sparse else x
        return module.last(x + HALVES[name](y)) if module.training else module.last(y)

    module = Whole(compute, fc=nn.Linear(16, 16), last=nn.Linear(16, 3))
    made = graphs.to_torch(graphs.from_torch(module, WORDS))
    x, outputs = torch.randn(64, 5, 16), []
    for each in (module, made):
        torch.manual_seed(4)
        outputs.append(each.train()(x))
    torch.testing.assert_close(*outputs, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("seed", range(4))
def test_draws_that_are_wrong_for_some_examples_alone_are_seen(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    from graphs.importing.calls import CALLS, making

    monkeypatch.setitem(CALLS, "method.bernoulli_", lambda low, tensor, p: making._bernoulli(low, tensor, 0.2))
    torch.manual_seed(seed)
    module = Whole(
        lambda s, x: s.last(x + s.fc(x) * torch.empty(len(x), 1, 1).bernoulli_(0.4)) if s.training else s.last(x),
        fc=nn.Linear(16, 16),
        last=nn.Linear(16, 3),
    )
    with pytest.raises(GraphError, match="does not compute what the module does in train mode"):
        graphs.from_torch(module, WORDS)


def recurrent() -> nn.Module:
    return Whole(lambda s, x: s.fc(s.layer(x)[0]), layer=nn.LSTM(16, 8, batch_first=True), fc=nn.Linear(8, 3))


@pytest.mark.parametrize("name", ["a cell in a loop", "a recurrent layer", "zeros for each example"])
def test_what_comes_out_follows_to_another_precision(name: str) -> None:
    module, example = (recurrent(), WORDS) if name not in TAKEN else (TAKEN[name][0](), TAKEN[name][1])
    made = graphs.to_torch(graphs.from_torch(module, example)).eval()
    expected = made(example)
    torch.testing.assert_close(made.double()(example.double()), expected.double(), rtol=1e-4, atol=1e-4)


def made_of(name: str) -> graphs.Genome:
    make, example = TAKEN[name]
    return graphs.from_torch(make(), example)


class Padded(nn.Module):
    """An encoder that is told which words are none."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)

    def forward(self, x: Tensor, none: Tensor) -> Tensor:
        return self.encoder(x, src_key_padding_mask=none)


def test_an_encoder_with_padding() -> None:
    module, none = Padded().eval(), torch.arange(5) > torch.tensor([[4], [2], [3], [0]])
    made = graphs.to_torch(graphs.from_torch(module, (WORDS, none))).eval()
    with torch.no_grad():
        torch.testing.assert_close(made(WORDS[:3], none[:3]), module(WORDS[:3], none[:3]), rtol=1e-5, atol=1e-6)


@dataclasses.dataclass
class Parts:
    main: Tensor
    side: Tensor


def test_outputs_of_a_class_of_data_are_heads_of_their_names() -> None:
    module = Whole(lambda s, x: Parts(s.fc(x), x.exp()), fc=nn.Linear(6, 3))
    assert [head.name for head in graphs.from_torch(module, ROW).graph.heads] == ["main", "side"]


def test_an_argument_that_is_not_used_can_be_left_out() -> None:
    genome = graphs.from_torch(Unused(), {"x": ROW})
    assert [node.settings["name"] for node in genome.graph.inputs] == ["x"]


def test_a_fault_of_a_converter_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def faulty(low: Any, value: Any) -> Any:
        return len(None)  # type: ignore[arg-type]

    monkeypatch.setitem(CALLS, "relu", faulty)
    with pytest.raises(GraphError, match=r"TypeError: object of type 'NoneType' has no len\(\)"):
        graphs.from_torch(Whole(lambda s, x: torch.relu(x)), ROW)


def picked(index: Callable[[Tensor, Tensor], Any]) -> graphs.Genome:
    module = Whole(
        lambda s, x: s.fc(s.first(x)[index(x, x.sum(-1).argmax(-1))]), first=nn.Linear(16, 6), fc=nn.Linear(6, 3)
    )
    return graphs.from_torch(module, WORDS)


@pytest.mark.parametrize(
    "index",
    [
        lambda x, best: (torch.arange(len(x)), best),
        lambda x, best: (torch.arange(x.shape[0], dtype=torch.int32, device=x.device), best),
        lambda x, best: (torch.arange(start=0, end=x.size(0)).to(x.device), best, slice(None)),
        lambda x, best: (torch.arange(len(x)).view(-1, 1), best.unsqueeze(1)),
    ],
)
def test_channels_pass_where_each_example_has_a_place_of_its_own(index: Callable[[Tensor, Tensor], Any]) -> None:
    genome = picked(index)
    (pick,) = (node.id for node in genome.graph.nodes.values() if node.kind == "pick")
    assert "can be changed" in graphs.explain(genome.graph, pick)
    again = graphs.from_torch(graphs.to_torch(genome), WORDS)
    assert graphs.fingerprint(again.graph) == graphs.fingerprint(genome.graph)


def test_gradients_flow_to_the_places_alone() -> None:
    module = Whole(at_some, first=nn.Linear(16, 6), fc=nn.Linear(6, 3))
    made = graphs.to_torch(graphs.from_torch(module, WORDS))
    for batch in (1, 2, 4):
        found = []
        for each in (module, made):
            x = WORDS[:batch].clone().requires_grad_()
            each.zero_grad()
            each(x).square().sum().backward()
            found.append([x.grad, *(parameter.grad.clone() for parameter in each.parameters())])
        assert all(map(torch.equal, *found))


def test_len_is_what_it_was_once_a_trace_is_over() -> None:
    """In this module, for torch, and for whoever has kept the function that stood in its place."""
    kept: list[Callable[[Any], int]] = []

    def keeping(module: Any, x: Tensor) -> Tensor:
        kept.append(len)
        return module.fc(x).view(len(x), -1)

    def failing(module: Any, x: Tensor) -> Tensor:
        kept.append(len)
        return module.fc(x) * float(x.sum())

    graphs.from_torch(Whole(keeping, fc=nn.Linear(6, 3)), ROW)
    with pytest.raises(GraphError):
        graphs.from_torch(Whole(failing, fc=nn.Linear(6, 3)), ROW)
    assert len is builtins.len and "len" not in globals()
    assert builtins.len not in kept[:1] and all(each([1, 2]) == 2 and each(ROW) == 4 for each in kept)


def test_what_torch_loads_meanwhile_knows_len() -> None:
    """Its compiler, which recording loads, tells functions of Python's by their identity."""
    code = (
        "import graphs, sys, torch\n"
        "class Net(torch.nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.layer = torch.nn.LSTM(3, 4, batch_first=True)\n"
        "    def forward(self, x):\n"
        "        start = torch.zeros(1, len(x), 4)\n"
        "        return self.layer(x, (start, start))[0]\n"
        "assert 'torch._dynamo' not in sys.modules\n"
        "graphs.from_torch(Net(), torch.randn(2, 5, 3))\n"
        "assert 'torch._dynamo' in sys.modules\n"
        "doubled = torch.compile(lambda x: x * len(x), backend='eager', fullgraph=True)\n"
        "assert doubled(torch.ones(2)).tolist() == [2, 2]\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    "same", [lambda y: y.expand(y.shape), lambda y: y.expand(-1, 6), lambda y: y.expand(y.shape[0], 6)]
)
def test_an_expansion_that_changes_nothing_is_none(same: Callable[[Tensor], Tensor]) -> None:
    module = Whole(lambda s, x: s.fc(same(s.first(x).relu())), first=nn.Linear(6, 6), fc=nn.Linear(6, 6))
    genome = graphs.from_torch(module, ROW)
    assert [node.kind for node in genome.graph.nodes.values()] == ["input", "linear", "relu", "linear"]
