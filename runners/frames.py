"""Messages over a pipe: a length, one letter that says what it is, and so many bytes.

Driver and worker speak it with each other (`runners.local_pool`, `runners.worker`). The reader is
incremental, so that it fits a `selectors` loop, and refuses a length that cannot be meant before it allocates
anything.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator

from graphs.errors import FormatError

__all__ = ["BEAT", "JOB", "LARGEST", "OUTCOME", "READY", "REPORT", "Splitter", "pack", "write_all"]

JOB, OUTCOME, REPORT, READY, BEAT = b"J", b"O", b"R", b"+", b"."
"""To the worker: a job. From the worker: its outcome, a report, ready for jobs, still alive."""

LARGEST = 1 << 33
"""Largest message in bytes."""

_HEADER = struct.Struct("<Qc")
_KINDS = {JOB, OUTCOME, REPORT, READY, BEAT}


def pack(kind: bytes, size: int) -> bytes:
    """What stands before a message of `size` bytes."""
    return _HEADER.pack(size, kind)


class Splitter:
    """Cuts a stream of bytes, as it arrives, into messages.

    >>> splitter = Splitter()
    >>> splitter.feed(pack(BEAT, 0) + pack(REPORT, 2) + b"{")
    >>> list(splitter)
    [(b'.', b'')]
    >>> splitter.feed(b"}")
    >>> list(splitter)
    [(b'R', b'{}')]
    """

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> None:
        """Adds what has arrived."""
        self._buffer += data

    def __iter__(self) -> Iterator[tuple[bytes, bytes]]:
        """The messages that are whole, each once.

        Raises:
            FormatError: The stream holds something else.
        """
        while len(self._buffer) >= _HEADER.size:
            size, kind = _HEADER.unpack_from(self._buffer)
            if kind not in _KINDS or size > LARGEST:
                raise FormatError(f"the stream of a worker holds no message: kind {kind!r}, {size} bytes")
            end = _HEADER.size + size
            if len(self._buffer) < end:
                return
            payload = bytes(memoryview(self._buffer)[_HEADER.size : end])
            del self._buffer[:end]
            yield kind, payload


def write_all(handle: int, *parts: bytes) -> None:
    """Writes all of `parts` to the blocking file descriptor `handle`."""
    for part in parts:
        view = memoryview(part)
        while view:
            view = view[os.write(handle, view) :]
