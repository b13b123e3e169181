"""A run to look at: `open_run(path)`, then `run.best()`, `run.log()`, `run.status()`.

Reading needs no lock and disturbs nothing: it works while a search writes, after it was killed, and in a
folder that is read-only. Each question is answered from one consistent and verified view of the lineage, as
of the moment it is asked.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evolve.decisions import family_line, is_broken, scored, winner
from evolve.entries import entry_of, status_of
from evolve.lineage import Lineage, Snapshot
from evolve.run_folder import RunFolder
from evolve.settings import Settings
from evolve.strategies import STRATEGIES
from graphs.errors import EvolutionError, UnknownName

if TYPE_CHECKING:
    from graphs import Genome
    from ops import Record

__all__ = ["Candidate", "NotTrained", "Run", "open_run"]


class NotTrained(EvolutionError, LookupError):
    """A candidate has no trained weights: it failed, or has not finished."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """One candidate, as of the moment in which it was asked for.

    The first attributes are those of `evolve log --json`.

    Attributes:
        id: Its number, in the order of proposal; 0 is the starting network.
        parent: The candidate that it is a mutation of.
        operator: Key of `ops.MUTATIONS`.
        site: Where it was applied.
        preserves: What was promised there: exact, eval-exact or approximate.
        certificate: What was measured of that promise.
        teaching: Who taught it (`teachers`), and why nobody did (`reason`); None where nobody was asked to.
        status: pending, running, done or failed.
        failure: None, or its kind and message.
        val_accuracy: Fraction of the validation split.
        parameters: Number of parameters.
        macs: Multiply-accumulates for one example.
        seconds: How long it trained.
        worker: Where.
        seed: What its training drew from.
        test_accuracy: Fraction of the test split, for the winner of a search that has ended; else None.
        curves: One mapping an epoch.
        fingerprint: Of its structure.
    """

    id: int
    parent: int | None
    operator: str | None
    site: Mapping[str, Any] | None
    preserves: str | None
    certificate: Mapping[str, Any] | None
    teaching: Mapping[str, Any] | None
    status: str
    failure: Mapping[str, str] | None
    val_accuracy: float | None
    parameters: int
    macs: int
    seconds: float | None
    worker: str | None
    seed: int
    test_accuracy: float | None
    curves: Sequence[Mapping[str, Any]]
    fingerprint: str
    _snapshot: Snapshot = field(repr=False, compare=False)
    _folder: RunFolder = field(repr=False, compare=False)

    @property
    def record(self) -> Record | None:
        """Its mutation, from which `ops.replay` makes it again; None for the starting network."""
        from ops import Record

        record = self._snapshot.proposals[self.id].record
        return None if record is None else Record.from_json(dict(record))

    def genome(self) -> Genome:
        """The trained network.

        Raises:
            NotTrained: It failed, or has not finished.
            FormatError: Its file is missing or damaged.
        """
        result = self._snapshot.results.get(self.id)
        if result is None or result.weights is None:
            why = f"failed ({self.failure['kind']})" if self.failure else f"is {self.status}"
            raise NotTrained(f"candidate {self.id} of {self._folder.path} {why}, so it has no trained weights")
        return self._folder.load_genome(result.weights)

    def untrained(self) -> Genome:
        """The network before its training: its parent's weights and its record, replayed.

        Raises:
            FormatError: A file is missing or damaged.
            ReplayError: Its record does not lead to the network that was trained, bit for bit.
        """
        proposal = self._snapshot.proposals[self.id]
        if proposal.parent is None:
            return self._folder.load_genome(self._snapshot.meta["start"])
        weights = self._snapshot.results[proposal.parent].weights
        if weights is None:
            raise NotTrained(f"candidate {proposal.parent} of {self._folder.path} has no trained weights")
        return self._folder.replayed(proposal, self._folder.load_genome(weights))


class Run:
    """A run, ended or not.

    Attributes:
        path: Its folder.
        lineage: Its lineage, whose `snapshot()` has everything.
    """

    def __init__(self, folder: RunFolder) -> None:
        self._folder = folder
        self.path: Path = folder.path
        self.lineage: Lineage = folder.lineage

    @property
    def settings(self) -> Settings:
        """What the search was asked to do, as resolved at its start."""
        return _settings(self.lineage.snapshot())

    @property
    def population(self) -> list[Candidate]:
        """The candidates that may become parents now, oldest first."""
        found = self.lineage.snapshot()
        settings = _settings(found)
        history = scored(found.proposals, found.results)
        members = STRATEGIES[settings.strategy].population(settings, history)
        return [self._candidate(found, member) for member in members]

    @property
    def controls(self) -> Mapping[str, Any]:
        """What was measured at the end: `winner`, and `control`, the starting network trained as long."""
        return self.lineage.snapshot().controls

    @property
    def ended(self) -> Mapping[str, str] | None:
        """`reason` and `message` of a search that has ended; None for one that can go on."""
        found: Mapping[str, str] | None = self.lineage.snapshot().meta.get("ended")
        return found

    @property
    def broken(self) -> list[int]:
        """Ids of the candidates whose mutation broke its promise."""
        return [proposal.id for proposal in self.lineage.snapshot().proposals if is_broken(proposal)]

    def best(self) -> Candidate | None:
        """The best finished candidate; None before there is one."""
        found = self.lineage.snapshot()
        best = winner(found.proposals, found.results)
        return None if best is None else self._candidate(found, best)

    def candidates(self) -> list[Candidate]:
        """All candidates, by id."""
        found = self.lineage.snapshot()
        return [self._candidate(found, proposal.id) for proposal in found.proposals]

    def candidate(self, number: int) -> Candidate:
        """The candidate with that id.

        Raises:
            UnknownName: There is none.
        """
        found = self.lineage.snapshot()
        if not 0 <= number < len(found.proposals):
            raise UnknownName(
                f"there is no candidate {number} in {self.path}; it has candidates 0 to {len(found.proposals) - 1}"
            )
        return self._candidate(found, number)

    def line(self, number: int) -> list[Candidate]:
        """The candidate and its ancestors, the starting network first.

        Raises:
            UnknownName: There is no such candidate.
        """
        self.candidate(number)
        found = self.lineage.snapshot()
        return [self._candidate(found, member) for member in family_line(found.proposals, number)]

    def log(self) -> list[dict[str, Any]]:
        """Each candidate once, by id, as `evolve log --json` prints it."""
        found = self.lineage.snapshot()
        return [self._entry(found, proposal.id) for proposal in found.proposals]

    def status(self) -> dict[str, Any]:
        """What `evolve status --json` prints."""
        found = self.lineage.snapshot()
        flying = found.attempts if self._folder.in_use else {}
        return status_of(_settings(found), found.proposals, found.results, flying, found.tested)

    def _entry(self, found: Snapshot, number: int) -> dict[str, Any]:
        result = found.results.get(number)
        flying = result is None and bool(found.attempts[number]) and self._folder.in_use
        return entry_of(found.proposals[number], result, flying)

    def _candidate(self, found: Snapshot, number: int) -> Candidate:
        result = found.results.get(number)
        tested = found.tested
        return Candidate(
            **self._entry(found, number),
            test_accuracy=tested["test_accuracy"] if tested and tested["candidate"] == number else None,
            curves=result.curves if result else (),
            fingerprint=found.proposals[number].fingerprint,
            _snapshot=found,
            _folder=self._folder,
        )


def open_run(path: str | os.PathLike[str]) -> Run:
    """The run at `path`, for reading.

    Raises:
        RunError: There is none.
        FormatError: Its lineage is damaged, or a newer version wrote it.
    """
    run = Run(RunFolder.find(path))
    run.lineage.snapshot()
    return run


def _settings(found: Snapshot) -> Settings:
    return Settings(**found.meta["settings"])
