"""What comes back from training one candidate: an `Outcome`, whose failure is a value and not an exception.

Laws, kept by the constructor, so that no search ever has to ask:

- An outcome is either a success, with a genome and a finite validation accuracy from 0 to 1, or a failure,
  with neither.
- A number that is not finite never gets through: an accuracy of NaN makes the outcome a failure of kind
  `diverged`, and inside the curves it becomes None.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from graphs.errors import FormatError, UnknownName

if TYPE_CHECKING:
    from graphs import Genome

__all__ = ["FAILURES", "Failure", "Outcome", "finite"]

FAILURES: dict[str, str] = {
    "diverged": "the loss or an accuracy is not a finite number",
    "out-of-memory": "the machine or the device had not enough memory",
    "timed-out": "it took longer than its deadline, or no worker took it up in time",
    "crashed": "its process died, or training raised an unexpected exception",
    "invalid": "the network, the recipe and the task do not fit each other",
    "broken-promise": "a mutation did not keep what it promises; never trained",
}
"""Each kind of failure and what it means."""

_LONGEST_MESSAGE = 2000


def finite(value: Any) -> Any:
    """`value`, of JSON types, with each number that is not finite replaced by None.

    >>> finite({"loss": float("nan"), "epoch": 3})
    {'loss': None, 'epoch': 3}
    """
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {str(key): finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return value


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a candidate has no result.

    Attributes:
        kind: Key of `FAILURES`.
        message: One line for a person; line breaks are folded and an endless message is cut when it is made.

    Raises:
        UnknownName: There is no such kind.
    """

    kind: str
    message: str

    def __post_init__(self) -> None:
        if self.kind not in FAILURES:
            raise UnknownName.of("kind of failure", self.kind, FAILURES)
        line = " ".join(str(self.message).split())
        short = line if len(line) <= _LONGEST_MESSAGE else line[: _LONGEST_MESSAGE - 1] + "…"
        object.__setattr__(self, "message", short)

    def to_json(self) -> dict[str, str]:
        """As JSON types."""
        return {"kind": self.kind, "message": self.message}

    @classmethod
    def from_json(cls, data: Any) -> Failure:
        """The failure that `to_json` wrote.

        Raises:
            FormatError: `data` is not that.
        """
        if not isinstance(data, Mapping) or not all(isinstance(data.get(key), str) for key in ("kind", "message")):
            raise FormatError(f"failure: got {json.dumps(data, default=str)[:80]}, expected kind and message")
        if data["kind"] not in FAILURES:
            raise FormatError(f"failure: unknown kind {data['kind']!r}; known: {', '.join(sorted(FAILURES))}")
        return cls(data["kind"], data["message"])


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of one job.

    Attributes:
        genome: The trained network; None exactly if the job failed.
        val_accuracy: Fraction from 0 to 1 on the validation split; None exactly if the job failed.
        test_accuracy: The same on the test split, for jobs with `measure="evaluate-test"` only; a search sees
            None.
        curves: One mapping an epoch: `epoch`, `train_loss`, `val_loss`, `val_accuracy`, `lr`.
        failure: Why there is no result, or None.
        seconds: How long it took, by the clock on the wall.
        worker: Name of the place where it ran, such as `local-0`; no host name.
        members: Networks that are kept beside `genome`, oldest first: those at the ends of the recipe's last cycles.

    Raises:
        ValueError: An accuracy is not from 0 to 1, a success lacks its genome or its accuracy, or `seconds`
            is not a number from 0 on.
    """

    genome: Genome | None
    val_accuracy: float | None
    test_accuracy: float | None = None
    curves: Sequence[Mapping[str, Any]] = field(default_factory=tuple)
    failure: Failure | None = None
    seconds: float = 0.0
    worker: str = ""
    members: Sequence[Genome] = ()

    def __post_init__(self) -> None:
        if not (math.isfinite(self.seconds) and self.seconds >= 0):
            raise ValueError(f"outcome: seconds is {self.seconds}, expected a number from 0 on")
        object.__setattr__(self, "members", tuple(self.members))
        object.__setattr__(self, "curves", tuple(finite(epoch) for epoch in self.curves))
        for name in ("val_accuracy", "test_accuracy"):
            accuracy = getattr(self, name)
            if accuracy is not None and not math.isfinite(accuracy):
                self._fail(Failure("diverged", f"{name} is {accuracy}"))
            elif accuracy is not None and not 0 <= accuracy <= 1:
                raise ValueError(f"outcome: {name} is {accuracy}, expected a fraction from 0 to 1")
        if self.failure is not None:
            self._fail(self.failure)
        elif self.genome is None or self.val_accuracy is None:
            raise ValueError("outcome: neither a failure nor a genome with its validation accuracy")

    def _fail(self, failure: Failure) -> None:
        if self.failure is None:
            object.__setattr__(self, "failure", failure)
        for name in ("genome", "val_accuracy", "test_accuracy"):
            object.__setattr__(self, name, None)
        object.__setattr__(self, "members", ())

    @classmethod
    def failed(cls, kind: str, message: str, seconds: float = 0.0, worker: str = "") -> Outcome:
        """An outcome that is a failure and nothing else."""
        return cls(None, None, failure=Failure(kind, message), seconds=seconds, worker=worker)

    def to_json(self) -> dict[str, Any]:
        """All but the genome and the members, as JSON types without NaN."""
        return {
            "val_accuracy": self.val_accuracy,
            "test_accuracy": self.test_accuracy,
            "curves": [dict(epoch) for epoch in self.curves],
            "failure": self.failure.to_json() if self.failure else None,
            "seconds": self.seconds,
            "worker": self.worker,
        }

    @classmethod
    def from_json(cls, data: Any, genome: Genome | None = None, members: Sequence[Genome] = ()) -> Outcome:
        """The outcome that `to_json` wrote, with its genome and members, which travel apart.

        Raises:
            FormatError: `data` is not that, or the genome of a success is missing.
        """
        if not isinstance(data, Mapping):
            raise FormatError(f"outcome: got {type(data).__name__}, expected an object")
        try:
            return cls(
                genome,
                _number(data, "val_accuracy"),
                _number(data, "test_accuracy"),
                _curves(data["curves"]),
                None if data["failure"] is None else Failure.from_json(data["failure"]),
                _number(data, "seconds") or 0.0,
                str(data["worker"]),
                members,
            )
        except KeyError as error:
            raise FormatError(f"outcome: {error.args[0]!r} is missing") from None
        except FormatError:
            raise
        except ValueError as error:
            raise FormatError(str(error)) from None


def _number(data: Mapping[str, Any], name: str) -> float | None:
    value = data[name]
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise FormatError(f"outcome: {name} is {type(value).__name__}, expected a number or null")
    return float(value)


def _curves(value: Any) -> list[Mapping[str, Any]]:
    if not isinstance(value, list) or not all(isinstance(epoch, Mapping) for epoch in value):
        raise FormatError("outcome: curves is not a list of objects")
    return value
