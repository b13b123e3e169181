"""A network as a value: structure, weights, channel spaces, cost, files, and the way to and from `torch`.

A `Genome` is a `Graph` with its weights. Both are frozen: a change makes a new one.

    >>> from graphs import zoo, parameters
    >>> genome = zoo.create("resnet", depth=8, classes=10, input_shape=(3, 32, 32))
    >>> parameters(genome.graph)
    78042

| module | what it holds |
|---|---|
| `structure`, `genome` | the values `Node`, `Head`, `Graph`, `Genome` |
| `kinds` | the table of layers: settings, tensors, shapes, channels, cost, `torch` module of each |
| `draft`, `check` | making a graph, and whether it is valid |
| `axes`, `solver`, `spaces` | which channels are the same channels: the ground of every change of width |
| `importing` | any traceable module as a genome |
| `execution`, `modules` | running a graph node by node; the ordinary module that comes out |
| `placing`, `source_text` | where layers and tensors stand in a module; it as Python source |
| `files`, `documents`, `container` | the one file format: its digest, its JSON, its bytes |
| `identity`, `partition` | fingerprints of structures |
| `unit` | layers and blocks in order: what is frozen, split at, shared |
| `zoo` | networks to start from |

This package knows nothing of mutations, training or searches.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from graphs import zoo as zoo
    from graphs.cost import macs as macs
    from graphs.cost import parameters as parameters
    from graphs.draft import Draft as Draft
    from graphs.files import load as load
    from graphs.files import save as save
    from graphs.genome import Genome as Genome
    from graphs.identity import fingerprint as fingerprint
    from graphs.importing.importer import from_torch as from_torch
    from graphs.initial import initial_weights as initial_weights
    from graphs.kinds import KINDS as KINDS
    from graphs.modules import genome_from_module as genome_from_module
    from graphs.modules import to_torch as to_torch
    from graphs.spaces import explain as explain
    from graphs.spaces import report as report
    from graphs.structure import Graph as Graph
    from graphs.structure import Head as Head
    from graphs.structure import Node as Node
    from graphs.unit import Unit as Unit
    from graphs.unit import units as units

_EXPORTS = {
    "Draft": "graphs.draft",
    "Genome": "graphs.genome",
    "Graph": "graphs.structure",
    "Head": "graphs.structure",
    "KINDS": "graphs.kinds",
    "Node": "graphs.structure",
    "Unit": "graphs.unit",
    "explain": "graphs.spaces",
    "fingerprint": "graphs.identity",
    "from_torch": "graphs.importing.importer",
    "genome_from_module": "graphs.modules",
    "initial_weights": "graphs.initial",
    "load": "graphs.files",
    "macs": "graphs.cost",
    "parameters": "graphs.cost",
    "report": "graphs.spaces",
    "save": "graphs.files",
    "to_torch": "graphs.modules",
    "units": "graphs.unit",
}

__all__ = [*_EXPORTS, "zoo"]


def __getattr__(name: str) -> Any:
    if name == "zoo":
        return importlib.import_module("graphs.zoo")
    if name in _EXPORTS:
        return getattr(importlib.import_module(_EXPORTS[name]), name)
    raise AttributeError(f"module 'graphs' has no attribute '{name}'")
