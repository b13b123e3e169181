"""The names that people give to networks: of the zoo, of torchvision, of a file, or of a candidate, `RUN:ID`."""

from __future__ import annotations

__all__ = ["FILE", "TORCHVISION", "candidate_named"]

FILE = ".safetensors"
"""By this end of its name a network's file is told from a name of the zoo."""

TORCHVISION = "torchvision:"
"""By this beginning of its name a network of torchvision is told."""


def candidate_named(name: str) -> tuple[str, int] | None:
    """The run's folder and the candidate's number where `name` is `RUN:ID`, else None.

    >>> candidate_named("runs/0001:17"), candidate_named("torchvision:resnet18")
    (('runs/0001', 17), None)
    """
    folder, _, number = name.rpartition(":")
    return (folder, int(number)) if folder and number.isdecimal() else None
