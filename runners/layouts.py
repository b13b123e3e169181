"""Image sets as their authors publish them, in the folders where torchvision looks for them.

A layout says which files below a root make up a data set, reads them into the four arrays of `runners.arrays.checked`,
and knows where they are published. It never writes, and never reads the pickled version of CIFAR.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from runners import idx
from runners.arrays import DataError
from runners.download import Remote

__all__ = ["CifarFiles", "IdxFiles", "Layout"]


class Layout(Protocol):
    """Where the original files of a data set lie, and how they are read."""

    @property
    def remotes(self) -> tuple[Remote, ...]:
        """What to fetch where the files are missing."""

    @property
    def looked_for(self) -> str:
        """The files in words, below the root."""

    def read(self, root: Path) -> dict[str, Any] | None:
        """The four arrays; None where the files are not there.

        Raises:
            DataError: A file is damaged, or only a form of them is there that is never read.
        """


@dataclass(frozen=True, slots=True)
class IdxFiles:
    """Four idx files in `folder`, gzipped or not."""

    folder: str
    remotes: tuple[Remote, ...]

    @property
    def looked_for(self) -> str:
        """The files in words, below the root."""
        return f"{self.folder}/train-images-idx3-ubyte[.gz] and its three companions"

    def read(self, root: Path) -> dict[str, Any] | None:
        """The four arrays; None where one of the files is not there."""
        arrays: dict[str, Any] = {}
        for split, prefix in (("train", "train"), ("test", "t10k")):
            for role, kind, axes in (("x", "images-idx3", 3), ("y", "labels-idx1", 1)):
                path = idx.find(root / self.folder, f"{prefix}-{kind}-ubyte")
                if path is None:
                    return None
                arrays[f"{role}_{split}"] = idx.read(path, axes)
        return arrays


@dataclass(frozen=True, slots=True)
class CifarFiles:
    """The binary version of CIFAR: rows of label bytes and 3,072 pixels (3 channels of 32 rows of 32).

    Attributes:
        folder: Where the binary files lie.
        train: Names of the training files.
        test: Name of the test file.
        label_bytes: Bytes before the pixels; the last one is the label.
        others: Name of the label set of each byte before that.
        rows: Images in each training file and in the test file.
        pickled: Folder of the version that is not read, for the message.
        remotes: Where it is published.
    """

    folder: str
    train: tuple[str, ...]
    test: str
    label_bytes: int
    rows: tuple[int, int]
    pickled: str
    remotes: tuple[Remote, ...]
    others: tuple[str, ...] = ()

    @property
    def looked_for(self) -> str:
        """The files in words, below the root."""
        return f"{self.folder}/{self.test} and its companions"

    def read(self, root: Path) -> dict[str, Any] | None:
        """The four arrays; None where one of the files is not there."""
        folder = root / self.folder
        if not all((folder / name).is_file() for name in (*self.train, self.test)):
            if (root / self.pickled).is_dir():
                raise DataError(
                    f"{root / self.pickled}: this is the pickled version, which is never read because a pickle can run "
                    f"any code; put the binary version into {folder} ({self.remotes[0].mirrors[0]}"
                    f"{self.remotes[0].file}) or an .npz with x_train, y_train, x_test, y_test into {root}"
                )
            return None
        train = [self._rows(folder / name, self.rows[0]) for name in self.train]
        test = self._rows(folder / self.test, self.rows[1])
        pixels, labels = (np.concatenate([part[which] for part in train]) for which in (0, 1))
        found = {"x_train": pixels, "y_train": labels[:, -1], "x_test": test[0], "y_test": test[1][:, -1]}
        for place, name in enumerate(self.others):
            found |= {f"y_train_{name}": labels[:, place], f"y_test_{name}": test[1][:, place]}
        return found

    def _rows(self, path: Path, count: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Images `(N, 32, 32, 3)` and label bytes `(N, label_bytes)` of one file."""
        try:
            content = np.fromfile(path, np.uint8)
        except OSError as error:
            raise DataError(f"{path}: cannot be read: {error.strerror}; check its permissions") from None
        width = self.label_bytes + 3 * 32 * 32
        if content.size != count * width:
            raise DataError(
                f"{path}: has {content.size} bytes, expected {count * width} for {count} images; fetch the file again"
            )
        rows = content.reshape(count, width)
        return rows[:, self.label_bytes :].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), rows[:, : self.label_bytes]
