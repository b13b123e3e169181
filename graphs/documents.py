"""Canonical JSON, and graphs as JSON.

Canonical means that equal values have equal text: sorted keys, no spaces, no NaN, ASCII only. What is read is
treated as hostile: its size is judged before it is parsed, and every value's type and range before it is
used.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from graphs.errors import EvolutionError, FormatError, GraphError
from graphs.structure import Graph, Head, Node

__all__ = [
    "MAX_NODES",
    "bounded",
    "canonical",
    "facts",
    "fields",
    "from_json",
    "name_of",
    "parse",
    "to_json",
    "whole",
]

MAX_NODES = 10_000
"""Most nodes of a graph that is written or read."""

_MAX_NAME = 1024
_MAX_SETTINGS = 262_144
_MAX_DEPTH = 16
_MAX_CONTAINERS = 120_000
_MAX_VALUES = 250_000
_MAX_FACTS = 50_000
_MAX_OPERANDS = 1000
_NUMBERED = re.compile(r"#([0-9]{1,16})$")


def canonical(value: Any) -> str:
    """The one JSON text of `value`; read-only mappings and tuples are written as objects and lists.

    >>> canonical({"b": (1, 2.0), "a": None})
    '{"a":null,"b":[1,2.0]}'

    Raises:
        FormatError: A value that JSON has no word for, NaN and infinities included.
    """
    try:
        return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False, default=_mapping)
    except (TypeError, ValueError, RecursionError) as error:
        raise FormatError(f"cannot be written as JSON: {error}") from None


def _mapping(value: Any) -> dict[str, Any]:
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"a value of type {type(value).__name__}; expected numbers, texts, lists and dictionaries")


def parse(text: bytes, where: str) -> Any:
    """The value of a JSON text.

    Raises:
        FormatError: It is not JSON, names a key twice, holds NaN or an infinity, or is too large or too deep.
    """
    bounded(text, where)
    try:
        return json.loads(text.decode(), object_pairs_hook=_unique, parse_constant=_constant)
    except RecursionError:
        raise FormatError(f"{where}: lists and objects are nested too deep") from None
    except ValueError as error:
        raise FormatError(f"{where}: not valid JSON: {_brief(error)}") from None


def bounded(text: bytes, where: str) -> None:
    """Passes JSON texts of so few values that dealing with them takes less than a second.

    Raises:
        FormatError: It has more.
    """
    if text.count(b"{") + text.count(b"[") > _MAX_CONTAINERS or text.count(b",") > _MAX_VALUES:
        raise FormatError(f"{where}: too large, more than {_MAX_CONTAINERS} lists or {_MAX_VALUES} values")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("an object names the same key twice")
    return found


def _constant(name: str) -> Any:
    raise ValueError(f"{name} is not allowed")


def _brief(value: object) -> str:
    """`value` for a message: one line, of bounded length, printable on any terminal."""
    text = ascii(str(value))[1:-1]
    return text if len(text) <= 120 else f"{text[:100]}… ({len(text)} characters)"


def fields(value: Any, names: set[str], where: str) -> dict[str, Any]:
    """`value`, if it is an object with exactly these keys.

    Raises:
        FormatError: It is not; names the first key that is missing or unknown.
    """
    if not isinstance(value, dict):
        raise FormatError(f"{where}: expected an object, got {_type(value)}")
    for name in sorted(names - value.keys()):
        raise FormatError(f"{where}: '{name}' is missing")
    for name in sorted(value.keys() - names):
        raise FormatError(f"{where}: unknown key '{_brief(name)}'; expected {', '.join(sorted(names))}")
    return value


def whole(value: Any, where: str, most: int = 2**53) -> int:
    """`value`, if it is a whole number from 0 to `most`.

    Raises:
        FormatError: It is not.
    """
    if type(value) is not int or not 0 <= value <= most:
        got = value if type(value) is int and -(2**64) < value < 2**64 else _type(value)
        raise FormatError(f"{where}: expected a whole number from 0 to {most}, got {got}")
    return value


def name_of(value: Any, where: str) -> str:
    """`value`, if it is a text that can be a name: printable, not empty, not endless.

    Raises:
        FormatError: It is not.
    """
    if not isinstance(value, str):
        raise FormatError(f"{where}: expected a name, got {_type(value)}")
    if not 0 < len(value) <= _MAX_NAME or not value.isprintable():
        raise FormatError(f"{where}: expected a printable name of 1 to {_MAX_NAME} characters, got '{_brief(value)}'")
    return value


def shallow(value: Any, where: str, most: int = _MAX_VALUES) -> None:
    """Passes values that are nested at most 16 deep and hold at most `most` others.

    Raises:
        FormatError: `value` is deeper or larger.
    """
    layer, total = [value], 0
    for _ in range(_MAX_DEPTH):
        parts = [part.values() if isinstance(part, Mapping) else part for part in layer if _holds(part)]
        layer = [item for part in parts for item in part]
        total += len(layer)
        if total > most:
            raise FormatError(f"{where}: more than {most} values")
        if not layer:
            return
    raise FormatError(f"{where}: nested more than {_MAX_DEPTH} deep")


def facts(value: Mapping[str, Any], where: str) -> None:
    """Passes facts about a network that a file can hold.

    Raises:
        FormatError: They are too many, or nested too deep.
    """
    shallow(value, where, _MAX_FACTS)


def _holds(value: Any) -> bool:
    return not isinstance(value, str | int | float) and isinstance(value, Mapping | list | tuple)


def _type(value: Any) -> str:
    known = {dict: "an object", list: "a list", str: "a text", bool: "true or false", type(None): "null"}
    return known.get(type(value), "another number")


def to_json(graph: Graph) -> dict[str, Any]:
    """`graph` as values of JSON types; `from_json` is the inverse.

    Raises:
        GraphError: It has more nodes, or one of more operands, than can be read again.
    """
    if len(graph.nodes) > MAX_NODES:
        raise GraphError(f"the graph has {len(graph.nodes)} nodes; at most {MAX_NODES} can be written")
    for node in graph.nodes.values():
        if len(node.inputs) > _MAX_OPERANDS:
            raise GraphError(f"node '{node.id}' has {len(node.inputs)} inputs; at most {_MAX_OPERANDS} can be written")
    return {
        "nodes": [
            {
                "id": name_of(node.id, "a node's id"),
                "kind": node.kind,
                "settings": _thawed(node.settings),
                "inputs": list(node.inputs),
                "tensors": {role: name_of(name, f"node '{node.id}'") for role, name in node.tensors.items()},
                "born": node.born,
            }
            for node in graph.nodes.values()
        ],
        "heads": [
            {"name": name_of(head.name, "a head"), "node": head.node, "training_only": head.training_only}
            for head in graph.heads
        ],
        "counter": graph.counter,
    }


def _thawed(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _thawed(item) for key, item in value.items()}
    return [_thawed(item) for item in value] if isinstance(value, list | tuple) else value


def from_json(value: Any, where: str = "graph") -> Graph:
    """The graph that `to_json` wrote, checked whole.

    Args:
        value: What a JSON text holds.
        where: What messages call it.

    Raises:
        FormatError: Anything is not as it must be; names the place.
    """
    found = fields(value, {"nodes", "heads", "counter"}, where)
    counter = whole(found["counter"], f"{where}: counter")
    nodes: dict[str, Node] = {}
    for place, item in enumerate(_list(found["nodes"], f"{where}: nodes", MAX_NODES)):
        node = _node(item, f"{where}: node {place}", nodes)
        number = _NUMBERED.search(node.id)
        if number and int(number[1]) >= counter:
            raise FormatError(f"{where}: node {place}: id '{node.id}' is not below the counter, {counter}")
        nodes[node.id] = node
    heads = [_head(item, f"{where}: head {place}") for place, item in enumerate(_list(found["heads"], where, 1000))]
    graph = Graph(nodes, tuple(heads), counter)
    from graphs.check import check

    try:
        check(graph)
    except EvolutionError as error:
        raise FormatError(f"{where}: {error}") from None
    return graph


def _list(value: Any, where: str, most: int) -> list[Any]:
    if not isinstance(value, list):
        raise FormatError(f"{where}: expected a list, got {_type(value)}")
    if len(value) > most:
        raise FormatError(f"{where}: {len(value)} entries; at most {most} are allowed")
    return value


def _node(value: Any, where: str, before: Mapping[str, Node]) -> Node:
    from graphs.kinds import kind_of
    from graphs.kinds.in_memory import in_memory

    found = fields(value, {"id", "kind", "settings", "inputs", "tensors", "born"}, where)
    id = name_of(found["id"], f"{where}: id")
    where = f"{where} '{id}'"
    if id in before:
        raise FormatError(f"{where}: an earlier node has the same id")
    inputs = [name_of(each, f"{where}: inputs") for each in _list(found["inputs"], f"{where}: inputs", _MAX_OPERANDS)]
    for source in inputs:
        if source not in before:
            raise FormatError(f"{where}: reads '{source}', which is not among the nodes before it")
    if not isinstance(found["tensors"], dict):
        raise FormatError(f"{where}: tensors: expected an object, got {_type(found['tensors'])}")
    tensors = {
        name_of(role, f"{where}: tensors"): name_of(name, f"{where}: tensors")
        for role, name in found["tensors"].items()
    }
    settings = found["settings"]
    if not isinstance(settings, dict):
        raise FormatError(f"{where}: settings: expected an object, got {_type(settings)}")
    shallow(settings, f"{where}: settings")
    for target in in_memory(settings):
        raise FormatError(
            f"{where}: settings: calls '{_brief(target)}', which is in the memory of a process: no file may name it"
        )
    try:
        text = canonical(settings)
        if len(text) > _MAX_SETTINGS:
            raise FormatError(f"settings of {len(text)} characters; at most {_MAX_SETTINGS} are allowed")
        kind = name_of(found["kind"], "kind")
        filled = kind_of(kind).fill(id, settings)
        if canonical(filled) != text:
            raise FormatError(f"settings {_brief(text)}; expected all of them, in their canonical form")
    except EvolutionError as error:
        raise FormatError(f"{where}: {error}") from None
    return Node(id, kind, filled, tuple(inputs), tensors, whole(found["born"], f"{where}: born"))


def _head(value: Any, where: str) -> Head:
    found = fields(value, {"name", "node", "training_only"}, where)
    if not isinstance(found["training_only"], bool):
        raise FormatError(f"{where}: training_only: expected true or false, got {_type(found['training_only'])}")
    name, node = (name_of(found[key], f"{where}: {key}") for key in ("name", "node"))
    return Head(name, node, found["training_only"])
