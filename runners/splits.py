"""Cutting labelled examples into parts that have the same shares of the classes.

A cut depends on the labels and a fixed seed alone, never on what the images show, and is the same on every machine and
with every NumPy: only raw output of PCG64 is used, which NumPy guarantees (NEP 19).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["stratified", "validation_size"]


def stratified(labels: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
    """An order of the examples of which every beginning has nearly the same shares of the classes.

    A class of k among n examples has k·m/n of the first m, within one.

    Args:
        labels: Class of each example, `(N,)`.
        seed: Of the draw within each class.

    Returns:
        A permutation of 0 to N-1.

    >>> labels = np.array([0, 0, 0, 0, 1, 1])
    >>> labels[stratified(labels, seed=0)].tolist()
    [0, 1, 0, 0, 1, 0]
    """
    drawn = np.argsort(np.random.PCG64(seed).random_raw(len(labels)), kind="stable")
    grouped = drawn[np.argsort(labels[drawn], kind="stable")]
    counts = np.bincount(labels)
    rank = np.arange(len(labels)) - np.repeat(np.cumsum(counts) - counts, counts)
    place = (rank + 0.5) / np.repeat(counts, counts)
    return grouped[np.lexsort((grouped, place))]


def validation_size(count: int) -> int:
    """How many of `count` training examples validate: a tenth, but 1,000 where a fifth allows it, and at least one.

    With fewer, accuracies of candidates that differ are often equal or in the wrong order by chance.

    >>> [validation_size(count) for count in (60_000, 5_000, 1_437, 3)]
    [6000, 1000, 287, 1]
    """
    return max(1, count // 10, min(1000, count // 5))
