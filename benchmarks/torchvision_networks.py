"""torchvision's classification networks as benchmarks want them: small inputs, lively weights, sites worth trying."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy
import torch
from torch import Tensor, nn

import graphs
import ops
from evolve.vision import torchvision_models

__all__ = ["BATCH", "SEED", "certified", "names", "prepared", "probe", "reached", "verdict"]

BATCH = 4
"""Examples, the fewest that a certificate takes."""

SEED = 0


def names() -> list[str]:
    """All classification networks, those with the fewest parameters first."""
    models = torchvision_models()
    found = models.list_models(module=models)
    return sorted(found, key=lambda name: models.get_model_weights(name).DEFAULT.meta["num_params"])


def prepared(name: str, least: int) -> tuple[nn.Module, Tensor]:
    """The network with lively weights, and a batch of the smallest images, from `least` on, that both modes accept."""
    models = torchvision_models()
    torch.manual_seed(SEED)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # two networks announce how they will draw fresh weights
        module = models.get_model(name, weights=None)
    generator = torch.Generator().manual_seed(SEED)
    for side in sorted({least, *(side for side in (32, 64, 96, 224, 299) if side > least)}):
        images = torch.randn((BATCH, 3, side, side), generator=generator)
        with contextlib.suppress(RuntimeError, AssertionError, ValueError), torch.no_grad():
            module.eval()(images)
            module.train()(images)
            break
    _enliven(module, generator)
    return module, images


def _enliven(module: nn.Module, generator: torch.Generator) -> None:
    """Draws anew what hides a part of the network, and the statistics that a fresh network has not got yet."""
    with torch.no_grad():
        for parameter in module.parameters():
            if float(parameter.abs().max()) < 1e-3:
                parameter.normal_(0, 0.1, generator=generator)
        for name, buffer in module.named_buffers():
            if name.endswith("running_mean"):
                buffer.normal_(0, 0.1, generator=generator)
            elif name.endswith("running_var"):
                buffer.uniform_(0.5, 1.5, generator=generator)


def probe(genome: graphs.Genome) -> dict[str, Tensor]:
    """Examples for each input, in float64."""
    generator = torch.Generator().manual_seed(SEED)
    return {
        node.settings["name"]: torch.randn((BATCH, *node.settings["shape"]), generator=generator, dtype=torch.float64)
        for node in genome.graph.inputs
    }


def reached(graph: graphs.Graph, sites: Sequence[ops.Site]) -> list[ops.Site]:
    """Those of the sites that lead to an output in eval mode; all of them where none does."""
    alive = graph.upstream(head.node for head in graph.heads if not head.training_only)
    heads = {head.name: head.node for head in graph.heads}

    def nodes(site: ops.Site) -> set[str]:
        words = [word for word in site.place.values() if isinstance(word, str)]
        return {node for word in words for node in (word, word.rpartition(":")[0], heads.get(word)) if node} & {
            *graph.nodes
        }

    return [site for site in sites if nodes(site) <= alive] or list(sites)


def certified(parent: graphs.Genome, operator: str, site: ops.Site, inputs: Mapping[str, Tensor]) -> dict[str, Any]:
    """One mutation and what its certificate says."""
    child = ops.MUTATIONS[operator].apply(parent, site, numpy.random.default_rng(SEED))
    found = ops.certify(parent, child, probe=inputs, seed=SEED)
    row = {"operator": operator, "site": site.to_json(), "promise": site.preserves, "stirred again": found.stirred}
    row |= {"eval": found.eval.to_json(), "train": found.train.to_json()}
    return row | {"verdict": verdict(found)}


def verdict(certificate: ops.Certificate) -> str:
    """One word for both modes.

    `broken` or `blind` where one mode is; `certified` where a promise was proven in a mode, the other mode having been
    promised nothing or not being reached; `approximate` where nothing was promised; `unreached`.
    """
    found = {certificate.eval.verdict, certificate.train.verdict}
    order = {"broken": "broken", "blind": "blind", "pass": "certified", "approximate": "approximate"}
    return next((word for mode, word in order.items() if mode in found), "unreached")
