"""Every channel space of a network brought to 75 % of its width, against Torch-Pruning.

Claim: from a module in hand to one forward pass of the result, `narrow_all` is faster the more spaces a network has;
the change itself, without taking the module in, takes a fraction of a second on any of these networks. "ours" compares
what was taken in with the original on the example, as it does by default, which costs two forward passes; "unchecked"
leaves that out (`verify=False`), as Torch-Pruning does, and has a ratio of its own.
Environment: a CPU; printed with the versions and the threads. n = --n rounds, ours and theirs in turn, each from a
fresh module of the same seed; printed are medians. "group" is the time that Torch-Pruning takes for one group of layers
(its dependency graph included), beside one `narrow` of ours (taking in included).
Torch-Pruning (`pip install torch-pruning`) is no dependency of this project; its pruner runs with its defaults, L1
magnitudes, and the classifier left alone; `nan` stands where the network that it leaves does not run.

    python benchmarks/against_torch_pruning.py [--n 3] [--threads 2] [--only resnet50,densenet121]
"""

from __future__ import annotations

import argparse
import importlib.metadata
import platform
import statistics
import time

import numpy
import torch
from torch import Tensor, nn

import graphs
import ops
from evolve.vision import torchvision_models

NETWORKS = ("resnet50", "densenet121", "densenet201", "mobilenet_v3_large", "efficientnet_b0", "vit_b_16")

PART = 0.75


def fresh(name: str) -> nn.Module:
    """A network of torchvision, the same weights each time."""
    torch.manual_seed(0)
    module: nn.Module = torchvision_models().get_model(name, weights=None).eval()
    return module


def ours(module: nn.Module, images: Tensor, operator: str, verify: bool = True) -> tuple[float, float, int]:
    """Seconds in all, seconds of the change itself, and parameters afterwards."""
    begin = time.perf_counter()
    genome = graphs.from_torch(module, images, verify=verify)
    taken = time.perf_counter()
    mutation = ops.MUTATIONS[operator]
    site = next(site for site in mutation.sites(genome) if site.place.get("to", PART) == PART)
    child = mutation.apply(genome, site, numpy.random.default_rng(0)).genome
    changed = time.perf_counter()
    with torch.no_grad():
        graphs.to_torch(child).eval()(images)
    return time.perf_counter() - begin, changed - taken, graphs.parameters(child.graph)


def theirs(module: nn.Module, images: Tensor) -> tuple[float, float]:
    """Seconds in all, and parameters afterwards; not a number where the result does not run."""
    import torch_pruning

    begin = time.perf_counter()
    last = [layer for layer in module.modules() if isinstance(layer, nn.Linear) and layer.out_features == 1000]
    importance = torch_pruning.importance.MagnitudeImportance(p=1)
    pruner = torch_pruning.pruner.MagnitudePruner(
        module, images, importance=importance, pruning_ratio=1 - PART, ignored_layers=last
    )
    pruner.step()
    try:
        with torch.no_grad():
            module.eval()(images)
    except RuntimeError:
        return float("nan"), float("nan")
    return time.perf_counter() - begin, sum(parameter.numel() for parameter in module.parameters())


def their_group(module: nn.Module, images: Tensor) -> float:
    """Seconds for the dependency graph and one group, that of a convolution in the middle."""
    import torch_pruning
    from torch_pruning.pruner.function import prune_conv_out_channels

    begin = time.perf_counter()
    graph = torch_pruning.DependencyGraph().build_dependency(module, example_inputs=images)
    layers = [layer for layer in module.modules() if isinstance(layer, nn.Conv2d) and layer.groups == 1]
    graph.get_pruning_group(layers[len(layers) // 2], prune_conv_out_channels, idxs=[0]).prune()
    return time.perf_counter() - begin


def main() -> None:
    """Prints a line for each network."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=3, help="rounds")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--only", default=",".join(NETWORKS), help="names, with commas between them")
    given = parser.parse_args()
    try:
        importlib.metadata.version("torch-pruning")
    except importlib.metadata.PackageNotFoundError:
        parser.error("torch-pruning is not installed here; install it with 'pip install torch-pruning'")
    torch.set_num_threads(given.threads)
    machine = f"{platform.processor() or platform.machine()}, torch {torch.__version__}, {given.threads} threads"
    print(f"{machine}, torch-pruning {importlib.metadata.version('torch-pruning')}, n={given.n}")
    head = ("network", "ours s", "change s", "size", "theirs s", "size", "unchecked s", "group ours", "group theirs")
    head += ("theirs/ours", "th./unchecked")
    print(f"{head[0]:<20}" + "".join(f"{word:>14}" for word in head[1:]))
    images = torch.randn(2, 3, 224, 224)
    for name in given.only.split(","):
        whole = sum(parameter.numel() for parameter in fresh(name).parameters())
        rounds = [
            (
                *ours(fresh(name), images, "narrow_all"),
                *theirs(fresh(name), images),
                ours(fresh(name), images, "narrow_all", verify=False)[0],
                ours(fresh(name), images, "narrow")[0],
                their_group(fresh(name), images),
            )
            for _ in range(given.n)
        ]
        all_of, change, size, other, other_size, *rest = map(statistics.median, zip(*rounds, strict=True))
        ratios = (statistics.median(row[3] / row[place] for row in rounds) for place in (0, 5))
        figures = (all_of, change, size / whole, other, other_size / whole, *rest, *ratios)
        print(f"{name:<20}" + "".join(f"{figure:>14.2f}" for figure in figures), flush=True)


if __name__ == "__main__":
    main()
