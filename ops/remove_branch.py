"""Remove branch: keep one side of a gate, and drop the other.

Law: exact in both modes where the gate is closed to the side that goes, bit for bit what `branch` was made from; see
`ops.gates`.
"""

from __future__ import annotations

from collections.abc import Iterable

from graphs.genome import Genome
from ops.gates import choose_why, keep_side, reasons, sides
from ops.mutation import Mutation, Site

__all__ = ["REMOVE_BRANCH"]


def _find(genome: Genome) -> Iterable[Site]:
    return sides(genome, outputs=False)


REMOVE_BRANCH = Mutation(
    name="remove_branch",
    preserves="exact",
    summary="keep one side of a gate; exact where it is closed to the other",
    needs="a gate that is no output, such as 'branch' inserts, of which one side can go",
    find=_find,
    choose=choose_why,
    build=keep_side,
    options=reasons,
    undoes="branch",
)
