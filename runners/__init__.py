"""Training candidates, and the places where that happens.

A **job** is a genome, a recipe, a task and a seed; what comes back is an **outcome**: the trained genome with
its accuracy and curves, or a failure as a value. In this process that is one call:

    outcome = runners.train(genome, runners.Recipe(epochs=2), runners.Task.named("digits"), seed=0)

Many candidates go to a **pool**, which runs jobs on workers and never lets one of them take the search down:

    with runners.open_pool("local", workers=2) as pool:
        pool.submit(runners.Job(id=0, genome=genome, recipe=recipe, task_spec=task.spec, seed=7))
        for job, outcome in pool.wait(timeout=60):
            print(job, outcome.failure or outcome.val_accuracy)

How the floor is built, from the wire up:

- `recipe`, `presets`: how to train, as a value of parts; `schedules`, `losses`, `augmentation`, `freezeout`,
  `hydra`: the parts; `session`: one training under way, which can be taken up between two epochs; `ensembles`:
  snapshots and heads together.
- `outcome`, `jobs`: the values, how they travel (JSON and safetensors, no pickle), and what a worker does
  with a job.
- `worker`, `frames`, `local_pool`: processes of this machine, spoken to over pipes.
- `ray_pool`: the same over Ray, on this machine or a cluster; the only module that imports it.
- `dispatch`: deadlines, retries and what is believed of a result, written once for all pools.
- `pools`: the contract of a pool, and the table `POOLS`.

The same job gives the same weights, to the last bit, in each of these places, on the same number of threads.
Importing this package is cheap: torch comes with the first genome, Ray with the first Ray pool.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from runners.jobs import Job
    from runners.objectives import Metric
    from runners.outcome import FAILURES, Failure, Outcome
    from runners.pools import POOLS, Pool, open_pool
    from runners.recipe import Recipe
    from runners.task import Task
    from runners.training import evaluate, train

__all__ = [
    "FAILURES",
    "POOLS",
    "Failure",
    "Job",
    "Metric",
    "Outcome",
    "Pool",
    "Recipe",
    "Task",
    "evaluate",
    "open_pool",
    "train",
]

_HOMES = {
    "FAILURES": "runners.outcome",
    "POOLS": "runners.pools",
    "Failure": "runners.outcome",
    "Job": "runners.jobs",
    "Metric": "runners.objectives",
    "Outcome": "runners.outcome",
    "Pool": "runners.pools",
    "Recipe": "runners.recipe",
    "Task": "runners.task",
    "evaluate": "runners.training",
    "open_pool": "runners.pools",
    "train": "runners.training",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'runners' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
