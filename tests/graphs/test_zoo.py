"""The zoo: the networks are what their papers say, work on small images too, and refuse nonsense clearly."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from functools import partial
from math import prod
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from graphs import macs, parameters, to_torch, zoo
from graphs.errors import EvolutionError, GraphError, UnknownName
from graphs.execution import execute
from graphs.kinds import tensors
from graphs.structure import Graph

SHAPES = [(3, 32, 32), (1, 28, 28), (1, 8, 8), (2, 5, 17), (3, 1, 1)]

SMALL = ["convnet", "vgg8", "resnet", "preresnet", "densenet", "wrn-16-4", "vgg-like", "resnet-like-light"]
SMALL += ["resnext-like-3", "densenet-like-4-12", "networkcompress"]
LARGE = ["vgg-freezeout", "resnet-110", "preresnet-110", "resnet-like-heavy", "resnext-like-4", "densenet-like-5-16"]

Weights = Mapping[str, Tensor]


def built(name: str, classes: int = 10, **settings: Any) -> Graph:
    return zoo.ZOO[name](classes, (3, 32, 32), **settings)


def count(name: str, classes: int = 10, **settings: Any) -> int:
    return parameters(built(name, classes, **settings))


# Published: parameters for 10 and 100 classes, and where MACs are known, those for 10 classes in both conventions.
PUBLISHED: list[tuple[str, dict[str, Any], int, int, int | None, int | None]] = [
    # HydraNet's bases
    ("resnet-110", {}, 1_730_714, 1_736_564, None, None),
    ("preresnet-110", {}, 1_730_522, 1_736_372, None, None),
    ("densenet-bc-100-12", {}, 769_162, 800_032, None, None),
    # FreezeOut
    ("densenet-bc-76-12", {}, 486_730, 510_040, None, None),
    ("wrn-40-4", {}, 8_949_210, 8_972_340, None, None),
    ("vgg-freezeout", {}, 15_252_426, 15_298_596, None, None),
    # cifar10-experiments
    ("vgg-like", {}, 1_110_826, 1_122_436, 87_917_824, 88_124_170),
    ("resnet-like-light", {}, 310_474, 333_604, 69_437_952, 69_883_978),
    ("resnet-like-heavy", {}, 3_921_994, 4_014_244, 130_197_504, 130_714_186),
    ("resnext-like-3", {}, 1_087_114, 1_133_284, 148_329_472, 149_926_282),
    ("resnext-like-4", {}, 3_090_058, 3_182_308, 164_247_552, 165_894_538),
    ("densenet-like-4-12", {}, 508_447, 525_547, 126_510_210, 127_322_146),
    ("densenet-like-5-16", {}, 1_098_724, 1_121_674, 223_561_740, 224_646_994),
    # Its text gives the count of a ResNeXt-like network that starts with 32 channels, too.
    ("resnext-like-3", {"width": 32}, 468_298, 491_428, None, None),
]

# Our own counts. P = 9 · 16² · 1024 = 2,359,296 are the products of a 3×3 convolution of the narrow residual networks,
# alike in every stage: half the side, twice the channels. An entry convolution has P/2, a 1×1 shortcut P/18.
COUNTED: list[tuple[str, dict[str, Any], int, int, int | None, int | None]] = [
    # n = 18: stem 442,368 + P · (2n + 2 · (2n − 1 + 1/2 + 1/18)) + fc 640. The pre-activation twin has the same.
    ("resnet-110", {}, 1_730_714, 1_736_564, 253_149_824, None),
    ("preresnet-110", {}, 1_730_522, 1_736_372, 253_149_824, None),
    # n = 3, the same formula. The twin has no norms behind its two shortcuts, 2 · (32 + 64) parameters. Its norm of 64
    # channels at the end, for one of 16 after the stem, adds 96; those that open stages 2 and 3 have 32 + 64 fewer.
    ("resnet", {}, 272_474, 278_324, 40_813_184, None),
    ("preresnet", {}, 272_282, 278_132, 40_813_184, None),
    # n = 5 at widths 64, 128, 256: stem 1,856 + 5 · 73,984 + (230,144 + 4 · 295,424) + (919,040 + 4 · 1,180,672) + fc
    # 2,570; MACs: stem 1,769,472 + 16 · P · (2n + 2 · (2n − 1 + 1/2 + 1/18)) + fc 2,560.
    ("wide-resnet-32", {}, 7_427_914, 7_451_044, 1_100_679_680, None),
    # n = 2: stem 432 + (47,264 + 73,984) + (229,760 + 295,424) + (918,272 + 1,180,672) + norm 512 + fc 2,570; MACs:
    # stem 442,368 + 16 · P · (2n − 1) + 4 · P · (1 + 1/9) + 2 · 16 · P · (2n − 1 + 1/2 + 1/18) + fc 2,560.
    ("wrn-16-4", {}, 2_748_890, 2_772_020, 392_612_352, None),
    # n = 6, the same formula.
    ("wrn-40-4", {}, 8_949_210, 8_972_340, 1_298_582_016, None),
    # Layers on c channels have 50c + 5,280 parameters, and 48c + 5,184 products at each pixel; Σc of the three blocks
    # is 324, 468, 540. Stem 648, transitions 4,800 and 7,440, norm 264, fc 1,330; MACs: stem 663,552, blocks
    # 47,775,744 + 13,713,408 + 3,649,536, transitions 4,718,592 + 1,843,200, fc 1,320.
    ("densenet-bc-40-12", {}, 176_122, 188_092, 72_365_352, None),
    # The same with Σc = 1,080, 1,800, 2,160 and 1,824, 3,168, 3,840.
    ("densenet-bc-76-12", {}, 486_730, 510_040, 187_216_404, None),
    ("densenet-bc-100-12", {}, 769_162, 800_032, 287_929_692, None),
    # Convolutions 1,144,512, norms 1,792 or biases 896, hidden layer 1,048,832, fc 2,570. Dropout counts nothing.
    ("vgg8", {}, 2_197_706, 2_220_836, 153_815_552, None),
    ("vgg8", {"dropout": 0.5}, 2_197_706, 2_220_836, 153_815_552, None),
    ("vgg8", {"batch_norm": False}, 2_196_810, 2_219_940, 153_815_552, None),
    ("vgg8", {"batch_norm": False, "dropout": 0.5}, 2_196_810, 2_219_940, 153_815_552, None),
    # Convolutions 14,710,464, norms 8,448 or biases 4,224, hidden layers 2 · 262,656, fc 5,130; FreezeOut's has three
    # norms of 512 channels more. MACs: convolutions 313,196,544, hidden layers 524,288, fc 5,120.
    ("vgg16", {}, 15_249_354, 15_295_524, 313_725_952, None),
    ("vgg16", {"dropout": 0.5}, 15_249_354, 15_295_524, 313_725_952, None),
    ("vgg16", {"batch_norm": False}, 15_245_130, 15_291_300, 313_725_952, None),
    ("vgg16", {"batch_norm": False, "dropout": 0.5}, 15_245_130, 15_291_300, 313_725_952, None),
    ("vgg-freezeout", {}, 15_252_426, 15_298_596, 313_725_952, None),
    # Three convolutions more: 589,824 + 2 · 2,359,296 products of weights, 2,560 in the norms, 1,280 biases.
    ("vgg19", {}, 20_560_330, 20_606_500, 398_660_608, None),
    ("vgg19", {"dropout": 0.5}, 20_560_330, 20_606_500, 398_660_608, None),
    ("vgg19", {"batch_norm": False}, 20_554_826, 20_600_996, 398_660_608, None),
    ("vgg19", {"batch_norm": False, "dropout": 0.5}, 20_554_826, 20_600_996, 398_660_608, None),
    # The starting points. Convolutions 432 + 4,608 + 18,432, norms 224, fc 650; MACs 442,368 + 1,179,648 twice + 640.
    ("convnet", {}, 24_346, 30_196, 2_802_304, None),
    ("densenet", {}, 71_686, 77_986, 31_238_322, None),  # Σc = 108, 126, 135
    # Convolutions 3,584 and 11,530, slopes 128; MACs 3,456 · 1024 + 11,520 · 256.
    ("networkcompress", {}, 15_242, 119_012, 6_488_064, None),
]


@pytest.mark.parametrize(("name", "settings", "ten", "hundred", "products", "torchinfo"), PUBLISHED + COUNTED)
def test_parameters_and_macs(
    name: str, settings: dict[str, Any], ten: int, hundred: int, products: int | None, torchinfo: int | None
) -> None:
    graph = built(name, **settings)
    assert (parameters(graph), count(name, 100, **settings)) == (ten, hundred)
    assert products in (None, macs(graph))
    assert torchinfo in (None, macs(graph, "torchinfo"))


def test_every_network_has_its_row() -> None:
    assert {row[0] for row in PUBLISHED + COUNTED} == set(zoo.ZOO)


@pytest.mark.parametrize(
    ("name", "norms", "batch"),
    [
        ("vgg-like", 1_408, 11.28),
        ("resnet-like-light", 4_672, 8.95),
        ("resnet-like-heavy", 20_288, 16.73),
        ("resnext-like-3", 11_648, 19.19),
        ("resnext-like-4", 19_840, 21.23),
        ("densenet-like-4-12", 5_574, 16.30),
        ("densenet-like-5-16", 8_964, 28.75),
    ],
)
def test_what_norms_and_a_batch_of_128_cost(name: str, norms: int, batch: float) -> None:
    """The published figures: parameters of the norms, and billions of operations for 128 images as torchinfo counts."""
    graph = built(name)
    specs = tensors(graph)
    found = sum(
        spec.shape[0]
        for node in graph.nodes.values()
        if node.kind == "batch_norm"
        for spec in (specs[node.tensors["weight"]], specs[node.tensors["bias"]])
    )
    assert found == norms
    assert round(128 * macs(graph, "torchinfo") / 1e9, 2) == batch


@pytest.mark.parametrize(
    ("depth", "published"), [(11, 132_863_336), (13, 133_047_848), (16, 138_357_544), (19, 143_667_240)]
)
def test_vgg_has_the_size_of_the_paper_on_large_images(depth: int, published: int) -> None:
    graph = zoo.ZOO["vgg16"](1000, (3, 224, 224), depth=depth, hidden=4096, batch_norm=False)
    assert parameters(graph) == published


def parts(name: str, unit: str = r"\w+\.\d+|\w+", classes: int = 10, **settings: Any) -> dict[str, int]:
    """Parameters of each part, in execution order; `unit` is what of a tensor's name tells its part."""
    found: dict[str, int] = {}
    for tensor, spec in tensors(built(name, classes, **settings)).items():
        match = re.match(unit, tensor)
        assert match
        if not spec.buffer:
            found[match[0]] = found.get(match[0], 0) + prod(spec.shape)
    return found


def test_parts_of_resnet_110_have_their_published_counts() -> None:
    found = parts("resnet-110")
    stages = {1: (4_672, 4_672), 2: (14_528, 18_560), 3: (57_728, 73_984)}
    blocks = {f"layer{stage}.{block}": stages[stage][block > 0] for stage in stages for block in range(18)}
    assert list(found.items()) == [("conv1", 432), ("bn1", 32), *blocks.items(), ("fc", 650)]


def test_parts_of_preresnet_110_have_their_published_counts() -> None:
    found = parts("preresnet-110", classes=100)
    stages = {1: (4_672, 4_672), 2: (14_432, 18_560), 3: (57_536, 73_984)}
    blocks = {f"layer{stage}.{block}": stages[stage][block > 0] for stage in stages for block in range(18)}
    assert list(found.items()) == [("conv1", 432), *blocks.items(), ("bn", 128), ("fc", 6_500)]


def test_parts_of_densenet_100_have_their_published_counts() -> None:
    found = parts("densenet-bc-100-12")
    dense = [
        {f"dense{block}.{layer}": 50 * (channels + 12 * layer) + 5_280 for layer in range(16)}
        for block, channels in ((1, 24), (2, 108), (3, 150))
    ]
    expected = {"conv1": 648, **dense[0], "trans1": 23_760, **dense[1], "trans2": 45_600, **dense[2]}
    assert list(found.items()) == [*expected.items(), ("bn", 684), ("fc", 3_430)]


def test_parts_of_vgg_like_have_their_published_counts() -> None:
    assert parts("vgg-like", r"\w+") == {
        "stem": 2_496,
        "block1": 9_312 + 18_624,
        "block2": 37_056 + 74_112,
        "block3": 147_840 + 295_680,
        "fc1": 524_416,
        "fc2": 1_290,
    }
    assert parts("vgg-like", r"block3\.conv2|.*")["block3.conv2"] == 295_680 - 2 * 256


def test_parts_of_resnet_like_have_their_published_counts() -> None:
    assert list(parts("resnet-like-light").values()) == [
        *(2_496, 19_744, 19_744, 57_920),
        *(8_928, 8_928, 24_512),
        *(34_752, 34_752, 96_128),
        2_570,
    ]
    assert list(parts("resnet-like-heavy").values()) == [
        *(2_496, 19_744, 19_744, 57_920),
        *(78_400, 78_400, 230_528),
        *(34_752, 34_752, 96_128),
        *(137_088, 137_088, 380_672),
        *(544_512, 544_512, 1_515_008),
        10_250,
    ]


def test_parts_of_resnext_like_have_their_published_counts() -> None:
    expected = {
        "stem": 4_992,
        **{"chunk1.0": 48_000, "chunk1.1": 68_864, "chunk1": 8_320},
        **{"chunk2.0": 93_440, "chunk2.1": 143_360, "chunk2": 33_024},
        **{"chunk3.0": 208_896, "chunk3.1": 341_504, "chunk3": 131_584},
    }
    assert parts("resnext-like-3") == {**expected, "fc": 5_130}
    expected |= {"chunk4.0": 538_112, "chunk4.1": 934_400, "chunk4": 525_312}
    assert parts("resnext-like-4") == {**expected, "fc": 10_250}


@pytest.mark.parametrize(
    ("name", "stem", "dense", "trans", "fc", "channels"),
    [
        (
            "densenet-like-4-12",
            3_744,
            (77_472, 86_688, 91_296, 93_600, 94_752),
            (10_584, 14_364, 16_470, 17_577),
            1_900,
            (48, 72, 84, 90, 93),
        ),
        (
            "densenet-like-5-16",
            4_992,
            (137_088, 153_472, 161_664, 165_760, 167_808, 168_832),
            (18_720, 25_424, 29_160, 31_124, 32_130),
            2_550,
            (64, 96, 112, 120, 124, 126),
        ),
    ],
)
def test_parts_of_densenet_like_have_their_published_counts(
    name: str, stem: int, dense: tuple[int, ...], trans: tuple[int, ...], fc: int, channels: tuple[int, ...]
) -> None:
    assert list(parts(name, r"\w+").items()) == [
        ("stem", stem),
        *(
            row
            for number in range(1, len(dense))
            for row in ((f"dense{number}", dense[number - 1]), (f"trans{number}", trans[number - 1]))
        ),
        (f"dense{len(dense)}", dense[-1]),
        ("fc", fc),
    ]
    specs = tensors(built(name))
    assert [specs[f"dense{number + 1}.0.conv1.weight"].shape[1] for number in range(len(dense))] == list(channels)


def test_tensors_are_called_as_in_a_module() -> None:
    names = zoo.create("resnet", depth=8).weights.keys()
    assert {"conv1.weight", "layer1.0.conv1.weight", "layer3.0.downsample.1.running_mean", "fc.bias"} <= names
    assert {"dense1.0.bn1.weight", "trans1.conv.weight"} <= zoo.create("densenet", depth=10).weights.keys()
    assert {"layer2.0.downsample.0.weight", "bn.running_var"} <= tensors(built("preresnet", depth=8)).keys()


# The same networks, written by hand


def conv(w: Weights, path: str, x: Tensor, stride: int = 1, groups: int = 1) -> Tensor:
    weight = w[f"{path}.weight"]
    return functional.conv2d(x, weight, w.get(f"{path}.bias"), stride, weight.shape[-1] // 2, 1, groups)


def norm(w: Weights, path: str, x: Tensor) -> Tensor:
    mean, variance = w[f"{path}.running_mean"], w[f"{path}.running_var"]
    return functional.batch_norm(x, mean, variance, w[f"{path}.weight"], w[f"{path}.bias"])


def linear(w: Weights, path: str, x: Tensor) -> Tensor:
    return functional.linear(x, w[f"{path}.weight"], w[f"{path}.bias"])


def normed(w: Weights, path: str, number: str, x: Tensor, stride: int = 1, groups: int = 1) -> Tensor:
    return norm(w, f"{path}.bn{number}", conv(w, f"{path}.conv{number}", x, stride, groups))


def preactivated(w: Weights, x: Tensor, blocks: int, wide: bool) -> Tensor:
    x = conv(w, "conv1", x)
    for stage in (1, 2, 3):
        for block in range(blocks):
            path, stride = f"layer{stage}.{block}", 2 if stage > 1 and block == 0 else 1
            y = norm(w, f"{path}.bn1", x).relu()
            if f"{path}.downsample.0.weight" in w:
                x = conv(w, f"{path}.downsample.0", y if wide else x, stride)
            y = norm(w, f"{path}.bn2", conv(w, f"{path}.conv1", y, stride)).relu()
            x = x + conv(w, f"{path}.conv2", y)
    return linear(w, "fc", norm(w, "bn", x).relu().mean((2, 3)))


def freezeout_vgg(w: Weights, x: Tensor) -> Tensor:
    for block, convolutions in enumerate((2, 2, 3, 3, 3), 1):
        for number in range(convolutions):
            x = normed(w, f"block{block}", str(number + 1), x).relu()
        x = functional.max_pool2d(x, 2)
    x = norm(w, "bn", x.flatten(1))
    for number in (1, 2):
        x = norm(w, f"bn{number}", linear(w, f"fc{number}", x)).relu()
    return linear(w, "fc3", x)


def like_vgg(w: Weights, x: Tensor) -> Tensor:
    x = normed(w, "stem", "", x).relu()
    for block in ("block1", "block2", "block3"):
        x = normed(w, block, "2", normed(w, block, "1", x).relu()).relu()
        x = functional.max_pool2d(x, 2)
    return linear(w, "fc2", linear(w, "fc1", x.flatten(1)).relu())


def projected(w: Weights, path: str, x: Tensor, stride: int, groups: int = 1) -> Tensor:
    shortcut = norm(w, f"{path}.shortcut.1", conv(w, f"{path}.shortcut.0", x, stride))
    if f"{path}.conv3.weight" not in w:
        y = normed(w, path, "2", normed(w, path, "1", x, stride).relu())
    else:
        y = normed(w, path, "2", normed(w, path, "1", x).relu(), stride, groups).relu()
        y = normed(w, path, "3", y)
    return (y + shortcut).relu()


def like_resnet(w: Weights, x: Tensor) -> Tensor:
    x = normed(w, "stem", "", x).relu()
    for chunk in ("vanilla1", "bottleneck1", "bottleneck2"):
        for block in range(3):
            x = projected(w, f"{chunk}.{block}", x, 2 if block == 2 else 1)
    return linear(w, "fc", x.mean((2, 3)))


def like_resnext(w: Weights, x: Tensor) -> Tensor:
    x = normed(w, "stem", "", x).relu()
    for chunk in ("chunk1", "chunk2", "chunk3"):
        y = projected(w, f"{chunk}.1", projected(w, f"{chunk}.0", x, 1, 64), 2, 64)
        x = y + conv(w, f"{chunk}.skip", x, 2)
    return linear(w, "fc", x.mean((2, 3)))


def like_densenet(w: Weights, x: Tensor) -> Tensor:
    x = normed(w, "stem", "", x).relu()
    for chunk in range(1, 6):
        for layer in range(8):
            path = f"dense{chunk}.{layer}"
            x = torch.cat([x, normed(w, path, "2", normed(w, path, "1", x).relu()).relu()], 1)
        if chunk < 5:
            x = functional.avg_pool2d(normed(w, f"trans{chunk}", "", x).relu(), 2)
    return linear(w, "fc", x.mean((2, 3)))


@pytest.mark.parametrize(
    ("name", "settings", "by_hand"),
    [
        ("preresnet", {"depth": 14}, partial(preactivated, blocks=2, wide=False)),
        ("wrn-16-4", {"widen": 2, "dropout": 0.3}, partial(preactivated, blocks=2, wide=True)),
        ("vgg-freezeout", {}, freezeout_vgg),
        ("vgg-like", {}, like_vgg),
        ("resnet-like-light", {}, like_resnet),
        ("resnext-like-3", {}, like_resnext),
        ("densenet-like-4-12", {}, like_densenet),
    ],
)
def test_networks_compute_what_a_module_written_by_hand_does(
    name: str, settings: dict[str, Any], by_hand: Callable[[Weights, Tensor], Tensor]
) -> None:
    genome = zoo.create(name, seed=5, **settings)
    draw = torch.Generator().manual_seed(0)
    weights = {key: tensor.double() for key, tensor in genome.weights.items() if tensor.is_floating_point()}
    for key, tensor in weights.items():
        if tensor.dim() == 1:
            noise = torch.rand(tensor.shape, generator=draw, dtype=torch.float64)
            weights[key] = noise + 0.5 if key.endswith(("running_var", "weight")) else noise - 0.5
    x = torch.randn(2, 3, 32, 32, generator=draw, dtype=torch.float64)
    everything = {**genome.weights, **weights}
    found = execute(genome.graph, everything, {"x": x}, training=False).values[genome.graph.heads[0].node]
    expected = by_hand(weights, x)
    assert expected.std() > 1e-3
    assert (found - expected).abs().max() <= 1e-10 * expected.abs().max()


# The networks run


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", zoo.ZOO)
def test_every_network_takes_every_image(name: str, shape: tuple[int, int, int]) -> None:
    graph = zoo.ZOO[name](7, shape)
    assert graph.inputs[0].settings["shape"] == shape
    assert graph.shapes[graph.heads[0].node] == (7,)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", SMALL)
def test_one_of_each_family_runs_on_every_image(name: str, shape: tuple[int, int, int]) -> None:
    module = to_torch(zoo.create(name, classes=7, input_shape=shape)).eval()
    with torch.no_grad():
        assert module(torch.zeros(2, *shape)).shape == (2, 7)


@pytest.mark.parametrize("classes", [10, 100])
@pytest.mark.parametrize("name", [*SMALL, *LARGE])
def test_fresh_networks_run_and_give_sane_logits(name: str, classes: int) -> None:
    """The module and the run node by node agree bit for bit; no fresh network starts with huge or constant logits."""
    genome = zoo.create(name, classes=classes)
    images = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    module = to_torch(genome)
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        # Statistics of the batch. The running ones of a fresh network are not yet its own: a residual sum doubles its
        # variance with each block then, as it does in any network of 54 blocks that has never seen an image.
        logits = module(images)
        assert logits.shape == (4, classes)
        assert 0.03 < logits.std() < 3
        run = execute(genome.graph, genome.weights, {"x": images}, training=False)
        logits = to_torch(genome).eval()(images)
    assert logits.isfinite().all()
    assert torch.equal(run.values[genome.graph.heads[0].node], logits)


@pytest.mark.parametrize("name", SMALL)
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
    assert count("wrn-40-4", depth=16) == count("wrn-16-4")
    assert count("resnet", depth=110) == count("resnet-110")
    assert zoo.settings_of("wrn-40-4") == {"depth": 40, "widen": 4, "dropout": 0.0}


@pytest.mark.parametrize(
    ("name", "settings", "layers", "dropouts"),
    [
        ("vgg8", {"dropout": 0.25}, 8, 4),
        ("vgg16", {"dropout": 0.5}, 16, 2),
        ("vgg19", {"dropout": 0.5}, 19, 2),
        ("vgg19", {}, 19, 0),
        ("vgg-freezeout", {}, 16, 2),
        ("vgg-like", {}, 9, 4),
        ("vgg-like", {"dropout": 0.0}, 9, 0),
        ("wrn-40-4", {"dropout": 0.3}, 41, 18),  # 40 convolutions, three of them shortcuts.
        ("resnet", {"depth": 32}, 34, 0),  # Two more are shortcuts.
    ],
)
def test_layers_and_dropouts(name: str, settings: dict[str, Any], layers: int, dropouts: int) -> None:
    kinds = [node.kind for node in built(name, **settings).nodes.values()]
    assert kinds.count("conv2d") + kinds.count("linear") == layers
    assert kinds.count("dropout") + kinds.count("dropout2d") == dropouts


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            {"name": "resnt"},
            f"unknown zoo network 'resnt': did you mean 'resnet'? Known: {', '.join(sorted(zoo.ZOO))}",
        ),
        ({"name": "resnet", "deep": 20}, "unknown setting of zoo network 'resnet' 'deep': did you mean 'depth'?"),
        ({"name": "resnet", "depth": 21}, "zoo network 'resnet': depth=21; expected 6n + 2, such as 20 or 26"),
        ({"name": "resnet", "depth": 19}, "depth=19; expected 6n + 2, such as 14 or 20"),
        ({"name": "resnet", "depth": "20"}, "depth='20'; expected a whole number from 8 to 2000"),
        ({"name": "resnet", "widen": 0}, "widen=0; expected a whole number from 1 to 256"),
        ({"name": "densenet", "depth": 23}, "depth=23; expected 6n + 4, such as 22 or 28"),
        ({"name": "densenet", "compression": 0}, "compression=0; expected a number above 0 and up to 1"),
        ({"name": "densenet-like-4-12", "compression": 1.5}, "compression=1.5; expected a number above 0 and up to 1"),
        ({"name": "wrn-40-4", "depth": 41}, "zoo network 'wide_resnet': depth=41; expected 6n + 4, such as 40 or 46"),
        ({"name": "preresnet", "depth": 110.0}, "depth=110.0; expected a whole number from 8 to 2000"),
        ({"name": "vgg16", "depth": 17}, "zoo network 'vgg': depth=17; expected one of 11, 13, 16, 19"),
        ({"name": "vgg-freezeout", "head_norm": None}, "head_norm=None; expected True or False"),
        ({"name": "resnext-like-3", "groups": 0}, "groups=0; expected a whole number from 1"),
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
