"""Where a training that takes long is written down after each epoch, so that it can go on after an interruption."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphs.durable import write_bytes
from graphs.errors import FormatError

if TYPE_CHECKING:
    from runners.session import Session

__all__ = ["Checkpoint", "written_curves"]


class Checkpoint:
    """A file that holds the state of a session between two epochs.

    Args:
        path: Of the file; it ends in `.safetensors` and is replaced as a whole.
        origin: All that determines the training, of JSON types. A file that another training wrote is refused.
    """

    def __init__(self, path: Path, origin: Mapping[str, Any]) -> None:
        self.path, self._origin = path, json.loads(json.dumps(origin))

    def write(self, session: Session) -> None:
        """Writes the session down, durably."""
        from safetensors.torch import save

        tensors, text = session.state()
        whole = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        content = {"origin": self._origin, "state": json.loads(text), "digest": _digest(whole)}
        write_bytes(self.path, save(whole, {"checkpoint": json.dumps(content)}))

    def read_into(self, session: Session) -> bool:
        """Lets the session go on where the file says; False where there is no file.

        Raises:
            FormatError: The file is damaged, or another training wrote it.
        """
        if not self.path.exists():
            return False
        with _opened(self.path) as file:
            content = json.loads(file.metadata()["checkpoint"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}
            origin, digest = content["origin"], content["digest"]
        if digest != _digest(tensors):
            raise FormatError(f"{self.path}: this checkpoint is damaged; remove it to start again")
        origin.setdefault("objective", {})
        # The network comes last: it follows the data, the size of the images and the seed, which say more.
        different = sorted(
            (key for key in self._origin if origin.get(key) != self._origin[key]), key=lambda key: key == "network"
        )
        if different:
            found = _difference(origin, self._origin, different[0])
            raise FormatError(
                f"{self.path}: this checkpoint is of another training: {found}; change it back, take another folder, "
                "or remove the checkpoint to start anew"
            )
        session.restore(tensors, json.dumps(content["state"]))
        return True


def written_curves(path: Path) -> list[dict[str, Any]]:
    """The curves of the training that was written down at `path`; none where there is no file.

    Raises:
        FormatError: The file is damaged.
    """
    if not path.exists():
        return []
    with _opened(path) as file:
        found: list[dict[str, Any]] = json.loads(file.metadata()["checkpoint"])["state"]["curves"]
    return found


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """The file of a checkpoint; what fails while it is read is a `FormatError`."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            yield file
    except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
        raise FormatError(f"{path}: this is no checkpoint that can be read ({error}); remove it") from None


def _digest(tensors: Mapping[str, Any]) -> str:
    found = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name]
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)};".encode())
        found.update(tensor.contiguous().flatten().view(-1).numpy().tobytes())
    return found.hexdigest()


def _difference(before: Mapping[str, Any], now: Mapping[str, Any], key: str) -> str:
    one, other = before.get(key), now[key]
    if key == "objective" and isinstance(one, Mapping):
        changed = [name for name in ("loss", "metric") if one.get(name) != other.get(name)]
        return f"the {' and the '.join(changed)} {'is another one' if len(changed) == 1 else 'are others'}"
    if key != "data" and isinstance(one, Mapping) and isinstance(other, Mapping):
        inner = next(name for name in {**one, **other} if one.get(name) != other.get(name))
        return f"{key}.{inner} was {one.get(inner)!r} and is {other.get(inner)!r}"
    if key == "data":
        return "the examples are others"
    if key in ("network", "teachers"):
        return "the network is another one" if key == "network" else "the teachers are others"
    return f"{key} was {one!r} and is {other!r}"
