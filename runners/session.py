"""One training under way: what it holds, one epoch of it, and its state between two epochs.

All that the next epoch depends on is in `state`: the weights, the optimiser's moments by name, the average of the
weights, the generators, the curves, and what was kept. A session that is given it goes on to the same bits as one that
was never interrupted.
"""

from __future__ import annotations

import itertools
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from graphs.genome import Genome
from graphs.modules import genome_from_module
from runners.augmentation import mixed
from runners.ensembles import every_head, report
from runners.faults import CandidateFault, candidate_faults
from runners.feeding import Feed, shuffled
from runners.freezeout import Stage, speedup
from runners.freezing import Freezer
from runners.hydra import Weights, body, weighted_norms
from runners.label_sets import scores
from runners.losses import Targets, candidate_loss, example_losses
from runners.measuring import built, check_fit, logits, measure, memory_format
from runners.optimizers import load_moments, make_optimizer, moments
from runners.outcome import finite
from runners.recipe import Recipe
from runners.schedules import cycle, learning_rate
from runners.task import Task
from runners.teaching import Teachers
from runners.transfer import transfer_images, widened
from runners.warm_start import shrunk

__all__ = ["Session"]

CHECK_EVERY = {"cpu": 1, "cuda": 20}
"""After how many steps, by type of device, the loss is looked at: on a GPU a look waits for all that is under way."""

WARM, TIMED = 3, 8
"""Steps of `pace` before the clock runs, and while it does."""


class Session:
    """A network in training: module, optimiser, teacher, examples, generators.

    Args:
        genome: Where training starts.
        recipe: How to train; nothing in it is open.
        task: What to train on.
        teachers: Networks to distil from.
        device: Where to compute.
        order: Seed of the order of the examples.
        moves: Seed of augmentation.
        newest: Number of the candidate whose mutation made the network.

    Attributes:
        recipe: How it trains; the epochs are those that freezing buys, where they are to be spent, or minutes.
        curves: An entry for each epoch so far.
        kept: The networks at the ends of the last cycles but the last, which `trained` gives, oldest first.

    Raises:
        CandidateFault: The network cannot be built, or does not fit the task.
    """

    def __init__(
        self,
        genome: Genome,
        recipe: Recipe,
        task: Task,
        teachers: Sequence[Genome],
        device: str,
        order: int,
        moves: int,
        newest: int | None = None,
    ) -> None:
        self._device = torch.device(device)
        self._order = torch.Generator().manual_seed(order)
        self._moves = torch.Generator().manual_seed(moves)
        self._objective = task.objective
        self._averaged: AveragedModel | None = None
        self._stages: list[Stage] = []
        self._weights: Weights | None = None
        self._body: frozenset[str] = frozenset()
        with candidate_faults("building the network"):
            check_fit(genome.graph, task)
            if recipe.hydra is not None:
                genome = recipe.hydra.heads_of(genome, task, order % 2**63)
            layout = memory_format(genome.graph)
            train, distill = task.train, recipe.distill
            if teachers and distill.transfer is not None:
                train = widened(train, transfer_images(distill.transfer, task, distill.transfer_digest)[0])
            self._heads = [head.name for head in genome.graph.heads]
            self._others = frozenset(task.others).intersection(self._heads)
            alone = recipe.hydra is not None
            self._sets = {head: head if alone else task.label_set_of(head) for head in self._heads}
            self._train = Feed(task, train, device, layout)
            self._validation = Feed(task, task.validation, device, layout)
            if recipe.freezeout is not None:
                self._stages = recipe.freezeout.stages(genome.graph, newest)
                if recipe.freezeout.const_time:
                    saved = speedup(genome.graph, recipe.freezeout)
                    recipe = recipe.changed(epochs=max(recipe.epochs, round(recipe.epochs / (1 - saved))))
            self.recipe, self._genome = recipe, shrunk(genome, recipe, order)
            self._module = built(self._genome, device)
            if recipe.hydra is not None:
                self._body = body(genome.graph, recipe.hydra.split_point)
                even = recipe.hydra.weights == "even"
                self._norms = weighted_norms(genome, self._module, self._body, even)
                count, most = len(train), recipe.batch
                self._weights = Weights(recipe.hydra, len(genome.graph.heads), count, most, order % 2**63, device)
            self._freezer = Freezer(genome, self._module)
            self._optimizer = make_optimizer(genome, self._module, recipe, self._groups())
            if recipe.ema:
                self._averaged = AveragedModel(self._module, multi_avg_fn=_averaging(recipe.ema), use_buffers=True)
        with candidate_faults("building the teacher"):
            asked = teachers if recipe.distill.weight else ()
            self._teachers = Teachers(asked, recipe, task, train, self._train)
        self._step = 0
        self.curves: list[dict[str, Any]] = []
        self.kept: list[Genome] = []

    def epoch(self) -> dict[str, Any]:
        """Trains for one epoch and measures; returns its entry of the curves.

        Raises:
            CandidateFault: It failed.
        """
        recipe, number = self.recipe, len(self.curves) + 1
        parts = shuffled(len(self._train), recipe.batch, self._order)
        steps = len(parts) * recipe.epochs
        if steps < recipe.cycles:
            raise CandidateFault(
                "invalid",
                f"{recipe.cycles} cycles need as many steps, and {recipe.epochs} epochs have {steps}; ask for fewer "
                "cycles, more epochs or smaller batches",
            )
        losses = [entry["val_loss"] for entry in self.curves]
        rate = learning_rate(recipe, self._step, steps, losses)
        begun = self._step
        total = torch.zeros((), device=self._device)
        every = CHECK_EVERY.get(self._device.type, 1)
        with candidate_faults(f"epoch {number}"):
            self._freezer.train()
            for place, rows in enumerate(parts, start=1):
                self._set_rates(steps, losses)
                total += self._learn(rows, self._step / steps) * len(rows)
                self._step += 1
                if place % every == 0 or place == len(parts):
                    seen = total.item()
                    if not math.isfinite(seen):
                        raise CandidateFault(
                            "diverged", f"the loss is {seen} after step {place} of {len(parts)} in epoch {number}"
                        )
                if recipe.snapshots > 1 and self._step < steps and cycle(self._step, steps, recipe.cycles)[0] == 0:
                    self.kept = [*self.kept, self._snapshot()][-(recipe.snapshots - 1) :]
            found = self._measure()
            accuracy, val_loss = found["accuracy"], found["loss"]
        if not math.isfinite(val_loss):
            raise CandidateFault("diverged", f"the validation loss is {val_loss} after epoch {number}")
        entry = {
            "epoch": number,
            "train_loss": seen / len(self._train),
            "val_loss": val_loss,
            "val_accuracy": accuracy,
            "lr": rate if not self._stages else recipe.lr * self._stages[-1].factor(begun, steps),
        }
        metric = self._objective.metric.name
        if metric in found and metric != "accuracy":
            entry[f"val_{metric}"] = finite(found[metric])
        if self._stages:
            entry["frozen"] = sum(stage.frozen(self._step, steps) for stage in self._stages)
        if "members" in found:
            entry |= {"heads": found["members"], "oracle": found["oracle"], "disagreement": found["disagreement"]}
        entry |= {f"val_accuracy_{name}": accuracy for name, accuracy in found.get("tasks", {}).items()}
        self.curves.append(entry)
        return entry

    def pace(self, clock: Callable[[], float] = time.perf_counter) -> float:
        """Seconds that an epoch with its look at the validation split takes, from some steps. It spoils the session.

        Raises:
            CandidateFault: It failed.
        """
        parts = shuffled(len(self._train), self.recipe.batch, self._order)
        endless = itertools.cycle(parts)
        with candidate_faults("measuring the pace"):
            self._freezer.train()
            for rows in itertools.islice(endless, WARM):
                self._learn(rows, 0.0).item()
            begin = clock()
            for rows in itertools.islice(endless, TIMED):
                self._learn(rows, 0.0).item()
            learnt = clock()
            self._measure()
        return len(parts) * (learnt - begin) / TIMED + clock() - learnt

    def _groups(self) -> list[frozenset[str]]:
        """The nodes that begin and end to learn together: of each stage those in the body, and those that are not.

        A group whose tensors differ in whether they have moments yet is refused by fused optimisers.
        """
        nodes = [frozenset(stage.nodes) for stage in self._stages] or [frozenset(self._genome.graph.nodes)]
        return [part for each in nodes for part in (each & self._body, each - self._body)]

    def _set_rates(self, steps: int, losses: list[float]) -> None:
        """Sets the rate of each group for the step to come, and freezes what has learned for its time."""
        frozen = [stage.frozen(self._step, steps) for stage in self._stages]
        nodes = {node for stage, done in zip(self._stages, frozen, strict=True) if done for node in stage.nodes}
        if self.recipe.hydra is not None and len(self.curves) < self.recipe.hydra.frozen:
            nodes |= self._body
        if nodes != self._freezer.nodes:
            self._freezer.freeze(nodes)
            self._freezer.train()
        if not self._stages:
            rate = learning_rate(self.recipe, self._step, steps, losses)
            for group in self._optimizer.param_groups:
                group["lr"] = rate
            return
        gone = [group for group in self._optimizer.param_groups if frozen[group["stage"] // 2]]
        if gone:
            for group in gone:
                for parameter in group["params"]:
                    self._optimizer.state.pop(parameter, None)
            self._optimizer.param_groups[:] = [
                group for group in self._optimizer.param_groups if not frozen[group["stage"] // 2]
            ]
        for group in self._optimizer.param_groups:
            group["lr"] = self.recipe.lr * self._stages[group["stage"] // 2].factor(self._step, steps)

    def _learn(self, rows: Tensor, progress: float) -> Tensor:
        """One step; returns the batch's loss."""
        recipe = self.recipe
        images, _ = self._train.take(rows, bool(recipe.flip), recipe.crop, self._moves, recipe.cutout)
        places = rows.to(self._device)
        labels = [self._train.labels_of(head).index_select(0, places) for head in self._heads]
        targets = [Targets(each, objective=self._objective) for each in labels]
        if recipe.mixup:
            images, others, share = mixed(images, recipe.mixup, self._moves)
            targets = [Targets(each, each[others], share, self._objective) for each in labels]
        weight = recipe.distill.weight_at(progress)
        weights = None if self._weights is None else self._weights.of(rows)
        if weights is not None:
            for mine, norms in zip(weights, self._norms.values(), strict=True):
                for norm in norms:
                    norm.weights = mine
        with torch.autocast(self._device.type, torch.bfloat16, enabled=recipe.precision == "bfloat16"):
            wanted = self._teachers.say(rows, images) if self._teachers and weight else None
            heads = logits(self._module(images))
        loss = candidate_loss(
            [
                example_losses(
                    head,
                    target,
                    None if name in self._others else wanted,
                    smoothing=recipe.label_smoothing,
                    how=recipe.distill.how,
                    weight=weight,
                    temperature=recipe.distill.temperature,
                )
                for name, head, target in zip(self._heads, heads, targets, strict=True)
            ],
            () if weights is None else list(weights),
            list(self._sets.values()),
        )
        if not self._step and not loss.requires_grad:
            raise CandidateFault("invalid", "the loss has no gradient: it does not follow from the network's outputs")
        self._optimizer.zero_grad()
        if loss.requires_grad:
            loss.backward()  # type: ignore[no-untyped-call]
            self._optimizer.step()
        if self._averaged is not None:
            self._averaged.update_parameters(self._module)
        return loss.detach()

    def _measure(self) -> Mapping[str, Any]:
        """Accuracy and loss on the validation split; of several heads, together and each alone."""
        graph, module = self._genome.graph, self._measured()
        if self.recipe.hydra is None and not self._others:
            return measure(module, graph, self._validation, self._objective)
        heads = every_head(module, graph, self._validation)
        if self._others:
            found = scores(heads, self._validation)
            accuracies = {name: accuracy for name, (accuracy, _) in found.items()}
            losses = [torch.tensor([loss], dtype=torch.float64) for _, loss in found.values()]
            return {
                "accuracy": next(iter(accuracies.values())),
                "loss": candidate_loss(losses, sets=[self._sets[name] for name in found]).item(),
                "tasks": accuracies,
            }
        average = "logits" if self.recipe.hydra is None else self.recipe.hydra.average
        members = list(heads.values())
        return report(members, self._validation.labels.cpu(), of=average)

    def _measured(self) -> nn.Module:
        return self._module if self._averaged is None else self._averaged.module

    def _snapshot(self) -> Genome:
        return genome_from_module(self._genome, self._measured())

    def trained(self) -> Genome:
        """The network as it is now.

        Raises:
            CandidateFault: A weight or a running statistic is not finite.
        """
        with candidate_faults("reading the weights back"):
            genome = self._snapshot()
            for name, tensor in genome.weights.items():
                if not tensor.isfinite().all():
                    raise CandidateFault("diverged", f"tensor '{name}' is not finite after the last epoch")
        return genome

    def state(self) -> tuple[dict[str, Tensor], str]:
        """All that the rest of the training depends on: tensors by name, and JSON."""
        tensors: dict[str, Tensor] = {
            "generator/order": self._order.get_state(),
            "generator/moves": self._moves.get_state(),
            "generator/masks": torch.get_rng_state(),
        }
        if self._device.type == "cuda":
            tensors["generator/cuda"] = torch.cuda.get_rng_state(self._device)
        tensors |= {f"weight/{name}": tensor for name, tensor in self._read(self._module).items()}
        if self._averaged is not None:
            tensors |= {f"average/{name}": tensor for name, tensor in self._read(self._averaged.module).items()}
            tensors["averaged"] = self._averaged.n_averaged.cpu()
        for name, roles in moments(self._genome, self._module, self._optimizer).items():
            tensors |= {f"moment/{role}/{name}": value.cpu() for role, value in roles.items()}
        for number, genome in enumerate(self.kept):
            tensors |= {f"kept/{number}/{name}": tensor for name, tensor in genome.weights.items()}
        values = {"step": self._step, "epochs": self.recipe.epochs, "curves": self.curves, "kept": len(self.kept)}
        return tensors, json.dumps(values)

    def restore(self, tensors: Mapping[str, Tensor], text: str) -> None:
        """Goes on where `state` was taken, in a session that was made with the same arguments."""
        values = json.loads(text)
        self._step, self.curves = values["step"], values["curves"]
        self.recipe = self.recipe.changed(epochs=values["epochs"])
        self._order.set_state(tensors["generator/order"])
        self._moves.set_state(tensors["generator/moves"])
        torch.set_rng_state(tensors["generator/masks"])
        if self._device.type == "cuda":
            torch.cuda.set_rng_state(tensors["generator/cuda"], self._device)
        self._write(self._module, tensors, "weight/")
        if self._averaged is not None:
            self._write(self._averaged.module, tensors, "average/")
            self._averaged.n_averaged.copy_(tensors["averaged"])
        found: dict[str, dict[str, Tensor]] = {}
        for name, value in tensors.items():
            if name.startswith("moment/"):
                _, role, parameter = name.split("/", 2)
                found.setdefault(parameter, {})[role] = value
        load_moments(self._genome, self._module, self._optimizer, found)
        self.kept = [
            Genome(self._genome.graph, _under(tensors, f"kept/{number}/"), self._genome.about)
            for number in range(values["kept"])
        ]

    def _read(self, module: nn.Module) -> dict[str, Tensor]:
        return dict(genome_from_module(self._genome, module).weights)

    def _write(self, module: nn.Module, tensors: Mapping[str, Tensor], prefix: str) -> None:
        targets = dict(module.named_parameters(remove_duplicate=False)) | dict(module.named_buffers())
        with torch.no_grad():
            for name, value in _under(tensors, prefix).items():
                targets[name].copy_(value)


def _averaging(decay: float) -> Callable[[Sequence[Tensor], Sequence[Tensor], Any], None]:
    """What brings averages, all of one type, a step further; whole numbers, such as counts of batches, are copied."""
    average = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]

    @torch.no_grad()
    def step(averages: Sequence[Tensor], now: Sequence[Tensor], count: Any) -> None:
        if averages[0].is_floating_point():
            average(averages, now, count)
            return
        for kept, new in zip(averages, now, strict=True):
            kept.copy_(new)

    return step


def _under(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
