"""Fetching the published files of a data set, only when the user asks for it.

A file appears whole or not at all, and only with the published checksum. From an archive, named members are taken out
one by one: a path inside an archive is never followed.
"""

from __future__ import annotations

import hashlib
import io
import tarfile
import urllib.error
import urllib.request
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path

from graphs.durable import storage_errors, write_bytes
from graphs.errors import EvolutionError

__all__ = ["DownloadError", "Remote", "fetch"]

TIMEOUT = 60.0
"""Seconds without a byte after which a server is given up."""

MOST_BYTES = 1 << 29
"""No published file is larger, in bytes."""


class DownloadError(EvolutionError, OSError):
    """A file cannot be fetched, or is not the published one; the message names address and reason."""

    exit_code = 1


@dataclass(frozen=True, slots=True)
class Remote:
    """A published file.

    Attributes:
        mirrors: Addresses of folders that hold it, tried in this order.
        file: Its name there.
        digest: `md5:` or `sha256:` and the checksum in hexadecimal.
        folder: Where it goes, below the root.
        members: For a tar archive, the paths inside it that are put into `folder` in its place.
    """

    mirrors: tuple[str, ...]
    file: str
    digest: str
    folder: str
    members: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the files that it becomes."""
        return tuple(member.rsplit("/", 1)[-1] for member in self.members) or (self.file,)


def fetch(remotes: Sequence[Remote], root: Path, base: str | None = None) -> None:
    """Puts those of `remotes` that are not there yet below `root`.

    Args:
        remotes: What to fetch.
        root: Folder of the data sets; made if it is not there.
        base: Address of a folder to fetch from in place of the files' own mirrors.

    Raises:
        DownloadError: No mirror gives the published file.
        StorageError: `root` cannot be written.
    """
    for remote in remotes:
        folder = root / remote.folder
        if all((folder / name).is_file() for name in remote.names):
            continue
        content = _published(remote, (base,) if base else remote.mirrors)
        parts = _members(content, remote) if remote.members else {remote.file: content}
        with storage_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
        for name, part in parts.items():
            write_bytes(folder / name, part)


def _published(remote: Remote, mirrors: Sequence[str]) -> bytes:
    """The file's content from the first mirror that has it, checked."""
    faults = []
    for mirror in mirrors:
        url = mirror.rstrip("/") + "/" + remote.file
        if not url.startswith(("https://", "http://")):
            raise DownloadError(f"cannot fetch {url}: expected an address that starts with https:// or http://")
        try:
            with urllib.request.urlopen(url, timeout=TIMEOUT) as answer:  # noqa: S310 (the scheme is checked above)
                content: bytes = answer.read(MOST_BYTES)
        except (urllib.error.URLError, HTTPException, OSError) as error:
            faults.append(f"{url}: {error or type(error).__name__}")
            continue
        algorithm, expected = remote.digest.split(":")
        found = hashlib.new(algorithm, content, usedforsecurity=False).hexdigest()
        if found == expected:
            return content
        faults.append(f"{url}: {len(content)} bytes with the {algorithm} {found}, expected {expected}")
    raise DownloadError(
        f"cannot fetch {remote.file}: {'; '.join(faults)}; try again, or put the file into {remote.folder} by hand"
    )


def _members(content: bytes, remote: Remote) -> dict[str, bytes]:
    """The contents of the members of an archive that `remote` names, by file name."""
    parts: dict[str, bytes] = {}
    try:
        with tarfile.open(fileobj=io.BytesIO(content)) as archive:
            for member, name in zip(remote.members, remote.names, strict=True):
                file = archive.extractfile(member)
                if file is None:
                    raise KeyError(f"{member} is no file")
                parts[name] = file.read()
    except (tarfile.TarError, KeyError, EOFError, OSError, zlib.error) as error:
        raise DownloadError(f"cannot unpack {remote.file}: {error}; the publisher may have changed it") from None
    return parts
