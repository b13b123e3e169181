"""A network as Python source: a class that builds its layers, and the forward pass that `torch.fx` generates."""

from __future__ import annotations

import ast
import re
import sys
from collections import Counter
from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING

from graphs.genome import Genome
from graphs.kinds import TensorSpec
from graphs.modules import to_torch
from graphs.placing import Plan, dotted, in_order, turns

if TYPE_CHECKING:
    from torch import Tensor
    from torch.fx.graph import PythonCode

__all__ = ["constants_of", "source"]


def source(genome: Genome, name: str = "Model", constants: str = "constants", imports: Iterable[str] = ()) -> str:
    """Python source of a class that computes what the genome does and needs `torch` alone.

    The class builds its layers, without weights: `safetensors.torch.load_model` with the genome's tensors, but for the
    constants, fills it. Its `state_dict` has the names that the module of `to_torch` has.

    Args:
        genome: The network.
        name: What the class is called.
        constants: An expression for the constants' tensors by name, with which the class starts; asked for only where
            there are some.
        imports: Statements that the text shall begin with beside those that the class needs.
    """
    plan = Plan(genome)
    code = to_torch(genome).graph.python_code("self")
    lines = [f"class {name}(nn.Module):", "    def __init__(self):", "        super().__init__()"]
    made: set[str] = set()
    places = turns(in_order(genome))
    for path in sorted(
        plan.modules, key=lambda path: [places.get(each, len(places)) for each in (*_parents(path), path)]
    ):
        constructor, arguments, extra = plan.modules[path]
        lines += _holders(path, made | plan.modules.keys())
        made.update(_parents(path))
        call = f"nn.{constructor}({', '.join(f'{key}={value!r}' for key, value in arguments.items())})"
        if path:
            lines.append(f"        {_assign(path)}{call if constructor else 'nn.Module()'}{_close(path)}")
        for role, spec in sorted(extra.items(), key=lambda item: places.get(dotted(path, item[0]), len(places))):
            lines.append(f"        {_new(path, role, spec, genome.weights[dotted(path, role)])}")
    for later, kept in plan.tied.items():
        path, _, role = later.rpartition(".")
        lines.append(f"        {_set(path, role, _reach(kept))}")
    for path, other in plan.same.items():
        lines += _holders(path, made | plan.modules.keys())
        made.update(_parents(path))
        lines.append(f"        {_assign(path)}{_object(other)}{_close(path)}")
    lines += [f"        {_reach(name)}.requires_grad_(False)" for name in plan.frozen]
    lines += _precision(genome)
    if constants_of(genome):
        lines += [
            f"        for name, value in {constants}.items():",
            "            self.get_buffer(name).copy_(value)",
        ]
    body = re.sub(r"^", "    ", code.src.strip(), flags=re.MULTILINE)
    return "\n\n\n".join((_imports(code, imports), "\n".join(lines) + "\n\n" + body + "\n"))


def _imports(code: PythonCode, others: Iterable[str]) -> str:
    """The statements that make known what a text names, in the order in which people write them."""
    named = {node.id for node in ast.walk(ast.parse(code.src)) if isinstance(node, ast.Name)}
    wanted = {"import torch", "from torch import nn", *others}
    for name, value in code.globals.items():
        if name in named and isinstance(value, float):  # an infinity or what is no number, as Python shows them
            wanted.add(f"from math import {name}")
        elif name in named and name != "torch":
            wanted.add(f"from {value.__module__} import {value.__name__} as {name}")
    standard = [line for line in wanted if line.split()[1].partition(".")[0] in sys.stdlib_module_names]
    groups = (standard, wanted.difference(standard))
    return "\n\n".join("\n".join(sorted(group, key=_module_first)) for group in groups if group)


def _module_first(line: str) -> tuple[bool, str]:
    return line.startswith("from"), line


def constants_of(genome: Genome) -> tuple[str, ...]:
    """Names of the tensors that are no part of a module's state."""
    return tuple(name for name, spec in genome.graph.tensors.items() if not spec.persistent)


def _precision(genome: Genome) -> list[str]:
    """The statements that give tensors their types: most of them at once, and each of the others."""
    import torch

    types = {name: tensor.dtype for name, tensor in genome.weights.items() if tensor.is_floating_point()}
    most = max(Counter(types.values()).items(), key=lambda item: item[1], default=(torch.float32, 0))[0]
    lines = [] if most is torch.float32 else [f"        self.to({most})"]
    others = {name: kind for name, kind in types.items() if kind is not most}
    return lines + [f"        {_reach(name)}.data = {_reach(name)}.to({kind})" for name, kind in others.items()]


def _holders(path: str, made: Collection[str]) -> list[str]:
    """The statements that make the modules above a path that are not made yet."""
    return [f"        {_assign(each)}nn.Module(){_close(each)}" for each in _parents(path) if each not in made]


def _parents(path: str) -> list[str]:
    parts = path.split(".")
    return [".".join(parts[:count]) for count in range(1, len(parts))]


def _assign(path: str) -> str:
    owner, _, last = path.rpartition(".")
    return f"{_object(owner)}.{last} = " if last.isidentifier() else f"{_object(owner)}.add_module({last!r}, "


def _close(path: str) -> str:
    return "" if _assign(path).endswith("= ") else ")"


def _object(path: str) -> str:
    """The expression that reaches a submodule."""
    if path and all(part.isidentifier() for part in path.split(".")):
        return f"self.{path}"
    return f"self.get_submodule({path!r})" if path else "self"


def _set(path: str, role: str, value: str) -> str:
    """The statement that gives a module an attribute, whose name may be a number."""
    return (
        f"{_object(path)}.{role} = {value}" if role.isidentifier() else f"setattr({_object(path)}, {role!r}, {value})"
    )


def _new(path: str, role: str, spec: TensorSpec, tensor: Tensor) -> str:
    """The statement that gives a holder a tensor of its own."""
    shape = tuple(tensor.shape)
    if not spec.buffer:
        return _set(path, role, f"nn.Parameter(torch.zeros({shape!r}))")
    kept = "" if spec.persistent else ", persistent=False"
    return f"{_object(path)}.register_buffer({role!r}, torch.zeros({shape!r}, dtype={tensor.dtype}){kept})"


def _reach(name: str) -> str:
    path, _, role = name.rpartition(".")
    return f"{_object(path)}.{role}" if role.isidentifier() else f"getattr({_object(path)}, {role!r})"
