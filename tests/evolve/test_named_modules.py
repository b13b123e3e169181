"""Modules by the names that people give them, their weights and example inputs; each mistake is one line."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.error import URLError

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from evolve.importing import example, found_here, module_named
from tests.evolve.conftest import Evolve, one_line

NETS = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, width=4):
        super().__init__()
        self.conv = nn.Conv2d(3, width, 3)
        self.fc = nn.Linear(width, 2)

    def forward(self, x):
        return self.fc(self.conv(x).mean((2, 3)))

def build():
    return Net()

def fails():
    raise LookupError("no\\nsuch thing")

def needs(width):
    return Net(width)

def leaves():
    raise SystemExit(3)

def gives():
    return [Net()]

class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.one = nn.Linear(3, 3)
        self.two = nn.Linear(3, 3)
        self.two.weight = self.one.weight

    def forward(self, x):
        return self.two(self.one(x).relu())

ready = Net(5)
number = 7
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current folder, with modules to name."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_nets.py").write_text(NETS)
    (tmp_path / "my_broken.py").write_text("import torch\n1 / 0\n")
    (tmp_path / "my_wrong.py").write_text("def (:\n")
    (tmp_path / "my_needy.py").write_text("import no_such_package\n")
    yield tmp_path
    for name in [name for name in sys.modules if name.startswith("my_")]:
        del sys.modules[name]


@pytest.mark.parametrize(("name", "width"), [("build", 4), ("Net", 4), ("ready", 5)])
def test_a_factory_a_class_and_a_module(name: str, width: int) -> None:
    path = list(sys.path)
    with found_here():
        module = module_named(f"my_nets:{name}")
    assert isinstance(module, nn.Module) and module.get_parameter("fc.weight").shape == (2, width)
    assert sys.path == path


def test_fresh_weights_follow_the_seed_alone() -> None:
    state = torch.random.get_rng_state()
    with found_here():
        one, same, other = (module_named("my_nets:build", seed=seed).state_dict() for seed in (1, 1, 2))
    assert torch.equal(one["fc.weight"], same["fc.weight"])
    assert not torch.equal(one["fc.weight"], other["fc.weight"])
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize("name", ["Net", "Tied"])
def test_weights_of_a_file(name: str, folder: Path) -> None:
    from safetensors.torch import save_model

    with found_here():
        given = module_named(f"my_nets:{name}", seed=3)
        save_model(given, str(folder / "weights.safetensors"))
        filled = module_named(f"my_nets:{name}", str(folder / "weights.safetensors"), seed=4)
    assert filled.state_dict().keys() == given.state_dict().keys()
    for key, tensor in given.state_dict().items():
        assert torch.equal(filled.state_dict()[key], tensor)


def test_the_recipe_for_other_weights_works(evolve: Evolve, folder: Path) -> None:
    with found_here():
        given = module_named("my_nets:Tied", seed=3)
    torch.save(given.state_dict(), folder / "old.pt")
    command = ("import", "my_nets:Tied", "--input", "3", "--to", "new.safetensors", "--weights", "old.pt")
    code, _, errors = evolve(*command)
    assert code == 2 and "old.pt" in one_line(errors)
    recipe = errors[errors.index('"') + 1 : errors.rindex('"')]
    subprocess.run([sys.executable, "-c", recipe], cwd=folder, check=True, timeout=60)
    with found_here():
        filled = module_named("my_nets:Tied", "old.safetensors", seed=4)
    assert torch.equal(filled.get_parameter("one.weight"), given.get_parameter("one.weight"))


def test_examples() -> None:
    one = example(["3,8,9"], seed=1)
    assert isinstance(one, torch.Tensor) and one.shape == (2, 3, 8, 9)
    assert torch.equal(one, example(["3,8,9"], seed=1)) and not torch.equal(one, example(["3,8,9"], seed=2))  # type: ignore[arg-type]
    several = example(["3,8,8", "5"])
    assert isinstance(several, tuple) and [tuple(tensor.shape) for tensor in several] == [(2, 3, 8, 8), (2, 5)]
    named = example(["image=3,8,8", "words=5"])
    assert isinstance(named, dict) and {name: tuple(tensor.shape) for name, tensor in named.items()} == {
        "image": (2, 3, 8, 8),
        "words": (2, 5),
    }


MISTAKES = {
    "no colon": (["my_nets"], "MODULE:FACTORY"),
    "no factory": (["my_nets:"], "MODULE:FACTORY"),
    "a file's name": (["my_nets.py:build"], "say my_nets:build"),
    "a path": (["../my_nets:build"], "expected the name of a Python module, as after 'import', got '../my_nets'"),
    "no such module": (["my_net:build"], "no Python module 'my_net'"),
    "no such factory": (["my_nets:biuld"], "did you mean 'my_nets:build'"),
    "a module that fails": (["my_broken:build"], "my_broken.py:2"),
    "a module that is no Python": (["my_wrong:build"], "my_wrong.py:1: "),
    "a module that needs another": (["my_needy:build"], "no_such_package"),
    "a factory that fails": (["my_nets:fails"], "LookupError"),
    "a factory that ends the program": (["my_nets:leaves"], "SystemExit"),
    "a factory that needs arguments": (["my_nets:needs"], "without arguments"),
    "a factory of something else": (["my_nets:gives"], "list"),
    "no factory at all": (["my_nets:number"], "int"),
    "published weights of a user's": (["my_nets:build", "--weights", "DEFAULT"], "torchvision:NAME"),
    "no weights there": (["my_nets:build", "--weights", "missing.safetensors"], "missing.safetensors"),
    "a folder as weights": (["my_nets:build", "--weights", "folder.safetensors"], "folder.safetensors"),
    "no safetensors": (["my_nets:build", "--weights", "text.safetensors"], "text.safetensors"),
    "a pickle": (["my_nets:build", "--weights", "old.pth"], "weights_only=True"),
    "weights of another shape": (["my_nets:build", "--weights", "wide.safetensors"], "fc.weight"),
    "weights that lack one": (["my_nets:build", "--weights", "few.safetensors"], "lacks 'fc.bias'"),
    "weights with one more": (["my_nets:build", "--weights", "many.safetensors"], "'more'"),
    "no such network": (["torchvision:resnt18"], "did you mean 'resnet18'"),
    "sizes that are none": (["my_nets:build", "--input", "3xx8"], "3xx8"),
    "a size of zero": (["my_nets:build", "--input", "3,0,8"], "3,0,8"),
    "a size below zero": (["my_nets:build", "--input", "3,-8,8"], "3,-8,8"),
    "sizes that nothing holds": (["my_nets:build", "--input", "3,99999999,99999999"], "3,99999999,99999999"),
    "a size that is no number here": (["my_nets:build", "--input", f"3,{10**23}"], "fit into memory"),
    "a name without sizes": (["my_nets:build", "--input", "image="], "image="),
    "a name twice": (["my_nets:build", "--input", "x=3", "--input", "x=4"], "twice"),
    "names and none": (["my_nets:build", "--input", "x=3", "--input", "4"], "name all of them"),
    "another ending": (["my_nets:build", "--to", "new.pt"], ".safetensors"),
    "a target that is there": (["my_nets:build", "--to", "wide.safetensors"], "--force"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line(mistake: str, evolve: Evolve, folder: Path) -> None:
    arguments, said = MISTAKES[mistake]
    with found_here():
        state = module_named("my_nets:Net").state_dict()
        save_file(module_named("my_nets:ready").state_dict(), folder / "wide.safetensors")
    save_file({name: tensor for name, tensor in state.items() if name != "fc.bias"}, folder / "few.safetensors")
    save_file({**state, "more": torch.zeros(1)}, folder / "many.safetensors")
    (folder / "text.safetensors").write_text("not a header")
    (folder / "folder.safetensors").mkdir()
    there = sorted(os.listdir(folder))
    defaults = {"--input": "3,8,8", "--to": "new.safetensors"}
    rest = [word for option, value in defaults.items() if option not in arguments for word in (option, value)]
    code, output, errors = evolve("import", *arguments, *rest)
    assert (code, output) == (2, "")
    assert said in one_line(errors)
    assert sorted(os.listdir(folder)) == there


def test_an_unknown_network_names_classifiers_alone(evolve: Evolve) -> None:
    _, _, errors = evolve("import", "torchvision:nope", "--input", "3,8,8", "--to", "new.safetensors")
    assert "resnet18" in one_line(errors) and "fcn_resnet50" not in errors and "raft" not in errors


def test_a_network_whose_parts_have_published_weights_has_fresh_ones(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(folder / "cache"))
    monkeypatch.setattr("torch.hub.download_url_to_file", None)
    one, same = (module_named("torchvision:lraspp_mobilenet_v3_large", seed=1).state_dict() for _ in range(2))
    assert all(torch.equal(one[name], same[name]) for name in one)


def test_weights_that_cannot_be_fetched(evolve: Evolve, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object, **options: object) -> None:
        raise URLError("no route")

    monkeypatch.setenv("TORCH_HOME", str(folder / "cache"))
    monkeypatch.setattr("torch.hub.download_url_to_file", fail)
    code, _, errors = evolve(
        "import", "torchvision:squeezenet1_1", "--weights", "DEFAULT", "--input", "3,32,32", "--to", "new.safetensors"
    )
    assert code == 1 and "torchvision:squeezenet1_1" in one_line(errors) and "no route" in errors
    assert not Path("new.safetensors").exists() and "TORCH_FORCE_WEIGHTS_ONLY_LOAD" not in os.environ


def test_published_weights_run_no_code(evolve: Evolve, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def plant(url: str, target: str, *arguments: object, **options: object) -> None:
        torch.save(Trap(folder / "sprung"), target)

    monkeypatch.setenv("TORCH_HOME", str(folder / "cache"))
    monkeypatch.setattr("torch.hub.download_url_to_file", plant)
    code, _, errors = evolve(
        "import", "torchvision:squeezenet1_1", "--weights", "DEFAULT", "--input", "3,32,32", "--to", "new.safetensors"
    )
    assert code == 1 and "torchvision:squeezenet1_1" in one_line(errors)
    assert not (folder / "sprung").exists()


class Trap:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.path,)


def test_a_missing_torchvision_names_the_extra(evolve: Evolve, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr("sys.meta_path", [Absent(), *sys.meta_path])
    code, _, errors = evolve("import", "torchvision:resnet18", "--input", "3,32,32", "--to", "new.safetensors")
    assert code == 1 and "hydra-evolve[vision]" in one_line(errors)


class Absent:
    """An importer in whose world there is no torchvision."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if name.partition(".")[0] == "torchvision":
            raise ModuleNotFoundError(f"No module named '{name}'", name=name)


def test_torchvision_works_beside_this_torch() -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-W",
            "error",
            "-c",
            "from evolve.vision import torchvision_models as models\nprint(models() is models(), models().__name__)",
        ],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("True torchvision.models\n", "")
