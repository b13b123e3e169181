"""Arguments that several commands take."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["Json", "RunFolder"]

RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder, such as runs/0001.")]
Json = Annotated[bool, typer.Option("--json", help="For scripts: JSON with stable keys.")]
