"""A pool without processes: it trains nothing, answers what a test says, in the order that a test says."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any

from evolve.settings import Settings
from runners import Job, Outcome

if TYPE_CHECKING:
    from graphs import Genome
    from runners import Task

Answer = Callable[[Job], Outcome]


def trained(job: Job) -> Outcome:
    """An accuracy and weights that depend on the job alone, as those of a training do."""
    from graphs import Genome

    text = f"{job.genome.digest} {job.seed} {[teacher.digest for teacher in job.teachers]} {job.recipe.epochs}"
    draw = int(hashlib.sha256(text.encode()).hexdigest()[:8], 16) / 2**32
    weights = {
        name: tensor * (1 + 0.01 * draw) if tensor.is_floating_point() else tensor
        for name, tensor in job.genome.weights.items()
    }
    genome = Genome(job.genome.graph, weights, job.genome.about)
    test = draw / 2 if job.measure == "evaluate-test" else None
    return Outcome(genome, round(draw, 3), test, ({"epoch": 1, "val_accuracy": draw},), seconds=draw)


class FakePool:
    """Answers jobs by `answer`, the one that `pick` chooses among those under way first, one at each `wait`."""

    def __init__(
        self,
        answer: Answer = trained,
        pick: Callable[[Sequence[int]], int] = min,
        before_wait: Callable[[FakePool], None] = lambda pool: None,
    ) -> None:
        self.answer = answer
        self.pick = pick
        self.before_wait = before_wait
        self.jobs: list[Job] = []
        self.open: dict[int, Job] = {}
        self.most = 0
        self.closed = False

    free = 1000

    def submit(self, job: Job) -> None:
        assert job.id not in self.open
        self.jobs.append(job)
        self.open[job.id] = job
        self.most = max(self.most, len(self.open))

    def wait(self, timeout: float) -> list[tuple[int, Outcome]]:
        self.before_wait(self)
        if not self.open or timeout == 0:
            return []
        number = self.pick(sorted(self.open))
        return [(number, self.answer(self.open.pop(number)))]

    def cancel(self, job: int) -> bool:
        return self.open.pop(job, None) is not None

    def close(self) -> None:
        self.closed = True

    def __enter__(self) -> FakePool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def small(**changes: Any) -> Settings:
    """Settings of a search that costs little: few digits, a small network, one worker."""
    known: dict[str, Any] = {
        "limit": 200,
        "candidates": 6,
        "workers": 1,
        "pool": "local",
        "seed": 3,
        "probe": 8,
        "model_settings": {"width": 4},
        "recipe": {"epochs": 1, "batch": 16, "lr": 0.05, "precision": "float32"},
    }
    return Settings(**(known | changes))


def beyond_a_table() -> tuple[Genome, Task]:
    """A network that looks words up behind arithmetic, and a task whose test split has one that the table has not."""
    import torch
    from torch import nn
    from torch.utils.data import TensorDataset

    from graphs import from_torch
    from runners import Task

    class Words(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table, self.last = nn.Embedding(10, 4), nn.Linear(4, 3)

        def forward(self, words: Any) -> Any:
            return self.last(self.table(words - 1).mean(1))

    words = torch.randint(1, 10, (40, 4), generator=torch.Generator().manual_seed(0))
    beyond = words.clone()
    beyond[3, 1] = 12
    with torch.random.fork_rng():
        torch.manual_seed(0)
        genome = from_torch(Words(), words[:2])
    return genome, Task(*(TensorDataset(each, words[:, 0] % 3) for each in (words, words, beyond)))
