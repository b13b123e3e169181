"""What several read is computed once, whatever the axis of its batch, and drawn once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import graphs
from graphs.errors import GraphError
from graphs.genome import Genome


class Reader(nn.Module):
    """A layer for tokens, which gives several values, and what a function reads of them."""

    def __init__(self, layer: nn.Module, read: Callable[..., Tensor]) -> None:
        super().__init__()
        self.words, self.layer, self.fc = nn.Embedding(20, 8), layer, nn.Linear(10, 3)
        self.read = read

    def forward(self, tokens: Tensor) -> Tensor:
        return self.fc(self.read(self.layer, self.words(tokens)))


def last_states(layer: nn.Module, x: Tensor) -> Tensor:
    _, (h, _) = layer(x)
    return torch.cat((h[-2], h[-1]), 1)[:, 5:15]


def everything(layer: nn.Module, x: Tensor) -> Tensor:
    y, h = layer(x)
    return y.mean(1) + h[0] + h.sum(0)


def batch_second(layer: nn.Module, x: Tensor) -> Tensor:
    y, h = layer(x.transpose(0, 1))
    return y.mean(0) + h[-1] * y[-1]


def decoder(layer: nn.Module, x: Tensor) -> Tensor:
    y, h = layer(x[:, :1])
    for _ in range(4):
        y, h = layer(y[..., :8], h)
    return y[:, 0] + h[0]


RECURRENT: dict[str, tuple[Callable[[], nn.Module], Callable[..., Tensor], str, int]] = {
    "states of an LSTM": (lambda: nn.LSTM(8, 10, 2, batch_first=True, dropout=0.3), last_states, "torch.lstm", 1),
    "all of a GRU": (lambda: nn.GRU(8, 10, 2, batch_first=True, dropout=0.3), everything, "torch.gru", 1),
    "batch second": (lambda: nn.RNN(8, 10, 2, dropout=0.3), batch_second, "torch.rnn_tanh", 1),
    "a decoder": (lambda: nn.GRU(8, 10, batch_first=True), decoder, "torch.gru", 5),
}


def calls(genome: Genome) -> Counter[str]:
    programs = [node.settings["program"] for node in genome.graph.nodes.values() if "program" in node.settings]
    return Counter(step[0] for program in programs for step in program)


@pytest.mark.parametrize("name", RECURRENT)
def test_a_recurrent_layer_runs_once(name: str) -> None:
    layer, read, call, count = RECURRENT[name]
    torch.manual_seed(1)
    module, tokens = Reader(layer(), read), torch.randint(0, 20, (3, 6))
    genome = graphs.from_torch(module, tokens[:2])
    assert calls(genome)[call] == count
    made = graphs.to_torch(genome)
    for training in (True, False):
        outputs, gradients = [], []
        for each in (module, made):
            torch.manual_seed(2)
            outputs.append(each.train(training)(tokens))
            gradients.append(torch.autograd.grad(outputs[-1].square().sum(), list(each.parameters())))
        torch.testing.assert_close(*outputs)
        torch.testing.assert_close(*gradients)
    torch.testing.assert_close(made.double()(tokens), module.double()(tokens))


class Windows(nn.Module):
    """Windows, several of which come of one example, read twice behind a function."""

    def __init__(self, change: Callable[[Tensor, bool], Tensor]) -> None:
        super().__init__()
        self.fc, self.change = nn.Linear(4, 4), change

    def forward(self, x: Tensor) -> Tensor:
        windows = self.change(self.fc(x.view(-1, 2, 4)), self.training)
        return windows.view(x.shape[0], -1, 4) + windows.flip(1).view(x.shape[0], -1, 4)


def test_what_is_drawn_for_each_reader_is_refused_with_its_reason() -> None:
    dropped = Windows(lambda x, training: functional.dropout(x, 0.5, training))
    with pytest.raises(GraphError, match="'dropout' gives, which has random numbers in it, is read several times"):
        graphs.from_torch(dropped, torch.randn(2, 6, 4), verify=False)
    module, x = Windows(lambda x, training: x.relu()), torch.randn(3, 6, 4)
    torch.testing.assert_close(graphs.to_torch(graphs.from_torch(module, x[:2]))(x), module(x))


class BatchSecond(nn.Module):
    """The order of axes that `nn.TransformerEncoderLayer` has by default."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.layer = nn.Linear(5, 8), nn.TransformerEncoderLayer(8, 2, 16)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layer(self.fc(x).transpose(0, 1)).mean(0)
        return y


def test_dropout_is_drawn_once_where_the_batch_is_second() -> None:
    torch.manual_seed(1)
    module, x = BatchSecond(), torch.randn(3, 6, 5)
    genome = graphs.from_torch(module, x[:2])
    assert calls(genome)["torch.dropout"] == 3
    made = graphs.to_torch(genome)
    torch.testing.assert_close(made.eval()(x), module.eval()(x))
