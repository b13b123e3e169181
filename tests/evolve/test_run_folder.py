"""A run's folder appears whole, belongs to one search at a time, and keeps weights that verify themselves."""

from __future__ import annotations

import os
import random
import resource
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from evolve import run_folder
from evolve.run_folder import RunError, RunFolder
from evolve.run_lock import Lock, RunLocked, held
from graphs import Genome, zoo
from graphs.errors import EvolutionError, FormatError, StorageFull
from tests.evolve.lineages import fill


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    with RunFolder.create(tmp_path / "run", fill) as folder:
        return folder


@pytest.fixture(scope="module")
def genome() -> Genome:
    return zoo.create("convnet", classes=10, input_shape=(1, 8, 8))


def test_it_appears_whole_and_for_its_owner_alone(tmp_path: Path, genome: Genome) -> None:
    seen = []

    def look(folder: RunFolder) -> None:
        seen.append(sorted(os.listdir(tmp_path)))
        fill(folder)
        assert not (tmp_path / "run").exists()

    with RunFolder.create(tmp_path / "run", look) as run:
        run.save_genome(genome)
        run.save_tensors({"a": torch.ones(2)})
        run.write_status({"best": None})
        assert run.path == tmp_path / "run" and run.in_use
    assert seen[0][0].endswith(".tmp")
    assert os.listdir(tmp_path) == ["run"] and not run.in_use
    for place in [run.path, *run.path.rglob("*")]:
        assert stat.S_IMODE(place.stat().st_mode) == (0o700 if place.is_dir() else 0o600), place


def test_a_start_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def stumble(folder: RunFolder) -> None:
        fill(folder)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), RunFolder.create(tmp_path / "run", stumble):
        pass
    assert os.listdir(tmp_path) == []


def test_runs_are_numbered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for number in (1, 2):
        with RunFolder.create(None, fill) as run:
            assert str(run.path) == f"runs/000{number}"
    (tmp_path / "runs" / "0003").mkdir()  # somebody else's
    with RunFolder.create(None, fill) as run:
        assert str(run.path) == "runs/0004"


def test_two_that_start_at_once_get_two_numbers(tmp_path: Path) -> None:
    code = (
        "from evolve.run_folder import RunFolder; from tests.evolve.lineages import fill\n"
        "input()\n"
        "for _ in range(5):\n"
        "    with RunFolder.create(None, fill) as run: print(run.path)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    starters = [
        subprocess.Popen(
            [sys.executable, "-c", code],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=tmp_path,
            env=environment,
        )
        for _ in range(2)
    ]
    for starter in starters:
        assert starter.stdin is not None
        starter.stdin.write("\n")
        starter.stdin.flush()
    lines = "".join(starter.communicate(timeout=60)[0] for starter in starters).split()
    assert sorted(lines) == [f"runs/{number:04d}" for number in range(1, 11)]


def test_a_folder_that_is_taken_is_refused(tmp_path: Path, run: RunFolder) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "note").touch()
    for place, message in (
        (run.path, "evolve resume"),
        (other, "not an empty folder"),
        (other / "note", "not an empty"),
    ):
        with pytest.raises(RunError, match=message) as caught, RunFolder.create(place, fill):
            pass
        assert caught.value.exit_code == 2 and str(place) in str(caught.value)
    (other / "note").unlink()
    with RunFolder.create(other, fill):
        pass


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for place, message in (
        (tmp_path / "none", "there is no run"),
        (tmp_path, "not a run"),
        (tmp_path / "file", "not a run"),
    ):
        with pytest.raises(RunError, match=message) as caught:
            RunFolder.find(place)
        assert caught.value.exit_code == 2 and "\n" not in str(caught.value)


# The lock


def test_a_second_search_is_refused_at_once(run: RunFolder) -> None:
    with run.locked():
        begin = time.monotonic()
        with pytest.raises(RunLocked, match=rf"process {os.getpid()}\b") as caught, run.locked():
            pass
        assert time.monotonic() - begin < 1
        assert caught.value.exit_code == 2 and str(run.path) in str(caught.value)
    with run.locked():
        pass


def test_asking_whether_a_run_is_in_use_refuses_nobody(run: RunFolder) -> None:
    code = (
        "import sys, time; from pathlib import Path; from evolve.run_lock import held\n"
        "print('asking', flush=True)\n"
        "while True: held(Path(sys.argv[1]))"
    )
    asking = subprocess.Popen([sys.executable, "-c", code, str(run.path)], stdout=subprocess.PIPE, text=True)
    try:
        assert asking.stdout is not None
        asking.stdout.readline()
        for _ in range(50):
            with Lock(run.path):
                pass
    finally:
        asking.kill()
        asking.communicate()


def test_the_lock_of_a_killed_search_is_free(run: RunFolder) -> None:
    code = (
        "import sys, time; from pathlib import Path; from evolve.run_lock import Lock\n"
        "with Lock(Path(sys.argv[1])):\n"
        "    print('locked', flush=True); time.sleep(60)"
    )
    holder = subprocess.Popen([sys.executable, "-c", code, str(run.path)], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "locked\n"
        assert held(run.path)
        with pytest.raises(RunLocked, match=f"process {holder.pid}"), run.locked():
            pass
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.communicate()
    begin = time.monotonic()
    with run.locked():
        assert time.monotonic() - begin < 1
    assert not held(run.path)


def test_what_a_killed_search_left_is_removed(run: RunFolder, tmp_path: Path) -> None:
    leftovers = [run.path / ".status.json.12ab.tmp", run.path / "weights" / ".ab.safetensors.12ab.tmp"]
    for leftover in leftovers:
        leftover.touch()
    with run.locked():
        assert not any(leftover.exists() for leftover in leftovers)
    begun, recent, foreign = (tmp_path / name for name in (".run.0001abcd.tmp", ".run.0002abcd.tmp", ".run.tmp"))
    for draft in (begun, recent, foreign):
        (draft / "weights").mkdir(parents=True)
        (draft / "lock").touch()
    for draft in (begun, foreign):
        os.utime(draft, (time.time() - 7200, time.time() - 7200))
    with RunFolder.create(tmp_path / "next", fill):
        assert not begun.exists() and recent.exists() and foreign.exists()


# Weights


def test_weights_come_back(run: RunFolder, genome: Genome) -> None:
    digest = run.save_genome(genome)
    assert digest == run.save_genome(genome) == genome.digest
    assert run.load_genome(digest).digest == digest
    tensors = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.tensor(3)}
    tensors |= {"twin": tensors["a"], "turned": tensors["a"].T}
    name = run.save_tensors(tensors)
    assert name is not None
    found = run.load_tensors(name)
    assert found.keys() == tensors.keys() and all(torch.equal(found[key], tensors[key]) for key in tensors)
    assert run.save_tensors({}) is None and run.load_tensors(None) == {}


def test_damaged_weights_are_refused(run: RunFolder, genome: Genome) -> None:
    """Truncated at 100 places, 300 bits flipped, exchanged, or gone."""
    digest = run.save_genome(genome)
    name = run.save_tensors({"a": torch.ones(300)})
    assert name is not None
    rng = random.Random(3)  # noqa: S311
    for path, load in (
        (run.path / "weights" / f"{digest}.safetensors", lambda: run.load_genome(digest)),
        (run.path / "tensors" / f"{name}.safetensors", lambda: run.load_tensors(name)),
    ):
        data = path.read_bytes()
        cases = [data[: rng.randrange(len(data))] for _ in range(100)]
        for _ in range(300):
            flipped = bytearray(data)
            flipped[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
            cases.append(bytes(flipped))
        for case in cases:
            path.write_bytes(case)
            with pytest.raises(EvolutionError) as caught:
                load()
            assert "\n" not in str(caught.value)
        path.unlink()
        with pytest.raises(FormatError, match="copy"):
            load()
    other = zoo.create("convnet", classes=10, input_shape=(1, 8, 8), seed=1)
    other_file = run.path / "weights" / f"{run.save_genome(other)}.safetensors"
    other_file.rename(run.path / "weights" / f"{digest}.safetensors")
    with pytest.raises(FormatError, match="another network"):
        run.load_genome(digest)


def test_a_full_disk_keeps_the_old_files(run: RunFolder, genome: Genome) -> None:
    digest = run.save_genome(genome)
    other = zoo.create("convnet", classes=10, input_shape=(1, 8, 8), seed=1)
    run.write_status({"best": 1})
    size = (run.path / "weights" / f"{digest}.safetensors").stat().st_size
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    for step in range(64):
        resource.setrlimit(resource.RLIMIT_FSIZE, (size * step // 64, before[1]))
        try:
            with pytest.raises(StorageFull) as caught:
                run.save_genome(other)
            if step == 0:
                with pytest.raises(StorageFull):
                    run.write_status({"best": 2})
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert caught.value.exit_code == 1
        assert run.load_genome(digest).digest == digest
    assert (run.path / "status.json").read_text().strip() == '{\n  "best": 1\n}'
    assert not [place for place in run.path.rglob("*") if place.name.endswith(run_folder.TEMPORARY)]
    assert run.save_genome(other) == other.digest
