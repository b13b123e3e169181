"""Changes of a network: where one can be made, making it, what it keeps, and the proof that it kept it.

    >>> import numpy, graphs, ops
    >>> parent = graphs.zoo.create("convnet", classes=10, input_shape=(1, 8, 8))
    >>> site = ops.MUTATIONS["widen"].sites(parent)[0]
    >>> child = ops.MUTATIONS["widen"].apply(parent, site, numpy.random.default_rng(0))
    >>> ops.certify(parent, child).eval.verdict
    'pass'

| module | what it holds |
|---|---|
| `mutation` | what a mutation, a site, a record and a child are |
| `table` | `MUTATIONS`, `propose`, `chain`, `replay` |
| `transfer`, `axis_maps` | what happens to tensors, as data |
| `chaining`, `composition` | several mutations as one, and their transfers as one |
| `width` | the one place where a change of width meets channel spaces |
| `projections` | which spaces are the queries and keys of an attention |
| `widen`, `deepen`, … | one operator each, with its source and its law |
| `optimizing` | an optimiser's state and rates through a mutation |
| `certificate`, `comparison`, `sensitivity`, `stirring` | proof by measurement |

This package knows nothing of training, populations or disks.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ops.certificate import Certificate as Certificate
    from ops.certificate import certify as certify
    from ops.errors import BrokenPromise as BrokenPromise
    from ops.errors import NoSite as NoSite
    from ops.errors import ReplayError as ReplayError
    from ops.mutation import Child as Child
    from ops.mutation import Mutation as Mutation
    from ops.mutation import Record as Record
    from ops.mutation import Site as Site
    from ops.optimizing import optimizer_factors as optimizer_factors
    from ops.optimizing import optimizer_groups as optimizer_groups
    from ops.optimizing import transfer_optimizer as transfer_optimizer
    from ops.table import MUTATIONS as MUTATIONS
    from ops.table import chain as chain
    from ops.table import propose as propose
    from ops.table import replay as replay

_EXPORTS = {
    "BrokenPromise": "ops.errors",
    "Certificate": "ops.certificate",
    "Child": "ops.mutation",
    "MUTATIONS": "ops.table",
    "Mutation": "ops.mutation",
    "NoSite": "ops.errors",
    "Record": "ops.mutation",
    "ReplayError": "ops.errors",
    "Site": "ops.mutation",
    "certify": "ops.certificate",
    "chain": "ops.table",
    "optimizer_factors": "ops.optimizing",
    "optimizer_groups": "ops.optimizing",
    "propose": "ops.table",
    "replay": "ops.table",
    "transfer_optimizer": "ops.optimizing",
}

__all__ = [*_EXPORTS]


def __getattr__(name: str) -> Any:
    if name in _EXPORTS:
        return getattr(importlib.import_module(_EXPORTS[name]), name)
    raise AttributeError(f"module 'ops' has no attribute '{name}'")
