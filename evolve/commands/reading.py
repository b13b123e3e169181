"""`evolve status`, `log`, `tree`, `show`: the commands that read a run, also while a search writes it."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from evolve.commands.options import Json, RunFolder

__all__ = ["log", "show", "status", "tree"]


def status(run: RunFolder, as_json: Json = False) -> None:
    """Where a run stands: candidates by status, and the best one."""
    from evolve.display.console import Page
    from evolve.display.overview import overview
    from evolve.runs import open_run

    opened = open_run(run)
    found = opened.status()
    if as_json:
        Page().line(json.dumps(found, allow_nan=False))
    else:
        Page().show(overview(opened.path, found))


def log(run: RunFolder, as_json: Json = False) -> None:
    """Every candidate with its mutation, certificate, accuracy and cost."""
    from evolve.display.console import Page
    from evolve.runs import open_run

    page = Page()
    opened = open_run(run)
    if as_json:
        for entry in opened.log():
            page.line(json.dumps(entry, allow_nan=False))
        return
    from evolve.display.table import candidates

    best = opened.best()
    page.draw(candidates(opened.log(), page.width, [] if best is None else [best.id]))


def tree(run: RunFolder) -> None:
    """The family as a tree, the line of the best one highlighted."""
    from evolve.display.console import Page
    from evolve.display.tree import family
    from evolve.runs import open_run

    opened = open_run(run)
    best = opened.best()
    page = Page()
    page.show(family(opened.log(), None if best is None else best.id, page.width))


def show(
    run: RunFolder,
    candidate: Annotated[int, typer.Argument(metavar="ID", help="A candidate's number.")],
) -> None:
    """One candidate in full: how it came about, its certificate, its training."""
    from evolve.display.console import Page
    from evolve.display.portrait import portrait
    from evolve.display.text import line_of
    from evolve.runs import open_run

    opened = open_run(run)
    found = opened.candidate(candidate)
    page = Page()
    page.show(
        portrait(
            line_of(opened.log(), candidate),
            page.width,
            choices=None if found.record is None else found.record.choices,
            recipe=opened.settings.recipe.model_dump(mode="json"),
            curves=found.curves,
        )
    )
