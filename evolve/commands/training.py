"""`evolve train` and `evolve freezeout-speedup`: one network, trained by a recipe, and what freezing would save."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from evolve.commands.options import ImageSize, Json, Seed, Weights

if TYPE_CHECKING:
    from runners.recipe import Recipe

    Report = Callable[[Mapping[str, Any]], None]

__all__ = ["freezeout_speedup", "train"]

NETWORK = typer.Argument(
    metavar="ZOO-NAME|FILE.safetensors|RUN:ID|torchvision:NAME",
    help="The network; 'evolve zoo' lists names, RUN:ID is a candidate.",
)


def train(
    model: Annotated[str, NETWORK],
    *,
    weights: Weights = None,
    data: Annotated[
        str, typer.Option(metavar="NAME|FILE|FOLDER", help="What to train on; a folder has one for each class.")
    ] = "digits",
    image_size: ImageSize = None,
    data_root: Annotated[Path | None, typer.Option(metavar="DIR", help="Where named data sets lie.")] = None,
    download: Annotated[bool, typer.Option("--download", help="Fetch a named data set that is not there.")] = False,
    limit: Annotated[int | None, typer.Option(metavar="N", help="Use at most N training images.", min=1)] = None,
    recipe: Annotated[
        str,
        typer.Option(
            metavar="NAME|FILE.yaml",
            help="default, hydranet, freezeout, snapshot, networkcompress, cifar10-experiments, or a file.",
        ),
    ] = "default",
    setting: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="A setting of the recipe that wins, such as freezeout.t0=0.5."),
    ] = None,
    epochs: Annotated[int | None, typer.Option(metavar="N", help="Instead of the recipe's.", min=1)] = None,
    start: Annotated[
        str, typer.Option("--from", metavar="inherited|scratch", help="Keep the network's weights, or draw new ones.")
    ] = "inherited",
    teacher: Annotated[
        list[str] | None,
        typer.Option("--distill-from", metavar="FILE|RUN:ID", help="A teacher; several are averaged."),
    ] = None,
    body: Annotated[
        str | None,
        typer.Option(
            metavar="FILE|RUN:ID", help="A trained network of the same structure, for the body of a HydraNet."
        ),
    ] = None,
    distill_into: Annotated[
        str | None,
        typer.Option(metavar="self|NETWORK", help="Then teach one network what the ensemble of snapshots says."),
    ] = None,
    seed: Seed = 0,
    threads: Annotated[int | None, typer.Option(metavar="N", help="CPU threads.", min=1, max=1024)] = None,
    device: Annotated[str, typer.Option(metavar="cpu|cuda", help="Where to compute.")] = "cpu",
    out: Annotated[Path, typer.Option(metavar="DIR", help="The folder for all that comes of it.")] = Path("trained"),
    as_json: Json = False,
) -> None:
    """Train one network by a recipe; the same command again goes on where an interrupted one was."""
    from evolve.display.console import Page
    from evolve.display.decoding import DecodingBar
    from evolve.display.training import progress, summary
    from evolve.starting import is_fresh, named_network
    from evolve.trainings import train_into
    from graphs import load
    from runners.hydra import with_body
    from runners.measuring import check_fit
    from runners.presets import assigned, preset
    from runners.task import Task
    from runners.teaching import check_speaks

    if start not in ("inherited", "scratch"):
        raise typer.BadParameter(f"expected inherited or scratch, got '{start}'", param_hint="--from")
    chosen = preset(recipe, **assigned(setting or []))
    if epochs is not None:
        chosen = chosen.changed(epochs=epochs, minutes=None)
    if distill_into is not None and not chosen.snapshots:
        raise typer.BadParameter("the recipe keeps no snapshots; add --recipe snapshot", param_hint="--distill-into")
    if chosen.distill.transfer is not None and not teacher and distill_into is None:
        raise typer.BadParameter("distill.transfer needs a teacher; add --distill-from", param_hint="--set")
    asked = "--distill-from" if teacher else "--distill-into" if distill_into is not None else None
    if asked is not None and not chosen.distill.weight:
        raise typer.BadParameter(
            f"distill.weight is 0, so nothing would be distilled; set it above 0, or leave out {asked}",
            param_hint="--set",
        )
    if body is not None and chosen.hydra is None:
        raise typer.BadParameter("the recipe makes no heads; add --recipe hydranet", param_hint="--body")
    page = Page()
    decoding = DecodingBar(page)
    try:
        task = Task.named(data, data_root, download, limit, image_size, decoding)
    finally:
        decoding.close()
    genome = named_network(model, task, seed, start == "scratch", weights)
    if body is not None and chosen.hydra is not None:
        genome = with_body(genome, named_network(body, task, seed), chosen.hydra.split_point)
    elif chosen.hydra is not None and chosen.hydra.frozen and (start == "scratch" or is_fresh(model, weights)):
        warnings.warn(
            f"the body is untrained, and frozen for the first {chosen.hydra.frozen} epochs; name a trained one with "
            "--body, or say --set hydra.frozen=0",
            stacklevel=1,
        )
    student = None
    if distill_into is not None:
        student = genome if distill_into == "self" else named_network(distill_into, task, seed)
        check_fit(student.graph, task)
        named = chosen.hydra.tasks if chosen.hydra is not None else ()
        check_speaks(named or [head.name for head in genome.graph.lasting_heads], task)
    teachers = [named_network(each, task, seed) for each in teacher or []]
    arguments: dict[str, Any] = {"seed": seed, "threads": threads, "device": device}
    with progress(page, as_json) as report:
        seen = _with_thaw(chosen, report)
        result = train_into(out, genome, chosen, task, teachers=teachers, report=seen, **arguments)
    if student is not None:
        ensemble = [load(path) for path in sorted(out.glob("member-*.safetensors"))] + [load(out / "model.safetensors")]
        plain = chosen.changed(cycles=1, snapshots=0, hydra=None)
        with progress(page, as_json) as report:
            found = train_into(out / "distilled", student, plain, task, teachers=ensemble, report=report, **arguments)
        result["distilled"] = found
    for line in [json.dumps(result, allow_nan=False)] if as_json else summary(out, result):
        page.line(line)


def _with_thaw(recipe: Recipe, report: Report) -> Report:
    """Warns, beside what `report` shows, where the minutes turn out to be too few for the body to thaw."""
    frozen = recipe.hydra.frozen if recipe.hydra is not None and recipe.minutes is not None else 0
    told = False

    def seen(entry: Mapping[str, Any]) -> None:
        nonlocal told
        if frozen >= entry["epochs"] and not told:
            warnings.warn(
                f"{recipe.minutes:g} minutes are {entry['epochs']} epochs here, and hydra.frozen is {frozen}: the body "
                "stays frozen to the end",
                stacklevel=1,
            )
            told = True
        report(entry)

    return seen


def freezeout_speedup(
    model: Annotated[str, NETWORK],
    *,
    t0: Annotated[
        float, typer.Option("--t0", metavar="T", help="The first layer freezes after f(T) of training.")
    ] = 0.8,
    how: Annotated[str, typer.Option(metavar="linear|squared|cubic", help="f.")] = "cubic",
    published: Annotated[
        bool, typer.Option("--published", help="Use the cost model of the original code; for a densenet of the zoo.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Estimate how much of the arithmetic of training FreezeOut saves on a network."""
    from evolve.display.console import Page
    from evolve.starting import network
    from graphs.zoo import settings_of
    from runners.freezeout import FreezeOut, published_speedup, speedup
    from runners.settings_errors import SettingsError

    settings, graph = FreezeOut(t0=t0, how=how), network(model).graph  # type: ignore[arg-type]
    if published:
        known = {} if model.endswith(".safetensors") else settings_of(model)
        if not {"depth", "growth"} <= known.keys():
            raise SettingsError(
                f"the original's cost model is for a densenet of the zoo, not for {model}; leave it out"
            )
        saved = published_speedup(known["depth"], known["growth"], settings)
    else:
        saved = speedup(graph, settings)
    page = Page()
    if as_json:
        page.line(json.dumps({"model": model, "t0": t0, "how": how, "published": published, "speedup": saved}))
        return
    stages = settings.stages(graph)
    page.line(f"{100 * saved:.2f} % of the multiply-accumulates of training")
    page.line(f"  {len(stages)} stages; the first one freezes after {100 * stages[0].share:.1f} % of training")
