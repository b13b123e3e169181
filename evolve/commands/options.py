"""Arguments that several commands take."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["TARGET", "Force", "ImageSize", "Json", "RunFolder", "Seed", "Weights", "check_target"]

RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder, such as runs/0001.")]


def _check_seed(seed: int) -> int:
    if not 0 <= seed < 2**63:
        raise typer.BadParameter(f"expected a whole number from 0 to 2**63 - 1, got {seed}")
    return seed


Seed = Annotated[int, typer.Option(metavar="S", help="Seed of everything that is drawn.", callback=_check_seed)]
ImageSize = Annotated[
    int | None,
    typer.Option(metavar="N", help="Bring the images of a folder to N×N pixels.", min=1, max=4096),
]
Weights = Annotated[
    str | None,
    typer.Option(
        metavar="DEFAULT|FILE.safetensors",
        help="For torchvision:NAME: start from what torchvision publishes, or from a state_dict.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="For scripts: JSON with stable keys.")]
TARGET = typer.Option("--to", metavar="FILE.safetensors", help="Where to write the network.")
Force = Annotated[bool, typer.Option("--force", help="Replace what is there.")]


def check_target(to: Path, force: bool) -> None:
    """Checks where a network is to be written, before any work is put into it.

    Raises:
        BadParameter: It does not end in .safetensors, its folder is not there, or it exists and `force` is not given.
    """
    if to.suffix != ".safetensors":
        raise typer.BadParameter(
            f"{to} does not end in .safetensors, by which commands know a network's file", param_hint="--to"
        )
    if not to.parent.is_dir():
        raise typer.BadParameter(f"there is no folder {to.parent}; make it first", param_hint="--to")
    if to.is_dir():
        raise typer.BadParameter(f"{to} is a folder; name a file", param_hint="--to")
    if to.exists() and not force:
        raise typer.BadParameter(f"{to} exists; name another file or add --force", param_hint="--to")
