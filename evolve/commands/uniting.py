"""`evolve hydra` and `evolve ensemble`: a network with several heads, and several networks as one predictor."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from evolve.commands.options import TARGET, Force, Json, RunFolder, Seed, check_target
from evolve.commands.training import NETWORK

__all__ = ["ensemble", "hydra"]


def hydra(
    model: Annotated[str, NETWORK],
    *,
    to: Annotated[Path, TARGET],
    heads: Annotated[int, typer.Option(metavar="N", help="How many heads.", min=2, max=1024)] = 4,
    split_point: Annotated[
        str, typer.Option(metavar="auto|N", help="How many units make up the body; 'auto' leaves a quarter to a head.")
    ] = "auto",
    start: Annotated[
        str, typer.Option("--start", metavar="copied|fresh", help="Heads are the network's own, or start anew.")
    ] = "copied",
    seed: Seed = 0,
    force: Force = False,
) -> None:
    """Make a HydraNet of a network: one body, several heads whose outputs are averaged."""
    from evolve.branching import hydra as branch
    from evolve.display.console import Page
    from evolve.display.text import count
    from evolve.starting import network
    from graphs import parameters, save

    if split_point != "auto" and not split_point.isdecimal():
        raise typer.BadParameter(f"expected auto or a number of units, got '{split_point}'", param_hint="--split-point")
    check_target(to, force)
    point = "auto" if split_point == "auto" else int(split_point)
    whole = network(model, seed=seed)
    made = branch(whole, heads=heads, split_point=point, start=start, seed=seed)  # type: ignore[arg-type]
    save(made, to)
    page = Page()
    before, after = parameters(whole.graph), parameters(made.graph)
    page.line(f"{heads} heads, {count(after)} parameters ({after / before:.2f} times the network's)")
    page.line(f"written to {to}")


def ensemble(
    run: RunFolder,
    candidates: Annotated[
        list[int] | None, typer.Argument(metavar="[ID]...", help="Candidates' numbers; the best ones if not given.")
    ] = None,
    *,
    top: Annotated[int, typer.Option(metavar="N", help="How many of the best.", min=2)] = 5,
    test: Annotated[bool, typer.Option("--test", help="Measure on the test split, too.")] = False,
    device: Annotated[str, typer.Option(metavar="cpu|cuda", help="Where to compute.")] = "cpu",
    as_json: Json = False,
) -> None:
    """Measure candidates of a run together, with weights that are fitted on the validation split."""
    from evolve.assembling import ensemble as assemble
    from evolve.display.console import Page
    from evolve.display.ensemble import together

    found = assemble(run, candidates or None, top=top, test=test, device=device)
    page = Page()
    if as_json:
        page.line(json.dumps(found, allow_nan=False))
        return
    page.show(together(found))
