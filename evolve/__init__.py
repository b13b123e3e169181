"""The search: who is mutated next, what is kept, and every step written down.

    from evolve import Settings, search, open_run

    run = search(Settings(data="digits", candidates=8, pool="local", seed=1))
    run.best().val_accuracy                 # a fraction from 0 to 1
    run.best().genome()                     # the trained network, for graphs.to_torch
    for row in open_run(run.path).log():    # what `evolve log --json` prints
        print(row["id"], row["parent"], row["operator"], row["val_accuracy"])

The way of a candidate: a *strategy* picks a parent among those that are finished; `ops` proposes a mutation
of it and certifies by measurement that the child computes what the parent did; the candidate is written to
the *lineage* before a worker of the *pool* trains it; its weights become durable, then its outcome; the
population changes; the next parent is picked. Candidate 0 is the starting network, trained like the others.

- **Decisions are pure**: the parent and the mutation of candidate i follow from (settings, seed, outcomes so
  far) and from nothing else. Candidate i draws from a generator of its own, so it does not matter which
  worker is faster.
- **A run is a folder**: `lineage.sqlite`, `weights/` named by content, `settings.yaml` and `status.json` for
  people. A search that is killed at any moment goes on with `resume(path)`, and loses nothing that was
  finished.
- **A failure is a value**: a candidate that diverges, hangs or breaks its promise is recorded as failed, can
  become neither parent nor best, and the search goes on.
- **Test data is touched once**, after the last candidate, for the winner and for its control: the starting
  network trained for as many epochs as the winner's whole line got.

| module | what it holds |
|---|---|
| `settings`, `starting` | what can be chosen; the task and the network that follow from it |
| `strategies`, `ranking`, `decisions`, `proposals`, `seeds` | what is decided, as pure functions |
| `lineage`, `lineage_writer`, `rows`, `database` | the record of a run, from candidates down to SQLite |
| `run_folder`, `run_lock` | its files, and who may write them |
| `driver`, `loop`, `finale`, `interrupts` | the search from its start to its end |
| `runs`, `entries`, `events` | reading a run; what scripts and displays are told |
| `branching`, `assembling` | a HydraNet of a network; candidates as an ensemble |
| `exporting`, `commands`, `display` | taking a network away; the command line |
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from evolve.assembling import ensemble
    from evolve.branching import hydra
    from evolve.driver import resume, search
    from evolve.exporting import export
    from evolve.runs import Candidate, Run, open_run
    from evolve.settings import Settings
    from evolve.strategies import STRATEGIES

__all__ = ["STRATEGIES", "Candidate", "Run", "Settings", "ensemble", "export", "hydra", "open_run", "resume", "search"]

_HOMES = {
    "STRATEGIES": "evolve.strategies",
    "Candidate": "evolve.runs",
    "Run": "evolve.runs",
    "Settings": "evolve.settings",
    "ensemble": "evolve.assembling",
    "export": "evolve.exporting",
    "hydra": "evolve.branching",
    "open_run": "evolve.runs",
    "resume": "evolve.driver",
    "search": "evolve.driver",
}


def __getattr__(name: str) -> Any:
    """Imports a public name when it is first asked for (PEP 562), so that `import evolve` is cheap."""
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'evolve' has no attribute '{name}'")
    from importlib import import_module

    value = getattr(import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
