"""What teachers say of the examples, and which examples there are to ask them about.

Where nothing is augmented a teacher says the same of an example in every epoch, and in every training in this process:
it is asked once, in large batches, and `Teachers` looks its answers up. Whether it does depends on the recipe and the
number of examples alone, so a training comes to the same bits in any process.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from graphs.errors import ShapeError
from graphs.genome import Genome
from runners.ensembles import agreed
from runners.feeding import Feed
from runners.measuring import BATCH, built, check_fit, logits
from runners.recipe import Recipe
from runners.task import Split, Task

__all__ = ["LARGEST", "Teachers", "check_speaks"]

LARGEST = 1 << 28
"""A teacher's answers are kept up to this many bytes; beyond, it is asked for every batch."""

_TEACHERS = 4
_kept: OrderedDict[tuple[Any, ...], tuple[Tensor, ...]] = OrderedDict()
"""The answers of the teachers asked last: the logits `(examples, classes)` of each head, on the device."""


def check_speaks(heads: Sequence[str], task: Task) -> None:
    """Checks that a network with heads of these names can teach: that one of them is for the main classes.

    Raises:
        ShapeError: None is.
    """
    if task.others.keys() >= set(heads):
        raise ShapeError(
            f"no head of a teacher tells the {task.classes} classes of {task.name} apart: its heads are "
            f"{', '.join(heads)}; give it one for '{task.main}' too"
        )


class Teachers:
    """Networks to distil from; what they say is of the main classes.

    Args:
        genomes: The networks.
        recipe: How the student trains: the precision and the augmentation are the teachers', too.
        task: Whose images the teachers see.
        examples: What the student learns from.
        feed: The same on the device.

    Raises:
        ShapeError: A teacher does not fit the task.
    """

    def __init__(self, genomes: Sequence[Genome], recipe: Recipe, task: Task, examples: Split, feed: Feed) -> None:
        for genome in genomes:
            check_fit(genome.graph, task)
            check_speaks([head.name for head in genome.graph.lasting_heads], task)
        self._genomes, self._feed, self._strange = genomes, feed, frozenset(task.others)
        self._bfloat16 = recipe.precision == "bfloat16"
        size = 4 * len(feed) * task.classes
        self._same = not (recipe.flip or recipe.crop or recipe.cutout or recipe.mixup) and size <= LARGEST
        self._key: tuple[Any, ...] = ()
        if self._same and genomes:
            content = np.ascontiguousarray(examples.images.numpy()).data
            images = task.spec["digest"] if examples.mapped else hashlib.blake2b(content).digest()
            how = (str(feed.device), recipe.precision, torch.get_num_threads())
            self._key = (images, examples.images.shape, str(task.normalisation), *how)
        self._answers: list[Tensor] = []
        self._modules: list[nn.Module] = []

    def __len__(self) -> int:
        return len(self._genomes)

    def say(self, rows: Tensor, images: Tensor) -> Tensor:
        """Logits `(N, classes)` of the examples with the numbers `rows`, of which the student sees `images`."""
        if self._same:
            self._answers = self._answers or [head for each in self._genomes for head in self._all(each)]
            return agreed([head.index_select(0, rows.to(head.device)) for head in self._answers])
        self._modules = self._modules or [self._built(each) for each in self._genomes]
        return agreed([head for each in self._modules for head in self._ask(each, images)])

    def _all(self, genome: Genome) -> tuple[Tensor, ...]:
        """What a teacher says of all examples, from memory where it was asked before."""
        key = (genome.digest, *self._key)
        if key not in _kept:
            module = self._built(genome)
            batches = self._feed.batches(BATCH.get(self._feed.device.type, 128))
            parts = [self._ask(module, images) for images, _ in batches]
            _kept[key] = tuple(torch.cat(head) for head in zip(*parts, strict=True))
            while len(_kept) > _TEACHERS:
                _kept.popitem(last=False)
        _kept.move_to_end(key)
        return _kept[key]

    def _built(self, genome: Genome) -> nn.Module:
        return built(genome, str(self._feed.device)).eval().requires_grad_(False)

    def _ask(self, module: nn.Module, images: Tensor) -> list[Tensor]:
        with torch.no_grad(), torch.autocast(self._feed.device.type, torch.bfloat16, enabled=self._bfloat16):
            output = module(images)
        if isinstance(output, dict):
            output = {name: head for name, head in output.items() if name not in self._strange}
        return logits(output)
