"""The zoo: the networks are what their papers say, work on small images too, and refuse nonsense clearly."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from graphs import macs, parameters, to_torch, zoo
from graphs.errors import EvolutionError, GraphError, UnknownName
from graphs.structure import Graph

SHAPES = [(3, 32, 32), (1, 28, 28), (1, 8, 8), (2, 5, 17), (3, 1, 1)]


def count(name: str, classes: int = 10, **settings: Any) -> int:
    return parameters(zoo.ZOO[name](classes, (3, 32, 32), **settings))


@pytest.mark.parametrize(
    ("name", "settings", "ten", "hundred"),
    [
        ("resnet", {"depth": 110}, 1_730_714, 1_736_564),
        ("resnet", {"depth": 20}, 272_474, 278_324),
        ("densenet", {"depth": 100, "growth": 12}, 769_162, 800_032),
        ("densenet", {"depth": 76, "growth": 12}, 486_730, 510_040),
    ],
)
def test_published_counts(name: str, settings: dict[str, int], ten: int, hundred: int) -> None:
    assert (count(name, 10, **settings), count(name, 100, **settings)) == (ten, hundred)


def test_parts_of_resnet_110_have_their_published_counts() -> None:
    weights = zoo.create("resnet", depth=110).weights
    found: dict[str, int] = {}
    for name, tensor in weights.items():
        if not name.rpartition(".")[2].startswith(("running", "num_batches")):
            unit = ".".join(name.split(".")[:2]) if name.startswith("layer") else name.split(".")[0]
            found[unit] = found.get(unit, 0) + tensor.numel()
    assert (found["conv1"], found["bn1"], found["fc"]) == (432, 32, 650)
    for stage, (entry, other) in {1: (4_672, 4_672), 2: (14_528, 18_560), 3: (57_728, 73_984)}.items():
        assert [found[f"layer{stage}.{block}"] for block in range(18)] == [entry] + [other] * 17


def test_parts_of_densenet_100_have_their_published_counts() -> None:
    weights = zoo.create("densenet", depth=100).weights
    found: dict[str, int] = {}
    for name, tensor in weights.items():
        if not name.rpartition(".")[2].startswith(("running", "num_batches")):
            unit = ".".join(name.split(".")[:2]) if name.startswith("dense") else name.split(".")[0]
            found[unit] = found.get(unit, 0) + tensor.numel()
    assert (found["conv1"], found["trans1"], found["trans2"], found["bn"]) == (648, 23_760, 45_600, 684)
    for block, channels in ((1, 24), (2, 108), (3, 150)):
        expected = [50 * (channels + 12 * layer) + 5_280 for layer in range(16)]
        assert [found[f"dense{block}.{layer}"] for layer in range(16)] == expected


def test_sizes_of_the_small_networks() -> None:
    assert count("convnet") == 24_346
    assert count("vgg8") == 2_197_706
    assert count("densenet") == 71_686
    assert macs(zoo.ZOO["resnet"](10, (3, 32, 32))) == 40_813_184
    assert count("vgg8", batch_norm=False) == count("vgg8") - 896


def test_tensors_are_called_as_in_a_module() -> None:
    names = zoo.create("resnet", depth=8).weights.keys()
    assert {"conv1.weight", "layer1.0.conv1.weight", "layer3.0.downsample.1.running_mean", "fc.bias"} <= names
    assert {"dense1.0.bn1.weight", "trans1.conv.weight"} <= zoo.create("densenet", depth=10).weights.keys()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", zoo.ZOO)
def test_every_network_takes_every_image(name: str, shape: tuple[int, int, int]) -> None:
    genome = zoo.create(name, classes=7, input_shape=shape)
    assert genome.graph.inputs[0].settings["shape"] == shape
    assert genome.graph.shapes[genome.graph.heads[0].node] == (7,)
    module = to_torch(genome).eval()
    with torch.no_grad():
        assert module(torch.zeros(2, *shape)).shape == (2, 7)


@pytest.mark.parametrize("name", zoo.ZOO)
def test_fresh_weights_depend_on_the_seed_alone(name: str) -> None:
    one, again, other = (zoo.create(name, seed=seed) for seed in (3, 3, 4))
    assert one.digest == again.digest != other.digest
    assert one.graph == other.graph


@pytest.mark.parametrize("name", zoo.ZOO)
def test_builders_return_graphs_and_state_their_settings(name: str) -> None:
    settings = zoo.settings_of(name)
    assert isinstance(zoo.ZOO[name](10, (3, 32, 32), **settings), Graph)
    assert settings


def test_settings_reach_the_network() -> None:
    assert count("convnet", width=32) > 3 * count("convnet")
    assert count("resnet", widen=2) > 3 * count("resnet")
    assert count("densenet", compression=1) > count("densenet")
    kinds = [node.kind for node in zoo.create("vgg8", dropout=0.25).graph.nodes.values()]
    assert kinds.count("dropout") == 4
    assert kinds.count("conv2d") + kinds.count("linear") == 8


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            {"name": "resnt"},
            "unknown zoo network 'resnt': did you mean 'resnet'? Known: convnet, densenet, resnet, vgg8",
        ),
        ({"name": "resnet", "deep": 20}, "unknown setting of zoo network 'resnet' 'deep': did you mean 'depth'?"),
        ({"name": "resnet", "depth": 21}, "zoo network 'resnet': depth=21; expected 6n + 2, such as 20 or 26"),
        ({"name": "resnet", "depth": 19}, "depth=19; expected 6n + 2, such as 14 or 20"),
        ({"name": "resnet", "depth": "20"}, "depth='20'; expected a whole number from 8 to 2000"),
        ({"name": "resnet", "widen": 0}, "widen=0; expected a whole number from 1 to 256"),
        ({"name": "densenet", "depth": 23}, "depth=23; expected 6n + 4, such as 22 or 28"),
        ({"name": "densenet", "compression": 0}, "compression=0; expected a number above 0 and up to 1"),
        ({"name": "convnet", "width": True}, "width=True; expected a whole number"),
        ({"name": "convnet", "classes": 0}, "classes=0; expected a whole number from 1"),
        ({"name": "convnet", "input_shape": (32, 32)}, r"input_shape=(32, 32); expected (channels, height, width)"),
        ({"name": "convnet", "input_shape": (3, 0, 32)}, "input_shape=0; expected a whole number from 1"),
        ({"name": "vgg8", "dropout": 1.0}, "dropout=1.0; expected a number from 0 up to, but not, 1"),
        ({"name": "vgg8", "dropout": float("nan")}, "dropout=nan"),
        ({"name": "vgg8", "batch_norm": 1}, "batch_norm=1; expected True or False"),
        ({"name": "vgg8", "seed": -1}, "seed=-1; expected a whole number from 0"),
    ],
)
def test_nonsense_is_refused_in_one_line(call: dict[str, Any], message: str) -> None:
    with pytest.raises(EvolutionError) as caught:
        zoo.create(**call)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value, UnknownName | GraphError)


def test_looking_at_the_zoo_imports_no_torch() -> None:
    line = "import sys; from graphs import zoo; zoo.ZOO['resnet'](10, (3, 32, 32)); print('torch' in sys.modules)"
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", line], check=True, capture_output=True, text=True, cwd=root)
    assert done.stdout == "False\n"
