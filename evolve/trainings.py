"""One network, trained by a recipe, in a folder that holds all of it: `train_into`.

model.safetensors        the trained network; `member-N.safetensors` beside it where the recipe keeps snapshots
curves.csv               one line an epoch, as soon as it is over, also as TensorBoard events where that is installed
result.json              accuracies, recipe, data, seed, and what an ensemble is worth
checkpoint.safetensors   where an interrupted training goes on; it is removed at the end
lock                     held by the process that trains, and by nobody after its death

A folder holds one training, by one process at a time. One that is asked for again when it is over is not done again,
and another one does not take its place.
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evolve.run_lock import Lock
from graphs.durable import storage_errors, write_text
from graphs.errors import EvolutionError

if TYPE_CHECKING:
    from graphs import Genome
    from runners.outcome import Failure, Outcome
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
        heads with label sets of their own `tasks`, the accuracy of each, and, where a label set has several heads or
        members, `ensembles` in place of `ensemble`, one for each label set.

    Raises:
        TrainingFailed: The training diverged, ran out of memory, or network and task do not fit, be it that the
            trained network, which is saved, cannot be measured on the test split.
        FolderTaken: The folder holds another training, which is over.
        RunLocked: Another process trains in the folder.
        SettingsError: The recipe does not go with the data, or there is no such device.
        FormatError: The folder holds the checkpoint of another training.
        StorageError: Something cannot be written.
    """
    from runners.precision import check_device

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
    done = _over(folder, asked)
    if done is not None:
        return done
    with Lock(folder, "training"):
        done = _over(folder, asked)  # another process may have ended it meanwhile
        if done is None:
            done = _trained(folder, genome, recipe, task, asked, seed, teachers, threads, device, report)
    return done


def _over(folder: Path, asked: Mapping[str, Any]) -> dict[str, Any] | None:
    """What the training in a folder came to, if it is what is asked for; None where none is over."""
    with storage_errors(folder):
        done = _finished(folder)
    if done is None:
        return None
    other = [name for name, value in asked.items() if done.get(name) != value]
    if other:
        raise FolderTaken(
            f"{folder} holds a training that is over, with another {' and another '.join(other)}; name another "
            "folder with --out, or remove it"
        )
    return done


def _trained(
    folder: Path,
    genome: Genome,
    recipe: Recipe,
    task: Task,
    asked: Mapping[str, Any],
    seed: int,
    teachers: Sequence[Genome],
    threads: int | None,
    device: str,
    report: Callable[[Mapping[str, Any]], None] | None,
) -> dict[str, Any]:
    from graphs import save
    from runners.checkpoints import written_curves
    from runners.faults import CandidateFault, candidate_faults
    from runners.outcome import finite
    from runners.training import train

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
        if outcome.failure is not None and outcome.failure.kind == "diverged":
            checkpoint.unlink(missing_ok=True)  # it would come to the same again
        raise _failed(outcome.failure)
    save(outcome.genome, folder / MODEL)
    for number, member in enumerate(outcome.members):
        save(member, folder / f"member-{number}.safetensors")
    try:
        with candidate_faults("measuring the trained network, which is saved, on the test split"):
            measured = _measured(outcome, recipe, task, device)
    except CandidateFault as fault:
        raise _failed(fault.failure) from fault
    result: dict[str, Any] = {
        "val_accuracy": outcome.val_accuracy,
        **finite(measured),
        "epochs": len(outcome.curves),
        "seconds": outcome.seconds,
        **asked,
    }
    write_text(folder / RESULT, json.dumps(result, allow_nan=False, indent=2) + "\n")
    checkpoint.unlink(missing_ok=True)
    return result


def _failed(failure: Failure | None) -> TrainingFailed:
    failed = TrainingFailed(f"training failed ({failure.kind}): {failure.message}" if failure else "training failed")
    if failure is not None and failure.kind == "invalid":
        failed.exit_code = 2  # what was asked for does not go together
    return failed


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
    from runners.ensembles import by_label_set, fitted_weights, report
    from runners.measuring import evaluate

    assert outcome.genome is not None  # noqa: S101 - for the type checker: the caller has looked
    networks = [*outcome.members, outcome.genome]
    heads = outcome.genome.graph.lasting_heads
    if not task.objective.classes or (len(networks) == len(heads) == 1 and heads[0].name not in task.others):
        found = evaluate(outcome.genome, task, "test", device=device)
        return {f"test_{name}": found[name] for name in ("accuracy", task.objective.metric.name)}
    of = recipe.hydra.average if recipe.hydra is not None else "probabilities"
    said = {
        split: [by_label_set(each, task, split, device=device) for each in networks] for split in ("validation", "test")
    }
    right: dict[str, float] = {}
    alone: dict[str, float] = {}
    ensembles: dict[str, Any] = {}
    for name, last in said["test"][-1].items():
        asked, labels = (task.split(split).labels_of(name) for split in ("validation", "test"))
        members = {split: [head for each in parts for head in each[name].values()] for split, parts in said.items()}
        united = report(list(last.values()), labels, of=of)
        right[name] = united["accuracy"]
        alone |= dict(zip(last, united["members"], strict=True))
        if len(members["test"]) > 1:
            weights = fitted_weights(members["validation"], asked)
            even = report(members["test"], labels, of=of)
            ensembles[name] = {
                "test_accuracy": even["accuracy"],
                "weights": weights,
                "weighted_test_accuracy": report(members["test"], labels, weights)["accuracy"],
                **{key: even[key] for key in ("members", "oracle", "disagreement", "pairs", "last")},
            }
    result: dict[str, Any] = {"test_accuracy": next(iter(right.values()))}
    if not task.others.keys().isdisjoint(alone):
        result["tasks"] = alone
    if len(right) > 1:
        return result | ({"ensembles": ensembles} if ensembles else {})
    return result | ({"ensemble": next(iter(ensembles.values()))} if ensembles else {})


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
                if name in ("epoch", "epochs"):
                    continue
                several = isinstance(value, list)
                figures = {f"{name}/{place}": each for place, each in enumerate(value)} if several else {name: value}
                for tag, figure in figures.items():
                    if isinstance(figure, int | float):
                        writer.add_scalar(tag, figure, entry["epoch"])

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
