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
import math
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from graphs.genome import Genome
from graphs.modules import genome_from_module
from runners.faults import CandidateFault, candidate_faults
from runners.feeding import Feed, shuffled
from runners.losses import candidate_loss
from runners.measuring import built, check_fit, evaluate, logits, measure, memory_format
from runners.optimizers import learning_rate, make_optimizer
from runners.outcome import Outcome
from runners.recipe import Recipe
from runners.task import Task

__all__ = ["evaluate", "train"]

CHECK_EVERY = {"cpu": 1, "cuda": 20}
"""After how many steps, by type of device, the loss is looked at: on a GPU a look waits for all that is under way."""


def train(
    genome: Genome,
    recipe: Recipe,
    task: Task,
    seed: int = 0,
    *,
    teacher: Genome | None = None,
    threads: int | None = None,
    device: str = "cpu",
    report: Callable[[dict[str, Any]], None] | None = None,
) -> Outcome:
    """Trains a network on the training split and measures it on the validation split after each epoch.

    Args:
        genome: The network; where training starts. It is not changed.
        recipe: How to train.
        task: What to train on; its test split is not touched.
        seed: Of the order of the examples, of augmentation and of dropout.
        teacher: Network to distil from, with `recipe.distill_weight`; None for labels alone.
        threads: Number of CPU threads to compute with; None for those of the process. The result depends on it.
        device: `cpu`, `cuda` or `cuda:N`.
        report: Called with each epoch's entry of the curves, and `epochs`, as soon as it is there.

    Returns:
        The trained network, that of the last epoch, with its validation accuracy and curves; or a failure: `diverged`,
        `out-of-memory`, or `invalid` where network and task do not fit. Exceptions of `report` pass through.
    """
    start = time.perf_counter()
    curves: list[dict[str, Any]] = []
    order, moves, masks = np.random.SeedSequence(seed).generate_state(3, np.uint64).tolist()
    with _threads(threads), _seeded(masks, device):
        try:
            session = _Session(genome, recipe.resolved(task, device), task, teacher, device, order, moves)
            for epoch in range(1, recipe.epochs + 1):
                curves.append(session.epoch(epoch))
                if report is not None:
                    report(curves[-1] | {"epochs": recipe.epochs})
            trained = session.trained()
        except CandidateFault as fault:
            seconds = time.perf_counter() - start
            return Outcome(None, None, curves=curves, failure=fault.failure, seconds=seconds)
    seconds = time.perf_counter() - start
    return Outcome(trained, curves[-1]["val_accuracy"], curves=curves, seconds=seconds)


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


class _Session:
    """One training under way: module, optimiser, teacher, examples, and the generators seeded with `order` and `moves`.

    Raises:
        CandidateFault: The network cannot be built, or does not fit the task.
    """

    def __init__(
        self,
        genome: Genome,
        recipe: Recipe,
        task: Task,
        teacher: Genome | None,
        device: str,
        order: int,
        moves: int,
    ) -> None:
        self._genome, self._recipe, self._device = genome, recipe, torch.device(device)
        self._order = torch.Generator().manual_seed(order)
        self._moves = torch.Generator().manual_seed(moves)
        self._teacher: nn.Module | None = None
        with candidate_faults("building the network"):
            layout = memory_format(genome.graph)
            self._train = Feed(task, task.train, device, layout)
            self._validation = Feed(task, task.validation, device, layout)
            check_fit(genome.graph, task)
            self._module = built(genome, device)
            self._optimizer = make_optimizer(genome, self._module, recipe)
        if teacher is not None and recipe.distill_weight > 0:
            with candidate_faults("building the teacher"):
                check_fit(teacher.graph, task)
                self._teacher = built(teacher, device).eval().requires_grad_(False)
        self._step = 0

    def epoch(self, number: int) -> dict[str, Any]:
        """Trains for one epoch and measures; returns its entry of the curves.

        Raises:
            CandidateFault: It failed.
        """
        recipe = self._recipe
        parts = shuffled(len(self._train), recipe.batch, self._order)
        steps = len(parts) * recipe.epochs
        rate = learning_rate(recipe, self._step, steps)
        total = torch.zeros((), device=self._device)
        every = CHECK_EVERY.get(self._device.type, 1)
        self._module.train()
        with candidate_faults(f"epoch {number}"):
            for place, rows in enumerate(parts, start=1):
                for group in self._optimizer.param_groups:
                    group["lr"] = learning_rate(recipe, self._step, steps)
                total += self._learn(rows) * len(rows)
                self._step += 1
                if place % every == 0 or place == len(parts):
                    seen = total.item()
                    if not math.isfinite(seen):
                        raise CandidateFault(
                            "diverged", f"the loss is {seen} after step {place} of {len(parts)} in epoch {number}"
                        )
            accuracy, val_loss = measure(self._module, self._genome.graph, self._validation)
        if not math.isfinite(val_loss):
            raise CandidateFault("diverged", f"the validation loss is {val_loss} after epoch {number}")
        return {
            "epoch": number,
            "train_loss": seen / len(self._train),
            "val_loss": val_loss,
            "val_accuracy": accuracy,
            "lr": rate,
        }

    def _learn(self, rows: Tensor) -> Tensor:
        """One step; returns the batch's loss."""
        recipe = self._recipe
        images, labels = self._train.take(rows, bool(recipe.flip), recipe.crop, self._moves)
        with torch.autocast(self._device.type, torch.bfloat16, enabled=recipe.precision == "bfloat16"):
            wanted = None
            if self._teacher is not None:
                with torch.no_grad():
                    wanted = logits(self._teacher(images))[0]
            heads = logits(self._module(images))
        loss = candidate_loss(
            heads,
            labels,
            wanted,
            label_smoothing=recipe.label_smoothing,
            distill_weight=recipe.distill_weight,
            temperature=recipe.temperature,
        )
        self._optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self._optimizer.step()
        return loss.detach()

    def trained(self) -> Genome:
        """The network as it is now.

        Raises:
            CandidateFault: A weight or a running statistic is not finite.
        """
        with candidate_faults("reading the weights back"):
            genome = genome_from_module(self._genome, self._module)
            for name, tensor in genome.weights.items():
                if not tensor.isfinite().all():
                    raise CandidateFault("diverged", f"tensor '{name}' is not finite after the last epoch")
        return genome
