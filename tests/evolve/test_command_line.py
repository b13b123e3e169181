"""The command line as scripts and people meet it: exit codes, one clear line for each mistake, stable JSON."""

from __future__ import annotations

import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from torch.utils.data import TensorDataset

from evolve.commands import COMMANDS
from graphs import Genome, initial_weights, save
from graphs.draft import Draft
from graphs.zoo import ZOO, create
from ops import MUTATIONS
from runners import Task
from tests.evolve.conftest import CONTROL, Evolve, one_line

ROOT = Path(__file__).resolve().parents[2]
HEAVY = ("torch", "torchvision", "ray", "numpy", "networkx", "pydantic", "sklearn")
SMALL = "limit: 120\nrecipe: {batch: 32}\nmodel_settings: {width: 4}\ndeadline: 120\n"
LOG_KEYS = {
    "id", "parent", "operator", "site", "preserves", "certificate", "teaching", "status", "failure",
    "val_accuracy", "parameters", "macs", "seconds", "worker", "seed",
}  # fmt: skip


def process(*arguments: object, **options: Any) -> subprocess.Popen[str]:
    """The command line in a process of its own, with pipes for its output."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "evolve", *map(str, arguments)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        **options,
    )


@pytest.fixture
def small(tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(SMALL)
    return path


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """A run of four candidates that came to its end, and what the search printed."""
    folder = tmp_path_factory.mktemp("finished")
    (folder / "small.yaml").write_text(SMALL)
    search = process(
        "search", "--config", folder / "small.yaml", "--pool", "local", "--workers", 1, "--candidates", 4,
        "--epochs", 1, "--run", folder / "run", cwd=folder,
    )  # fmt: skip
    output, errors = search.communicate(timeout=240)
    assert search.returncode == 0, errors
    yield folder / "run", output


# --- without a run


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_imports_nothing_heavy(command: str) -> None:
    code = (
        "import sys\n"
        "from evolve.__main__ import run\n"
        f"code = run({[command, '--help'] if command else ['--help']!r})\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules], code)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.splitlines()[-1] == "[] 0"
    assert not CONTROL.search(done.stdout.replace("\n", ""))
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["serach"], "'search'"),
        (["search", "--dta", "digits"], "--data"),
        (["search", "unexpected"], "unexpected"),
        (["search", "--data"], "--data"),
        (["show"], "RUN"),
        (["show", "runs/0001", "one"], "ID"),
        (["export", "runs/0001"], "--to"),
        (["status", "--jsn", "runs/0001"], "--json"),
    ],
)
def test_a_wrong_command_line_is_one_line(arguments: list[str], said: str, evolve: Evolve) -> None:
    code, output, errors = evolve(*arguments)
    assert (code, output) == (2, "")
    assert said in one_line(errors) and "--help" in errors


def test_no_command_shows_the_help(evolve: Evolve) -> None:
    code, output, _ = evolve()
    assert code == 0 and all(command in output for command in COMMANDS)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--strategy", "agin"], "did you mean 'aging'"),
        (["--model", "resnt", "--pool", "local"], "did you mean 'resnet'"),
        (["--data", "digit", "--pool", "local"], "did you mean 'digits'"),
        (["--pool", "locl"], "did you mean 'local'"),
        (["--order", "random"], "order"),
        (["--candidates", "many"], "candidates"),
        (["--candidates", "0"], "candidates"),
        (["--seed", "-1"], "seed"),
        (["--epochs", "1.5"], "epochs"),
        (["--config", "missing.yaml"], "missing.yaml"),
        (["--data", "missing.npz"], "missing.npz"),
        (["--data", "fashion-mnist", "--data-root", "nowhere"], "--download"),
        (["--model", "missing.safetensors"], "missing.safetensors"),
    ],
)
def test_an_unknown_name_or_value_is_one_line(
    arguments: list[str],
    said: str,
    evolve: Evolve,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    code, _, errors = evolve("search", "--pool", "local", *arguments)
    assert said in one_line(errors)
    assert code == 2
    assert os.listdir(tmp_path) == []  # no run was begun


@pytest.mark.parametrize(
    ("shape", "classes", "said"),
    [
        ((1, 8, 8), 7, "an output 'logits' of shape 7, expected 10"),
        ((3, 8, 8), 10, "an input of shape 3×8×8, expected 1×8×8"),
        ((1, 16, 16), 10, "an input of shape 1×16×16"),
    ],
)
def test_a_file_that_does_not_fit_the_data_is_one_line(
    shape: tuple[int, ...], classes: int, said: str, evolve: Evolve, tmp_path: Path
) -> None:
    save(create("convnet", classes, shape), tmp_path / "mine.safetensors")
    code, _, errors = evolve(
        "search", "--model", tmp_path / "mine.safetensors", "--pool", "local", "--run", tmp_path / "run"
    )
    assert code == 2 and said in one_line(errors) and "mine.safetensors" in errors
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("inputs", "heads", "said"),
    [
        (2, {"one": False}, "inputs 2, expected 1"),
        (1, {"one": False, "two": False}, "outputs 2, expected 1"),
        (1, {"one": False, "aux": True}, "an output 'aux' of shape 7, expected 10"),
    ],
)
def test_a_network_of_another_form_is_one_line(
    inputs: int, heads: dict[str, bool], said: str, evolve: Evolve, tmp_path: Path
) -> None:
    draft = Draft()
    read = [draft.input((1, 8, 8), name=f"x{number}") for number in range(inputs)]
    whole = draft.add("add", read) if inputs > 1 else read[0]
    for name, training_only in heads.items():
        draft.head(
            draft.add("linear", draft.add("flatten", whole), out=7 if training_only else 10), name, training_only
        )
    graph = draft.finish()
    save(Genome(graph, initial_weights(graph, 0)), tmp_path / "mine.safetensors")
    code, _, errors = evolve(
        "search", "--model", tmp_path / "mine.safetensors", "--pool", "local", "--run", tmp_path / "run"
    )
    assert code == 2 and said in one_line(errors)
    assert not (tmp_path / "run").exists()


def test_words_that_a_network_has_no_table_for_are_one_line(evolve: Evolve, tmp_path: Path) -> None:
    draft = Draft()
    words = draft.add("input", (), name="x", shape=(4,), dtype="integer", most=5)
    table = draft.add("embedding", words, entries=5, out=3)
    draft.head(draft.add("linear", draft.add("flatten", table), out=2))
    graph = draft.finish()
    save(Genome(graph, initial_weights(graph, 0)), tmp_path / "mine.safetensors")
    Task(TensorDataset(torch.full((20, 4), 8), torch.arange(20) % 2)).save(tmp_path / "words.safetensors")
    for command, place in (("search", "--run"), ("train", "--out")):
        named = (tmp_path / "mine.safetensors",) if command == "train" else ("--model", tmp_path / "mine.safetensors")
        code, _, errors = evolve(command, *named, "--data", tmp_path / "words.safetensors", place, tmp_path / command)
        assert code == 2 and "from 0 to 4, but the split train of words has 8" in one_line(errors)
    assert not (tmp_path / "search").exists()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("candidate: 3\n", "did you mean 'candidates'"),
        ("recipe: {learning_rate: 1}\n", "learning_rate"),
        ("- 3\n", "mapping"),
        ("a: [\n", "YAML"),
        ("candidates: yes\n", "candidates"),
        ("odds: {widn: 1}\n", "did you mean 'widen'"),
    ],
)
def test_a_wrong_settings_file_is_one_line(text: str, said: str, evolve: Evolve, tmp_path: Path) -> None:
    path = tmp_path / "search.yaml"
    path.write_text(text)
    code, _, errors = evolve("search", "--config", path, "--pool", "local", "--run", tmp_path / "run")
    assert said in one_line(errors) and code == 2
    assert not (tmp_path / "run").exists()


def arrays() -> dict[str, Any]:
    rng = numpy.random.default_rng(0)
    return {
        "x_train": rng.integers(0, 256, (60, 8, 8), dtype=numpy.uint8),
        "y_train": numpy.arange(60) % 3,
        "x_test": rng.integers(0, 256, (12, 8, 8), dtype=numpy.uint8),
        "y_test": numpy.arange(12) % 3,
    }


BAD_DATA: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "a label out of range": (lambda data: data["y_test"].__setitem__(5, 7), "7"),
    "a negative label": (lambda data: data["y_train"].__setitem__(5, -1), "-1"),
    "no test labels": (lambda data: data.pop("y_test"), "y_test"),
    "images of two sizes": (lambda data: data.update(x_test=data["x_test"][:, :6, :6]), "6"),
    "labels of another number": (lambda data: data.update(y_train=data["y_train"][:-1]), "59"),
}


@pytest.mark.parametrize("fault", BAD_DATA)
def test_bad_images_are_one_line(fault: str, evolve: Evolve, tmp_path: Path) -> None:
    spoil, said = BAD_DATA[fault]
    data = arrays()
    spoil(data)
    path = tmp_path / "mine.npz"
    numpy.savez(path, **data)
    code, _, errors = evolve("search", "--data", path, "--pool", "local", "--run", tmp_path / "run")
    assert said in one_line(errors) and "mine.npz" in errors
    assert code == 2 and not (tmp_path / "run").exists()


@pytest.mark.parametrize("command", ["status", "log", "tree", "resume", "show", "replay", "export"])
def test_what_is_not_a_run_is_one_line(command: str, evolve: Evolve, tmp_path: Path) -> None:
    rest = {"show": ["0"], "replay": ["0"], "export": ["--to", str(tmp_path / "to")]}.get(command, [])
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    for name in ("missing", "folder", "file"):
        code, output, errors = evolve(command, tmp_path / name, *rest)
        assert (code, output) == (2, "")
        assert name in one_line(errors)
    assert not (tmp_path / "to").exists()


def test_a_fault_of_ours_is_one_line_too(evolve: Evolve, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(path: object) -> None:
        raise ZeroDivisionError("by\nzero")

    monkeypatch.setattr("evolve.runs.open_run", fail)
    code, _, errors = evolve("status", "runs/0001")
    assert code == 1
    assert "ZeroDivisionError" in one_line(errors) and "EVOLVE_TRACEBACK=1" in errors
    monkeypatch.setenv("EVOLVE_TRACEBACK", "1")
    assert "Traceback" in evolve("status", "runs/0001")[2]


def test_what_ends_a_search_says_how_to_go_on(evolve: Evolve, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from evolve.events import Opened
    from graphs.errors import StorageFull

    def fill_up(settings: Any, on_event: Callable[[Opened], None]) -> None:
        on_event(Opened(tmp_path, settings.model_dump(mode="json"), False, ()))
        raise StorageFull("cannot write x: no space left on device; free some space")

    monkeypatch.setattr("evolve.driver.search", fill_up)
    code, output, errors = evolve("search", "--pool", "local")
    assert code == 1 and output.startswith(f"{tmp_path}\n")
    assert f"to go on: evolve resume {tmp_path}" in one_line(errors)


def test_a_warning_is_one_line(evolve: Evolve, monkeypatch: pytest.MonkeyPatch) -> None:
    def warn(path: object) -> None:
        warnings.warn("two\nlines", RuntimeWarning, stacklevel=1)
        raise KeyboardInterrupt

    monkeypatch.setattr("evolve.runs.open_run", warn)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        code, _, errors = evolve("status", "runs/0001")
    assert errors == "evolve: warning: two lines\nevolve: stopped\n"
    assert code == 130


def test_tables_of_what_there_is(evolve: Evolve) -> None:
    networks = evolve("zoo")[1].splitlines()
    assert [line.split()[0] for line in networks[1:]] == list(ZOO)
    assert ["resnet", "272k", "40.8M"] in [line.split() for line in networks]
    operators = evolve("ops")[1].splitlines()
    assert [line.split()[:2] for line in operators[1:]] == [
        [name, mutation.preserves] for name, mutation in MUTATIONS.items()
    ]


# --- with a run


def test_a_search_prints_its_folder_first_and_plain_lines(finished: tuple[Path, str]) -> None:
    path, output = finished
    lines = output.splitlines()
    assert lines[0] == str(path)
    assert not CONTROL.search(output.replace("\n", ""))
    assert f"evolve export {path}" in output
    assert re.search(r"test +\d+\.\d\d %", output)


def test_log_json_is_one_object_a_candidate(finished: tuple[Path, str], evolve: Evolve) -> None:
    code, output, errors = evolve("log", finished[0], "--json")
    entries = [json.loads(line) for line in output.splitlines()]
    assert (code, errors) == (0, "")
    assert [entry["id"] for entry in entries] == [0, 1, 2, 3]
    for entry in entries:
        assert set(entry) == LOG_KEYS
        assert entry["status"] in {"done", "failed"}
        assert entry["failure"] is None or set(entry["failure"]) == {"kind", "message"}
    assert [entries[0][key] for key in ("parent", "operator", "site", "certificate")] == [None] * 4
    for entry in entries[1:]:
        assert set(entry["certificate"]) == {"dtype", "probe", "stirred", "eval", "train"}
        assert set(entry["certificate"]["eval"]) == {"error", "floor", "tolerance", "power", "verdict"}
    assert "NaN" not in output


def test_status_json_is_one_object(finished: tuple[Path, str], evolve: Evolve) -> None:
    status = json.loads(evolve("status", finished[0], "--json")[1])
    assert set(status) == {"candidates", "best", "strategy", "seed"}
    assert sum(status["candidates"].values()) == 4
    assert set(status["best"]) == {"id", "val_accuracy", "test_accuracy", "parameters", "macs"}
    assert 0 <= status["best"]["test_accuracy"] <= 1


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["status", "RUN"], "best"),
        (["log", "RUN"], "accuracy"),
        (["tree", "RUN"], "starting network"),
        (["show", "RUN", "0"], "candidate 0"),
        (["show", "RUN", "1"], "certificate"),
    ],
)
def test_reading_commands_are_plain_off_a_terminal(
    command: list[str],
    said: str,
    finished: tuple[Path, str],
    evolve: Evolve,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    code, output, errors = evolve(*(str(finished[0]) if word == "RUN" else word for word in command))
    assert (code, errors) == (0, "")
    assert said in output
    assert not CONTROL.search(output.replace("\n", ""))


@pytest.mark.parametrize("candidate", ["4", "-1", "99"])
@pytest.mark.parametrize("command", ["show", "replay"])
def test_an_unknown_candidate_is_one_line(
    command: str, candidate: str, finished: tuple[Path, str], evolve: Evolve
) -> None:
    code, output, errors = evolve(command, finished[0], "--", candidate)
    assert (code, output) == (2, "") and candidate in one_line(errors)


def test_replay_agrees_bit_for_bit(finished: tuple[Path, str], evolve: Evolve, tmp_path: Path) -> None:
    from graphs import load

    for candidate in (0, 1, 3):
        file = tmp_path / f"{candidate}.safetensors"
        code, output, errors = evolve("replay", finished[0], candidate, "--to", file)
        assert (code, errors) == (0, "") and "bit for bit" in output
        assert load(file).digest in output


def test_export_takes_the_best_or_the_one_named(finished: tuple[Path, str], evolve: Evolve, tmp_path: Path) -> None:
    status = json.loads(evolve("status", finished[0], "--json")[1])
    assert evolve("export", finished[0], "--to", tmp_path / "best")[0] == 0
    config = json.loads((tmp_path / "best" / "config.json").read_text())
    assert config["candidate"] == status["best"]["id"]
    for key in ("val_accuracy", "test_accuracy", "parameters", "macs"):
        assert config[key] == status["best"][key]
    assert config["input_shape"] == [1, 8, 8] and config["classes"] == 10
    assert set(config["normalisation"]) == {"mean", "std"}
    assert evolve("export", finished[0], "0", "--to", tmp_path / "first")[0] == 0
    assert json.loads((tmp_path / "first" / "config.json").read_text())["candidate"] == 0
    code, _, errors = evolve("export", finished[0], "--to", tmp_path / "best")
    assert code == 2 and "--force" in one_line(errors)
    assert evolve("export", finished[0], "--to", tmp_path / "best", "--force")[0] == 0
    code, _, errors = evolve("export", finished[0], "17", "--to", tmp_path / "other")
    assert code == 2 and "17" in one_line(errors)


def test_a_run_that_another_search_holds_is_one_line(
    finished: tuple[Path, str], evolve: Evolve, tmp_path: Path
) -> None:
    from evolve.run_lock import Lock

    copy = shutil.copytree(finished[0], tmp_path / "run")
    with Lock(copy):
        code, _, errors = evolve("resume", copy)
        assert code == 2 and "another search" in one_line(errors)
        assert evolve("status", copy)[0] == 0  # reading needs no lock


def test_a_new_search_does_not_touch_an_old_run(finished: tuple[Path, str], evolve: Evolve) -> None:
    code, _, errors = evolve("search", "--pool", "local", "--run", finished[0])
    assert code == 2 and "evolve resume" in one_line(errors)


def test_a_reader_that_stops_reading_is_no_error(finished: tuple[Path, str]) -> None:
    log = process("log", finished[0], "--json")
    assert log.stdout is not None and log.stderr is not None
    log.stdout.close()  # before it has written anything
    assert log.stderr.read() == ""
    log.stderr.close()
    assert log.wait(timeout=60) == 0


def test_a_full_disk_is_one_line_and_loses_nothing(small: Path, evolve: Evolve, tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        code, _, errors = evolve("search", "--config", small, "--pool", "local", "--run", tmp_path / "run")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert code == 1 and "free some space" in one_line(errors)
    assert sorted(os.listdir(tmp_path)) == ["small.yaml"]


def test_signals_end_a_search_cleanly_and_resume_goes_on(small: Path, evolve: Evolve, tmp_path: Path) -> None:
    run_folder = tmp_path / "run"
    begin = ["search", "--config", small, "--pool", "local", "--workers", 1, "--candidates", 3, "--epochs", 2]
    done: list[int] = []
    for number, arguments in (
        (signal.SIGTERM, [*begin, "--run", run_folder]),
        (signal.SIGINT, ["resume", run_folder]),
    ):
        search = process(*arguments)
        assert search.stdout is not None
        assert search.stdout.readline() == f"{run_folder}\n"
        search.stdout.readline()
        search.stdout.readline()  # something is under way
        search.send_signal(number)
        _, errors = search.communicate(timeout=60)
        assert search.returncode == 128 + number
        assert f"evolve resume {run_folder}" in one_line(errors)
        kept = [json.loads(line) for line in evolve("log", run_folder, "--json")[1].splitlines()]
        now = [entry["id"] for entry in kept if entry["status"] == "done"]
        assert set(done) <= set(now)
        done = now
    resume = process("resume", run_folder, "--pool", "local")
    output, errors = resume.communicate(timeout=120)
    assert (resume.returncode, errors) == (0, ""), errors
    assert output.startswith(f"{run_folder}\n")
    status = json.loads(evolve("status", run_folder, "--json")[1])
    assert status["candidates"]["done"] + status["candidates"]["failed"] == 3
    assert evolve("resume", run_folder)[0] == 0  # once more changes nothing
