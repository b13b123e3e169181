"""Another number of outputs: the last layer is new, and nothing else is."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from graphs import from_torch, to_torch, zoo
from graphs.errors import GraphError
from graphs.outputs import with_outputs

NETWORKS = ("convnet", "vgg8", "resnet", "densenet")


@pytest.mark.parametrize("name", NETWORKS)
def test_the_last_layer_alone_is_drawn_anew(name: str) -> None:
    genome = zoo.create(name, classes=10, input_shape=(3, 32, 32))
    found = with_outputs(genome, 7, seed=3)
    assert {head.name: found.graph.shapes[head.node] for head in found.graph.heads} == {"logits": (7,)}
    new = {name for name, tensor in found.weights.items() if tensor is not genome.weights[name]}
    last = found.graph[found.graph.heads[0].node]
    assert new == set(last.tensors.values()) and len(new) == 2
    assert to_torch(found).eval()(torch.randn(2, 3, 32, 32)).shape == (2, 7)
    again, other = with_outputs(genome, 7, seed=3), with_outputs(genome, 7, seed=4)
    assert found.digest == again.digest != other.digest
    assert with_outputs(genome, 10, seed=3).digest == genome.digest


class Ends(nn.Module):
    """The classes are made by a convolution, and go through more before they come out; one output is for training."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Conv2d(3, 8, 3)
        self.aside = nn.Linear(8, 10)
        self.classes = nn.Conv2d(8, 10, 1)
        self.norm = nn.BatchNorm2d(10)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        x = self.body(x).relu()
        out = self.norm(self.classes(x)).relu().mean((2, 3))
        return (out, self.aside(x.mean((2, 3)))) if self.training else out


def test_whatever_stands_behind_the_last_layer_and_every_output_follows() -> None:
    genome = from_torch(Ends(), torch.randn(2, 3, 8, 8))
    found = with_outputs(genome, 4, seed=0)
    assert {found.graph.shapes[head.node] for head in found.graph.heads} == {(4,)} and len(found.graph.heads) == 2
    old = {name for name, tensor in found.weights.items() if tensor is genome.weights[name]}
    assert old == {"body.weight", "body.bias", "norm.num_batches_tracked"} & found.weights.keys()
    module = to_torch(found)
    assert all(each.shape == (2, 4) for each in module.train()(torch.randn(2, 3, 8, 8)).values())


@pytest.mark.parametrize(
    ("module", "words"),
    [
        (nn.Sequential(nn.Conv2d(3, 4, 3)), "no single row of channels"),
        (nn.Sequential(nn.Flatten()), "output 'logits'"),
        (nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten()), "no single row of channels"),
    ],
)
def test_an_output_that_is_no_row_of_classes_is_refused(module: nn.Module, words: str) -> None:
    with pytest.raises(GraphError, match=words):
        with_outputs(from_torch(module, torch.randn(2, 3, 6, 6)), 5, seed=0)
