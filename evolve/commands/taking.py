"""`evolve replay` and `evolve export`: a candidate made again, and a candidate taken away."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from evolve.commands.options import RunFolder

__all__ = ["export", "replay"]


def replay(
    run: RunFolder,
    candidate: Annotated[int, typer.Argument(metavar="ID", help="A candidate's number.")],
    to: Annotated[
        Path | None,
        typer.Option(metavar="FILE.safetensors", help="Where to save the network as it was before training."),
    ] = None,
) -> None:
    """Make a candidate again from its parent and its record, and compare bit for bit."""
    from evolve.display.console import Page
    from evolve.display.text import where
    from evolve.runs import open_run
    from graphs import save

    found = open_run(run).candidate(candidate)
    genome = found.untrained()
    made = "as it was given" if found.operator is None else f"{found.operator} {where(found.site)} of {found.parent}"
    page = Page()
    page.line(f"candidate {candidate}, {made}, before training")
    page.line(f"  structure    {found.fingerprint}, as in the lineage")
    page.line(f"  weights      {genome.digest}, bit for bit those of the lineage")
    if to is not None:
        save(genome, to)
        page.line(f"  saved        {to}")


def export(
    run: Annotated[Path, typer.Argument(metavar="RUN|FILE.safetensors", help="A run's folder, or a network's file.")],
    candidate: Annotated[
        int | None, typer.Argument(metavar="[ID]", help="A candidate's number; the best one if not given.")
    ] = None,
    *,
    to: Annotated[Path, typer.Option(metavar="DIR", help="The folder to make.")],
    force: Annotated[bool, typer.Option("--force", help="Replace what an earlier export left there.")] = False,
) -> None:
    """Write a candidate, or a network's file, as a folder that needs torch and safetensors only."""
    from evolve.display.console import Page
    from evolve.exporting import FILES
    from evolve.exporting import export as write

    folder = write(run, to, candidate, force=force)
    Page().line(f"{folder}: {', '.join(FILES)}")
