"""The exported folder runs where nothing of this project can be imported, and appears whole or not at all."""

from __future__ import annotations

import ast
import copy
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import ops
from evolve import exporting
from evolve.exporting import FILES, ExportError, export
from graphs import (
    Draft,
    Genome,
    Graph,
    fingerprint,
    from_torch,
    initial_weights,
    load,
    macs,
    parameters,
    save,
    to_torch,
)
from graphs.errors import EvolutionError, FormatError
from graphs.zoo import ZOO, create
from tests.graphs.drawing import graphs

ALONE = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"graphs", "ops", "runners", "evolve", "ray"}:
            raise ImportError(f"{name} is not installed here")

sys.meta_path.insert(0, Blocker())
sys.path = [place for place in sys.path if place not in ("", sys.argv[1])]
try:
    import graphs
except ImportError:
    pass
else:
    raise SystemExit("the blocker does not block")

from pathlib import Path

for folder in map(Path, sys.argv[2:]):
    sys.path.insert(0, str(folder))
    import model as exported
    import torch
    from safetensors.torch import load_file, save_file

    module = exported.load()
    assert not module.training
    torch.set_num_threads(1)
    with torch.no_grad():
        logits = module(load_file(folder / "batch")["batch"])
    save_file({"logits": logits}, folder / "logits")
    del sys.modules["model"], sys.path[0]
"""


def stirred(genome: Genome, seed: int = 0) -> Genome:
    """The genome with random numbers in every tensor, so that nothing is a neutral start any more."""
    generator = torch.Generator().manual_seed(seed)
    weights = {}
    for name, tensor in genome.weights.items():
        if tensor.is_floating_point():
            noise = torch.rand(tensor.shape, generator=generator)
            weights[name] = 0.5 + noise if "var" in name else tensor + 0.1 * (noise - 0.5)
        else:
            weights[name] = tensor
    return Genome(genome.graph, weights, genome.about)


def small(name: str) -> Genome:
    return stirred(create(name, classes=7, input_shape=(3, 16, 16)))


@pytest.fixture
def genome() -> Genome:
    return small("convnet")


def test_every_network_of_the_zoo_gives_the_same_logits_elsewhere(tmp_path: Path) -> None:
    networks = {name: small(name) for name in ZOO}
    rng = numpy.random.default_rng(0)
    for name in ZOO:
        child = networks[name]
        for _ in range(6):
            child = ops.propose(child, rng).genome
        networks[f"{name}-mutated"] = stirred(child)
    copies = []
    for name, network in networks.items():
        made = export(network, tmp_path / "made" / name)
        assert sorted(os.listdir(made)) == sorted(FILES)
        copy = shutil.copytree(made, tmp_path / "elsewhere" / name)
        generator = torch.Generator().manual_seed(1)
        save_file({"batch": torch.randn((3, 3, 16, 16), generator=generator)}, copy / "batch")
        copies.append(copy)
    shutil.rmtree(tmp_path / "made")
    root = Path(__file__).resolve().parents[2]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    subprocess.run(
        [sys.executable, "-c", ALONE, str(root), *map(str, copies)],
        check=True,
        cwd=tmp_path,
        env=environment,
        timeout=120,
    )
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for copy, (name, network) in zip(copies, networks.items(), strict=True):
            with torch.no_grad():
                expected = to_torch(network).eval()(load_file(copy / "batch")["batch"])
            assert torch.equal(load_file(copy / "logits")["logits"], expected), name
    finally:
        torch.set_num_threads(before)


@settings(max_examples=20, deadline=None)
@given(graph=graphs(), seed=st.integers(0, 3))
def test_any_network_can_be_exported(graph: Graph, seed: int) -> None:
    """Shared tensors, several heads, gates and groups included; `export` compares the outputs itself."""
    with tempfile.TemporaryDirectory() as folder:
        made = export(stirred(Genome(graph, initial_weights(graph, seed)), seed), Path(folder) / "a")
        assert sorted(os.listdir(folder)) == ["a"] and sorted(os.listdir(made)) == sorted(FILES)


def test_config_says_what_the_network_takes_and_gives(genome: Genome, tmp_path: Path) -> None:
    about = {"normalisation": {"mean": [0.5] * 3, "std": [0.25] * 3}, "labels": list("abcdefg")}
    known = Genome(genome.graph, genome.weights, about)
    config = json.loads((export(known, tmp_path / "a") / "config.json").read_text())
    assert config == {
        "candidate": None,
        "input_shape": [3, 16, 16],
        "inputs": {"x": [3, 16, 16]},
        "dtype": "float32",
        "outputs": [genome.graph.heads[0].name],
        "classes": 7,
        "labels": list("abcdefg"),
        "normalisation": {"mean": [0.5] * 3, "std": [0.25] * 3},
        "val_accuracy": None,
        "test_accuracy": None,
        "parameters": parameters(genome.graph),
        "macs": macs(genome.graph),
        "fingerprint": fingerprint(genome.graph),
        "digest": known.digest,
    }


class Constants(nn.Module):
    """Buffers of all sorts, and tensors that the forward pass makes."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 5)
        self.factor = torch.arange(5.0)
        self.register_buffer("mask", torch.ones(5), persistent=False)
        self.register_buffer("shift", torch.ones(5))

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.layer(x) * self.factor * self.mask + self.shift
        return found + torch.arange(5) + torch.tensor([1.0, 2, 3, 4, 5]) + torch.ones(40_000).reshape(5, -1).sum(1)


class Tokens(nn.Module):
    """Whole numbers and truth values in, one number for each example out."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.cell, self.out = nn.Embedding(11, 6), nn.LSTM(6, 5, batch_first=True), nn.Linear(5, 1)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        found: Tensor = self.out(self.cell(self.words(ids))[0][:, -1])
        return torch.log(torch.where(mask, found, torch.zeros_like(found))).squeeze(1)


class Causal(nn.Module):
    """Attention as people write it by hand: what comes later is filled with minus infinity."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.out = nn.Embedding(11, 6), nn.Linear(6, 3)
        self.register_buffer("bias", torch.tril(torch.ones(1, 7, 7)), persistent=False)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.words(ids)
        scores = (x @ x.transpose(1, 2)).masked_fill(self.bias == 0, float("-inf"))
        found: Tensor = self.out(abs(scores.softmax(-1) @ x))
        return found


@pytest.mark.parametrize(
    ("module", "example"),
    [
        (Causal(), torch.randint(0, 11, (2, 7))),
        (Constants(), torch.randn(2, 6)),
        (Tokens(), {"ids": torch.randint(0, 11, (2, 7)), "mask": torch.ones(2, 1).bool()}),
    ],
    ids=["causal", "constants", "tokens"],
)
def test_networks_of_others_are_exported_with_their_constants_and_inputs(
    module: nn.Module, example: Any, tmp_path: Path
) -> None:
    genome = from_torch(module, example)
    made = export(genome, tmp_path / "a")
    assert load_file(made / "model.safetensors").keys() == module.state_dict().keys()
    constants = load_file(made / "constants.safetensors") if (made / "constants.safetensors").exists() else {}
    assert constants.keys() == genome.weights.keys() - module.state_dict().keys()
    assert len((made / "model.py").read_text()) < 3000


class Mixed(nn.Module):
    """Layers of several precisions, one of them shared, around a mask that is no part of the state."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.last = nn.Linear(6, 5).half(), nn.BatchNorm1d(5), nn.Linear(5, 5).bfloat16()
        self.again = self.last
        self.register_buffer("mask", torch.rand(5), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.again(self.last((self.norm(self.first(x).float()) * self.mask).bfloat16()))
        return found


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("module", "example", "read"),
    [
        (Constants(), torch.randn(2, 6), None),
        (Causal(), torch.randint(0, 11, (2, 7)), torch.int64),
        (Mixed(), torch.randn(2, 6), torch.float16),
    ],
    ids=["constants", "causal", "mixed"],
)
def test_an_export_has_the_types_of_the_network_and_takes_its_state(
    module: nn.Module, example: Tensor, read: torch.dtype | None, kind: torch.dtype, tmp_path: Path
) -> None:
    module = copy.deepcopy(module) if isinstance(module, Mixed) else copy.deepcopy(module).to(kind)
    example = example.to(read or kind)
    made = export(from_torch(module, example), tmp_path / "a")
    assert json.loads((made / "config.json").read_text())["dtype"] == str(read or kind).removeprefix("torch.")
    state = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    loaded = exporting._load(made)
    assert {name: tensor.dtype for name, tensor in loaded.state_dict().items()} == {
        name: tensor.dtype for name, tensor in state.items()
    }
    for tensor in module.parameters():
        tensor.data.mul_(0.5)
    assert loaded.load_state_dict(module.state_dict(), strict=True).missing_keys == []
    with torch.no_grad():
        assert torch.equal(loaded(example), to_torch(from_torch(module, example)).eval()(example))


def test_a_network_that_does_not_run_is_not_exported(tmp_path: Path) -> None:
    draft = Draft()
    step = ["torch.reshape", [{"in": 0}, [-1, 5]], {}]
    draft.head(draft.add("opaque", draft.input((3,)), program=[step], reads=[[3]], shape=[3]))
    with pytest.raises(ExportError, match="does not run on random numbers: shape"):
        export(Genome(draft.finish(), {}), tmp_path / "a")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("number", ["inf", "-inf", "nan"])
@pytest.mark.parametrize("kind", ["opaque", "pointwise"])
def test_numbers_without_end_are_written_so_that_they_can_be_read(kind: str, number: str, tmp_path: Path) -> None:
    draft = Draft()
    shapes: dict[str, Any] = {} if kind == "pointwise" else {"reads": [[3]], "shape": [3]}
    step = ["torch.clamp_min", [{"in": 0}, {"number": number}], {}]
    draft.head(draft.add(kind, draft.input((3,)), program=[step], **shapes))
    genome = Genome(draft.finish(), {})
    save(genome, tmp_path / "it.safetensors")
    assert load(tmp_path / "it.safetensors").digest == genome.digest
    text = (export(genome, tmp_path / "a") / "model.py").read_text()
    assert f"from math import {number.removeprefix('-')}\n" in text


def test_the_code_is_for_reading(genome: Genome, tmp_path: Path) -> None:
    text = (export(genome, tmp_path / "a") / "model.py").read_text()
    assert "class Model(nn.Module):" in text
    assert "(N, 3, 16, 16) float32 -> (N, 7) logits" in text
    imported = [line for line in text.splitlines() if line.lstrip().startswith(("import ", "from "))]
    modules = {line.split()[1].partition(".")[0] for line in imported}
    assert modules - {"model"} == {"pathlib", "torch", "safetensors"}


def test_no_name_ends_the_docstring(genome: Genome) -> None:
    config = exporting._config(genome, {})
    text = exporting._module("", {**config, "outputs": ['x"""; raise SystemExit', "\\"]}, genome.graph)
    assert "raise SystemExit" in (ast.get_docstring(ast.parse(text)) or "")


def test_a_network_may_give_one_number_for_each_example(tmp_path: Path) -> None:
    draft = Draft()
    draft.head(draft.add("reshape", draft.add("linear", draft.input((6,)), out=1), shape=()))
    graph = draft.finish()
    folder = export(Genome(graph, initial_weights(graph, 0)), tmp_path / "a")
    assert "(N, 6) float32 -> (N,) logits" in (folder / "model.py").read_text()
    assert json.loads((folder / "config.json").read_text())["classes"] == 1


def test_a_file_is_exported_as_the_genome_that_it_holds(genome: Genome, tmp_path: Path) -> None:
    path = tmp_path / "network.safetensors"
    save(genome, path)
    one, other = export(path, tmp_path / "one"), export(genome, tmp_path / "other")
    for name in FILES:
        assert (one / name).read_bytes() == (other / name).read_bytes()
    with pytest.raises(ExportError, match="has no candidates; got candidate 3"):
        export(str(path), tmp_path / "three", 3)
    path.write_bytes(b"hi")
    with pytest.raises(FormatError):
        export(path, tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_a_folder_that_is_not_empty_is_refused(genome: Genome, tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    export(genome, tmp_path / "taken")  # an empty one is fine
    with pytest.raises(ExportError, match=r"is not empty .*--force"):
        export(genome, tmp_path / "taken")
    other = small("convnet")
    (tmp_path / "taken" / "__pycache__").mkdir()
    export(stirred(other, 5), tmp_path / "taken", force=True)
    assert sorted(os.listdir(tmp_path / "taken")) == sorted(FILES)
    (tmp_path / "taken" / "thesis.tex").write_text("three years of work")
    with pytest.raises(ExportError, match=r"holds thesis\.tex"):
        export(genome, tmp_path / "taken", force=True)
    assert (tmp_path / "taken" / "thesis.tex").exists()


def test_a_file_and_the_current_folder_are_refused(
    genome: Genome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ExportError, match="it is a file"):
        export(genome, tmp_path / "file")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ExportError, match="current folder"):
        export(genome, ".", force=True)
    with pytest.raises(ExportError, match="a genome has no candidates"):
        export(genome, "a", 3)
    with pytest.raises(EvolutionError) as error:
        export(genome, tmp_path / "file" / "below")
    assert error.value.exit_code in {1, 2}
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize("fault", ["_compare", "_write", "_install"])
@pytest.mark.parametrize("there", [False, True])
def test_a_failure_leaves_everything_as_it_was(
    genome: Genome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str, there: bool
) -> None:
    before = export(genome, tmp_path / "a").joinpath("model.safetensors").read_bytes() if there else b""

    def fail(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(exporting, fault, fail)
    with pytest.raises(EvolutionError, match="no space left") as error:
        export(stirred(genome, 9), tmp_path / "a", force=True)
    assert error.value.exit_code == 1
    assert os.listdir(tmp_path) == (["a"] if there else [])
    assert not there or (tmp_path / "a" / "model.safetensors").read_bytes() == before


def test_a_module_that_computes_something_else_is_not_exported(
    genome: Genome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def other_weights(folder: Path, given: Genome, facts: object) -> None:
        write(folder, stirred(given, 3), {})

    write = exporting._write
    monkeypatch.setattr(exporting, "_write", other_weights)
    with pytest.raises(EvolutionError, match="does not compute"):
        export(genome, tmp_path / "a")
    assert os.listdir(tmp_path) == []
