"""One network, trained by a recipe, in a folder that holds all of it: `train_into`.

model.safetensors        the trained network; `member-N.safetensors` beside it where the recipe keeps snapshots
curves.csv               one line an epoch, as soon as it is over, also as TensorBoard events where that is installed
result.json              accuracies, recipe, data, seed, and what an ensemble is worth
checkpoint.safetensors   where an interrupted training goes on; it is removed at the end

A folder holds one training. One that is asked for again when it is over is not done again, and another one does not
take its place.
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphs.durable import storage_errors, write_text
from graphs.errors import EvolutionError

if TYPE_CHECKING:
    from graphs import Genome
    from runners.outcome import Outcome
    from runners.recipe import Recipe
    from runners.task import Task

__all__ = ["FolderTaken", "TrainingFailed", "train_into"]

CHECKPOINT, MODEL, CURVES, RESULT = "checkpoint.safetensors", "model.safetensors", "curves.csv", "result.json"


class TrainingFailed(EvolutionError, RuntimeError):
    """The training ended without a network; the message says why. The folder keeps what there was."""

    exit_code = 1


class FolderTaken(EvolutionError, FileExistsError):
    """The folder holds another training, which is over; nothing in it is touched."""


def train_into(
    folder: Path,
    genome: Genome,
    recipe: Recipe,
    task: Task,
    *,
    seed: int = 0,
    teachers: Sequence[Genome] = (),
    threads: int | None = None,
    device: str = "cpu",
    report: Callable[[Mapping[str, Any]], None] | None = None,
) -> dict[str, Any]:
    """Trains a network and writes everything about it into a folder; an interrupted training goes on.

    Where the very training is over, it is not done again, and its result is what is returned. The validation split is
    measured after each epoch, the test split once, at the end.

    Args:
        folder: Made if it is not there.
        genome: Where training starts.
        recipe: How to train.
        task: What to train on.
        seed: Of the order of the examples, augmentation and dropout.
        teachers: Networks to distil from.
        threads: CPU threads; None for those of the process.
        device: Where to compute.
        report: Called with each epoch's entry of the curves.

    Returns:
        What `result.json` holds: `val_accuracy`, `test_accuracy`, for several heads or members `ensemble`, and for
        heads with label sets of their own `tasks`, the accuracy of each.

    Raises:
        TrainingFailed: The training diverged, ran out of memory, or network and task do not fit.
        FolderTaken: The folder holds another training, which is over.
        SettingsError: The recipe does not go with the data, or there is no such device.
        FormatError: The folder holds the checkpoint of another training.
        StorageError: Something cannot be written.
    """
    from graphs import save
    from runners.checkpoints import written_curves
    from runners.precision import check_device
    from runners.training import train

    check_device(device)
    recipe = recipe.resolved(task, device)
    asked = {
        "network": genome.digest,
        "teachers": [each.digest for each in teachers],
        "recipe": recipe.model_dump(mode="json"),
        "data": dict(task.spec),
        "seed": seed,
    }
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        done = _finished(folder)
    if done is not None:
        other = [name for name, value in asked.items() if done.get(name) != value]
        if other:
            raise FolderTaken(
                f"{folder} holds a training that is over, with another {' and another '.join(other)}; name another "
                "folder with --out, or remove it"
            )
        return done
    checkpoint = folder / CHECKPOINT
    curves = written_curves(checkpoint)
    with _curves(folder) as note:

        def seen(entry: Mapping[str, Any]) -> None:
            curves.append({name: value for name, value in entry.items() if name != "epochs"})
            _write_curves(folder, curves)
            note(entry)
            if report is not None:
                report(entry)

        outcome = train(
            genome,
            recipe,
            task,
            seed,
            teacher=list(teachers),
            threads=threads,
            device=device,
            report=seen,
            checkpoint=checkpoint,
        )
    _write_curves(folder, outcome.curves)
    if outcome.genome is None or outcome.failure is not None:
        failure = outcome.failure
        if failure is not None and failure.kind == "diverged":
            checkpoint.unlink(missing_ok=True)  # it would come to the same again
        failed = TrainingFailed(
            f"training failed ({failure.kind}): {failure.message}" if failure else "training failed"
        )
        if failure is not None and failure.kind == "invalid":
            failed.exit_code = 2  # what was asked for does not go together
        raise failed
    save(outcome.genome, folder / MODEL)
    for number, member in enumerate(outcome.members):
        save(member, folder / f"member-{number}.safetensors")
    result = {
        "val_accuracy": outcome.val_accuracy,
        **_measured(outcome, recipe, task, device),
        "epochs": len(outcome.curves),
        "seconds": outcome.seconds,
        **asked,
    }
    write_text(folder / RESULT, json.dumps(result, indent=2) + "\n")
    checkpoint.unlink(missing_ok=True)
    return result


def _finished(folder: Path) -> dict[str, Any] | None:
    """What the training in a folder came to; None where none is over."""
    try:
        found = json.loads((folder / RESULT).read_text())
    except FileNotFoundError:
        return None
    except ValueError:
        found = None
    return found if isinstance(found, dict) else {}


def _measured(outcome: Outcome, recipe: Recipe, task: Task, device: str) -> dict[str, Any]:
    """The test split, for once; heads and members together, with weights from the validation split."""
    from runners.ensembles import fitted_weights, head_logits, report
    from runners.feeding import Feed
    from runners.label_sets import scores
    from runners.measuring import evaluate, memory_format

    assert outcome.genome is not None  # noqa: S101 - for the type checker: the caller has looked
    if any(head.name in task.others for head in outcome.genome.graph.heads):
        feed = Feed(task, task.test, "cpu", memory_format(outcome.genome.graph))
        told = scores(head_logits(outcome.genome, task, "test", device=device), feed)
        accuracies = {name: accuracy for name, (accuracy, _) in told.items()}
        return {"test_accuracy": next(iter(accuracies.values())), "tasks": accuracies}
    networks = [*outcome.members, outcome.genome]
    heads = len(outcome.genome.graph.lasting_heads)
    if len(networks) == 1 and heads == 1:
        found = evaluate(outcome.genome, task, "test", device=device)
        return {f"test_{name}": found[name] for name in ("accuracy", task.objective.metric.name)}
    of = recipe.hydra.average if recipe.hydra is not None else "probabilities"
    logits = {
        split: [head for each in networks for head in head_logits(each, task, split, device=device).values()]
        for split in ("validation", "test")
    }
    weights = fitted_weights(logits["validation"], task.validation.labels)
    even = report(logits["test"], task.test.labels, of=of)
    fitted = report(logits["test"], task.test.labels, weights)
    last = report(logits["test"][-heads:], task.test.labels, of=of)["accuracy"]
    return {
        "test_accuracy": last,
        "ensemble": {
            "test_accuracy": even["accuracy"],
            "weights": weights,
            "weighted_test_accuracy": fitted["accuracy"],
            **{key: even[key] for key in ("members", "oracle", "disagreement", "pairs", "last")},
        },
    }


@contextlib.contextmanager
def _curves(folder: Path) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """What notes an epoch down for TensorBoard, where that is installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        yield lambda entry: None
        return
    writer: Any = SummaryWriter(str(folder / "tensorboard"))
    try:

        def note(entry: Mapping[str, Any]) -> None:
            for name, value in entry.items():
                if isinstance(value, int | float) and name not in ("epoch", "epochs"):
                    writer.add_scalar(name, value, entry["epoch"])

        yield note
    finally:
        writer.close()


def _write_curves(folder: Path, curves: Sequence[Mapping[str, Any]]) -> None:
    if not curves:
        return
    columns = list(dict.fromkeys(name for entry in curves for name in entry))
    text = io.StringIO()
    table = csv.DictWriter(text, columns, lineterminator="\n")
    table.writeheader()
    table.writerows(curves)
    write_text(folder / CURVES, text.getvalue())
