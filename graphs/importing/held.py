"""The tensors of a module that is taken in, and their names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from graphs.importing.stand_ins import Held

if TYPE_CHECKING:
    from torch import nn

__all__ = ["further_names", "reach", "tensors_of"]


def reach(layer: Any, name: str) -> Any:
    """What stands at a dotted path of a module."""
    for part in name.split("."):
        layer = getattr(layer, part)
    return layer


def further_names(module: nn.Module, known: Mapping[int, Held]) -> dict[str, str]:
    """The names under which a module's state has a tensor again, and the name under which it is known."""
    state = [*module.named_parameters(remove_duplicate=False), *module.named_buffers(remove_duplicate=False)]
    return {
        name: known[id(tensor)].name
        for name, tensor in state
        if id(tensor) in known and known[id(tensor)].how != "constant" and known[id(tensor)].name != name
    }


def tensors_of(module: nn.Module) -> dict[int, Held]:
    """Parameters and buffers of a module by identity, each under its first name."""
    found: dict[int, Held] = {}
    kept = set(module.state_dict().keys())
    for name, tensor in module.named_parameters():
        found.setdefault(id(tensor), Held(name, "parameter", tensor))
    for name, buffer in module.named_buffers():
        found.setdefault(id(buffer), Held(name, "buffer" if name in kept else "constant", buffer))
    return found
