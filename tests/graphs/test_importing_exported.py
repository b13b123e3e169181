"""What `torch.export` records comes in under the names that people call it by, and out again as it was."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional, utils
from torch.nn.utils import parametrizations

import graphs
from graphs.errors import GraphError
from graphs.importing.lowering import Lowering


class Untraceable(nn.Module):
    """A forward pass that asks a tensor for a decision, which `torch.fx` cannot follow."""

    def __init__(self, forward: Callable[..., Tensor], width: int = 6, **parts: nn.Module) -> None:
        super().__init__()
        self.fc = nn.Linear(width, width)
        self.register_buffer("index", torch.tensor([3, 0, 1]))
        self.register_buffer("grid", torch.rand(1, 3, 3, 2) * 2 - 1)
        for name, part in parts.items():
            self.add_module(name, part)
        self.what = forward

    def forward(self, x: Tensor) -> Tensor:
        if not x.is_sparse:
            x = self.fc(x)
        return self.what(self, x)


def into_zeros(self: Untraceable, x: Tensor) -> Tensor:
    wide = torch.zeros(x.shape[0], 5, 8)
    wide[:, :, 1:7] = x
    return wide


def into_parts(self: Untraceable, x: Tensor) -> Tensor:
    made = torch.zeros_like(x)
    made[:, 1:3] = x[:, 1:3]
    made[:, 0] = 1
    made[..., 4] += x[..., 2]
    return made * x


def into_corners(self: Untraceable, x: Tensor) -> Tensor:
    made = torch.zeros_like(x)
    made[:, :-1, :2] = x[:, 1:, :2]
    made[:, ::2, 1::3] += x[:, :1, :2]
    made[:, 0, 4:] = self.fc.bias[:2]
    made[:, 1:4, 4] = self.fc.bias[None, None, 0]
    made[:, -1, 2] = x[:, 0, 0]
    made[:, 3:, 3:] = x[:, 3:, 3:] > 0
    return made * x


def without_gradients(self: Untraceable, x: Tensor) -> Tensor:
    with torch.no_grad():
        scale = x.abs().amax(-1, keepdim=True).clamp_(min=0.1)
    return x / scale


def without_autocast(self: Untraceable, x: Tensor) -> Tensor:
    with torch.autocast(x.device.type, enabled=False):
        return self.fc(x.softmax(-1)) + x  # type: ignore[no-any-return]


ROWS, MAPS = (5, 6), (4, 6, 6)

CALLS: dict[str, tuple[Callable[..., Tensor], tuple[int, ...]]] = {
    "parts of unequal width": (lambda s, x: torch.cat(x.split([2, 4], -1)[::-1], -1), ROWS),
    "rows of a table": (lambda s, x: s.fc.weight[x.argmax(-1) % 6] + x, ROWS),
    "rows by number": (lambda s, x: x[:, s.index], ROWS),
    "columns by number": (lambda s, x: x[..., [0, 3]], ROWS),
    "nearest": (lambda s, x: functional.interpolate(x, scale_factor=2), ROWS),
    "bilinear": (lambda s, x: functional.interpolate(x, scale_factor=2, mode="bilinear"), MAPS),
    "bicubic": (lambda s, x: functional.interpolate(x, (7, 9), mode="bicubic", align_corners=True), MAPS),
    "a norm": (lambda s, x: x.norm(dim=-1, keepdim=True), ROWS),
    "patches": (lambda s, x: functional.fold(functional.unfold(x, 2, stride=2), (6, 6), 2, stride=2), MAPS),
    "frequencies": (lambda s, x: torch.fft.rfft(x).abs(), ROWS),
    "a part of a table": (lambda s, x: x * s.grid[:, : x.shape[1] - 3, 1:, 0].sum() + s.index[..., ::2].sum(), ROWS),
    "a grid": (
        lambda s, x: functional.grid_sample(x, s.grid.expand(x.shape[0], -1, -1, -1), align_corners=False),
        MAPS,
    ),
    "a spectrum": (lambda s, x: torch.fft.fft(torch.fft.fft(x, dim=-1), dim=-2).real, ROWS),
    "a type and a place": (
        lambda s, x: x * torch.ones(x.shape[0], 1, 6).to(device=x.device, dtype=torch.bool),
        ROWS,
    ),
    "a block without autocast": (without_autocast, ROWS),
    "distances": (lambda s, x: torch.cdist(x, x), ROWS),
    "an order": (lambda s, x: x.kthvalue(2, -1).values + x.median(-1).values, ROWS),
    "largest places": (lambda s, x: functional.adaptive_max_pool2d(x, 3), MAPS),
    "either": (lambda s, x: ((x > 0) ^ (x > 1)).float() * x, ROWS),
    "a loss": (lambda s, x: functional.mse_loss(x, torch.zeros_like(x), reduction="none"), ROWS),
    "windows": (lambda s, x: x.unfold(-1, 2, 2), ROWS),
    "writing into zeros": (into_zeros, ROWS),
    "writing into parts": (into_parts, ROWS),
    "writing along several axes": (into_corners, ROWS),
    "a block without gradients": (without_gradients, ROWS),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_call_comes_in_under_its_public_name(name: str, tmp_path: Path) -> None:
    what, shape = CALLS[name]
    torch.manual_seed(1)
    module = Untraceable(what, shape[-1])
    genome = graphs.from_torch(module, torch.randn(2, *shape))
    graphs.save(genome, tmp_path / "network.safetensors")
    made = graphs.to_torch(graphs.load(tmp_path / "network.safetensors"))
    x = torch.randn(3, *shape)
    for mode in (True, False):
        expected, found = module.train(mode)(x), made.train(mode)(x)
        torch.testing.assert_close(found, expected, rtol=0, atol=0)
        gradients = [
            torch.autograd.grad(y.square().sum(), m.get_parameter("fc.weight"))[0]
            for y, m in ((expected, module), (found, made))
        ]
        torch.testing.assert_close(*gradients)


def test_constants_are_told_apart_where_some_are_alike_and_not_kept() -> None:
    low = Lowering(nn.Linear(6, 6), {})
    for number in (2, 2, 3, 2, 5, 2, 7):
        assert low.hold(torch.full((6,), number), f"constant_{number}").tensor.tolist() == [number] * 6


class Windowed(nn.Module):
    """Layers within windows, several of which come of one example."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.wide, self.narrow = nn.LayerNorm(4), nn.Linear(4, 8), nn.Linear(8, 4)
        self.act, self.drop, self.batch = nn.GELU("tanh"), nn.Dropout(0.3), nn.BatchNorm1d(4)

    def forward(self, x: Tensor) -> Tensor:
        windows = x.view(-1, 2, 4)
        windows = windows + self.drop(self.narrow(self.act(self.wide(self.norm(windows)))))
        windows = self.batch(windows.flatten(0, 1)).view(-1, 2, 4)
        out: Tensor = windows.view(x.shape[0], -1, 4)
        return out


def test_layers_within_windows_come_in() -> None:
    torch.manual_seed(1)
    module = Windowed()
    made = graphs.to_torch(graphs.from_torch(module, torch.randn(2, 6, 4)))
    x = torch.randn(3, 6, 4)
    for mode in (True, False):
        outputs = []
        for each in (module, made):
            torch.manual_seed(2)
            outputs.append(each.train(mode)(x))
        torch.testing.assert_close(*outputs, rtol=0, atol=0)
    for name, tensor in module.state_dict().items():
        torch.testing.assert_close(made.state_dict()[name], tensor, rtol=0, atol=0)


def test_a_weight_that_is_orthogonal_comes_in() -> None:
    torch.manual_seed(1)
    module = Untraceable(lambda s, x: s.turn(x), turn=parametrizations.orthogonal(nn.Linear(6, 6))).eval()
    made = graphs.to_torch(graphs.from_torch(module, torch.randn(2, 5, 6))).eval()
    x = torch.randn(3, 5, 6)
    torch.testing.assert_close(made(x), module(x))


@pytest.mark.parametrize("norm", [parametrizations.spectral_norm, utils.spectral_norm])
def test_a_spectral_norm_is_named(norm: Callable[[nn.Module], nn.Module]) -> None:
    module = Untraceable(lambda s, x: s.turn(x), turn=norm(nn.Linear(6, 6)))
    with pytest.raises(GraphError, match=r"exported.py.*the spectral norm of 'turn' changes its buffers"):
        graphs.from_torch(module, torch.randn(2, 5, 6))


def attention(self: Untraceable, x: Tensor) -> Tensor:
    """Its result lies in memory in another order where it drops out, so that it is copied in one mode alone."""
    parts = [each.view(x.shape[0], 5, 2, 3).transpose(1, 2) for each in (x, x.sin(), x.cos())]
    rate = 0.2 if self.training else 0
    y = functional.scaled_dot_product_attention(*parts, dropout_p=rate, is_causal=True)
    return y.transpose(1, 2).contiguous().view(x.shape[0], 5, 6)


def test_attention_that_drops_out_in_train_mode_comes_in() -> None:
    torch.manual_seed(1)
    module, x = Untraceable(attention), torch.randn(3, 5, 6)
    genome = graphs.from_torch(module, x[:2])
    (found,) = (node for node in genome.graph.nodes.values() if node.kind == "attention")
    assert found.settings["dropout"] == 0.2 and found.settings["causal"]
    torch.testing.assert_close(graphs.to_torch(genome).eval()(x), module.eval()(x))


class Halved(nn.Module):
    """It gives less in eval mode, by a pass that only `torch.export` can record."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        y = self.fc(x * (torch.rand((x.shape[0],) + (1,) * (x.ndim - 1)) > 0.5))
        if not self.training:
            y = y[..., :3]
        return y


def test_the_line_where_modes_part_is_named() -> None:
    with pytest.raises(GraphError, match=r"in train mode than in eval mode.*, from .*'y = y\[\.\.\., :3\]'"):
        graphs.from_torch(Halved(), torch.randn(2, 5, 6))


def test_attention_over_examples_along_the_second_axis_comes_in_for_both_modes() -> None:
    torch.manual_seed(1)
    module = Untraceable(lambda s, x: s.layer(x), layer=nn.TransformerEncoderLayer(6, 2, 8))
    made = graphs.to_torch(graphs.from_torch(module, torch.randn(2, 5, 6)))
    for training in (True, False):
        x, found = torch.randn(3, 5, 6), []
        for each in (module.train(training), made.train(training)):
            torch.manual_seed(2)
            found.append(each(x))
        torch.testing.assert_close(*found)
