"""A candidate's faults while it is built, trained or measured: exceptions inside, a `Failure` as a value outside."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch

from graphs.errors import GraphError
from runners.outcome import Failure

__all__ = ["CandidateFault", "candidate_faults"]

NO_MEMORY = ("can't allocate memory", "not enough memory", "out of memory", "bad_alloc", "CUBLAS_STATUS_ALLOC_FAILED")
"""How torch says, in a plain RuntimeError, that memory ran out."""


class CandidateFault(Exception):
    """A candidate cannot be trained, for the reason that `failure` holds."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.failure = Failure(kind, message)


@contextlib.contextmanager
def candidate_faults(doing: str) -> Iterator[None]:
    """Turns what a bad candidate makes `torch` and `graphs` raise into a `CandidateFault`.

    Args:
        doing: What is being done, for the message, such as `epoch 2`.

    Raises:
        CandidateFault: Memory ran out, or the network cannot be built or run. Any other exception is a fault of ours
            and passes through.
    """
    try:
        yield
    except (MemoryError, torch.OutOfMemoryError) as error:
        raise CandidateFault("out-of-memory", f"{doing}: {error or 'no memory left'}") from error
    except GraphError as error:
        raise CandidateFault("invalid", f"{doing}: {error}") from error
    except (RuntimeError, ValueError, IndexError) as error:
        kind = "out-of-memory" if any(sign in str(error) for sign in NO_MEMORY) else "invalid"
        raise CandidateFault(kind, f"{doing}: {type(error).__name__}: {error}") from error
