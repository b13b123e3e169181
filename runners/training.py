"""Training one candidate: `train`, from inherited weights to an `Outcome`.

The whole data set lies on the device as uint8; a step gathers, augments, normalises, and learns from one batch as whole
tensors, without any work for each image in Python. On a processor, the same (genome, recipe, task, seed, teacher,
threads) give the same weights and accuracies to the last bit in any process: every draw comes from generators seeded
here, and the caller's random state and thread count are put back.

    >>> from graphs import zoo
    >>> from runners import Recipe, Task, train
    >>> task = Task.named("digits", limit=100)
    >>> genome = zoo.create("convnet", classes=10, input_shape=task.input_shape)
    >>> outcome = train(genome, Recipe(epochs=1), task, seed=0)
    >>> len(outcome.curves), outcome.failure
    (1, None)
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from graphs.genome import Genome
from runners.checkpoints import Checkpoint
from runners.faults import CandidateFault
from runners.measuring import evaluate
from runners.objectives import ObjectiveError
from runners.outcome import Outcome
from runners.precision import check_device
from runners.recipe import Recipe
from runners.session import Session
from runners.task import Task

__all__ = ["evaluate", "train"]


def train(
    genome: Genome,
    recipe: Recipe,
    task: Task,
    seed: int = 0,
    *,
    teacher: Genome | Sequence[Genome] | None = None,
    threads: int | None = None,
    device: str = "cpu",
    newest: int | None = None,
    report: Callable[[dict[str, Any]], None] | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
) -> Outcome:
    """Trains a network on the training split and measures it on the validation split after each epoch.

    Args:
        genome: The network; where training starts. It is not changed.
        recipe: How to train.
        task: What to train on; its test split is not touched.
        seed: Of the order of the examples, of augmentation and of dropout.
        teacher: Network to distil from, as `recipe.distill` says, or several, whose probabilities are averaged; None
            for labels alone.
        threads: Number of CPU threads to compute with; None for those of the process. The result depends on it.
        device: `cpu`, `cuda` or `cuda:N`.
        newest: Number of the candidate whose mutation made the network; what appeared there is frozen last.
        report: Called with each epoch's entry of the curves, and `epochs`, as soon as it is there.
        checkpoint: File, ending in `.safetensors`, in which the state is written down after each epoch. Where it exists
            the training goes on from there, to the same bits as if it had never been interrupted. A loss or a metric
            of your own is known again by its code, settings and tensors, as far as Python shows them
            (`runners.likeness`), also in another process; what it hides, such as the inside of an extension, it may
            hide a change in, too.

    Returns:
        The trained network, that of the last epoch, with its validation accuracy and curves; or a failure: `diverged`,
        `out-of-memory`, or `invalid` where network and task do not fit. Exceptions of `report` pass through.

    Raises:
        FormatError: The checkpoint is damaged, or of another training.
        SettingsError: The recipe asks for what the task's examples cannot bear, or there is no such device.
        ObjectiveError: Several teachers, and no classes.
    """
    check_device(device)
    start = time.perf_counter()
    curves: list[dict[str, Any]] = []
    order, moves, masks = np.random.SeedSequence(seed).generate_state(3, np.uint64).tolist()
    with _threads(threads), _seeded(masks, device):
        try:
            recipe = recipe.resolved(task, device)
            teachers = [] if teacher is None else [teacher] if isinstance(teacher, Genome) else list(teacher)
            if not task.objective.classes and sum(len(each.graph.lasting_heads) for each in teachers) > 1:
                raise ObjectiveError(
                    f"several teachers are averaged as probabilities of classes, and {task.name} is a task of "
                    f"{task.objective.name}; name one with one output"
                )

            def made() -> Session:
                return Session(genome, recipe, task, teachers, device, order, moves, newest)

            session, kept, begun = made(), None, False
            if checkpoint is not None:
                kept = Checkpoint(
                    Path(checkpoint),
                    {
                        "objective": dict(task.objective.own),
                        "network": genome.digest,
                        "recipe": recipe.model_dump(mode="json"),
                        "data": {name: task.spec[name] for name in ("digest", "limit", "others") if name in task.spec},
                        "teachers": [each.digest for each in teachers],
                        "seed": seed,
                        "threads": torch.get_num_threads(),
                        "device": torch.device(device).type,
                    },
                )
                begun = kept.read_into(session)
            if recipe.minutes is not None and not begun:
                with _seeded(masks, device):
                    pace = made().pace()
                left = 60 * recipe.minutes - (time.perf_counter() - start)
                session.recipe = session.recipe.changed(epochs=max(1, int(left / pace)))
            curves = session.curves
            while len(curves) < session.recipe.epochs:
                entry = session.epoch()
                if kept is not None:
                    kept.write(session)
                if report is not None:
                    report(entry | {"epochs": session.recipe.epochs})
            trained = session.trained()
        except CandidateFault as fault:
            seconds = time.perf_counter() - start
            return Outcome(None, None, curves=curves, failure=fault.failure, seconds=seconds)
    seconds = time.perf_counter() - start
    return Outcome(trained, curves[-1]["val_accuracy"], curves=curves, seconds=seconds, members=session.kept)


@contextlib.contextmanager
def _threads(count: int | None) -> Iterator[None]:
    """Computes with `count` threads inside."""
    before = torch.get_num_threads()
    if count is not None and count != before:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        if torch.get_num_threads() != before:
            torch.set_num_threads(before)


@contextlib.contextmanager
def _seeded(seed: int, device: str) -> Iterator[None]:
    """Seeds torch's own generators inside, from which dropout draws, and has cuDNN choose repeatable algorithms."""
    place = torch.device(device)
    devices = [place] if place.type == "cuda" else []
    before = torch.backends.cudnn.deterministic
    with torch.random.fork_rng(devices=devices):
        torch.default_generator.manual_seed(seed)
        if devices:
            with torch.cuda.device(place):
                torch.cuda.manual_seed(seed)
        torch.backends.cudnn.deterministic = True
        try:
            yield
        finally:
            torch.backends.cudnn.deterministic = before
