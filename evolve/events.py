"""What happens during a search, for whoever watches: `search(settings, on_event=watch)` calls `watch(event)`.

Events are told in the thread that searches, after what they report is durable. They are a courtesy: nothing
that a watcher does changes a decision, and a watcher that raises ends the search like any other error. An
`entry` is a candidate as `evolve log --json` shows it, with exactly those keys.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = [
    "Decoding",
    "Dispatched",
    "Ended",
    "Event",
    "Finished",
    "Measuring",
    "Opened",
    "Progress",
    "Proposed",
    "Watcher",
]


@dataclass(frozen=True, slots=True)
class Decoding:
    """A folder of images is being decoded: `done` of `total`; told before all others, where there is any to decode."""

    done: int
    total: int


@dataclass(frozen=True, slots=True)
class Opened:
    """The run's folder is there and ours; always the first event but for `Decoding`.

    Attributes:
        path: The folder.
        settings: The resolved settings, of JSON types.
        resumed: Whether the run existed before.
        entries: The candidates that it already has; at least the starting network.
    """

    path: Path
    settings: Mapping[str, Any]
    resumed: bool
    entries: tuple[Mapping[str, Any], ...]


@dataclass(frozen=True, slots=True)
class Proposed:
    """A candidate is in the lineage, with its record and its certificate, and not yet on its way."""

    entry: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Dispatched:
    """A candidate is with the pool. `attempt` counts from 1 and rises when a killed search is resumed."""

    entry: Mapping[str, Any]
    attempt: int


@dataclass(frozen=True, slots=True)
class Progress:
    """A candidate has trained another epoch; only pools that hear from their workers tell this.

    Attributes:
        id: The candidate; for the control at the end, the number of candidates that were asked for.
        epoch: How many epochs are behind it.
        epochs: How many there will be.
        figures: What the worker reports (train_loss, val_loss, val_accuracy, lr, …).
    """

    id: int
    epoch: int
    epochs: int
    figures: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Finished:
    """A candidate's outcome is durable, its status `done` or `failed`. `best` is the best one so far."""

    entry: Mapping[str, Any]
    best: int | None


@dataclass(frozen=True, slots=True)
class Measuring:
    """All candidates are in; the test split is now touched, once. `message` says for what."""

    message: str


@dataclass(frozen=True, slots=True)
class Ended:
    """The search has come to its end; always the last event of a search that does.

    Attributes:
        reason: `complete`, or `exhausted`: no new structure could be proposed.
        message: One line for a person.
        broken: Ids of the candidates whose mutation broke its promise.
    """

    reason: str
    message: str
    broken: tuple[int, ...]


Event = Decoding | Opened | Proposed | Dispatched | Progress | Finished | Measuring | Ended
Watcher = Callable[[Event], None]
