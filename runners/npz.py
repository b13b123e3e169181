"""Image sets in one `.npz` file, in the layout of `keras.datasets`: x_train, y_train, x_test, y_test.

Beside `y_train` and `y_test` there may be further label sets, `y_train_NAME` and `y_test_NAME`.

What a file claims is checked against its size before memory is taken: an archive can claim petabytes in a few bytes.
Arrays of Python objects, which only pickle can read, are refused.
"""

from __future__ import annotations

import os
import zipfile
import zlib
from collections.abc import Sequence
from math import prod
from pathlib import Path
from typing import IO, Any

import numpy as np

from runners.arrays import DataError, label_sets, refuse_bomb

__all__ = ["NAMES", "read"]

NAMES = ("x_train", "y_train", "x_test", "y_test")
"""The arrays that a file holds; others in it are left alone."""


def read(path: Path, names: Sequence[str] = NAMES) -> dict[str, Any]:
    """The arrays `names` of the file at `path`, and further label sets where labels are among them.

    Raises:
        DataError: The file is missing, damaged, no `.npz`, lacks an array, holds objects, or claims a size that it
            cannot have.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
            missing = [name for name in names if name not in members]
            if missing:
                shown = ", ".join(sorted(members)[:8]) or "nothing"
                raise DataError(
                    f"{path}: no array {' and no array '.join(missing)}; it holds {shown}; expected "
                    f"{', '.join(names)}, the layout of keras.datasets"
                )
            names = [*names, *(label_sets(members, str(path)) if "y_train" in names else ())]
            total = sum(members[name].file_size for name in names)
            size = os.path.getsize(path)
            refuse_bomb(total, size, str(path))
            return {name: _member(archive, members[name], f"{path}: {name}") for name in names}
    except FileNotFoundError:
        raise DataError(f"{path}: there is no such file; give the path of an .npz or the name of a data set") from None
    except zipfile.BadZipFile as error:
        raise DataError(f"{path}: not an .npz file, or a damaged one ({error}); write it with numpy.savez") from None
    except (OSError, EOFError, zlib.error, NotImplementedError, RuntimeError) as error:
        raise DataError(f"{path}: cannot be read: {error}; check the file and its permissions") from None


def _member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, where: str) -> Any:
    """One array, after its header has been found to agree with its size."""
    try:
        with archive.open(info) as file:
            shape, kind = _header(file)
            if kind.hasobject:
                raise DataError(f"{where} holds Python objects, which are never read; store plain numbers")
            claimed, held = prod(shape) * kind.itemsize, info.file_size - file.tell()
            if claimed != held:
                raise DataError(f"{where} has the shape {shape} of {kind}, {claimed} bytes, but {held} bytes follow")
        with archive.open(info) as file:
            return np.lib.format.read_array(file, allow_pickle=False)
    except DataError:
        raise
    except (ValueError, SyntaxError, TypeError, MemoryError) as error:
        first = str(error).split("\n")[0]
        raise DataError(f"{where} is not a readable array: {first}; write the file with numpy.savez") from None


def _header(file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and type that an array's header claims."""
    version = np.lib.format.read_magic(file)
    reader = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}.get(version)
    if reader is None:
        raise ValueError(f"version {version} of the array format")
    shape, _, kind = reader(file)
    if any(size < 0 for size in shape):
        raise ValueError(f"the shape {shape}")
    return shape, kind
