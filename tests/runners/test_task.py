"""Data sets: where they are found, what is refused, and splits that never mix."""

from __future__ import annotations

import doctest
import gzip
import hashlib
import io
import json
import os
import tarfile
import threading
import warnings
import zipfile
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from graphs.errors import EvolutionError, UnknownName
from runners import datasets, splits
from runners.arrays import DataError, checked
from runners.datasets import DATASETS
from runners.download import DownloadError, Remote, fetch
from runners.layouts import CifarFiles
from runners.splits import stratified, validation_size
from runners.task import Task
from tests.runners.places import said_elsewhere


def images(count: int, *shape: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).integers(0, 256, (count, *shape), dtype=np.uint8)


def keras(classes: int = 3, train: int = 60, test: int = 12, shape: tuple[int, ...] = (6, 6)) -> dict[str, Any]:
    return {
        "x_train": images(train, *shape),
        "y_train": np.arange(train) % classes,
        "x_test": images(test, *shape, seed=1),
        "y_test": np.arange(test) % classes,
    }


def npz(path: Path, **changes: Any) -> Path:
    np.savez(path, **{name: array for name, array in (keras() | changes).items() if array is not None})
    return path


def refused(path: Path, *parts: str, kind: type[EvolutionError] = DataError) -> None:
    """The file ends in one line that holds all `parts`, without a warning and with exit code 2."""
    with pytest.raises(kind) as caught:
        Task.named(str(path))
    message = str(caught.value)
    assert "\n" not in message and str(path) in message
    for part in parts:
        assert part in message, message
    assert caught.value.exit_code == 2


# --- splits


@pytest.mark.parametrize("module", [splits, datasets])
def test_doctests_hold(module: Any) -> None:
    assert not doctest.testmod(module).failed


def test_digits_have_three_splits_that_do_not_overlap_and_leave_nothing_out() -> None:
    from sklearn.datasets import load_digits

    task = Task.named("digits")
    assert (task.classes, task.input_shape, task.mirror) == (10, (1, 8, 8), False)
    assert [len(task.split(name)) for name in ("train", "validation", "test")] == [1150, 287, 360]
    rows = [
        (*split.images[place].flatten().tolist(), int(split.labels[place]))
        for split in (task.train, task.validation, task.test)
        for place in range(len(split))
    ]
    bunch = load_digits()
    everything = [
        (*np.rint(image.reshape(-1) * 255 / 16).astype(int).tolist(), int(label))
        for image, label in zip(bunch.images, bunch.target, strict=True)
    ]
    assert sorted(rows) == sorted(everything)
    assert len(set(everything)) == len(everything), "an image twice could be in two splits"
    assert int(task.train.images.max()) == 255


def test_the_splits_of_digits_never_change() -> None:
    """A run's accuracies can be compared with those of an earlier version only if its splits are the same."""
    task = Task.named("digits")
    assert task.spec["digest"] == "cb5074f11f175f8a4e6f18ab625032aa91cc08f6412c715ab7c976cb801122ef"
    digest = hashlib.sha256(task.validation.images.numpy().tobytes()).hexdigest()
    assert digest == "fb4e860ec99a0c910bdacdb69f79c4a6f4b9d1ec80f689c1ca98861adf1b20b9"


@pytest.mark.parametrize("classes", [2, 7])
def test_every_beginning_of_a_stratified_order_has_the_classes_shares(classes: int) -> None:
    labels = np.sort(np.random.default_rng(0).integers(0, classes, 500) ** 2 % classes)
    order = stratified(labels, seed=1)
    assert sorted(order.tolist()) == list(range(500))
    for size in (10, 50, 333):
        shares = np.bincount(labels, minlength=classes) * size / 500
        counts = np.bincount(labels[order[:size]], minlength=classes)
        assert np.abs(counts - shares).max() <= 1.5
    assert not np.array_equal(order, stratified(labels, seed=2))


def test_splits_are_stratified_disjoint_and_independent_of_the_images(tmp_path: Path) -> None:
    given = keras(train=300)
    given["x_train"][:, 0, 0] = np.arange(300) % 256  # tells the images apart
    given["x_train"][:, 0, 1] = np.arange(300) // 256
    task = Task.from_arrays(**given)
    other = Task.from_arrays(**given | {"x_train": 255 - given["x_train"]})

    def places(split: Any) -> list[int]:
        return (split.images[:, 0, 0, 0].long() + 256 * split.images[:, 0, 0, 1].long()).tolist()

    train, validation = places(task.train), places(task.validation)
    assert sorted(train + validation) == list(range(300))
    assert len(validation) == validation_size(300) == 60
    assert torch.equal(task.validation.labels.bincount(), torch.tensor([20, 20, 20]))
    assert torch.equal(255 - other.validation.images, task.validation.images)
    for place, label in zip(train, task.train.labels.tolist(), strict=True):
        assert label == place % 3


def test_a_limit_takes_evenly_and_a_smaller_one_a_part_of_a_larger_one() -> None:
    whole, large, small = (Task.named("digits", limit=limit) for limit in (None, 400, 100))
    assert [len(small.train), len(small.validation), len(small.test)] == [100, 100, 360]
    assert [len(large.train), len(large.validation)] == [400, 287]
    assert small.train.labels.bincount(minlength=10).sub(10).abs().max() <= 1
    rows = [{tuple(image.flatten().tolist()) for image in task.train.images} for task in (whole, large, small)]
    assert rows[2] < rows[1] < rows[0]
    with pytest.raises(DataError, match="a limit of 9 training images is too low for the 10 classes of digits"):
        Task.named("digits", limit=9)


def test_normalisation_is_that_of_the_training_split() -> None:
    given = keras(shape=(6, 6, 3))
    task = Task.from_arrays(**given)
    pixels = task.train.images.double() / 255
    assert torch.allclose(torch.tensor(task.normalisation["mean"]).double(), pixels.mean((0, 2, 3)), atol=1e-7)
    deviation = pixels.transpose(0, 1).flatten(1).std(1, correction=0)
    assert torch.allclose(torch.tensor(task.normalisation["std"]).double(), deviation, atol=1e-7)
    poisoned = Task.from_arrays(**given | {"x_test": np.zeros_like(given["x_test"])})
    assert poisoned.normalisation == task.normalisation
    flat = Task.from_arrays(**given | {"x_train": np.full_like(given["x_train"], 7)})
    assert flat.normalisation["std"] == [1.0, 1.0, 1.0]


def test_a_probe_is_normalised_repeatable_and_of_the_training_split() -> None:
    task = Task.named("digits")
    probe = task.probe(50, seed=3)
    assert probe.dtype == torch.float32 and probe.shape == (50, 1, 8, 8)
    assert torch.equal(probe, task.probe(50, seed=3)) and not torch.equal(probe, task.probe(50, seed=4))
    pixels = (probe * task.normalisation["std"][0] + task.normalisation["mean"][0]) * 255
    known = {tuple(image.flatten().tolist()) for image in task.train.images}
    assert {tuple(image.round().byte().flatten().tolist()) for image in pixels} <= known
    assert len(task.probe(10_000, seed=0)) == len(task.train)


# --- specs


def test_another_process_makes_the_same_task_from_the_spec(tmp_path: Path) -> None:
    task = Task.named(str(npz(tmp_path / "set.npz")), limit=30)
    what = "[dict(task.spec), task.normalisation, task.train.images.sum().item(), task.name]"
    assert said_elsewhere(task, what) == [
        dict(task.spec),
        task.normalisation,
        task.train.images.sum().item(),
        "set",
    ]


def test_a_spec_notices_that_the_file_has_changed(tmp_path: Path) -> None:
    path = npz(tmp_path / "set.npz")
    spec = Task.named(str(path)).spec
    changed = keras()
    changed["x_test"][3, 2, 2] ^= 1
    npz(path, **changed)
    with pytest.raises(DataError, match="has changed"):
        Task.from_spec(spec)
    np.savez_compressed(path, **keras())
    Task.from_spec(spec)  # the same images in another form of file
    path.unlink()
    with pytest.raises(DataError, match="no such file"):
        Task.from_spec(spec)
    with pytest.raises(DataError, match="arrays in memory"):
        Task.from_spec(Task.from_arrays(**keras()).spec)


# --- what is refused


def test_labels_of_any_integer_type_and_shape_are_taken(tmp_path: Path) -> None:
    expected = Task.named(str(npz(tmp_path / "a.npz")))
    for kind in ("int8", "uint8", "int32", "uint64"):
        columns = {name: keras()[name].astype(kind)[:, None] for name in ("y_train", "y_test")}
        found = Task.named(str(npz(tmp_path / "b.npz", **columns)))
        assert torch.equal(found.train.labels, expected.train.labels)
        assert found.spec["digest"] == expected.spec["digest"]
    colour = Task.named(str(npz(tmp_path / "c.npz", **keras(shape=(6, 5, 3)), extra=np.zeros(3))))
    assert colour.input_shape == (3, 6, 5)


WRONG: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "missing": ({"x_test": None, "y_test": None}, ("no array x_test", "no array y_test", "x_train")),
    "floats": ({"x_train": keras()["x_train"] / 255}, ("x_train", "float64", "uint8", "0 to 255")),
    "bools": ({"x_test": keras()["x_test"] > 3}, ("x_test", "bool", "uint8")),
    "flat": ({"x_train": images(60, 36)}, ("x_train", "(60, 36)", "(images, height, width)")),
    "channels-first": ({"x_train": images(60, 3, 6, 6)}, ()),
    "channels": ({"x_train": images(60, 3, 32, 32)}, ("x_train", "32 channels", "last axis")),
    "sizes": ({"x_test": images(12, 6, 7)}, ("(1, 6, 6)", "(1, 6, 7)", "x_test")),
    "colours": ({"x_test": images(12, 6, 6, 3)}, ("(1, 6, 6)", "(3, 6, 6)")),
    "no-train": ({"x_train": images(0, 6, 6), "y_train": np.zeros(0, int)}, ("x_train", "empty")),
    "no-test": ({"x_test": images(0, 6, 6), "y_test": np.zeros(0, int)}, ("x_test", "empty")),
    "few-labels": ({"y_train": np.arange(59) % 3}, ("60 images", "59 labels")),
    "many-labels": ({"y_test": np.arange(13) % 3}, ("12 images", "13 labels")),
    "float-labels": ({"y_train": np.arange(60) % 3 * 1.0}, ("y_train", "float64", "whole numbers")),
    "text-labels": ({"y_test": np.array(["a"] * 12)}, ("y_test", "<U1", "whole numbers")),
    "one-hot": ({"y_train": np.eye(3, dtype=int)[np.arange(60) % 3]}, ("y_train", "(60, 3)")),
    "negative": ({"y_train": np.arange(60) % 3 - 1}, ("y_train[0] is -1", "from 0")),
    "negative-test": ({"y_test": np.r_[np.arange(11) % 3, -7]}, ("y_test[11] is -7",)),
    "unknown-in-test": ({"y_test": np.r_[np.arange(11) % 3, 3]}, ("y_test[11] is 3", "3 classes", "0 to 2")),
    "gap": ({"y_train": np.arange(60) % 3 * 2}, ("class 1 has 0", "without gaps")),
    "stray": ({"y_train": np.r_[np.arange(59) % 3, 3]}, ("class 3 has 1", "2 images or more")),
    "huge": ({"y_train": np.r_[np.arange(59) % 3, 10**9]}, ("y_train[59] is 1000000000",)),
    "beyond-int64": ({"y_train": np.full(60, 2**64 - 1, np.uint64)}, ("y_train[0] is 18446744073709551615",)),
    "one-class": ({"y_train": np.zeros(60, int), "y_test": np.zeros(12, int)}, ("every label in y_train is 0",)),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_array_is_refused(name: str, tmp_path: Path) -> None:
    changes, parts = WRONG[name]
    refused(npz(tmp_path / "set.npz", **changes), *parts)


def test_arrays_of_objects_are_never_unpickled(tmp_path: Path) -> None:
    canary = tmp_path / "canary"

    class Bomb:
        def __reduce__(self) -> Any:
            return (os.mkdir, (str(canary),))

    path = tmp_path / "set.npz"
    np.savez(path, allow_pickle=True, **keras() | {"y_train": np.array([Bomb()] * 60, dtype=object)})
    refused(path, "y_train", "Python objects")
    assert not canary.exists()


def test_damaged_and_foreign_files_are_refused(tmp_path: Path) -> None:
    path = npz(tmp_path / "set.npz")
    content = path.read_bytes()
    for cut in range(0, len(content), max(1, len(content) // 60)):
        path.write_bytes(content[:cut])
        refused(path, "damaged")
    for place in range(0, len(content), 97):
        damaged = bytearray(content)
        damaged[place] ^= 0x55
        path.write_bytes(bytes(damaged))
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            try:
                Task.named(str(path))
            except EvolutionError as error:
                assert "\n" not in str(error)
    refused(tmp_path / "none.npz", "no such file")
    (tmp_path / "folder.npz").mkdir()
    refused(tmp_path / "folder.npz")
    buffer = io.BytesIO()
    np.save(buffer, np.zeros(3))
    path.write_bytes(buffer.getvalue())
    refused(path, "not an .npz")


def _header(claim: tuple[int, ...], kind: str = "|u1") -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": kind, "fortran_order": False, "shape": claim})
    return buffer.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        _header((10**12, 28, 28)) + b"\0" * 100,
        _header((2**40, 2**40, 2**40)),
        _header((50, 6, 6)) + images(60, 6, 6).tobytes(),
        _header((-1, 6, 6)) + b"\0" * 36,
        b"\x93NUMPY\x09\x00" + b"\0" * 50,
        b"\x93NUMPY\x01\x00\xff\xff{'descr'",
        b"",
    ],
    ids=["lies", "overflows", "longer", "negative", "version", "header", "empty"],
)
def test_an_array_that_lies_about_its_size_is_refused(content: bytes, tmp_path: Path) -> None:
    path = npz(tmp_path / "set.npz", x_train=None)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("x_train.npy", content)
    refused(path, "x_train")


def test_a_zip_bomb_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    path = npz(tmp_path / "set.npz", x_train=None)
    side = 1 << 10
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive, archive.open("x_train.npy", "w") as file:
        file.write(_header((300, side, side)))
        for _ in range(300):
            file.write(bytes(side * side))
    assert path.stat().st_size < 1 << 20
    import resource

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refused(path, "claims 3145", "100 times the file")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 << 10, "it was unpacked"


# --- named data sets


def _idx(array: Any) -> bytes:
    return bytes((0, 0, 8, array.ndim)) + b"".join(size.to_bytes(4, "big") for size in array.shape) + array.tobytes()


def _mnist(folder: Path, zipped: bool = True) -> dict[str, bytes]:
    """Tiny files of MNIST's form in `folder`/MNIST/raw."""
    raw = folder / "MNIST" / "raw"
    raw.mkdir(parents=True)
    given = {
        "train-images-idx3": images(60, 7, 5),
        "train-labels-idx1": (np.arange(60) % 10).astype(np.uint8),
        "t10k-images-idx3": images(20, 7, 5, seed=1),
        "t10k-labels-idx1": (np.arange(20) % 10).astype(np.uint8),
    }
    files = {}
    for name, array in given.items():
        content = gzip.compress(_idx(array)) if zipped else _idx(array)
        files[f"{name}-ubyte{'.gz' if zipped else ''}"] = content
        (raw / f"{name}-ubyte{'.gz' if zipped else ''}").write_bytes(content)
    return files


def _tree(root: Path) -> list[tuple[str, int]]:
    return sorted((str(path), path.stat().st_mtime_ns) for path in root.rglob("*"))


@pytest.mark.parametrize("zipped", [True, False])
def test_idx_files_are_read_as_they_are(zipped: bool, tmp_path: Path) -> None:
    _mnist(tmp_path, zipped)
    before = _tree(tmp_path)
    task = Task.named("mnist", root=tmp_path)
    assert (task.input_shape, task.classes, task.labels) == ((1, 7, 5), 10, tuple("0123456789"))
    assert torch.equal(task.test.images[:, 0], torch.from_numpy(images(20, 7, 5, seed=1)))
    assert Task.from_spec(json.loads(json.dumps(dict(task.spec)))).spec == task.spec
    assert _tree(tmp_path) == before, "the folder was written to"


def test_an_npz_of_the_name_comes_first(tmp_path: Path) -> None:
    _mnist(tmp_path)
    npz(tmp_path / "mnist.npz", **keras(classes=10, train=90))
    assert Task.named("mnist", root=tmp_path).input_shape == (1, 6, 6)


def test_a_label_beyond_the_known_classes_is_refused(tmp_path: Path) -> None:
    npz(tmp_path / "mnist.npz", **keras(classes=11, train=99))
    with pytest.raises(DataError, match=r"y_train\[10\] is 10, but there are 10 classes; expected labels from 0 to 9"):
        Task.named("mnist", root=tmp_path)


DAMAGE: dict[str, tuple[str, bytes]] = {
    "short": ("train-images-idx3-ubyte", _idx(images(60, 7, 5))[:-1]),
    "long": ("train-images-idx3-ubyte", _idx(images(60, 7, 5)) + b"x"),
    "head": ("train-labels-idx1-ubyte", b"\0\0\x08"),
    "type": ("train-labels-idx1-ubyte", b"\0\0\x0d\x01\0\0\0\x01\0"),
    "axes": ("train-labels-idx1-ubyte", _idx(images(60, 2))),
    "claim": ("train-images-idx3-ubyte", bytes((0, 0, 8, 3)) + b"\xff" * 12),
    "gzip": ("t10k-labels-idx1-ubyte.gz", gzip.compress(_idx(images(20)))[:-9]),
    "no-gzip": ("t10k-labels-idx1-ubyte.gz", b"hello"),
    "html": ("t10k-images-idx3-ubyte.gz", gzip.compress(b"<!DOCTYPE html><html>not found</html>")),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_idx_file_is_named(name: str, tmp_path: Path) -> None:
    file, content = DAMAGE[name]
    _mnist(tmp_path, zipped=file.endswith(".gz"))
    (tmp_path / "MNIST" / "raw" / file).write_bytes(content)
    with pytest.raises(DataError, match=file) as caught:
        Task.named("mnist", root=tmp_path)
    assert "\n" not in str(caught.value)


def test_cifar_files_give_planes_of_colours_and_the_fine_label(tmp_path: Path) -> None:
    pixels, labels = images(20, 3, 32, 32), np.arange(20, dtype=np.uint8) % 4
    for label_bytes in (1, 2):
        columns = [np.full((20, 1), 9, np.uint8)] * (label_bytes - 1) + [labels[:, None], pixels.reshape(20, -1)]
        rows = np.concatenate(columns, axis=1)
        (tmp_path / "a.bin").write_bytes(rows[:10].tobytes())
        (tmp_path / "b.bin").write_bytes(rows[10:].tobytes())
        layout = CifarFiles(".", ("a.bin", "b.bin"), "a.bin", label_bytes, (10, 10), "none", ())
        found = layout.read(tmp_path)
        assert found is not None
        arrays = checked(found, "cifar")
        assert np.array_equal(arrays.x_train, pixels) and np.array_equal(arrays.y_train, labels)
    (tmp_path / "b.bin").write_bytes(rows[10:].tobytes()[:-1])
    with pytest.raises(DataError, match=r"b\.bin: has 30739 bytes, expected 30740 for 10 images"):
        layout.read(tmp_path)


def test_the_pickled_cifar_is_never_read(tmp_path: Path) -> None:
    for name, pickled, binary in (
        ("cifar10", "cifar-10-batches-py", "cifar-10-batches-bin"),
        ("cifar100", "cifar-100-python", "cifar-100-binary"),
    ):
        (tmp_path / pickled).mkdir()
        with pytest.raises(DataError, match="pickled version") as caught:
            Task.named(name, root=tmp_path)
        assert all(part in str(caught.value) for part in (pickled, binary, "-binary.tar.gz", ".npz"))


def test_what_is_not_there_says_where_it_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"fashion-mnist\.npz nor FashionMNIST/raw/.*--download"):
        Task.named("fashion-mnist", root=tmp_path)
    with pytest.raises(DataError, match="--data-root DIR"):
        Task.named("cifar10")
    with pytest.raises(UnknownName, match=r"unknown data set 'fasion-mnist': did you mean 'fashion-mnist'\?.*\.npz"):
        Task.named("fasion-mnist", root=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_every_data_set_names_its_classes() -> None:
    for name, entry in DATASETS.items():
        assert len(set(entry.labels)) == len(entry.labels) == (100 if name == "cifar100" else 10)


# --- fetching


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A folder and the address on loopback at which its files are served."""
    folder = tmp_path / "served"
    folder.mkdir()

    def handler(*args: Any) -> _Quiet:
        return _Quiet(*args, directory=str(folder))

    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield folder, f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


def _remote(name: str, content: bytes, **more: Any) -> Remote:
    digest = hashlib.md5(content, usedforsecurity=False).hexdigest()
    return Remote(("https://example.invalid/",), name, f"md5:{digest}", "SET/raw", **more)


def test_a_file_is_fetched_once_and_checked(served: tuple[Path, str], tmp_path: Path) -> None:
    folder, base = served
    (folder / "a.gz").write_bytes(b"content")
    remote, root = _remote("a.gz", b"content"), tmp_path / "root"
    fetch([remote], root, base)
    assert [path.name for path in (root / "SET/raw").iterdir()] == ["a.gz"]
    (folder / "a.gz").unlink()
    fetch([remote], root, base)  # it is there: nobody is asked
    assert (root / "SET/raw/a.gz").read_bytes() == b"content"


def test_the_wrong_file_is_never_kept(served: tuple[Path, str], tmp_path: Path) -> None:
    folder, base = served
    (folder / "a.gz").write_bytes(b"other")
    with pytest.raises(DownloadError, match=r"a\.gz: 5 bytes with the md5 \w+, expected") as caught:
        fetch([_remote("a.gz", b"content")], tmp_path / "root", base)
    assert caught.value.exit_code == 1
    with pytest.raises(DownloadError, match="404"):
        fetch([_remote("b.gz", b"content")], tmp_path / "root", base)
    with pytest.raises(DownloadError, match="http"):
        fetch([_remote("b.gz", b"content")], tmp_path / "root", "file:///etc")
    assert not (tmp_path / "root").exists()


def test_the_next_mirror_is_tried(served: tuple[Path, str], tmp_path: Path) -> None:
    folder, base = served
    (folder / "a.gz").write_bytes(b"content")
    good = _remote("a.gz", b"content")
    remote = Remote((f"{base}missing/", base), good.file, good.digest, good.folder)
    fetch([remote], tmp_path / "root")
    assert (tmp_path / "root/SET/raw/a.gz").read_bytes() == b"content"


def test_an_archive_gives_its_named_members_only(served: tuple[Path, str], tmp_path: Path) -> None:
    folder, base = served
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name in ("set/train.bin", "../../evil", "set/readme"):
            info = tarfile.TarInfo(name)
            info.size = 4
            archive.addfile(info, io.BytesIO(b"data"))
    (folder / "set.tar.gz").write_bytes(buffer.getvalue())
    fetch([_remote("set.tar.gz", buffer.getvalue(), members=("set/train.bin",))], tmp_path / "root", base)
    found = [path for path in (tmp_path / "root").rglob("*") if path.is_file()]
    assert found == [tmp_path / "root/SET/raw/train.bin"]
    with pytest.raises(DownloadError, match=r"cannot unpack set\.tar\.gz"):
        fetch([_remote("set.tar.gz", buffer.getvalue(), members=("set/no.bin",))], tmp_path / "other", base)


def test_a_named_set_is_fetched_when_asked_for_and_only_then(
    served: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, base = served
    for name, content in _mnist(tmp_path / "origin").items():
        (folder / name).write_bytes(content)
    layout: Any = DATASETS["mnist"].source
    remotes = tuple(
        Remote(
            (base,),
            remote.file,
            f"sha256:{hashlib.sha256((folder / remote.file).read_bytes()).hexdigest()}",
            remote.folder,
        )
        for remote in layout.remotes
    )
    known = DATASETS["mnist"]
    fake = datasets.DataSet(known.labels, known.mirror, type(layout)(layout.folder, remotes))
    monkeypatch.setitem(DATASETS, "mnist", fake)
    root = tmp_path / "root"
    with pytest.raises(DataError, match="--download"):
        Task.named("mnist", root=root)
    assert not root.exists()
    task = Task.named("mnist", root=root, download=True)
    assert task.input_shape == (1, 7, 5)
    assert Task.from_spec(task.spec).spec == task.spec


# --- the real files, where they are at hand

REAL = Path(os.environ.get("EVOLVE_TEST_DATA", "/nonexistent"))


@pytest.mark.skipif(not (REAL / "FashionMNIST").is_dir(), reason="EVOLVE_TEST_DATA names no folder with FashionMNIST")
def test_the_real_fashion_mnist() -> None:
    task = Task.named("fashion-mnist", root=REAL)
    assert [len(task.train), len(task.validation), len(task.test)] == [54_000, 6_000, 10_000]
    assert task.test.labels.bincount().tolist() == [1000] * 10
    assert abs(task.normalisation["mean"][0] - 0.286) < 1e-3
    for remote in DATASETS["fashion-mnist"].source.remotes:  # type: ignore[union-attr]
        content = (REAL / remote.folder / remote.file).read_bytes()
        assert remote.digest == f"md5:{hashlib.md5(content, usedforsecurity=False).hexdigest()}"
