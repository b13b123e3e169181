"""How the C library lends memory to tensors, in a process of ours.

Training makes tensors of the same sizes at each step and drops them again. glibc gives large blocks back to the kernel
at once and asks for them anew, and each page of them then faults when it is first written, which can cost more than
what is computed with it. Told to keep what it was given, it hands the same pages out again.
"""

from __future__ import annotations

import contextlib
import ctypes

__all__ = ["keep_memory"]

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""Names of `mallopt`'s parameters in glibc's malloc.h."""


def keep_memory() -> bool:
    """Has this process keep the memory of dropped tensors of up to 1 GiB for the next ones; for good.

    For processes that are there to train: a process then holds the most that it ever needed.

    Returns:
        Whether the C library has such a setting and takes it; others are left as they are.
    """
    with contextlib.suppress(OSError, AttributeError, TypeError):  # no C library to open, or without the function
        set_option = ctypes.CDLL(None).mallopt
        return bool(set_option(_MMAP_THRESHOLD, 1 << 30) and set_option(_TRIM_THRESHOLD, 2**31 - 1))
    return False
