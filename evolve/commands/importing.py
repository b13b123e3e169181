"""`evolve import`: a network that somebody else wrote, as a file that can be mutated."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from evolve.commands.options import TARGET, Force, Seed, check_target

__all__ = ["import_"]


def import_(
    module: Annotated[
        str,
        typer.Argument(
            metavar="MODULE:FACTORY|torchvision:NAME",
            help="A torch.nn.Module of your code, or what makes one without arguments; or a network of torchvision.",
        ),
    ],
    inputs: Annotated[
        list[str],
        typer.Option(
            "--input",
            metavar="[NAME=]SIZES[:TYPE[<END]]",
            help="Shape of one example, such as 3,224,224; once for each input. Whole numbers have their type behind "
            "it, and where they end: 77:int64<49408.",
        ),
    ],
    to: Annotated[Path, TARGET],
    weights: Annotated[
        str | None,
        typer.Option(
            metavar="DEFAULT|FILE.safetensors",
            help="The module's state_dict; DEFAULT fetches those that torchvision publishes. Fresh ones if not given.",
        ),
    ] = None,
    seed: Seed = 0,
    force: Force = False,
) -> None:
    """Take in a torch module, so that it can be mutated and searched from. Runs the module's own code."""
    import graphs
    from evolve.display.console import Page
    from evolve.display.network import network
    from evolve.importing import example, found_here, module_named

    check_target(to, force)
    examples = example(inputs, seed)
    with found_here():
        original = module_named(module, weights, seed)
        genome = graphs.from_torch(original, examples)
    graphs.save(genome, to)
    page = Page()
    page.show(network(module, genome))
    page.line(f"written to {to}")
