"""Folders of images: what is found in them, how they are cut, what is decoded, and one line for what is wrong."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from graphs.errors import EvolutionError, MissingExtra
from runners import decoding, normalising, prepared
from runners.arrays import DataError
from runners.decoding import cache, decoded
from runners.folders import scan
from runners.recipe import Recipe
from runners.task import Task
from runners.training import train
from tests.runners.places import said_elsewhere

COUNTS = {"cat": 30, "dog": 20, "eel": 10}


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "hydra-evolve" / "images"


def pixels(seed: int, height: int = 8, width: int = 8) -> Any:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def fill(folder: Path, counts: dict[str, int] = COUNTS, start: int = 0) -> Path:
    number = start
    for name, count in counts.items():
        (folder / name).mkdir(parents=True)
        for place in range(count):
            Image.fromarray(pixels(number)).save(folder / name / f"{place:03}.png")
            number += 1
    return folder


def found(task: Task, split: str) -> Counter[Any]:
    part = task.split(split)
    return Counter((image.numpy().tobytes(), int(label)) for image, label in zip(part.images, part.labels, strict=True))


def expected(folder: Path) -> Counter[Any]:
    names = sorted(place.name for place in folder.iterdir())
    return Counter(
        (np.ascontiguousarray(np.asarray(Image.open(path)).transpose(2, 0, 1)).tobytes(), names.index(path.parent.name))
        for path in folder.rglob("*.png")
    )


def refused(folder: Path, *parts: str, kind: type[EvolutionError] = DataError, **settings: Any) -> None:
    with pytest.raises(kind) as caught:
        Task.named(str(folder), **settings)
    message = str(caught.value)
    assert "\n" not in message
    for part in parts:
        assert part in message, message


def test_every_image_is_in_one_split_with_its_label_and_its_pixels(tmp_path: Path) -> None:
    folder = fill(tmp_path / "pets")
    task = Task.named(str(folder))
    assert (task.name, task.labels, task.classes, task.input_shape) == ("pets", ("cat", "dog", "eel"), 3, (3, 8, 8))
    parts = [found(task, split) for split in prepared.SPLITS]
    assert sum(parts, Counter()) == expected(folder)
    assert [len(task.split(split)) for split in prepared.SPLITS] == [39, 9, 12]
    assert task.test.labels.bincount().tolist() == [6, 4, 2]
    assert all(labels.diff().ge(0).all() for labels in (task.train.labels, task.test.labels))
    scaled = task.train.images.double() / 255
    assert torch.allclose(torch.tensor(task.normalisation["mean"]).double(), scaled.mean((0, 2, 3)))
    assert torch.allclose(torch.tensor(task.normalisation["std"]).double(), scaled.std((0, 2, 3), correction=0))


def test_what_a_system_leaves_in_a_folder_is_no_image(tmp_path: Path) -> None:
    folder = fill(tmp_path / "pets")
    wanted = scan(folder)
    for name in ("Thumbs.db", "desktop.ini", ".DS_Store", "._000.png"):
        (folder / "dog" / name).write_bytes(b"x")
    assert scan(folder) == wanted
    (folder / "dog" / "thumbs.txt").write_bytes(b"x")
    refused(folder, "dog/thumbs.txt", "no image by its name")


def test_the_cut_depends_on_the_numbers_of_images_alone(tmp_path: Path) -> None:
    one = scan(fill(tmp_path / "a"))
    other = scan(fill(tmp_path / "b", start=1000))
    for split in prepared.SPLITS:
        assert [image.path for image in one.images[split]] == [image.path for image in other.images[split]]


@pytest.mark.parametrize(
    "names",
    ["train val test", "Train Val Test", "training Valid testing", "train validation TEST", "TRAIN dev eval"],
)
def test_splits_that_are_there_are_taken_as_they_are(names: str, tmp_path: Path) -> None:
    folder = tmp_path / "pets"
    learn, check, test = (folder / name for name in names.split())
    fill(learn)
    fill(check, {"cat": 3, "eel": 2}, start=500)
    fill(test, {"cat": 4, "dog": 4, "eel": 1}, start=600)
    (learn / "README.txt").write_text("beside the classes, not in one")
    task = Task.named(str(folder))
    assert task.labels == tuple(COUNTS)
    assert [found(task, split) for split in ("train", "test")] == [expected_of(learn), expected_of(test)]
    assert Counter(task.validation.labels.tolist()) == {0: 3, 2: 2}


def expected_of(folder: Path) -> Counter[Any]:
    for stray in folder.glob("*.txt"):
        stray.unlink()
    return expected(folder)


def test_a_missing_split_is_cut_from_the_training_images(tmp_path: Path) -> None:
    folder = tmp_path / "pets"
    fill(folder / "train")
    fill(folder / "val", {"cat": 3, "dog": 2}, start=500)
    task = Task.named(str(folder))
    assert found(task, "train") + found(task, "test") == expected(folder / "train")
    assert [len(task.split(split)) for split in prepared.SPLITS] == [48, 5, 12]


@pytest.mark.parametrize("name", ["train", "Train", "test", "eval"])
def test_a_class_may_be_called_like_a_split(name: str, tmp_path: Path) -> None:
    labels = tuple(sorted(("plane", name)))
    assert Task.named(str(fill(tmp_path / "rides", dict.fromkeys(labels, 20)))).labels == labels


def test_a_limit_decodes_no_more_than_it_takes(tmp_path: Path) -> None:
    folder = fill(tmp_path / "pets")
    seen: list[tuple[int, int]] = []
    task = Task.named(str(folder), limit=6, report=lambda done, total: seen.append((done, total)))
    assert [len(task.split(split)) for split in prepared.SPLITS] == [6, 6, 12] and seen[-1] == (24, 24)
    assert task.train.labels.unique().tolist() == [0, 1, 2]
    assert found(task, "train") <= found(Task.named(str(folder)), "train")
    refused(folder, "a limit of 2", "3 classes", limit=2)


def test_images_are_decoded_once_and_again_when_one_changes(
    tmp_path: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = fill(tmp_path / "pets")
    seen: list[tuple[int, int]] = []

    def report(done: int, total: int) -> None:
        seen.append((done, total))

    first = Task.named(str(folder), report=report)
    assert seen == [(60, 60)]
    assert Task.named(str(folder), report=report).spec == first.spec and len(seen) == 1
    path = folder / "cat" / "007.png"
    before = path.stat()
    Image.fromarray(pixels(9999)).save(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))  # a time of change that somebody has put back
    changed = Task.named(str(folder), report=report)
    assert len(seen) == 2 and changed.spec["digest"] != first.spec["digest"]
    with pytest.raises(DataError, match="has changed"):
        Task.from_spec(first.spec)
    assert sorted(path.suffix for path in own_cache.iterdir()) == [".lock", ".lock", ".safetensors", ".safetensors"]


def test_the_same_images_have_the_same_digest_wherever_they_lie(tmp_path: Path) -> None:
    one, other = Task.named(str(fill(tmp_path / "a"))), Task.named(str(fill(tmp_path / "b")))
    assert one.spec["digest"] == other.spec["digest"]
    for path in (tmp_path / "b" / "eel").iterdir():
        path.rename(tmp_path / "b" / "dog" / f"9{path.name}")
    (tmp_path / "b" / "eel").rmdir()
    assert Task.named(str(tmp_path / "b")).spec["digest"] != one.spec["digest"]


def test_what_a_killed_process_has_left_is_removed(tmp_path: Path, own_cache: Path) -> None:
    folder = fill(tmp_path / "pets")
    Task.named(str(folder))
    (file,) = own_cache.glob("*.safetensors")
    file.unlink()
    left = own_cache / f".{file.name}.abcd1234.tmp"
    left.write_bytes(b"half")
    Task.named(str(folder))
    assert not left.exists() and file.exists()


def test_a_failure_leaves_nothing_in_the_cache(tmp_path: Path, own_cache: Path) -> None:
    folder = fill(tmp_path / "pets")
    (folder / "eel" / "009.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    refused(folder, str(folder / "eel" / "009.png"), "broken")
    assert [path.suffix for path in own_cache.iterdir()] == [".lock"]


def test_another_process_makes_the_same_task_from_the_spec(tmp_path: Path) -> None:
    task = Task.named(str(fill(tmp_path / "pets")), size=6)
    what = "[dict(task.spec), task.normalisation, task.train.images.sum().item(), task.labels]"
    assert said_elsewhere(task, what) == [
        dict(task.spec),
        task.normalisation,
        task.train.images.sum().item(),
        list(task.labels),
    ]


def test_images_are_mapped_and_not_read(tmp_path: Path) -> None:
    """A file far larger than what a process takes for it."""
    targets = {split: torch.arange(8) % 2 for split in prepared.SPLITS}
    part = torch.full((1, 3, 1024, 1024), 7, dtype=torch.uint8)
    path = tmp_path / "large.safetensors"
    prepared.write(path, {"labels": ["a", "b"]}, targets, (3, 1024, 1024), torch.uint8, (part for _ in range(24)))
    program = (
        "import resource, sys, pathlib, torch; from runners import prepared; prepared.VERIFIED = 0\n"
        "def most(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "before = most(); found = prepared.read(pathlib.Path(sys.argv[1]))\n"
        "batch = found.inputs['train'].index_select(0, torch.tensor([3, 5]))\n"
        "assert batch.eq(7).all(); print(most() - before)"
    )
    done = subprocess.run([sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 40 << 10, "72 MiB were read for 6"


def test_a_network_learns_from_a_folder_to_the_bits_of_the_same_arrays(tmp_path: Path) -> None:
    from graphs import zoo

    folder = tmp_path / "marks"
    for name, level in (("dark", 40), ("light", 200)):
        (folder / name).mkdir(parents=True)
        for place in range(40):
            noise = np.random.default_rng(place + level).integers(0, 40, (8, 8, 3))
            Image.fromarray((level + noise).astype(np.uint8)).save(folder / name / f"{place}.png")
    task = Task.named(str(folder))
    genome = zoo.create("convnet", classes=2, input_shape=task.input_shape)
    outcome = train(genome, Recipe(epochs=2), task)
    assert outcome.val_accuracy == 1.0
    held = Task.of(
        **{
            **{name: getattr(task, name) for name in ("name", "classes", "labels", "normalisation", "mirror", "spec")},
            **{split: prepared_copy(task.split(split)) for split in prepared.SPLITS},
        }
    )
    again = train(genome, Recipe(epochs=2), held)
    assert again.genome is not None and outcome.genome is not None and again.genome.digest == outcome.genome.digest


def prepared_copy(split: Any) -> Any:
    return type(split)(split.images.clone(), split.labels.clone())


# --- decoding


def one(tmp_path: Path, image: Any, name: str = "0.png", size: int | None = None, **how: Any) -> Any:
    folder = tmp_path / "one"
    for label in ("a", "b"):
        (folder / label).mkdir(parents=True)
        for place in range(3):
            image.save(folder / label / f"{place}{name}", **how)
    return decoded(scan(folder), size).inputs["train"][0]


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "LA", "1", "CMYK"])
def test_every_image_becomes_red_green_blue(mode: str, tmp_path: Path) -> None:
    image = Image.fromarray(pixels(1)).convert(mode)
    name = ".tif" if mode == "CMYK" else ".png"
    assert np.array_equal(one(tmp_path, image, name).numpy().transpose(1, 2, 0), np.asarray(image.convert("RGB")))


def test_grey_of_sixteen_bits_keeps_its_high_byte(tmp_path: Path) -> None:
    deep = np.arange(64, dtype=np.uint16).reshape(8, 8) * 1024
    assert np.array_equal(one(tmp_path, Image.fromarray(deep))[0].numpy(), (deep >> 8).astype(np.uint8))


def test_the_camera_s_orientation_is_honoured(tmp_path: Path) -> None:
    about = Image.Exif()
    about[0x0112] = 6
    image = Image.fromarray(pixels(2, 4, 6))
    turned = one(tmp_path, image, exif=about).numpy().transpose(1, 2, 0)
    assert np.array_equal(turned, np.rot90(np.asarray(image), -1))


def test_a_size_scales_and_cuts_around_the_centre(tmp_path: Path) -> None:
    wide = np.zeros((20, 60, 3), np.uint8)
    wide[:, 20:40] = 200
    small = one(tmp_path, Image.fromarray(wide), size=10)
    assert small.shape == (3, 10, 10) and small.min() > 150 and small[:, :, 2:8].eq(200).all()


# --- what is refused


def change(how: Callable[[Path], Any]) -> Callable[[Path], Path]:
    def made(folder: Path) -> Path:
        fill(folder)
        how(folder)
        return folder

    return made


def cut_short(path: Path) -> None:
    image = Image.fromarray(pixels(5, 64, 64))
    image.save(path)
    path.write_bytes(path.read_bytes()[:-300])


def emptied(place: Path) -> None:
    for path in place.iterdir():
        path.unlink()


def bomb(path: Path) -> None:
    Image.new("1", (20_000, 20_000)).save(path)


def split_up(folder: Path, *names: str, beside: tuple[str, ...] = ()) -> None:
    """Splits in place of the classes, and what stands beside them."""
    for label in COUNTS:
        shutil.rmtree(folder / label)
    for number, name in enumerate(names):
        fill(folder / name, start=100 * number)
    fill(folder, dict.fromkeys(beside, 5))


WRONG: dict[str, tuple[Callable[[Path], Any], tuple[str, ...]]] = {
    "text": (lambda folder: (folder / "dog" / "notes.txt").write_text("x"), ("dog/notes.txt", "no image by its name")),
    "disguised": (lambda folder: (folder / "dog" / "x.png").write_text("x"), ("dog/x.png", "broken, or no image")),
    "postscript": (
        lambda folder: (folder / "dog" / "x.png").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n"),
        ("dog/x.png", "no image"),
    ),
    "empty-file": (lambda folder: (folder / "dog" / "x.jpg").write_bytes(b""), ("dog/x.jpg", "broken, or no image")),
    "cut-png": (lambda folder: cut_short(folder / "cat" / "001.png"), ("cat/001.png", "broken")),
    "cut-jpeg": (lambda folder: cut_short(folder / "cat" / "x.jpg"), ("cat/x.jpg", "broken")),
    "bomb": (lambda folder: bomb(folder / "cat" / "x.png"), ("cat/x.png", "400000000 pixels")),
    "gone": (lambda folder: (folder / "cat" / "x.png").symlink_to("nowhere"), ("cat/x.png", "cannot be read")),
    "deep-grey": (
        lambda folder: Image.fromarray(np.ones((8, 8), np.int32)).save(folder / "dog" / "x.tif"),
        ("dog/x.tif", "32 bits"),
    ),
    "real-grey": (
        lambda folder: Image.fromarray(np.ones((8, 8), np.float32)).save(folder / "dog" / "x.tif"),
        ("dog/x.tif", "32 bits"),
    ),
    "size": (
        lambda folder: Image.fromarray(pixels(1, 8, 9)).save(folder / "eel" / "x.png"),
        ("eel/x.png", "9×8 pixels", "8×8", "--image-size"),
    ),
    "empty-class": (lambda folder: emptied(folder / "dog"), ("dog", "a class without images")),
    "few": (
        lambda folder: [path.unlink() for path in sorted((folder / "eel").iterdir())[1:]],
        ("eel", "1 images are too few"),
    ),
    "outside": (
        lambda folder: Image.fromarray(pixels(1)).save(folder / "x.png"),
        ("pets/x.png", "outside of the class folders"),
    ),
    "foreign-class": (
        lambda folder: [
            (folder / "rest").mkdir(),
            *[(folder / name).rename(folder / "rest" / name) for name in COUNTS],
            (folder / "rest").rename(folder / "train"),
            fill(folder / "test", {"fox": 2}),
        ],
        ("test/fox", "no class of that name", "cat, dog, eel"),
    ),
    "class-beside-split": (
        lambda folder: split_up(folder, "train", "val", beside=("bus",)),
        ("pets/bus: not the name of a split", "move bus elsewhere, or rename train if it is a class"),
    ),
    "split-of-another-name": (
        lambda folder: split_up(folder, "Train", "holdout"),
        ("pets/holdout: not the name of a split (train, training, val, valid, validation, dev, test, testing, eval)",),
    ),
    "two-of-a-split": (
        lambda folder: split_up(folder, "train", "val", "valid"),
        ("val and valid are both the validation split", "keep one"),
    ),
    "two-cases-of-a-split": (
        lambda folder: split_up(folder, "train", "Test", "eval"),
        ("Test and eval are both the test split", "keep one"),
    ),
    "no-training-split": (
        lambda folder: split_up(folder, "Val", "test"),
        ("Val is a split", "no training split beside it", "add a folder train"),
    ),
    "one-class": (
        lambda folder: [(folder / name).rename(folder / "cat" / name) for name in ("dog", "eel")],
        ("holds 1 folders", "two or more"),
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_one_line_that_names_the_file(name: str, tmp_path: Path) -> None:
    how, parts = WRONG[name]
    refused(change(how)(tmp_path / "pets"), *parts)


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to(os.devnull)], ids=["pipe", "device"])
def test_what_is_no_file_is_refused_before_it_is_opened(make: Callable[[Path], Any], tmp_path: Path) -> None:
    folder = change(lambda folder: make(folder / "dog" / "x.png"))(tmp_path / "pets")
    with pytest.raises(DataError, match=r"dog/x\.png: a pipe, a socket or a device, and no file; take it out .*$"):
        scan(folder)


def test_a_folder_that_is_not_there_and_a_size_for_what_is_no_folder(tmp_path: Path) -> None:
    refused(tmp_path / "none", "no such folder")
    with pytest.raises(DataError, match="an image size is for a folder of images"):
        Task.named("digits", size=8)


def test_without_pillow_one_line_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = fill(tmp_path / "pets")
    monkeypatch.setitem(sys.modules, "PIL", None)
    refused(folder, "pip install 'hydra-evolve[images]'", kind=MissingExtra)


def test_a_cache_that_cannot_be_written_says_where_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(EvolutionError) as caught:
        Task.named(str(fill(tmp_path / "pets")))
    assert caught.value.exit_code == 1 and "XDG_CACHE_HOME" in caught.value.__notes__[0]
    assert cache() == tmp_path / "file" / "hydra-evolve" / "images"


def test_a_damaged_file_of_pixels_is_noticed(tmp_path: Path, own_cache: Path) -> None:
    folder = fill(tmp_path / "pets")
    Task.named(str(folder))
    (file,) = own_cache.glob("*.safetensors")
    content = bytearray(file.read_bytes())
    for place in (5, len(content) // 2, len(content) - 3):
        file.write_bytes(bytes([*content[:place], content[place] ^ 1, *content[place + 1 :]]))
        refused(folder, str(file), "damaged")
    file.write_bytes(content[:-8])
    refused(folder, str(file))


def test_chunks_change_neither_pixels_nor_digest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = Task.named(str(fill(tmp_path / "a")))
    monkeypatch.setattr(decoding, "TOGETHER", 7)
    monkeypatch.setattr(normalising, "CHUNK", 1)
    second = Task.named(str(fill(tmp_path / "b")))
    assert second.spec["digest"] == first.spec["digest"] and second.normalisation == first.normalisation
