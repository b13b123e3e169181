"""What a search decides, as pure functions of (settings, candidates so far, outcomes so far).

No clock, no disk, no generator but the candidate's own: so a run can be replayed, resumed, and tested without
training.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from evolve.lineage import Proposal, Result
from evolve.ranking import Scored, best

if TYPE_CHECKING:
    from evolve.settings import Settings

__all__ = ["family_line", "is_broken", "next_history", "scored", "unkept", "winner"]


def scored(proposals: Sequence[Proposal], results: Mapping[int, Result]) -> list[Scored]:
    """All finished candidates, in finishing order."""
    return [
        Scored(result.candidate, result.val_accuracy, proposals[result.candidate].parameters)
        for result in sorted(results.values(), key=lambda result: result.finished)
    ]


def next_history(
    settings: Settings, proposals: Sequence[Proposal], results: Mapping[int, Result]
) -> list[Scored] | None:
    """What the proposal of the next candidate may know; None if it is not its turn yet.

    Nothing is proposed before the starting network has finished, nor more than `workers` ahead. In arrival
    order, all outcomes that are in are known. In strict order candidate i knows the outcomes of all
    candidates up to i - workers, whichever others are in already, so that it does not matter how fast they
    were.
    """
    following = len(proposals)
    workers = settings.workers or 1
    if following >= settings.candidates or 0 not in results:
        return None
    if settings.order == "strict":
        known = range(max(0, following - workers) + 1)
        if any(candidate not in results for candidate in known):
            return None
        return scored(proposals, {candidate: results[candidate] for candidate in known})
    return scored(proposals, results) if following - len(results) < workers else None


def winner(proposals: Sequence[Proposal], results: Mapping[int, Result]) -> int | None:
    """Id of the best candidate so far; None while there is none."""
    found = best(scored(proposals, results))
    return None if found is None else found.id


def family_line(proposals: Sequence[Proposal], candidate: int) -> list[int]:
    """Ids from the starting network to `candidate`, each the parent of the next."""
    line = [candidate]
    while (parent := proposals[line[-1]].parent) is not None:
        line.append(parent)
    return line[::-1]


def is_broken(proposal: Proposal) -> bool:
    """Whether its certificate shows that the mutation did not keep its promise, or could not show that it did."""
    return bool(unkept(proposal))


def unkept(proposal: Proposal) -> list[str]:
    """The modes in which a promise is broken, or could not be proven even on stirred weights."""
    certificate = proposal.certificate
    if certificate is None:
        return []
    return [mode for mode in ("eval", "train") if certificate[mode]["verdict"] in ("broken", "blind")]
