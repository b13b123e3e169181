"""Candidates of a run as an ensemble: what they are worth alone and together.

How much each counts is fitted on the validation split alone. On that same split the fitted ensemble looks better than
it is; what it is worth says the test split, which is touched only where that is asked for.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from evolve.decisions import scored
from evolve.ranking import rank, sound
from graphs.errors import EvolutionError

if TYPE_CHECKING:
    from evolve.runs import Run

__all__ = ["EnsembleError", "ensemble"]

FEWEST = 2


class EnsembleError(EvolutionError, ValueError):
    """Fewer than two candidates, one of them twice, or a task that is not one of classes."""


def ensemble(
    run: Run | str | os.PathLike[str],
    candidates: Sequence[int] | None = None,
    *,
    top: int = 5,
    test: bool = False,
    device: str = "cpu",
) -> dict[str, Any]:
    """Measures candidates of a run as an ensemble.

    Args:
        run: A run, or the path of one.
        candidates: Which ones; by default the `top` best on the validation split.
        top: How many.
        test: Whether the test split is measured, too.
        device: Where to compute.

    Returns:
        `candidates`, ids; `weights`, how much each counts, fitted on the validation split; and for `validation`, and
        for `test` where that is asked for, the `runners.ensembles.report` of all counted equally, with
        `weighted_accuracy`, that with these weights. Where the candidates' outputs tell several label sets apart, that
        is of the one that candidates are ranked by, and `tasks` holds `weights` and the reports of each.

    Raises:
        EnsembleError: There are fewer than two, one is given twice, or the task has no classes.
        NotTrained: One has no trained weights.
        EvolutionError: There is no such run or candidate, or its data has changed.
    """
    from evolve.runs import Run, open_run
    from runners.ensembles import agreed, by_label_set, fitted_weights, report
    from runners.precision import check_device
    from runners.task import Task

    check_device(device)

    opened = run if isinstance(run, Run) else open_run(run)
    snapshot = opened.lineage.snapshot()
    if candidates is None:
        best = sorted(sound(scored(snapshot.proposals, snapshot.results)), key=rank, reverse=True)
        candidates = [one.id for one in best[:top]]
    if len(candidates) < FEWEST or len(set(candidates)) < len(candidates):
        raise EnsembleError(
            f"an ensemble is of two different candidates or more, got {list(candidates)} of {opened.path}"
        )
    task = Task.from_spec(snapshot.meta["task"])
    if not task.objective.classes:
        raise EnsembleError(
            f"an ensemble averages probabilities of classes, and {task.name} is a task of {task.objective.name}"
        )
    genomes = [opened.candidate(number).genome() for number in candidates]
    tasks: dict[str, dict[str, Any]] = {}
    for split in ("validation", "test") if test else ("validation",):
        said = [by_label_set(each, task, split, device=device) for each in genomes]
        for name in said[0]:  # no mutation drops an output or gives it another name
            members = [agreed(list(each[name].values())) for each in said]
            labels = task.split(split).labels_of(name)
            found = tasks.setdefault(name, {})
            if split == "validation":
                found["weights"] = fitted_weights(members, labels)
            weighted = report(members, labels, found["weights"])["accuracy"]
            found[split] = {**report(members, labels), "weighted_accuracy": weighted}
    ranked = next(iter(tasks.values()))
    return {"candidates": list(candidates), **ranked} | ({"tasks": tasks} if len(tasks) > 1 else {})
