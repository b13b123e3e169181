"""A network in a few lines: what goes in and comes out, its cost, and where it can be mutated."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

from rich.table import Table

from evolve.display.text import NONE, clean, count, sizes, where

if TYPE_CHECKING:
    from graphs import Genome
    from ops import Mutation

__all__ = ["network", "sites"]


def network(title: str, genome: Genome) -> Iterator[str | Table]:
    """Lines about a network that a person calls `title`, and a table of how many sites each operator has in it."""
    from graphs import macs, parameters

    graph = genome.graph
    read = ", ".join(f"{node.settings['name']} {sizes(node.settings['shape'])}" for node in graph.inputs)
    given = ", ".join(
        f"{head.name} {sizes(graph.shapes[head.node])}{' (in training only)' if head.training_only else ''}"
        for head in graph.heads
    )
    yield f"network      {clean(title)}"
    yield f"inputs       {clean(read)}"
    yield f"outputs      {clean(given)}"
    yield f"nodes        {len(graph.nodes)}"
    yield f"parameters   {count(parameters(graph))}"
    yield f"MACs         {count(macs(graph))}"
    opaque = [node.id for node in graph.nodes.values() if node.kind == "opaque"]
    if opaque:
        yield f"opaque       {len(opaque)}: {clean(', '.join(opaque))}"
    yield ""
    yield _operators(genome)


def _operators(genome: Genome) -> Table:
    """How many sites each operator has, in all and with each promise."""
    from ops import MUTATIONS
    from ops.mutation import PROMISES

    table = Table(box=None, padding=(0, 1), pad_edge=False, header_style="bold")
    table.add_column("operator")
    for title in ("sites", *PROMISES):
        table.add_column(title, justify="right")
    for name, mutation in MUTATIONS.items():
        found = Counter(site.preserves for site in mutation.sites(genome))
        table.add_row(name, str(found.total()), *(str(found[promise] or NONE) for promise in PROMISES))
    return table


def sites(genome: Genome, mutation: Mutation) -> Table:
    """The sites of one operator with the numbers that `--site` takes."""
    table = Table(box=None, padding=(0, 1), pad_edge=False, header_style="bold")
    table.add_column("site", justify="right")
    table.add_column(f"where to {mutation.name}")
    table.add_column("promise")
    for number, site in enumerate(mutation.sites(genome)):
        table.add_row(str(number), where(site.place), site.preserves)
    return table
