"""Starting from inherited weights without being held back by them: shrink and perturb."""

from __future__ import annotations

from graphs.genome import Genome
from graphs.initial import fresh_weights
from runners.recipe import Recipe

__all__ = ["shrunk"]


def shrunk(genome: Genome, recipe: Recipe, seed: int) -> Genome:
    """The network with weights λ·θ + p·(fresh ones), for layers that mix channels; norms and gates stay.

    J.T. Ash, R.P. Adams, "On Warm-Starting Neural Network Training", 2020, arXiv:1910.08475.
    """
    if recipe.shrink == 1 and not recipe.perturb:
        return genome
    fresh, specs = fresh_weights(genome, seed % 2**63), genome.graph.tensors
    weights = {
        name: recipe.shrink * old + recipe.perturb * fresh[name]
        if name in specs and specs[name].drawn and name not in genome.state.frozen
        else old
        for name, old in genome.weights.items()
    }
    return Genome(genome.graph, weights, genome.about)
