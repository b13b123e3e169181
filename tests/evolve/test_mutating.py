"""`evolve mutate`: what it writes computes the same, it says what it did, and each mistake is one line."""

from __future__ import annotations

import json
import os
import resource
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from graphs import Genome, load, save, to_torch, zoo
from graphs.draft import Draft
from graphs.initial import initial_weights
from ops import MUTATIONS, Certificate, Record, replay
from tests.evolve.conftest import CONTROL, Evolve, one_line


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """The file of a small network."""
    path = tmp_path / "small.safetensors"
    save(zoo.create("convnet", width=4, input_shape=(1, 8, 8), seed=3), path)
    return path


def outputs(genome: Genome) -> torch.Tensor:
    shape = genome.graph.inputs[0].settings["shape"]
    images = torch.randn((5, *shape), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    result: torch.Tensor = to_torch(genome).double().eval()(images)
    return result


def test_what_is_written_computes_the_same(small: Path, evolve: Evolve) -> None:
    to = small.with_name("child.safetensors")
    code, output, errors = evolve("mutate", small, "--op", "widen,insert_block", "--seed", 5, "--to", to)
    assert (code, errors) == (0, "")
    parent, child = load(small), load(to)
    assert child.graph.fingerprint != parent.graph.fingerprint
    assert torch.allclose(outputs(child), outputs(parent), rtol=0, atol=1e-12)
    widened, inserted, written = output.splitlines()
    assert widened.startswith("widen ") and inserted.startswith("insert_block ")
    for line in (widened, inserted):
        assert "promised exact, certificate pass" in line and "error " in line
        assert line.count(" -> ") == 2 and "parameters" in line and "MACs" in line
    assert written == f"written to {to}"
    assert not CONTROL.search(output.replace("\n", ""))


def test_the_same_seed_gives_the_same_child(small: Path, evolve: Evolve) -> None:
    made = []
    for number, seed in enumerate((1, 1, 2)):
        to = small.with_name(f"{number}.safetensors")
        assert evolve("mutate", small, "--op", "deepen,widen", "--seed", seed, "--to", to)[0] == 0
        made.append(load(to).digest)
    assert made[0] == made[1] != made[2]


@pytest.mark.parametrize("name", MUTATIONS)
def test_every_operator_can_be_named(name: str, evolve: Evolve, tmp_path: Path) -> None:
    to = tmp_path / "child.safetensors"
    parent = zoo.create("resnet", depth=8, input_shape=(3, 8, 8))
    save(parent, tmp_path / "parent.safetensors")
    code, output, errors = evolve("mutate", tmp_path / "parent.safetensors", "--op", name, "--to", to)
    if not MUTATIONS[name].sites(parent):
        assert code == 2 and name in one_line(errors) and not to.exists()
        return
    assert (code, errors) == (0, "")
    assert output.startswith(f"{name} ") and load(to).digest != parent.digest


def test_json_holds_what_makes_the_child_again(small: Path, evolve: Evolve) -> None:
    to = small.with_name("child.safetensors")
    code, output, errors = evolve("mutate", small, "--op", "widen,deepen", "--to", to, "--json")
    assert (code, errors) == (0, "")
    genome = load(small)
    for line in output.splitlines():
        made = json.loads(line)
        assert set(made) == {"record", "certificate", "before", "after"}
        assert made["certificate"]["eval"]["verdict"] == "pass"
        assert made["before"]["parameters"] < made["after"]["parameters"]
        genome = replay(genome, Record.from_json(made["record"]))
    assert genome.digest == load(to).digest


def test_a_listed_site_is_the_one_that_is_taken(small: Path, evolve: Evolve) -> None:
    listed = [json.loads(line) for line in evolve("mutate", small, "--op", "deepen", "--json")[1].splitlines()]
    expected = MUTATIONS["deepen"].sites(load(small))
    assert [entry["site"] for entry in listed] == list(range(len(expected)))
    assert [(entry["where"], entry["preserves"]) for entry in listed] == [
        (site.to_json(), site.preserves) for site in expected
    ]
    for entry in (listed[0], listed[-1]):
        to = small.with_name(f"{entry['site']}.safetensors")
        output = evolve("mutate", small, "--op", "deepen", "--site", entry["site"], "--to", to, "--json")[1]
        assert json.loads(output)["record"]["site"] == entry["where"]
    table = evolve("mutate", small, "--op", "deepen", "--sites")[1].splitlines()
    assert [line.split()[0] for line in table] == ["site", *map(str, range(len(expected)))]
    assert sorted(os.listdir(small.parent)) == sorted(
        [small.name, "0.safetensors", f"{listed[-1]['site']}.safetensors"]
    )


def test_each_operator_has_a_site_of_its_own(small: Path, evolve: Evolve) -> None:
    to = small.with_name("child.safetensors")
    output = evolve("mutate", small, "--op", "widen,deepen", "--site", "1,0", "--to", to, "--json")[1]
    first, second = (json.loads(line)["record"] for line in output.splitlines())
    assert first["site"] == MUTATIONS["widen"].sites(load(small))[1].to_json()
    between = replay(load(small), Record.from_json(first))
    assert second["site"] == MUTATIONS["deepen"].sites(between)[0].to_json()


def test_a_network_of_the_zoo_shows_itself(evolve: Evolve) -> None:
    code, output, errors = evolve("mutate", "convnet")
    assert (code, errors) == (0, "")
    genome = zoo.create("convnet")
    assert "3×32×32" in output and "logits 10" in output and "opaque" not in output
    table = [line.split()[:2] for line in output[output.index("operator") :].splitlines()]
    assert table[1:] == [[name, str(len(mutation.sites(genome)))] for name, mutation in MUTATIONS.items()]


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def refused(small: Path, evolve: Evolve, *arguments: object) -> tuple[int, str]:
    """Exit code and error of a command that must leave no file."""
    before = files(small.parent)
    code, output, errors = evolve("mutate", *arguments)
    assert output == ""
    assert files(small.parent) == before
    return code, one_line(errors)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--op", "widn", "--to", "new.safetensors"], "did you mean 'widen'"),
        (["--op", "widen,", "--to", "new.safetensors"], "unknown operator ''"),
        (["--op", "widn"], "did you mean 'widen'"),
        (["--op", "remove_block", "--to", "new.safetensors"], "'remove_block' has no site in"),
        (["--op", "widen", "--site", "99", "--to", "new.safetensors"], "no site 99"),
        (["--op", "widen", "--site", "-1", "--to", "new.safetensors"], "--site"),
        (["--op", "widen", "--site", "one", "--to", "new.safetensors"], "got 'one'"),
        (["--op", "widen", "--site", "1,2", "--to", "new.safetensors"], "so 1; got 2"),
        (["--op", "widen", "--site", "1"], "--to"),
        (["--op", "widen", "--seed", "-1"], "seed"),
        (["--op", "widen", "--seed", str(2**63)], "seed"),
        (["--to", "new.safetensors"], "--op"),
        (["--op", "widen", "--to", "new.safetensors", "--sites"], "--sites"),
        (["--op", "widen", "--to", "new"], ".safetensors"),
        (["--op", "widen", "--to", "folder.safetensors"], "folder"),
        (["--op", "widen", "--to", "missing/new.safetensors"], "missing"),
        (["--op", "widen", "--to", "small.safetensors"], "--force"),
    ],
)
def test_a_mistake_is_one_line(
    arguments: list[str], said: str, small: Path, evolve: Evolve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(small.parent)
    Path("folder.safetensors").mkdir()
    code, errors = refused(small, evolve, small, *arguments)
    assert code == 2 and said in errors


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("convnt", "did you mean 'convnet'"),
        ("missing.safetensors", "missing.safetensors"),
        ("cut.safetensors", "cut.safetensors"),
        ("folder.safetensors", "not a file"),
    ],
)
def test_a_network_that_cannot_be_read_is_one_line(
    model: str, said: str, small: Path, evolve: Evolve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cut.safetensors").write_bytes(small.read_bytes()[:-7])
    (tmp_path / "folder.safetensors").mkdir()
    code, errors = refused(small, evolve, model, "--op", "widen", "--to", "new.safetensors")
    assert code == 2 and said in errors


def test_force_replaces(small: Path, evolve: Evolve) -> None:
    digest = load(small).digest
    assert evolve("mutate", small, "--op", "widen", "--to", small, "--force")[0] == 0
    assert load(small).digest != digest


def test_a_full_disk_is_one_line(small: Path, evolve: Evolve) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        code, errors = refused(small, evolve, small, "--op", "widen", "--to", small.with_name("new.safetensors"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert code == 1 and "free some space" in errors


@pytest.mark.parametrize(("verdict", "code", "said"), [("broken", 1, "report"), ("blind", 2, "hardly depend")])
def test_what_is_not_proven_is_not_written(
    verdict: str, code: int, said: str, small: Path, evolve: Evolve, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ops

    certify = ops.certify

    def judged(*arguments: Any, **options: Any) -> Certificate:
        found = certify(*arguments, **options)
        return replace(found, eval=replace(found.eval, verdict=verdict))

    monkeypatch.setattr("ops.certify", judged, raising=False)
    found, errors = refused(small, evolve, small, "--op", "widen", "--to", small.with_name("new.safetensors"))
    assert found == code and verdict in errors and said in errors


def test_weights_that_are_not_finite_are_the_inputs_fault(small: Path, evolve: Evolve) -> None:
    genome = load(small)
    name = next(name for name, tensor in genome.weights.items() if tensor.is_floating_point())
    spoilt = genome.weights[name].clone()
    spoilt.view(-1)[0] = float("nan")
    save(Genome(genome.graph, {**genome.weights, name: spoilt}), small)
    code, errors = refused(small, evolve, small, "--op", "widen", "--to", small.with_name("new.safetensors"))
    assert code == 2 and name in errors


def test_a_network_without_a_site(evolve: Evolve, tmp_path: Path) -> None:
    draft = Draft()
    draft.head(draft.add("linear", draft.input((3,)), out=2))
    graph = draft.finish()
    path = tmp_path / "bare.safetensors"
    save(Genome(graph, initial_weights(graph, 0)), path)
    assert ["widen", "0", "–", "–", "–"] in [line.split() for line in evolve("mutate", path)[1].splitlines()]
    why = "'widen' has no site in this network: it needs a channel space that can change"
    assert evolve("mutate", path, "--op", "widen")[1].startswith(why)
    code, errors = refused(path, evolve, path, "--op", "widen", "--to", tmp_path / "new.safetensors")
    assert code == 2 and why in errors
