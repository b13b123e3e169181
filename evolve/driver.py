"""The search: `search` begins a run, `resume` goes on with one, and both do the same from there.

Each step is durable before the next depends on it: a candidate is in the lineage before it is handed to the
pool, its weights are on the disk before its outcome is in the lineage. So a search that is killed between any
two instructions loses only what was being trained: `resume` reads the lineage, hands out again what has no
outcome, and goes on deciding from what is there. In strict order, or with one worker, the result is the same
as without the interruption.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from evolve.events import Decoding, Watcher
from evolve.finale import conclude
from evolve.interrupts import Stop
from evolve.lineage import Proposal
from evolve.lineage_writer import Writer
from evolve.loop import Search
from evolve.run_folder import RunFolder
from evolve.runs import Run
from evolve.seeds import seed_of
from evolve.settings import Settings
from evolve.starting import named_teacher, starting_network, starting_task
from evolve.teachers import teaching

if TYPE_CHECKING:
    from graphs import Genome
    from runners import Task
    from runners.pools import Pool

__all__ = ["MOVABLE", "resume", "search"]

MOVABLE = ("data_root", "download", "pool", "ray")
"""Settings that `resume` may be given anew: where things are, never what they compute."""


def search(settings: Settings, on_event: Watcher | None = None, *, through: Pool | None = None) -> Run:
    """Searches from the start to the end.

    Args:
        settings: What to search and how.
        on_event: Called with each `evolve.events.Event`.
        through: A pool that is open already; by default one is opened for this search, as the settings say, and closed
            after it.

    Returns:
        The run, ended: its best candidate and the control are measured on the test split.

    Raises:
        Interrupted: SIGINT or SIGTERM came; `resume` goes on.
        SearchFailed: The starting network failed, or the best one cannot be measured on the test split.
        EvolutionError: Settings, data, network or folder are not right, or the machine failed.
    """
    with Stop() as stop:
        RunFolder.check_free(settings.run)
        task = starting_task(settings, report=_decoding(on_event))
        settings = settings.resolved(task)
        start, teacher = starting_network(settings, task), named_teacher(settings, task)
        stop.check("the run had not begun, nothing was kept")

        def fill(folder: RunFolder) -> None:
            _begin(folder, settings, task, start, teacher)

        with RunFolder.create(settings.run, fill) as folder:
            return _drive(folder, settings, task, on_event, through, stop, fresh=True)


def resume(
    path: str | os.PathLike[str],
    on_event: Watcher | None = None,
    *,
    through: Pool | None = None,
    **moved: Any,
) -> Run:
    """Goes on with the run at `path` to its end; does nothing more to one that has ended.

    Args:
        path: The run's folder.
        on_event: As for `search`.
        through: A pool that is open already, as for `search`.
        **moved: Settings of `MOVABLE` that are different now.

    Raises:
        RunError: There is no run at `path`.
        RunLocked: Another process searches there.
        FormatError: Its lineage or its weights are damaged.
        EvolutionError: As for `search`.
    """
    for name in moved:
        if name not in MOVABLE:
            raise TypeError(f"resume() takes {', '.join(MOVABLE)} anew, not '{name}': the run's own value holds")
    folder = RunFolder.find(path)
    with Stop() as stop, folder.locked():
        meta = folder.lineage.snapshot().meta
        settings = Settings(**{**meta["settings"], **moved}).located()
        if "ended" in meta:
            return _drive(folder, settings, None, on_event, through, stop)
        task = starting_task(settings, meta["task"], _decoding(on_event))
        return _drive(folder, settings, task, on_event, through, stop)


def _decoding(on_event: Watcher | None) -> Callable[[int, int], None] | None:
    """What tells how far the decoding of images is."""
    return None if on_event is None else lambda done, total: on_event(Decoding(done, total))


def _begin(folder: RunFolder, settings: Settings, task: Task, start: Genome, teacher: Genome | None) -> None:
    """Writes what a new run has: its settings, the networks that it was given, and the lineage with candidate 0."""
    from graphs import fingerprint, macs, parameters

    recorded = settings.model_dump(mode="json", exclude={"run"})
    folder.write_settings(recorded)
    given = {"start": start} if teacher is None else {"start": start, "teacher": teacher}
    Writer.create(
        folder.lineage.path,
        {
            "settings": recorded,
            "task": dict(task.spec),
            **{name: folder.save_genome(genome) for name, genome in given.items()},
        },
        Proposal(
            id=0,
            seed=seed_of(settings.seed, 0),
            fingerprint=fingerprint(start.graph),
            parameters=parameters(start.graph),
            macs=macs(start.graph),
            untrained=start.digest,
            teaching=teaching(settings, (), None, None),
        ),
    )


def _drive(
    folder: RunFolder,
    settings: Settings,
    task: Task | None,
    on_event: Watcher | None,
    pool: Pool | None,
    stop: Stop,
    fresh: bool = False,
) -> Run:
    """Takes the run in `folder`, whose lock is held, to its end."""
    with Writer.open(folder.lineage.path) as writer:
        search = Search(folder, writer, settings, on_event, stop)
        search.tell_opened(resumed=not fresh)
        if task is not None:
            with contextlib.ExitStack() as stack:
                stack.enter_context(_computing(settings.threads or 1))
                if pool is None:
                    try:
                        pool = stack.enter_context(search.open_pool())
                    except BaseException:
                        if fresh:  # nothing has happened in this run, and where it cannot train it is of no use
                            shutil.rmtree(folder.path, ignore_errors=True)
                        raise
                    stop.arm()
                search.run(pool, task)
                conclude(search, pool, task)
        search.tell_ended()
    return Run(folder)


@contextlib.contextmanager
def _computing(threads: int) -> Iterator[None]:
    """Computes with as many threads as the run records, so that a resumed run certifies the same."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
