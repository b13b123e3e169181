"""`evolve mutate`: a network changed by hand, with proof."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from evolve.commands.options import TARGET, Force, Json, Seed, check_target

if TYPE_CHECKING:
    from evolve.display.console import Page
    from evolve.mutating import Step
    from graphs import Genome

__all__ = ["mutate"]


def mutate(
    model: Annotated[
        str, typer.Argument(metavar="ZOO-NAME|FILE.safetensors", help="The network; 'evolve zoo' lists names.")
    ],
    op: Annotated[
        str,
        typer.Option(
            metavar="NAME[,NAME...]",
            help="Operators to apply, one after another; 'evolve ops' lists them. Without --to: list their sites.",
        ),
    ] = "",
    site: Annotated[
        str,
        typer.Option(
            metavar="K[,K...]",
            help="Which site, one number for each operator, counted in the network that it is applied to; drawn if "
            "not given.",
        ),
    ] = "",
    sites: Annotated[bool, typer.Option("--sites", help="List sites and their numbers; change nothing.")] = False,
    seed: Seed = 0,
    to: Annotated[Path | None, TARGET] = None,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Change a network and prove that it computes the same; without --to, show where it can be changed."""
    from evolve.display.console import Page
    from evolve.display.mutation import mutation
    from evolve.mutating import mutate as apply
    from evolve.starting import network
    from graphs import save

    if sites and to is not None:
        raise typer.BadParameter("it changes nothing, so leave out --to", param_hint="--sites")
    if site and to is None:
        raise typer.BadParameter("say with --to where to write the changed network", param_hint="--site")
    steps = _steps(op, site)
    if to is None:
        _list(Page(), model, network(model, seed=seed), [name for name, _ in steps], as_json)
        return
    if not steps:
        raise typer.BadParameter("name the operators to apply with --op", param_hint="--to")
    check_target(to, force)
    made = apply(network(model, seed=seed), steps, seed)
    save(made[-1].child.genome, to)
    page = Page()
    for found in made:
        page.line(json.dumps(found.to_json(), allow_nan=False) if as_json else mutation(found.to_json()))
    if not as_json:
        page.line(f"written to {to}")


def _steps(names: str, numbers: str) -> list[Step]:
    """What --op and --site say."""
    operators = [name.strip() for name in names.split(",")] if names else []
    sites = [number.strip() for number in numbers.split(",")] if numbers else []
    if not all(number.isdecimal() for number in sites):
        raise typer.BadParameter(f"expected numbers from 0 on, such as 3 or 3,0; got '{numbers}'", param_hint="--site")
    if sites and len(sites) != len(operators):
        raise typer.BadParameter(
            f"expected one number for each operator, so {len(operators)}; got {len(sites)}", param_hint="--site"
        )
    return list(zip(operators, map(int, sites) if sites else [None] * len(operators), strict=True))


def _list(page: Page, model: str, genome: Genome, names: list[str], as_json: bool) -> None:
    """Shows a network, or the sites of the named operators."""
    from evolve.display.network import network, sites
    from evolve.mutating import operator
    from ops import MUTATIONS

    found = [operator(name) for name in names]
    if as_json:
        for mutation in found or MUTATIONS.values():
            for number, site in enumerate(mutation.sites(genome)):
                entry = {
                    "operator": mutation.name,
                    "site": number,
                    "where": site.to_json(),
                    "preserves": site.preserves,
                }
                page.line(json.dumps(entry, allow_nan=False))
        return
    for mutation in found:
        why = mutation.refusal(genome)
        if why is None:
            page.draw(sites(genome, mutation))
        else:
            page.line(why)
    if not found:
        page.show(network(model, genome))
