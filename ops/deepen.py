"""Deepen: insert an identity layer behind an activation.

Net2DeeperNet (Chen, Goodfellow, Shlens, "Net2Net", 2016, arXiv 1511.05641). The new layer is an identity convolution
(or linear layer), a batch norm where the site says so, and an activation that changes nothing yet. Behind an idempotent
one, act(act(x)) = act(x), that is the same again. Behind others it is what learns to bend: a blend of the identity and
the same activation, (1 − g)·x + g·act(x) with g = 0 (the P-activation of Network Morphism: Wei et al., 2016, arXiv
1603.01670), or, where there are numbers below zero, PReLU with slopes of 1 (He et al., 2015, arXiv 1502.01852); or
none, for those who ask (`choices`). In networks with batch norm `insert_block` is to be preferred. Law: exact without
batch norm. With it exact in eval mode only, since in train mode a norm uses the statistics of each batch; the batch
that `apply` is given makes its running statistics those of the network, so that training goes on from nearly the same
function.

The norm's parameters are those of the identity exactly, not only as far as they can be stored: with a scale g of few
bits and a power of two as eps, the running variance g² − eps is a floating-point number, and √(variance + eps) is g.
How few bits, and how large an eps, depends on the type of the network's tensors.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from graphs.draft import Draft
from graphs.execution import execute
from graphs.genome import Genome
from graphs.kinds import KINDS
from graphs.structure import Node
from ops.examples import Examples
from ops.mixing import add_layer, fitting_kernel, kernels, layer_for, norm_near
from ops.mutation import Build, Mutation, Site, Work
from ops.options import OneOf, Option
from ops.places import dependent
from ops.transfer import Given, New, Plan, Transfer

if TYPE_CHECKING:
    import numpy
    from torch import Tensor

__all__ = ["DEEPEN"]

_EPS = 2.0**-17

_BITS = 8
"""Least eps, and most bits of a scale."""


def _find(genome: Genome) -> Iterable[Site]:
    graph = genome.graph
    varying = dependent(graph)
    for node in graph.nodes.values():
        if not KINDS[node.kind].activation or layer_for(graph, node.id) is None:
            continue
        yield Site({"after": node.id, "norm": False}, "exact")
        if norm_near(graph, node.id) and node.id in varying:
            yield Site({"after": node.id, "norm": True}, "eval-exact")


def _choose(genome: Genome, place: Mapping[str, Any], rng: numpy.random.Generator) -> Mapping[str, Any]:
    bends = _bends(genome.graph[place["after"]])
    drawn = [name for name in bends if name != "none"]
    kernel = fitting_kernel(genome.graph, place["after"])
    return {"kernel": kernel, "activation": drawn[int(rng.integers(len(drawn)))]}


def _bends(node: Node) -> list[str]:
    """The activations that change nothing behind one: keys of `_ACTIVATIONS`."""
    if KINDS[node.kind].idempotent:
        return ["same", "none"]
    return ["blend", "prelu", "none"] if _goes_below_zero(node) else ["blend", "none"]


def _goes_below_zero(node: Node) -> bool:
    """Whether an activation gives numbers below zero, which a PReLU behind it could bend."""
    import torch

    kind = KINDS[node.kind]
    tensors = {role: torch.full(spec.shape, 0.25) for role, spec in kind.tensors(node.settings, [(1,)]).items()}
    steps = torch.linspace(-4, 4, 17).reshape(-1, 1)
    return kind.compute is not None and bool((kind.compute(node.settings, [steps], tensors, False) < 0).any())


def _options(genome: Genome, place: Mapping[str, Any]) -> Mapping[str, Option]:
    return {"kernel": kernels(genome.graph, place["after"]), "activation": OneOf(_bends(genome.graph[place["after"]]))}


def _build(work: Work) -> Build:
    after, norm = work.place["after"], work.place["norm"]
    old, bend = work.graph[after], work.choices["activation"]
    draft = Draft(work.graph, work.born)
    layer = add_layer(draft, work.graph, after, after, kernel=work.choices["kernel"], bias=not norm)
    plans: dict[str, Plan] = {draft.nodes[layer].tensors["weight"]: New("identity")}
    last, tensors = layer, {}
    if norm:
        last = draft.add("batch_norm", layer, after=layer)
        names = draft.nodes[last].tensors
        tensors = _statistics(work, after, names)
        scale, variance = (tensors[names[role]].double().flatten()[0] for role in ("weight", "running_var"))
        draft.set(last, eps=float(scale**2 - variance))
        plans.update({name: Given(name) for name in tensors})
    readers = [reader for reader, _ in work.graph.consumers[after]]
    end, starts = _ACTIVATIONS[bend](draft, last, old)
    plans.update(starts)
    draft.redirect(after, end, readers)
    draft.move_heads(after, end)
    return Build(draft.finish(), Transfer(plans), tensors=tensors)


def _same(draft: Draft, last: str, old: Node) -> tuple[str, dict[str, Plan]]:
    return draft.add(old.kind, last, after=last, **old.settings), {}


def _blend(draft: Draft, last: str, old: Node) -> tuple[str, dict[str, Plan]]:
    bent = draft.add(old.kind, last, after=last, **old.settings)
    gate = draft.add("gate", [last, bent], after=bent)
    return gate, {draft.nodes[gate].tensors["gate"]: New(0.0)}


def _prelu(draft: Draft, last: str, old: Node) -> tuple[str, dict[str, Plan]]:
    # A slope for each entry of the first axis would be one for each place where that is not the channels'.
    bent = draft.add("prelu", last, after=last, per_channel=KINDS[draft.nodes[last].kind].window != 0)
    return bent, {draft.nodes[bent].tensors["weight"]: New(1.0)}


def _none(draft: Draft, last: str, old: Node) -> tuple[str, dict[str, Plan]]:
    return last, {}


_ACTIVATIONS = {"same": _same, "blend": _blend, "prelu": _prelu, "none": _none}
"""What follows the layer: adds it, and says how its tensors start."""


def _statistics(work: Work, node: str, names: Mapping[str, str]) -> dict[str, Tensor]:
    """Scale, shift, running mean and variance, by tensor name, of a norm that leaves the value of `node` as it is."""
    import torch

    roles = ("weight", "bias", "running_mean", "running_var")
    if work.given:
        return {names[role]: work.given[names[role]] for role in roles}
    channels = work.graph.shapes[node][0]
    # g² of twice the bits, less eps, has to keep within those of the type: 24 of a float32, 8 of a bfloat16.
    kept = next(tensor.dtype for tensor in work.genome.weights.values() if tensor.is_floating_point())
    digits = 1 - round(math.log2(torch.finfo(kept).eps))
    mean, scale, eps = torch.zeros(channels), torch.ones(channels), max(_EPS, 2.0**-digits)
    if work.batch is not None:
        mean, scale = _measure(work.genome, Examples.of(work.graph, work.batch), node)
        eps, steps = max(_EPS, 2.0 ** (4 - digits)), 2 ** min(_BITS, digits // 3)
        # Scales above 4 need a larger eps.
        largest = float(scale.max())
        while largest > 4:
            largest, eps = largest / 2, eps * 4
        mantissa, exponent = torch.frexp(scale.clamp(min=2 * eps**0.5))
        scale = torch.ldexp(torch.round(mantissa * steps) / steps, exponent)
        mean = mean.to(kept).float()
    return {names[role]: value for role, value in zip(roles, (scale, mean, mean, scale**2 - eps), strict=True)}


def _measure(genome: Genome, examples: Examples, node: str) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each channel of a value over a batch in train mode, as float32."""
    run = execute(genome.graph, genome.weights, examples.like(genome.weights), training=True, keep=[node])
    value = run.values[node].double().movedim(1, 0).flatten(1)
    return value.mean(1).float(), value.std(1, correction=0).float()


DEEPEN = Mutation(
    name="deepen",
    preserves="exact",
    summary="insert an identity layer behind an activation, and one that changes nothing yet",
    needs="an activation behind which a layer of the same width can be put",
    find=_find,
    choose=_choose,
    build=_build,
    options=_options,
)
