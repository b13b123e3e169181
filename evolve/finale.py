"""The end of a search: the test split is touched, once, for the winner and for its control.

The control is the starting network trained for as many epochs, or minutes, as the winner's whole line got, by the same
recipe and the same named teacher, its schedule stretched over all of them. Without it nobody could say whether the
search found a better network, or merely trained longer. Both measurements are durable, so that a resumed run does not
repeat them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from evolve.decisions import family_line, is_broken, winner
from evolve.events import Measuring
from evolve.loop import PAUSE, SearchFailed
from evolve.seeds import seed_of

if TYPE_CHECKING:
    from evolve.loop import Search
    from runners import Outcome, Recipe, Task
    from runners.pools import Pool

__all__ = ["conclude"]


def conclude(search: Search, pool: Pool, task: Task) -> None:
    """Measures the winner and the control, and writes that the search has ended.

    Raises:
        Interrupted: A signal came first; a resumed run goes on here.
        SearchFailed: The winner cannot be measured; the candidates are kept.
    """
    best = winner(search.proposals, search.results)
    if best is None:  # the starting network has not failed, so there is one
        raise ValueError("a search without any finished candidate cannot end")
    line = family_line(search.proposals, best)
    recipe = stretched(search.settings.recipe, len(line))
    length = f"{recipe.epochs} epochs" if recipe.minutes is None else f"{recipe.minutes:g} minutes"
    if "winner" not in search.controls:
        search.tell(Measuring(f"measuring candidate {best}, the best one, on the test split"))
        _keep(search, "winner", {"candidate": best, **_tested(search, task, best)})
    if "control" not in search.controls:
        if len(line) == 1:  # the best one is the starting network, trained for exactly that long
            epochs = len(search.results[best].curves) if recipe.minutes is not None else recipe.epochs
            found = {**search.controls["winner"], "epochs": epochs, "failure": None, "weights": None}
            del found["candidate"]
            _keep(search, "control", found)
        else:
            search.tell(
                Measuring(
                    f"for comparison, training the starting network for {length}, as long as "
                    f"the line of candidate {best} got"
                )
            )
            _keep(search, "control", _control(search, pool, task, recipe, len(line)))
    _end(search)


def _keep(search: Search, name: str, control: dict[str, Any]) -> None:
    search.writer.control(name, control)
    search.controls[name] = control
    search.write_status()


def _tested(search: Search, task: Task, candidate: int) -> dict[str, Any]:
    """Accuracy and loss of a trained candidate on the test split."""
    import torch

    from runners import evaluate
    from runners.faults import CandidateFault, candidate_faults

    wanted = search.settings.device or "cpu"
    device = wanted if wanted == "cpu" or torch.cuda.is_available() else "cpu"
    genome = search.trained(candidate)
    try:
        with candidate_faults(f"measuring candidate {candidate} on the test split"):
            found = evaluate(genome, task, "test", device=device)
    except CandidateFault as fault:
        failed = SearchFailed(f"the candidates are trained, and kept in {search.folder.path}, but {fault}")
        if fault.failure.kind == "invalid":
            failed.exit_code = 2
        raise failed from fault
    return {
        "val_accuracy": search.results[candidate].val_accuracy,
        "test_accuracy": float(found["accuracy"]),
        "test_loss": float(found["loss"]),
        "examples": int(found["examples"]),
    }


def stretched(recipe: Recipe, times: int) -> Recipe:
    """The recipe for so many times the epochs, or the minutes."""
    minutes = None if recipe.minutes is None else recipe.minutes * times
    return recipe.changed(epochs=recipe.epochs * times, minutes=minutes)


def _control(search: Search, pool: Pool, task: Task, recipe: Recipe, times: int) -> dict[str, Any]:
    """Trains the starting network by `recipe`, so many times as long, and measures it on the test split."""
    from runners import Job

    settings = search.settings
    job = Job(
        id=settings.candidates,  # no candidate's id
        genome=search.start(),
        recipe=recipe,
        task_spec=task.spec,
        seed=seed_of(settings.seed, 0, "control"),
        teachers=search.teachers(search.proposals[0].teaching),
        deadline=settings.deadline * times,
        threads=settings.threads or 1,
        measure="evaluate-test",
        device=settings.device or "cpu",
    )
    pool.submit(job)
    outcome: Outcome | None = None
    while outcome is None:
        search.check()
        outcome = dict(pool.wait(PAUSE)).get(job.id)
    search.check()
    return {
        "epochs": recipe.epochs if recipe.minutes is None else len(outcome.curves),
        "val_accuracy": outcome.val_accuracy,
        "test_accuracy": outcome.test_accuracy,
        "failure": outcome.failure.to_json() if outcome.failure else None,
        "weights": search.folder.save_genome(outcome.genome) if outcome.genome else None,
        "seconds": outcome.seconds,
        "worker": outcome.worker,
        "seed": job.seed,
    }


def _end(search: Search) -> None:
    """Writes why the search has ended, and which candidates broke their promise."""
    failed = sum(result.failure is not None for result in search.results.values())
    broken = [proposal for proposal in search.proposals if is_broken(proposal)]
    message = f"{len(search.results)} candidates are finished, {failed} of them failed"
    if search.exhausted is not None:
        message += f"; ended early: {search.exhausted}"
    if broken:
        named = ", ".join(f"{one.id} ({(one.record or {}).get('operator')})" for one in broken)
        message += f"; broke their promise and were not trained: {named}"
    reason = "complete" if search.exhausted is None else "exhausted"
    search.writer.end(reason, message)
    search.meta["ended"] = {"reason": reason, "message": message}
