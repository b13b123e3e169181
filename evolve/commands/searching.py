"""`evolve search` and `evolve resume`: the commands that train."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from evolve.commands.options import ImageSize, RunFolder, Weights
from graphs.errors import EvolutionError

if TYPE_CHECKING:
    from evolve.events import Watcher
    from evolve.runs import Run

__all__ = ["resume", "search"]


def search(
    config: Annotated[
        Path | None, typer.Option(metavar="FILE.yaml", help="Settings to start from; flags win over them.")
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Settings of a published search, over which the file and flags win: networkcompress, "
            "networkcompress-chains.",
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|FILE|FOLDER",
            help="What to train on: digits, mnist, fashion-mnist, cifar10, cifar100, a file with the arrays x_train, "
            "y_train, x_test, y_test, or a folder with one of images for each class.",
        ),
    ] = None,
    image_size: ImageSize = None,
    data_root: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Where data sets lie; never written to without --download."),
    ] = None,
    download: Annotated[
        bool | None, typer.Option("--download", help="Fetch the data set into DIR if it is not there.")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            metavar="ZOO-NAME|FILE.safetensors|RUN:ID|torchvision:NAME",
            help="The starting network; 'evolve zoo' lists names.",
        ),
    ] = None,
    weights: Weights = None,
    strategy: Annotated[
        str | None, typer.Option(metavar="NAME", help="Who becomes a parent: aging, mu-plus-lambda, random.")
    ] = None,
    candidates: Annotated[
        str | None, typer.Option(metavar="N", help="How many networks to train, the starting one included.")
    ] = None,
    population: Annotated[str | None, typer.Option(metavar="P", help="How many may become parents.")] = None,
    teacher: Annotated[
        str | None,
        typer.Option(
            metavar="WHO|FILE|RUN:ID",
            help="Whom candidates are distilled from: parent, best, ensemble, none, or a network.",
        ),
    ] = None,
    limit: Annotated[str | None, typer.Option(metavar="N", help="Use at most N training images.")] = None,
    recipe: Annotated[
        str | None,
        typer.Option(metavar="NAME|FILE.yaml", help="How each candidate is trained, as in 'evolve train'."),
    ] = None,
    setting: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="A setting of the recipe that wins, such as lr=0.05."),
    ] = None,
    epochs: Annotated[str | None, typer.Option(metavar="E", help="Epochs for each candidate.")] = None,
    workers: Annotated[str | None, typer.Option(metavar="W", help="How many candidates train at once.")] = None,
    order: Annotated[
        str | None,
        typer.Option(
            metavar="strict|arrival",
            help="Take outcomes in the order of proposal (same seed, same lineage) or as they arrive (never waits).",
        ),
    ] = None,
    pool: Annotated[
        str | None,
        typer.Option(metavar="ray|local", help="Where candidates train: Ray actors or local processes."),
    ] = None,
    ray: Annotated[
        str | None,
        typer.Option(metavar="ADDRESS", help="A running Ray cluster; without it Ray is started here."),
    ] = None,
    seed: Annotated[str | None, typer.Option(metavar="S", help="Seed of everything that is drawn.")] = None,
    run: Annotated[
        Path | None, typer.Option(metavar="DIR", help="The run's folder; runs/0001 and so on if not given.")
    ] = None,
) -> None:
    """Search from a starting network; without options, a demonstration on handwritten digits."""
    from evolve.driver import search as start
    from evolve.settings import Settings
    from runners.presets import assigned

    flags = _given(
        data=data,
        image_size=image_size,
        data_root=data_root,
        download=download,
        model=model,
        weights=weights,
        strategy=strategy,
        candidates=candidates,
        population=population,
        teacher=teacher,
        limit=limit,
        recipe=recipe,
        epochs=epochs,
        workers=workers,
        order=order,
        pool=pool,
        ray=ray,
        seed=seed,
        run=run,
    )
    settings = Settings.read(config, preset, assigned(setting or []), **flags)
    _follow(lambda watch: start(settings, on_event=watch))


def resume(
    run: RunFolder,
    data_root: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where the data set lies now, if it was moved.")
    ] = None,
    download: Annotated[
        bool | None, typer.Option("--download", help="Fetch the data set into DIR if it is not there.")
    ] = None,
    pool: Annotated[str | None, typer.Option(metavar="ray|local", help="Where candidates train from now on.")] = None,
    ray: Annotated[str | None, typer.Option(metavar="ADDRESS", help="Another Ray cluster.")] = None,
) -> None:
    """Go on with a search that was stopped or killed; nothing that was finished is trained again."""
    from evolve.driver import resume as go_on

    moved = _given(data_root=data_root, download=download, pool=pool, ray=ray)
    _follow(lambda watch: go_on(run, on_event=watch, **moved))


def _given(**flags: Any) -> dict[str, Any]:
    """The flags that stand on the command line; what does not is left to the settings."""
    values = {name: str(value) if isinstance(value, Path) else value for name, value in flags.items()}
    return {name: value for name, value in values.items() if value is not None}


def _follow(begin: Callable[[Watcher], Run]) -> None:
    """Runs a search to its end with everything shown; whatever ends it before says how to go on."""
    from evolve.display.console import Page
    from evolve.display.summary import summary
    from evolve.display.watching import Watching

    page = Page()
    with Watching(page) as watching:
        try:
            run = begin(watching)
        except BaseException as error:
            path = watching.path
            mendable = not isinstance(error, EvolutionError) or error.exit_code == 1
            if mendable and path is not None and path.exists():
                error.add_note(f"everything finished is kept; to go on: evolve resume {shlex.quote(str(path))}")
            raise
    page.show(summary(run, page.width))
