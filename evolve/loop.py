"""The loop of a search: propose, hand out, take, until there are as many candidates as asked for.

What the loop decides is in `evolve.decisions` and `evolve.proposals`, pure; here is the order in which things
are made durable and handed over.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from evolve import events
from evolve.decisions import is_broken, next_history, unkept, winner
from evolve.entries import entry_of, status_of
from evolve.interrupts import Stop
from evolve.lineage import Proposal, Result
from evolve.lineage_writer import Writer
from evolve.proposals import Exhausted, Offspring, propose
from evolve.run_folder import RunFolder
from evolve.seeds import seed_of
from graphs.errors import EvolutionError

if TYPE_CHECKING:
    from evolve.settings import Settings
    from graphs import Genome, Graph
    from runners import Job, Outcome, Task
    from runners.pools import Pool

__all__ = ["PAUSE", "Search", "SearchFailed"]

PAUSE = 0.2
"""Seconds to wait for outcomes before looking at signals again."""


class SearchFailed(EvolutionError, RuntimeError):
    """The starting network failed, so there is nothing to search from, or the best one cannot be tested at the end."""


class Search:
    """One run being worked on: what its lineage says, kept in step with it, and what is with the pool."""

    def __init__(
        self,
        folder: RunFolder,
        writer: Writer,
        settings: Settings,
        on_event: events.Watcher | None,
        stop: Stop,
    ) -> None:
        snapshot = writer.snapshot()
        self.folder = folder
        self.writer = writer
        self.settings = settings
        self.meta = dict(snapshot.meta)
        self.proposals = snapshot.proposals
        self.results = snapshot.results
        self.controls = snapshot.controls
        self.exhausted: str | None = None
        self._on_event = on_event
        self._stop = stop
        self._flying: dict[int, Graph] = {}
        self._load = lru_cache(maxsize=8)(folder.load_genome)

    def open_pool(self) -> Pool:
        """The pool that the settings name."""
        from runners import open_pool

        settings = self.settings
        return open_pool(
            settings.pool,
            settings.workers or 1,
            settings.threads or 1,
            address=settings.ray,
            report=self._progress,
            gpus_per_worker=settings.gpus_per_worker,
        )

    def run(self, pool: Pool, task: Task) -> None:
        """Trains candidates until there are as many as the settings ask for, or no new one can be found."""
        probe = task.probe(self.settings.probe, seed_of(self.settings.seed, 0, "probe"))
        for proposal in self.proposals:
            if proposal.id not in self.results:
                self._hand_out(pool, task, proposal)
        while True:
            self.check()
            history = None if self.exhausted else next_history(self.settings, self.proposals, self.results)
            if history is not None:
                found = propose(self.settings, self.proposals, history, self.trained, probe)
                if isinstance(found, Exhausted):
                    self.exhausted = found.message
                else:
                    self._hand_out(pool, task, self._write(found), found.child.genome)
            elif not self._flying:
                return
            for candidate, outcome in pool.wait(0.0 if history is not None else PAUSE):
                self._take(candidate, outcome)

    def check(self) -> None:
        """Passes while the search may go on.

        Raises:
            Interrupted: A signal came.
            SearchFailed: The starting network failed.
        """
        finished, total = len(self.results), self.settings.candidates
        self._stop.check(
            f"{finished} of {total} candidates are finished and kept; go on with 'evolve resume {self.folder.path}'"
        )
        first = self.results.get(0)
        if first is not None and first.failure is not None:
            kind, message = first.failure
            raise SearchFailed(
                f"the starting network failed ({kind}: {message}), so there is nothing to search from; "
                "change the recipe, the model or the deadline and start a new run; "
                f"this one is {self.folder.path}"
            )

    def trained(self, candidate: int) -> Genome:
        """The trained genome of a finished candidate."""
        weights = self.results[candidate].weights
        if weights is None:
            raise ValueError(f"candidate {candidate} has no weights")
        return self._load(weights)

    def start(self) -> Genome:
        """The starting network as it was given, untrained."""
        return self._load(self.meta["start"])

    def job(self, task: Task, proposal: Proposal, genome: Genome | None = None) -> Job:
        """The job of a candidate, made from the lineage alone unless its untrained genome is at hand."""
        from runners import Job

        if proposal.parent is None:
            genome = self.start()
        else:
            genome = genome or self.folder.replayed(proposal, self.trained(proposal.parent))
        settings = self.settings
        return Job(
            id=proposal.id,
            genome=genome,
            recipe=settings.recipe,
            task_spec=task.spec,
            seed=proposal.seed,
            teachers=self.teachers(proposal.teaching),
            deadline=settings.deadline,
            threads=settings.threads or 1,
            device=settings.device or "cpu",
        )

    def teachers(self, teaching: Mapping[str, Any] | None) -> list[Genome]:
        """The networks that `evolve.teachers.teaching` names."""
        named = [] if teaching is None else teaching["teachers"]
        return [self.trained(one) if isinstance(one, int) else self._load(self.meta["teacher"]) for one in named]

    def tell(self, event: events.Event) -> None:
        """Tells whoever watches."""
        if self._on_event is not None:
            self._on_event(event)

    def tell_opened(self, resumed: bool) -> None:
        """The first event, and the first `status.json`."""
        recorded = self.settings.model_dump(mode="json", exclude={"run"})
        entries = tuple(self._entry(proposal.id) for proposal in self.proposals)
        self.tell(events.Opened(self.folder.path, recorded, resumed, entries))
        self.write_status()

    def tell_ended(self) -> None:
        """The last event, and the last `status.json`."""
        self.write_status()
        ended = self.meta["ended"]
        broken = tuple(proposal.id for proposal in self.proposals if is_broken(proposal))
        self.tell(events.Ended(ended["reason"], ended["message"], broken))

    def write_status(self) -> None:
        """Replaces `status.json`."""
        flying = dict.fromkeys(self._flying, 1)
        tested = self.controls["winner"] if "ended" in self.meta else None
        self.folder.write_status(status_of(self.settings, self.proposals, self.results, flying, tested))

    def _entry(self, candidate: int) -> Mapping[str, Any]:
        return entry_of(self.proposals[candidate], self.results.get(candidate), candidate in self._flying)

    def _progress(self, candidate: int, figures: dict[str, Any]) -> None:
        epochs = int(figures.get("epochs", self.settings.recipe.epochs))
        self.tell(events.Progress(candidate, int(figures.get("epoch", 0)), epochs, figures))

    def _write(self, found: Offspring) -> Proposal:
        """Makes a proposal durable."""
        proposal = Proposal(
            id=len(self.proposals),
            seed=seed_of(self.settings.seed, len(self.proposals)),
            fingerprint=found.fingerprint,
            parameters=found.parameters,
            macs=found.macs,
            untrained=found.child.genome.digest,
            parent=found.parent,
            preserves=found.child.preserves,
            record=found.child.record.to_json(),
            tensors=self.folder.save_tensors(found.child.tensors),
            certificate=found.certificate.to_json(),
            teaching=found.teaching,
        )
        self.writer.propose(proposal)
        self.proposals.append(proposal)
        self.tell(events.Proposed(self._entry(proposal.id)))
        return proposal

    def _hand_out(self, pool: Pool, task: Task, proposal: Proposal, genome: Genome | None = None) -> None:
        """Gives a candidate to the pool, unless its mutation broke its promise: that is its failure."""
        if is_broken(proposal):
            self._finish(Result(proposal.id, failure=("broken-promise", _broken(proposal))))
            return
        job = self.job(task, proposal, genome)
        attempt = self.writer.dispatch(proposal.id)
        pool.submit(job)
        self._flying[proposal.id] = job.genome.graph
        self.tell(events.Dispatched(self._entry(proposal.id), attempt))

    def _take(self, candidate: int, outcome: Outcome) -> None:
        """Makes an outcome durable, its weights first; one that nobody waits for changes nothing."""
        graph = self._flying.get(candidate)
        if graph is None or (self._stop.signal is not None and outcome.failure is not None):
            return  # the signal that ends the search may have killed the worker too, for no fault of its own
        failure = None if outcome.failure is None else (outcome.failure.kind, outcome.failure.message)
        weights = None
        if outcome.genome is not None and outcome.genome.graph != graph:
            failure = ("invalid", "the worker gave back another structure than it was given")
        elif outcome.genome is not None:
            weights = self.folder.save_genome(outcome.genome)
        self._finish(
            Result(
                candidate,
                val_accuracy=None if failure else outcome.val_accuracy,
                weights=weights,
                failure=failure,
                seconds=outcome.seconds,
                worker=outcome.worker,
                curves=outcome.curves,
            )
        )

    def _finish(self, result: Result) -> None:
        number = result.candidate if self.settings.order == "strict" else None
        written = self.writer.finish(result, number)
        self._flying.pop(result.candidate, None)
        if written is None:
            return
        self.results[result.candidate] = written
        self.write_status()
        self.tell(events.Finished(self._entry(result.candidate), winner(self.proposals, self.results)))


def _broken(proposal: Proposal) -> str:
    certificate, record = proposal.certificate or {}, proposal.record or {}
    figures = ", ".join(
        f"{mode} mode is off by {certificate[mode]['error']}, allowed is {certificate[mode]['tolerance']}"
        if certificate[mode]["verdict"] == "broken"
        else f"in {mode} mode that could not be proven: the outputs do not show what a fault would do"
        for mode in unkept(proposal)
    )
    return f"{record.get('operator')} promised '{proposal.preserves}', but {figures}"
