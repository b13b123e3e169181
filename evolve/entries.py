"""A candidate as one JSON object: what `evolve log --json` prints, and what events carry."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from evolve.decisions import winner
from evolve.lineage import Proposal, Result

if TYPE_CHECKING:
    from evolve.settings import Settings

__all__ = ["STATUSES", "entry_of", "status_of"]

STATUSES = ("pending", "running", "done", "failed")
"""What a candidate can be."""


def entry_of(proposal: Proposal, result: Result | None, dispatched: bool) -> dict[str, Any]:
    """The object of one candidate; its keys are a contract with scripts.

    Args:
        proposal: The candidate.
        result: Its outcome, if it has one.
        dispatched: Whether a living search has handed it to a pool.
    """
    record = proposal.record or {}
    status = "running" if dispatched else "pending"
    if result is not None:
        status = "failed" if result.failure else "done"
    return {
        "id": proposal.id,
        "parent": proposal.parent,
        "operator": record.get("operator"),
        "site": record.get("site"),
        "preserves": proposal.preserves,
        "certificate": proposal.certificate,
        "teaching": proposal.teaching,
        "status": status,
        "failure": dict(zip(("kind", "message"), result.failure, strict=True)) if result and result.failure else None,
        "val_accuracy": result.val_accuracy if result else None,
        "parameters": proposal.parameters,
        "macs": proposal.macs,
        "seconds": result.seconds if result else None,
        "worker": result.worker if result else None,
        "seed": proposal.seed,
    }


def status_of(
    settings: Settings,
    proposals: Sequence[Proposal],
    results: Mapping[int, Result],
    dispatched: Mapping[int, int],
    tested: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """The object that `evolve status --json` prints; its keys are a contract with scripts.

    Args:
        settings: Of the run.
        proposals: All candidates.
        results: Their outcomes.
        dispatched: How often each was handed to a pool by a living search.
        tested: The winner's measurement on the test split, once the search has ended.
    """
    counted = Counter(
        entry_of(proposal, results.get(proposal.id), bool(dispatched.get(proposal.id)))["status"]
        for proposal in proposals
    )
    found = winner(proposals, results)
    best = None
    if found is not None:
        best = {
            "id": found,
            "val_accuracy": results[found].val_accuracy,
            "test_accuracy": tested["test_accuracy"] if tested and tested["candidate"] == found else None,
            "parameters": proposals[found].parameters,
            "macs": proposals[found].macs,
        }
    return {
        "candidates": {status: counted[status] for status in STATUSES},
        "best": best,
        "strategy": settings.strategy,
        "seed": settings.seed,
    }
