"""`torchvision.models`, an optional extra of this project.

A torchvision that was built for CUDA does not import beside a torch for the CPU alone: its compiled operators cannot be
loaded, and its Python part then describes two operators that do not exist. No network for classification uses them, so
to declare them is all that is missing.
"""

from __future__ import annotations

import sys
from typing import Any

from graphs.errors import MissingExtra

__all__ = ["torchvision_models"]

_OPERATORS = ("nms", "qnms")

_declared: list[Any] = []
"""The library that holds the declarations; they end with it."""


def torchvision_models() -> Any:
    """The module `torchvision.models`.

    Raises:
        MissingExtra: torchvision is not installed, or does not fit the installed torch.
    """
    try:
        try:
            import torchvision.models
        except RuntimeError:
            if _declared:
                raise
            _declare()
            import torchvision.models
    except ModuleNotFoundError as error:
        if error.name != "torchvision":
            raise
        raise MissingExtra(
            "torchvision is not installed; install it with: pip install 'hydra-evolve[vision]'"
        ) from None
    except (ImportError, RuntimeError) as error:
        raise MissingExtra(
            f"torchvision does not work with the installed torch: {error}; install one that does with: "
            "pip install 'hydra-evolve[vision]'"
        ) from error
    return torchvision.models


def _declare() -> None:
    """Declares the operators, and forgets what the failed import has left."""
    from torch.library import Library

    for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        del sys.modules[name]
    library: Any = Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
    for name in _OPERATORS:
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _declared.append(library)
