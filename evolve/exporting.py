"""A network taken out of this project: a folder that needs `torch` and `safetensors`, and nothing of ours.

    DIR/model.safetensors   the tensors, under the names of the module's state_dict
    DIR/constants.safetensors   tensors that are no part of that, masks and the like; only where there are some
    DIR/model.py            the network as readable code; `load()` gives the module in eval mode
    DIR/config.json         input shape, classes, labels, normalisation, accuracies (fractions from 0 to 1), cost

The folder appears whole or not at all, and only after the exported module, loaded from it, has given the very outputs
of the original on a batch of random numbers.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import secrets
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphs.durable import TEMPORARY, storage_errors, sync_directory, write_bytes, write_text
from graphs.errors import EvolutionError, FormatError
from graphs.kinds.joins import whole_numbers

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from evolve.runs import Run
    from graphs import Genome, Graph
    from graphs.structure import Node

__all__ = ["FILES", "ExportError", "export"]

FILES = ("model.safetensors", "model.py", "config.json")
"""What an exported folder holds."""

CONSTANTS = "constants.safetensors"
"""What it holds beside, if the network has constants: the module starts with them, whatever state it is given."""

BATCH = 4
"""Examples on which the exported module has to agree with the original."""

_DTYPES = {"integer": "int64", "boolean": "bool"}

_MODULE = '''"""{title}, exported by hydra-evolve; needs torch and safetensors only.

    from model import load
    model = load()                      # in eval mode, on the CPU
    outputs = model(images)             # {interface}

{preparation}
"""

{source}

def load(weights=Path(__file__).with_name("model.safetensors")):
    """The network with its weights, in eval mode, on the CPU."""
    model = Model()
    load_model(model, str(weights), strict=True)
    return model.eval()
'''


_STARTS = f'load_file(Path(__file__).with_name("{CONSTANTS}"))'


class ExportError(EvolutionError, ValueError):
    """The place to export to is taken, or there is nothing to export."""


def export(
    run_or_genome: Run | Genome | str | os.PathLike[str],
    to: str | os.PathLike[str],
    candidate: int | None = None,
    *,
    force: bool = False,
) -> Path:
    """Writes a network as a folder that runs without this project.

    Args:
        run_or_genome: A run, the path of one, a genome, or the path of a file that holds one.
        to: The folder to make; its parents are made too.
        candidate: Which candidate of the run; the best one where None. Its trained weights are exported.
        force: Whether a folder that an earlier export made may be replaced.

    Returns:
        The folder.

    Raises:
        ExportError: The folder exists and is not empty, or `candidate` is given with a genome.
        GraphError: The network calls a function that is in the memory of this process alone.
        FormatError: The file holds no genome.
        UnknownName: The run has no such candidate.
        StorageFull: The disk is full; nothing is left behind, and what was there before is intact.
    """
    from graphs import Genome, load
    from graphs.kinds.in_memory import check_stored

    if isinstance(run_or_genome, str | os.PathLike) and Path(run_or_genome).is_file():
        run_or_genome = load(run_or_genome)
    if isinstance(run_or_genome, Genome):
        if candidate is not None:
            raise ExportError(f"a genome has no candidates; got candidate {candidate}; leave it out or give the run")
        genome, facts = run_or_genome, dict[str, Any]()
    else:
        genome, facts = _from_run(run_or_genome, candidate)
    genome = genome.with_lasting_heads()
    check_stored(genome.graph)
    folder = Path(to).resolve()
    _check_place(folder, force)
    with storage_errors(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        draft = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}{TEMPORARY}")
        try:
            draft.mkdir()
            _write(draft, genome, facts)
            _compare(draft, genome)
            _install(draft, folder)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
    return folder


def _from_run(run: Run | str | os.PathLike[str], candidate: int | None) -> tuple[Genome, dict[str, Any]]:
    """The trained genome of a candidate and what the run knows of it."""
    from evolve.runs import Run, open_run

    opened = run if isinstance(run, Run) else open_run(run)
    found = opened.best() if candidate is None else opened.candidate(candidate)
    if found is None:
        raise ExportError(f"{opened.path} has no finished candidate yet; wait for one, or go on with 'evolve resume'")
    facts = {
        "candidate": found.id,
        "val_accuracy": found.val_accuracy,
        "test_accuracy": found.test_accuracy,
    }
    return found.genome(), facts


def _check_place(folder: Path, force: bool) -> None:
    if folder == Path.cwd():
        raise ExportError(f"cannot export to the current folder {folder}; name a folder that does not exist yet")
    if not folder.exists():
        return
    if not folder.is_dir():
        raise ExportError(f"cannot export to {folder}: it is a file; name a folder that does not exist yet")
    found = sorted(item.name for item in folder.iterdir())
    if found and not force:
        raise ExportError(
            f"cannot export to {folder}: it is not empty ({found[0]}); name another folder or add --force"
        )
    foreign = [name for name in found if name not in {*FILES, CONSTANTS, "__pycache__"}]
    if foreign:
        raise ExportError(
            f"cannot replace {folder}: it holds {foreign[0]}, which no export has made; name another folder"
        )


def _write(folder: Path, genome: Genome, facts: Mapping[str, Any]) -> None:
    import torch
    from safetensors.torch import save

    from graphs.source_text import constants_of, source

    config = _config(genome, facts)
    dense = torch.contiguous_format
    tensors = {name: tensor.detach().clone(memory_format=dense) for name, tensor in genome.weights.items()}
    constants = {name: tensors.pop(name) for name in constants_of(genome)}
    write_bytes(folder / "model.safetensors", save(tensors))
    if constants:
        write_bytes(folder / CONSTANTS, save(constants))
    reading = f"from safetensors.torch import {'load_file, ' if constants else ''}load_model"
    text = source(genome, constants=_STARTS, imports=("from pathlib import Path", reading))
    write_text(folder / "model.py", _module(text, config, genome.graph))
    write_text(folder / "config.json", json.dumps(config, indent=2, allow_nan=False) + "\n")


def _config(genome: Genome, facts: Mapping[str, Any]) -> dict[str, Any]:
    from graphs import fingerprint, macs, parameters

    graph = genome.graph
    about = _plain(genome.about)
    inputs = {node.settings["name"]: list(node.settings["shape"]) for node in graph.inputs}
    classes = graph.shapes[graph.heads[0].node][-1:] or (1,)
    return {
        "candidate": facts.get("candidate"),
        "input_shape": next(iter(inputs.values())),
        "inputs": inputs,
        "dtype": _type_of(genome, graph.inputs[0]),
        "outputs": [head.name for head in graph.heads],
        "classes": classes[0],
        "labels": about.get("labels") or [str(number) for number in range(classes[0])],
        "normalisation": about.get("normalisation"),
        "val_accuracy": facts.get("val_accuracy"),
        "test_accuracy": facts.get("test_accuracy"),
        "parameters": parameters(graph),
        "macs": macs(graph),
        "fingerprint": fingerprint(graph),
        "digest": genome.digest,
    }


def _type_of(genome: Genome, input: Node) -> str:
    """The type of an input: numbers have the precision of the first tensor of the network that meets them."""
    graph = genome.graph
    behind = graph.downstream([input.id])
    kinds = (
        genome.weights[name].dtype
        for node in graph.nodes.values()
        if node.id in behind
        for name in node.tensors.values()
    )
    floating = (str(kind).removeprefix("torch.") for kind in kinds if kind.is_floating_point)
    return _DTYPES.get(input.settings["dtype"]) or next(floating, "float32")


def _module(source: str, config: Mapping[str, Any], graph: Graph) -> str:
    """The text of `model.py`."""
    number = config["candidate"]
    scale = config["normalisation"]
    names = config["outputs"]
    logits = f"{_batched(graph.shapes[graph.heads[0].node])} logits"
    gives = logits if len(names) == 1 else f"a dictionary with {', '.join(names)}"
    return _MODULE.format(
        title="A network" if number is None else f"Candidate {number} of a search",
        interface=_quoted(f"{_batched(config['input_shape'])} {config['dtype']} -> {gives}"),
        preparation="Inputs are as the network was trained on them."
        if scale is None
        else "Images are pixels from 0 to 1, minus the mean, divided by the deviation of their channel; both are the\n"
        "`normalisation` in config.json.",
        source=source,
    )


def _quoted(text: str) -> str:
    """`text` as it can stand in a docstring, which no name can then end."""
    return text.replace("\\", "\\\\").replace('"', '\\"')


def _batched(shape: Sequence[int]) -> str:
    """The shape of a batch, for people."""
    return f"({', '.join(['N', *map(str, shape)])})" if shape else "(N,)"


def _compare(folder: Path, genome: Genome) -> None:
    """Loads the module from `folder` and compares its outputs with the genome's, bit for bit.

    Raises:
        ExportError: The network does not run.
        FormatError: They differ; a fault of this project, not of the user.
    """
    import torch

    from graphs import to_torch

    generator = torch.Generator().manual_seed(0)
    batch = [_drawn(node, _type_of(genome, node), generator) for node in genome.graph.inputs]
    outputs = []
    for module in (to_torch(genome).eval(), _load(folder)):
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            try:
                outputs.append(module(*batch))
            except (ArithmeticError, LookupError, RuntimeError, TypeError, ValueError) as error:
                raise ExportError(
                    f"the network does not run on random numbers: {' '.join(str(error).split())}"
                ) from None
    expected, got = (each if isinstance(each, dict) else {"": each} for each in outputs)
    if not all(_same(expected[name], got[name]) for name in expected):
        raise FormatError(
            f"the module written to {folder} does not compute what the original does; nothing was exported, "
            "please report this with the run"
        )


def _drawn(node: Node, kind: str, generator: torch.Generator) -> Tensor:
    """Random examples for an input, of its type and in its range."""
    import torch

    shape = (BATCH, *node.settings["shape"])
    draw: dict[str, Callable[[], Tensor]] = {
        "float": lambda: torch.randn(shape, generator=generator),
        "integer": lambda: whole_numbers(node.settings, BATCH, generator),
        "boolean": lambda: torch.randint(0, 2, shape, generator=generator),
    }
    return draw[node.settings["dtype"]]().to(getattr(torch, kind))


def _same(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors are equal; what is no number in one is none in the other."""
    alike = one.dtype == other.dtype and one.shape == other.shape
    return alike and bool(((one == other) | (one.isnan() & other.isnan())).all())


def _load(folder: Path) -> nn.Module:
    """The exported module, from the folder's own code, which leaves no trace among the imported modules."""
    name = f"exported_{secrets.token_hex(4)}"
    spec = importlib.util.spec_from_file_location(name, folder / "model.py")
    if spec is None or spec.loader is None:  # never, for a path that ends with .py
        raise ImportError(f"cannot load {folder / 'model.py'}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
        loaded: nn.Module = module.load()
        return loaded
    finally:
        del sys.modules[name]
        shutil.rmtree(folder / "__pycache__", ignore_errors=True)


def _install(draft: Path, folder: Path) -> None:
    """Gives the finished folder its name; an older export there makes room and is deleted afterwards."""
    sync_directory(draft)
    old = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}{TEMPORARY}")
    replaced = folder.exists()
    if replaced:
        os.rename(folder, old)
    try:
        os.rename(draft, folder)
    except OSError:
        if replaced:
            os.rename(old, folder)
        raise
    sync_directory(folder.parent)
    with contextlib.suppress(OSError):
        shutil.rmtree(old)


def _plain(value: Any) -> Any:
    """`value` with mappings as dictionaries and tuples as lists, for `json`."""
    if isinstance(value, Mapping):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value
