"""A job, how it and its outcome travel, and what a worker does with it.

On the wire a job is a JSON header and the files of its genomes (`graphs.files.encode`): no pickle, every
length checked before it is used, and a network that stands in it twice is sent once. `serve` is what each pool
runs in its workers: bytes in, bytes out, whatever goes wrong in between is a failure in the outcome.
"""

from __future__ import annotations

import json
import math
import struct
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NoReturn

from graphs.errors import EvolutionError, FormatError, UnknownName
from runners.allocation import keep_memory
from runners.outcome import Outcome

if TYPE_CHECKING:
    from graphs import Genome
    from runners.recipe import Recipe
    from runners.task import Task

__all__ = [
    "MEASURES",
    "Job",
    "Report",
    "decode_job",
    "decode_outcome",
    "encode_job",
    "encode_outcome",
    "guarded",
    "peek",
    "perform",
    "serve",
    "warm_up",
]

Report = Callable[[dict[str, Any]], None]
"""What a worker calls with its progress: JSON types, such as one epoch of the curves."""

MEASURES: dict[str, str] = {
    "train": "train, and measure on the validation split",
    "evaluate-test": "train, then measure on the test split too; for the end of a search only",
}
"""What a job asks for."""

_MAGIC = b"HEv1"
_LENGTH = struct.Struct("<Q")
_LONGEST_HEADER = 1 << 26


@dataclass(frozen=True, slots=True, eq=False)
class Job:
    """One candidate to train.

    Attributes:
        id: Number of the candidate; not negative.
        genome: Where training starts.
        recipe: How to train.
        task_spec: `Task.spec`, JSON types, from which a worker makes the task again.
        seed: Seed of training, which with all the rest determines the outcome's weights to the last bit.
        teachers: Networks to distil from; several are averaged.
        deadline: Seconds that one attempt may take, from when a worker that is ready gets it.
        threads: Number of CPU threads to compute with.
        measure: Key of `MEASURES`.
        device: Where to compute, such as `cpu` or `cuda`.

    Raises:
        UnknownName: `measure` is no key of `MEASURES`.
        ValueError: Another value makes no sense; the message names it.
    """

    id: int
    genome: Genome
    recipe: Recipe
    task_spec: Mapping[str, Any]
    seed: int = 0
    teachers: Sequence[Genome] = ()
    deadline: float = 3600.0
    threads: int = 1
    measure: str = "train"
    device: str = "cpu"

    def __post_init__(self) -> None:
        if self.measure not in MEASURES:
            raise UnknownName.of("measure", self.measure, MEASURES)
        for name, least in (("id", 0), ("seed", 0), ("threads", 1)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise ValueError(f"job {self.id}: {name} is {value!r}, expected a whole number from {least} on")
        if not (math.isfinite(self.deadline) and self.deadline > 0):
            raise ValueError(f"job {self.id}: deadline is {self.deadline}, expected a number of seconds above 0")


def encode_job(job: Job) -> bytes:
    """The bytes from which `decode_job` makes the same job."""
    from graphs.files import encode

    networks = {genome.digest: genome for genome in (job.genome, *job.teachers)}
    places = {digest: place for place, digest in enumerate(networks)}
    header = {
        "job": job.id,
        "recipe": job.recipe.model_dump(mode="json"),
        "task": job.task_spec,
        "seed": job.seed,
        "teachers": [places[teacher.digest] for teacher in job.teachers],
        "deadline": job.deadline,
        "threads": job.threads,
        "measure": job.measure,
        "device": job.device,
    }
    return _pack(header, [encode(genome) for genome in networks.values()])


def decode_job(data: bytes) -> Job:
    """The job that `encode_job` wrote.

    Raises:
        FormatError: `data` is not that.
        EvolutionError: The genome or the recipe inside is not valid.
    """
    from graphs.files import decode
    from runners.recipe import Recipe

    header, blobs = _unpack(data, "job")
    try:
        teachers = header["teachers"]
        if not all(type(place) is int and 0 <= place < len(blobs) for place in teachers) or {0, *teachers} != set(
            range(len(blobs))
        ):
            raise FormatError(f"job: {len(blobs)} genomes, and the teachers are numbers {teachers!r}")
        genomes = [decode(blob, f"job {header['job']}") for blob in blobs]
        return Job(
            id=header["job"],
            genome=genomes[0],
            recipe=Recipe.model_validate(header["recipe"]),
            task_spec=header["task"],
            seed=header["seed"],
            teachers=tuple(genomes[place] for place in teachers),
            deadline=header["deadline"],
            threads=header["threads"],
            measure=header["measure"],
            device=header["device"],
        )
    except KeyError as error:
        if isinstance(error, EvolutionError):
            raise
        raise FormatError(f"job: {error.args[0]!r} is missing") from None
    except (TypeError, ValueError) as error:
        if isinstance(error, EvolutionError):
            raise
        raise FormatError(f"job: {error}") from error


def encode_outcome(outcome: Outcome) -> bytes:
    """The bytes from which `decode_outcome` makes the same outcome."""
    from graphs.files import encode

    genomes = [outcome.genome, *outcome.members] if outcome.genome else []
    return _pack({"outcome": outcome.to_json()}, [encode(genome) for genome in genomes])


def decode_outcome(data: bytes) -> Outcome:
    """The outcome that `encode_outcome` wrote.

    Raises:
        FormatError: `data` is not that.
    """
    header, blobs = _unpack(data, "outcome")
    if not blobs:
        return Outcome.from_json(header.get("outcome"))
    from graphs.files import decode

    genome, *members = (decode(blob, "outcome") for blob in blobs)
    return Outcome.from_json(header.get("outcome"), genome, members)


def peek(data: bytes) -> dict[str, Any]:
    """The header of a job or an outcome, without its genomes.

    Raises:
        FormatError: `data` is neither.
    """
    return _unpack(data, "message")[0]


def perform(job: Job, report: Report | None = None) -> Outcome:
    """Trains `job` in this process, on the number of threads that it asks for.

    Raises:
        EvolutionError: The job cannot be done as it is; `serve` makes a failure of that and of any other
            exception.
    """
    import torch

    from runners.training import evaluate, train

    torch.set_num_threads(job.threads)
    task = _task(json.dumps(job.task_spec, sort_keys=True, default=_thaw))
    outcome = train(
        job.genome,
        job.recipe,
        task,
        job.seed,
        teacher=job.teachers,
        threads=job.threads,
        device=job.device,
        newest=job.id,
        report=report,
    )
    if outcome.genome is None:
        return outcome
    for name, tensor in outcome.genome.weights.items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            return Outcome.failed("diverged", f"tensor '{name}' is not finite after training", outcome.seconds)
    if job.measure == "evaluate-test":
        measured = evaluate(outcome.genome, task, "test", device=job.device)
        outcome = replace(outcome, test_accuracy=float(measured["accuracy"]))
    return outcome


def serve(data: bytes, report: Report | None = None) -> bytes:
    """An encoded job in, its encoded outcome out; this is what pools run in their workers."""
    return encode_outcome(guarded(lambda: perform(decode_job(data), report)))


def guarded(action: Callable[[], Outcome]) -> Outcome:
    """The outcome of `action`, or the failure that its exception amounts to."""
    start = time.monotonic()
    try:
        return action()
    except (Exception, SystemExit) as error:
        kind, message = _blame(error)
        return Outcome.failed(kind, message, time.monotonic() - start)


def warm_up() -> None:
    """Imports what the first job needs, so that a worker that says it is ready is, and has the process keep memory."""
    import torch  # noqa: F401

    import graphs.files  # noqa: F401
    import runners.training  # noqa: F401

    keep_memory()


@lru_cache(maxsize=2)
def _task(spec: str) -> Task:
    from runners.task import Task

    return Task.from_spec(json.loads(spec))


def _thaw(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"a task's spec holds a {type(value).__name__}, which JSON does not know")


def _blame(error: BaseException) -> tuple[str, str]:
    text = str(error) or "no message"
    if isinstance(error, EvolutionError):
        return ("invalid" if error.exit_code == 2 else "crashed"), text
    short = f"{type(error).__name__}: {text}"
    if isinstance(error, MemoryError) or _no_memory(error):
        return "out-of-memory", short
    return ("invalid" if isinstance(error, ValueError | TypeError) else "crashed"), short


def _no_memory(error: BaseException) -> bool:
    if not isinstance(error, RuntimeError):
        return False
    from runners.faults import NO_MEMORY

    return any(sign in str(error) for sign in NO_MEMORY)


def _pack(header: Mapping[str, Any], blobs: list[bytes]) -> bytes:
    full = {**header, "blobs": [len(blob) for blob in blobs]}
    text = json.dumps(full, sort_keys=True, allow_nan=False, separators=(",", ":"), default=_thaw).encode()
    return b"".join([_MAGIC, _LENGTH.pack(len(text)), text, *blobs])


def _unpack(data: bytes, what: str) -> tuple[dict[str, Any], list[bytes]]:
    start = len(_MAGIC) + _LENGTH.size
    if len(data) < start or data[: len(_MAGIC)] != _MAGIC:
        raise FormatError(f"{what}: {len(data)} bytes that do not begin with {_MAGIC!r}")
    (length,) = _LENGTH.unpack_from(data, len(_MAGIC))
    if length > _LONGEST_HEADER or start + length > len(data):
        raise FormatError(f"{what}: a header of {length} bytes in a message of {len(data)}")
    position = start + length
    try:
        header = json.loads(data[start:position], parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{what}: the header is no JSON: {error}") from None
    sizes = header.get("blobs") if isinstance(header, dict) else None
    if not isinstance(sizes, list) or not all(type(size) is int and size >= 0 for size in sizes):
        raise FormatError(f"{what}: the header does not say how large its genomes are")
    if position + sum(sizes) != len(data):
        raise FormatError(f"{what}: {len(data)} bytes, expected {position + sum(sizes)}")
    blobs = []
    for size in sizes:
        blobs.append(data[position : position + size])
        position += size
    return header, blobs


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no number")
