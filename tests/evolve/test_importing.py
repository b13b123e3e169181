"""`evolve import`: what is written computes what the module did, and can be mutated and searched from."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from evolve.importing import found_here, module_named
from graphs import Genome, load, macs, parameters, to_torch
from ops import MUTATIONS
from tests.evolve.conftest import CONTROL, Evolve, one_line

NETS = """
import torch
from torch import nn
from torch.nn import functional as F

class Net(nn.Module):
    def __init__(self, classes=10):
        super().__init__()
        self.stem = nn.Conv2d(1, 6, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(6)
        self.conv = nn.Conv2d(6, 6, 3, padding=1)
        self.fc = nn.Linear(6, classes)

    def forward(self, x):
        x = F.relu(self.norm(self.stem(x)))
        x = x + F.relu(self.conv(x))
        return self.fc(F.adaptive_avg_pool2d(x, 1).flatten(1))

def few():
    return Net(3)

class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.left = nn.Linear(3, 4)
        self.right = nn.Linear(5, 4)

    def forward(self, left, right):
        return torch.relu(self.left(left) + self.right(right))

class Odd(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, x):
        return self.fc(torch.cumsum(self.fc(x), 1))

class Words(nn.Module):
    def __init__(self):
        super().__init__()
        self.rows = nn.Embedding(50, 4)
        self.fc = nn.Linear(4, 3)

    def forward(self, words, when):
        return self.fc(self.rows(words).mean(1) + when.float().log1p().unsqueeze(-1))

class Reversal(torch.autograd.Function):
    @staticmethod
    def forward(context, x):
        return x.view_as(x)

    @staticmethod
    def backward(context, gradient):
        return -gradient

class Reversed(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, x):
        return self.fc(Reversal.apply(self.fc(x)))

class Hard(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, x):
        if float(x.sum()) > 0:
            return self.fc(x)
        return x
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current folder, with modules to import."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_nets.py").write_text(NETS)
    yield tmp_path
    sys.modules.pop("my_nets", None)


def original(name: str, weights: str | None = None) -> nn.Module:
    with found_here():
        return module_named(name, weights)


def alike(genome: Genome, module: nn.Module, *shapes: tuple[int, ...]) -> bool:
    """Whether both give the same bits for 3 examples in eval mode, and have the same state."""
    generator = torch.Generator().manual_seed(1)
    inputs = [torch.randn((3, *shape), generator=generator) for shape in shapes]
    mine = to_torch(genome).eval()
    with torch.no_grad():
        same = torch.equal(mine(*inputs), module.eval()(*inputs))
    state = module.state_dict()
    return (
        same and {*state} == {*genome.weights} and all(torch.equal(state[name], genome.weights[name]) for name in state)
    )


def test_a_module_of_the_users_comes_in(evolve: Evolve) -> None:
    code, output, errors = evolve("import", "my_nets:Net", "--input", "1,8,8", "--to", "net.safetensors")
    assert (code, errors) == (0, "")
    genome = load("net.safetensors")
    assert alike(genome, original("my_nets:Net"), (1, 8, 8))
    facts = {line[:13].strip(): line[13:] for line in output.splitlines()}
    assert facts["network"] == "my_nets:Net"
    assert facts["inputs"] == "x 1×8×8" and facts["outputs"].split()[1] == "10"
    assert facts["nodes"] == str(len(genome.graph.nodes))
    assert facts["parameters"] == str(parameters(genome.graph)) == "466"
    assert facts["MACs"] == "24.3k" and macs(genome.graph) == 54 * 64 + 324 * 64 + 60
    assert ["widen", str(len(MUTATIONS["widen"].sites(genome)))] in [line.split()[:2] for line in output.splitlines()]
    assert "opaque" not in facts and output.endswith("written to net.safetensors\n")
    assert not CONTROL.search(output.replace("\n", ""))


def test_the_seed_draws_fresh_weights(evolve: Evolve) -> None:
    digests = []
    for number, seed in enumerate((1, 1, 2)):
        to = f"{number}.safetensors"
        assert evolve("import", "my_nets:few", "--input", "1,8,8", "--seed", seed, "--to", to)[0] == 0
        digests.append(load(to).digest)
    assert digests[0] == digests[1] != digests[2]


def test_weights_of_a_file_come_with_it(evolve: Evolve) -> None:
    torch.manual_seed(7)
    given = original("my_nets:Net").state_dict()
    given = {
        name: torch.rand_like(tensor) if tensor.is_floating_point() else tensor + 3 for name, tensor in given.items()
    }
    save_file(given, "given.safetensors")
    code, _, errors = evolve(
        "import", "my_nets:Net", "--input", "1,8,8", "--weights", "given.safetensors", "--to", "net.safetensors"
    )
    assert (code, errors) == (0, "")
    genome = load("net.safetensors")
    assert all(torch.equal(genome.weights[name], tensor) for name, tensor in given.items())
    assert alike(genome, original("my_nets:Net", "given.safetensors"), (1, 8, 8))


def test_inputs_of_whole_numbers(evolve: Evolve) -> None:
    inputs = ("--input", "words=7:int64", "--input", "when=:int64<1000")
    code, _, errors = evolve("import", "my_nets:Words", *inputs, "--to", "words.safetensors")
    assert (code, errors) == (0, "")
    words, when = (node.settings for node in load("words.safetensors").graph.inputs)
    assert (words["dtype"], words["shape"], words["most"]) == ("integer", (7,), 50)
    assert (when["dtype"], when["shape"], when["most"]) == ("integer", (), 1000)
    assert evolve("mutate", "words.safetensors", "--op", "widen", "--to", "wider.safetensors")[0] == 0


@pytest.mark.parametrize("text", ["7:int65", "7:", "7:int64<", "7:int64<0", "7:int8<1000", "7:float32<3", "7:bool<3"])
def test_types_that_are_none_are_one_line(text: str, evolve: Evolve) -> None:
    code, _, errors = evolve("import", "my_nets:Words", "--input", text, "--to", "words.safetensors")
    assert code == 2 and text in one_line(errors)


@pytest.mark.parametrize("inputs", [("3", "5"), ("left=3", "right=5"), ("right=5", "left=3")])
def test_several_inputs(inputs: tuple[str, str], evolve: Evolve) -> None:
    code, output, errors = evolve(
        "import", "my_nets:Two", "--input", inputs[0], "--input", inputs[1], "--to", "two.safetensors"
    )
    assert (code, errors) == (0, "")
    genome = load("two.safetensors")
    shapes = {node.settings["name"]: tuple(node.settings["shape"]) for node in genome.graph.inputs}
    assert shapes == {"left": (3,), "right": (5,)}
    left, right = torch.randn(2, 3), torch.randn(2, 5)
    with torch.no_grad():
        assert torch.equal(to_torch(genome)(left=left, right=right), original("my_nets:Two")(left, right))
    assert "left 3" in output and "right 5" in output


def test_what_no_kind_knows_is_named(evolve: Evolve) -> None:
    code, output, errors = evolve("import", "my_nets:Odd", "--input", "4", "--to", "odd.safetensors")
    assert (code, errors) == (0, "")
    assert any(line.startswith("opaque       ") for line in output.splitlines())
    assert alike(load("odd.safetensors"), original("my_nets:Odd"), (4,))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["my_nets:Hard", "--input", "4"], "my_nets.py"),
        (["my_nets:Net", "--input", "3,8,8"], "channel"),
        (["my_nets:Reversed", "--input", "4"], "calls 'my_nets.Reversal' in "),
        (["my_nets:Reversed", "--input", "4"], "Reversal.apply(self.fc(x))"),
    ],
)
def test_what_cannot_be_traced_or_stored_is_one_line(arguments: list[str], said: str, evolve: Evolve) -> None:
    code, output, errors = evolve("import", *arguments, "--to", "new.safetensors")
    assert (code, output) == (2, "") and said in one_line(errors)
    assert not Path("new.safetensors").exists()


def test_a_network_of_torchvision_comes_in_and_is_mutated(evolve: Evolve) -> None:
    code, _, errors = evolve("import", "torchvision:resnet18", "--input", "3,32,32", "--to", "net.safetensors")
    assert (code, errors) == (0, "")
    assert alike(load("net.safetensors"), original("torchvision:resnet18"), (3, 32, 32))
    code, output, errors = evolve("mutate", "net.safetensors", "--op", "widen,deepen", "--to", "more.safetensors")
    assert (code, errors) == (0, "")
    assert output.count("certificate pass") == 2


def test_a_search_starts_from_it(evolve: Evolve, folder: Path) -> None:
    assert evolve("import", "my_nets:Net", "--input", "1,8,8", "--to", "net.safetensors")[0] == 0
    (folder / "small.yaml").write_text("limit: 120\nrecipe: {batch: 32}\ndeadline: 120\n")
    code, output, errors = evolve(
        "search", "--config", "small.yaml", "--model", "net.safetensors", "--pool", "local", "--workers", 1,
        "--candidates", 2, "--epochs", 1, "--run", folder / "run",
    )  # fmt: skip
    assert (code, errors) == (0, ""), errors
    assert "1 = " in output
    assert evolve("import", "my_nets:few", "--input", "1,8,8", "--to", "few.safetensors")[0] == 0
    code, _, errors = evolve("search", "--model", "few.safetensors", "--pool", "local", "--run", folder / "other")
    assert code == 2 and "few.safetensors" in one_line(errors) and not (folder / "other").exists()
