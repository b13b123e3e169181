"""The data sets that have a name: their classes, whether a mirrored image keeps its class, and where their files lie.

Adding one is adding an entry to `DATASETS`. `load` looks for `ROOT/NAME.npz` first, then for the original files.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from graphs.errors import UnknownName
from runners import npz
from runners.arrays import DataError
from runners.download import Remote, fetch
from runners.layouts import CifarFiles, IdxFiles, Layout

__all__ = ["DATASETS", "FILES", "DataSet", "is_path", "load"]


FILES = (".npz", ".safetensors")
"""How the names of files that hold a data set end."""


@dataclass(frozen=True, slots=True)
class DataSet:
    """What is known of a named data set.

    Attributes:
        labels: Names of the classes.
        mirror: A mirrored image belongs to the same class.
        source: Layout of its original files, or a function that makes the four arrays.
        main: Name of the label set that the classes are.
        others: Names of the classes of the further label sets.
    """

    labels: tuple[str, ...]
    mirror: bool
    source: Layout | Callable[[], dict[str, Any]]
    main: str = "labels"
    others: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def _idx(folder: str, mirrors: tuple[str, ...], digests: tuple[str, str, str, str]) -> IdxFiles:
    names = ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")
    return IdxFiles(
        folder,
        tuple(
            Remote(mirrors, f"{name}-ubyte.gz", f"md5:{digest}", folder)
            for name, digest in zip(names, digests, strict=True)
        ),
    )


def _cifar(
    name: str,
    folder: str,
    train: tuple[str, ...],
    test: str,
    label_bytes: int,
    rows: tuple[int, int],
    md5: str,
    *others: str,
) -> CifarFiles:
    remote = Remote(
        ("https://www.cs.toronto.edu/~kriz/",),
        f"{name}-binary.tar.gz",
        f"md5:{md5}",
        folder,
        tuple(f"{folder}/{file}" for file in (*train, test)),
    )
    pickled = {"cifar-10": "cifar-10-batches-py", "cifar-100": "cifar-100-python"}[name]
    return CifarFiles(folder, train, test, label_bytes, rows, pickled, (remote,), others)


def _digits() -> dict[str, Any]:
    """The 1,797 handwritten digits that scikit-learn ships, 8×8, their 17 grey levels spread over 0 to 255.

    They have no test set of their own: a fifth of each class, chosen by a fixed draw, is it.
    """
    from sklearn.datasets import load_digits

    from runners.splits import stratified

    bunch = load_digits()
    images = np.rint(bunch.images * (255 / 16)).astype(np.uint8)
    labels = bunch.target.astype(np.int64)
    order = stratified(labels, seed=0)
    test, train = np.sort(order[:360]), np.sort(order[360:])
    return {"x_train": images[train], "y_train": labels[train], "x_test": images[test], "y_test": labels[test]}


_DIGITS = tuple("0123456789")

DATASETS: dict[str, DataSet] = {
    "digits": DataSet(_DIGITS, False, _digits),
    "mnist": DataSet(
        _DIGITS,
        False,
        _idx(
            "MNIST/raw",
            ("https://ossci-datasets.s3.amazonaws.com/mnist/", "http://yann.lecun.com/exdb/mnist/"),
            (
                "f68b3c2dcbeaaa9fbdd348bbdeb94873",
                "d53e105ee54ea40749a09fcbcd1e9432",
                "9fb629c4189551a2d022fa330f9573f3",
                "ec29112dd5afa0611ce80d1b7f02629c",
            ),
        ),
    ),
    "fashion-mnist": DataSet(
        (
            *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
            *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
        ),
        True,
        _idx(
            "FashionMNIST/raw",
            ("http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",),
            (
                "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
                "25c81989df183df01b3e8a0aad5dffbe",
                "bef4ecab320f06d8554ea6380940ec79",
                "bb300cfdad3c16e7a12a480ee83cd310",
            ),
        ),
    ),
    "cifar10": DataSet(
        ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
        True,
        _cifar(
            "cifar-10",
            "cifar-10-batches-bin",
            tuple(f"data_batch_{number}.bin" for number in range(1, 6)),
            "test_batch.bin",
            1,
            (10_000, 10_000),
            "c32a1d4ab5d03f1284b67883e8d87530",
        ),
    ),
    "cifar100": DataSet(
        tuple(
            "apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly "
            "camel can castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup "
            "dinosaur dolphin elephant flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower "
            "leopard lion lizard lobster man maple_tree motorcycle mountain mouse mushroom oak_tree orange orchid "
            "otter palm_tree pear pickup_truck pine_tree plain plate poppy porcupine possum rabbit raccoon ray "
            "road rocket rose sea seal shark shrew skunk skyscraper snail snake spider squirrel streetcar "
            "sunflower sweet_pepper table tank telephone television tiger tractor train trout tulip turtle "
            "wardrobe whale willow_tree wolf woman worm".split()
        ),
        True,
        _cifar(
            "cifar-100",
            "cifar-100-binary",
            ("train.bin",),
            "test.bin",
            2,
            (50_000, 10_000),
            "03b5dce01913d631647c71ecec9e9cb8",
            "coarse",
        ),
        "fine",
        {
            "coarse": tuple(
                "aquatic_mammals fish flowers food_containers fruit_and_vegetables "
                "household_electrical_devices household_furniture insects large_carnivores "
                "large_man-made_outdoor_things large_natural_outdoor_scenes large_omnivores_and_herbivores "
                "medium_mammals non-insect_invertebrates people reptiles small_mammals trees vehicles_1 "
                "vehicles_2".split()
            )
        },
    ),
}
"""All data sets with a name. Checksums are the ones that their authors publish."""


def is_path(name: str) -> bool:
    """Whether a person who writes `name` means a file or a folder of their own, and no key of `DATASETS`."""
    if name in DATASETS:
        return False
    return bool(name) and (name.endswith(FILES) or os.sep in name or name.startswith("~") or Path(name).is_dir())


def load(name: str, root: Path | None, download: bool = False, base: str | None = None) -> tuple[dict[str, Any], str]:
    """The four arrays of the data set called `name`, and where they were found.

    Args:
        name: Key of `DATASETS`.
        root: Folder to look in; nothing is written to it without `download`.
        download: Fetch the files where they are missing.
        base: Address of a folder to fetch from in place of the authors'.

    Raises:
        UnknownName: There is no such data set.
        DataError: Its files are missing or damaged.
        DownloadError: They cannot be fetched.
    """
    if name not in DATASETS:
        error = UnknownName.of("data set", name, DATASETS)
        raise UnknownName(f"{error}, or the path of a folder of images, or of an .npz file with {', '.join(npz.NAMES)}")
    source = DATASETS[name].source
    if callable(source):
        return source(), name
    if root is None:
        raise DataError(f"data set '{name}' needs a folder to look in: give one with --data-root DIR (root=DIR)")
    file = root / f"{name}.npz"
    if file.is_file():
        return npz.read(file), str(file)
    found = source.read(root)
    if found is None and download:
        fetch(source.remotes, root, base)
        found = source.read(root)
    if found is None:
        raise DataError(
            f"data set '{name}' is not in {root}: found neither {name}.npz nor {source.looked_for}; name the folder "
            "that has them with --data-root DIR, or fetch them with --download"
        )
    return found, f"{root}: {name}"
