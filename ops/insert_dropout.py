"""Insert dropout: behind an activation, of features one by one, of maps with their channels first channel by channel.

Dropout (Srivastava et al., "Dropout: A Simple Way to Prevent Neural Networks from Overfitting", JMLR 15, 2014; first:
Hinton et al., 2012, arXiv 1207.0580), for maps with whole channels dropped (Tompson et al., 2015, arXiv 1411.4280).
Law: exact in eval mode only, bit for bit; that training is disturbed is what it is for.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from graphs.draft import Draft
from graphs.genome import Genome
from graphs.kinds import KINDS
from graphs.structure import Graph
from ops.mixing import layer_for
from ops.mutation import Build, Mutation, Site, Work
from ops.options import Option, Share
from ops.transfer import Transfer

if TYPE_CHECKING:
    import numpy

__all__ = ["INSERT_DROPOUT"]

_RATES = (0.1, 0.2, 0.3)


def _find(genome: Genome) -> Iterable[Site]:
    graph = genome.graph
    outputs = {head.node for head in graph.heads}
    for node in graph.nodes.values():
        if KINDS[node.kind].activation and node.id not in outputs and not _drops(graph, node.id):
            yield Site({"after": node.id}, "eval-exact")


def _kind(graph: Graph, node: str) -> str:
    """What drops whole channels of a node's value, where a convolution could read it; else each element by itself."""
    layer = layer_for(graph, node)
    return f"dropout{layer.window}d" if layer and layer.window else "dropout"


def _drops(graph: Graph, node: str) -> bool:
    """Whether there is something right before or behind a node that draws random numbers already."""
    near = [*graph[node].inputs, *(reader for reader, _ in graph.consumers[node])]
    return any(KINDS[graph[id].kind].random(graph[id].settings) for id in near)


def _choose(genome: Genome, place: Mapping[str, Any], rng: numpy.random.Generator) -> Mapping[str, Any]:
    return {"p": _RATES[int(rng.integers(len(_RATES)))]}


def _options(genome: Genome, place: Mapping[str, Any]) -> Mapping[str, Option]:
    return {"p": Share()}


def _build(work: Work) -> Build:
    after = work.place["after"]
    draft = Draft(work.graph, work.born)
    dropped = draft.add(_kind(work.graph, after), after, after=after, **work.choices)
    draft.redirect(after, dropped, [reader for reader, _ in work.graph.consumers[after]])
    return Build(draft.finish(), Transfer())


INSERT_DROPOUT = Mutation(
    name="insert_dropout",
    preserves="eval-exact",
    summary="drop values or channels behind an activation in training",
    needs="an activation that is no output, with nothing beside it that draws random numbers",
    find=_find,
    choose=_choose,
    build=_build,
    options=_options,
)
