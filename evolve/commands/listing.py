"""`evolve zoo` and `evolve ops`: what there is to start from and to do."""

from __future__ import annotations

__all__ = ["ops", "zoo"]


def zoo() -> None:
    """List the networks to start from, with their cost for small colour images."""
    from rich.table import Table

    from evolve.display.console import Page
    from evolve.display.text import count
    from graphs import macs, parameters
    from graphs.zoo import ZOO, create

    table = Table(box=None, padding=(0, 1), pad_edge=False, header_style="bold")
    table.add_column("name")
    for title in ("parameters", "MACs"):
        table.add_column(title, justify="right")
    for name in ZOO:
        graph = create(name).graph
        table.add_row(name, count(parameters(graph)), count(macs(graph)))
    Page().draw(table)


def ops() -> None:
    """List the mutations, and what each promises at best."""
    from rich.table import Table

    from evolve.display.console import Page
    from ops import MUTATIONS

    table = Table(box=None, padding=(0, 1), pad_edge=False, header_style="bold")
    for title in ("name", "promise", "what it does"):
        table.add_column(title)
    for name, mutation in MUTATIONS.items():
        table.add_row(name, mutation.preserves, mutation.summary)
    Page().draw(table)
