"""Files of the idx format (Y. LeCun, "The MNIST database of handwritten digits"), as they are or gzipped.

Big-endian: two zero bytes, the type (8: unsigned byte), the number of axes, a 4-byte size for each, then the elements.
"""

from __future__ import annotations

import gzip
import os
import zlib
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runners.arrays import DataError, refuse_bomb

__all__ = ["find", "read"]

UNSIGNED_BYTE = 8


def find(folder: Path, name: str) -> Path | None:
    """The file called `name` in `folder`, or its gzipped form; None where there is neither."""
    return next((path for path in (folder / name, folder / f"{name}.gz") if path.is_file()), None)


def read(path: Path, axes: int) -> NDArray[np.uint8]:
    """The array in the file at `path`.

    Args:
        path: The file; gzipped if its name ends in `.gz`.
        axes: Number of axes it must have.

    Raises:
        DataError: It is cut off, too long, damaged, or of another form.
    """
    opener: Any = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rb") as file:
            start = file.read(4 + 4 * axes)
            if len(start) < 4 + 4 * axes or start[:4] != bytes((0, 0, UNSIGNED_BYTE, axes)):
                raise DataError(
                    f"{path}: starts with {start[:4].hex() or 'nothing'}, expected 000008{axes:02x}, an idx file of "
                    f"bytes with {axes} axes; fetch the file again"
                )
            shape = tuple(int(size) for size in np.frombuffer(start, ">u4", axes, 4))
            expected = prod(shape)
            refuse_bomb(expected, os.path.getsize(path), str(path))
            content = file.read(expected + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: cannot be read: {error}; fetch the file again") from None
    if len(content) != expected:
        found = "more" if len(content) > expected else str(len(content))
        raise DataError(f"{path}: the shape {shape} needs {expected} bytes, found {found}; fetch the file again")
    return np.frombuffer(content, np.uint8).reshape(shape)
