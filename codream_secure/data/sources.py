"""Loading a data set by name, from one file or from a folder of images."""

from __future__ import annotations

import difflib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from codream_secure.data.arrays import image_sets, source_without_constants
from codream_secure.data.dataset import DataSource, ImageSet
from codream_secure.data.folder import read_folder
from codream_secure.data.idx import find_idx, read_idx
from codream_secure.data.known import DIGITS, IDX_SETS, MEDICAL_SETS, TORCHVISION_SETS, KnownSet
from codream_secure.data.npz import read_npz
from codream_secure.data.split import stratified_fifth
from codream_secure.errors import DataError

_NAMES = ("digits", *IDX_SETS, *TORCHVISION_SETS, *MEDICAL_SETS)
# Folder below the root, torchvision class, its arguments, and the beginnings of the train and test files' names.
_IDX_FILES: dict[str, tuple[str, str, dict[str, str], tuple[str, str]]] = {
    "mnist": ("MNIST", "MNIST", {}, ("train", "t10k")),
    "fashion_mnist": ("FashionMNIST", "FashionMNIST", {}, ("train", "t10k")),
    "emnist": ("EMNIST", "EMNIST", {"split": "balanced"}, ("emnist-balanced-train", "emnist-balanced-test")),
}
_TORCHVISION_FILES = {
    "svhn": ("SVHN", ("train_32x32.mat", "test_32x32.mat")),
    "cifar10": ("CIFAR10", ("cifar-10-batches-py",)),
    "cifar100": ("CIFAR100", ("cifar-100-python",)),
}


@dataclass(frozen=True)
class SourceInfo:
    """What can be asked of ``load_source``, with one line that says what it is."""

    name: str
    description: str


def list_sources() -> list[SourceInfo]:
    """Every data set known by name, then the two forms for data of one's own."""
    known = {"digits": DIGITS, **IDX_SETS, **TORCHVISION_SETS, **MEDICAL_SETS}
    return [
        *(SourceInfo(name=name, description=facts.description) for name, facts in known.items()),
        SourceInfo("npz:FILE", "your own arrays x_train, y_train, x_test, y_test in one .npz file"),
        SourceInfo(
            "images:FOLDER", "your own images in FOLDER/train/<class> and FOLDER/test/<class>, or FOLDER/<class>"
        ),
    ]


def load_source(spec: str, *, root: str | Path | None = None, download: bool = False) -> DataSource:
    """Load a data set.

    Args:
        spec: A name from ``list_sources``, ``npz:FILE`` or ``images:FOLDER``. A relative FILE or FOLDER is
            looked for in the working directory, then in ``root``.
        root: Where data sets lie, in torchvision's layout (``ROOT/MNIST/raw``, ...) or as ``ROOT/<name>.npz``
            for MedMNIST. Default: the environment variable CODREAM_DATA_ROOT, else ``data``. Nothing is
            written there unless ``download`` is true.
        download: Let torchvision fetch what is missing (the MNIST family, SVHN, CIFAR).

    Returns:
        The official train and test parts. For ``digits`` and ``images:FOLDER/<class>``, which have none, a
        fixed stratified 80/20 split. MedMNIST's validation part is left unused.

    Raises:
        DataError: The name is unknown; files are missing (the message says which paths were tried and what
            to do), damaged or inconsistent; or a download failed.
    """
    base = Path(root if root is not None else os.environ.get("CODREAM_DATA_ROOT", "data")).expanduser()
    kind, colon, rest = spec.partition(":")
    if colon and kind == "npz":
        return source_without_constants(spec, *read_npz(_own_path(rest, base, spec=spec, folder=False), name=spec))
    if colon and kind == "images":
        return read_folder(_own_path(rest, base, spec=spec, folder=True), name=spec)
    if spec == "digits":
        return _known_source(spec, DIGITS, *_digits())
    if spec in IDX_SETS:
        return _known_source(spec, IDX_SETS[spec], *_idx_set(spec, base, download=download))
    if spec in TORCHVISION_SETS:
        return _torchvision_set(spec, base, download=download)
    if spec in MEDICAL_SETS:
        return _known_source(spec, MEDICAL_SETS[spec], *_medical_set(spec, base))
    raise DataError(_unknown(spec))


def _unknown(spec: str) -> str:
    if spec == "chestmnist":
        return "chestmnist gives an image several labels at once; only data sets with one class per image can be used"
    near = difflib.get_close_matches(spec, _NAMES, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return f"unknown data set {spec!r}: {hint}there are {', '.join(_NAMES)}, npz:FILE and images:FOLDER"


def _known_source(name: str, facts: KnownSet, train: ImageSet, test: ImageSet) -> DataSource:
    return DataSource(
        name=name,
        train=train,
        test=test,
        num_classes=len(facts.classes),
        mean=facts.mean,
        std=facts.std,
        class_names=facts.classes,
    )


def _own_path(text: str, base: Path, *, spec: str, folder: bool) -> Path:
    given = Path(text).expanduser()
    tried = list(dict.fromkeys((given, base / given)))  # base / given is given itself where that is absolute
    for path in tried:
        if text and (path.is_dir() if folder else path.is_file()):
            return path
    raise DataError(
        f"{spec}: no {'folder' if folder else 'file'} at {' or '.join(map(str, tried))}; "
        "correct the path, or set root to the folder it lies in"
    )


def _digits() -> tuple[ImageSet, ImageSet]:
    from sklearn.datasets import load_digits

    bundle = load_digits()
    images = (bundle.images / 16).astype(np.float32)
    labels = bundle.target.astype(np.int64)
    kept, held = stratified_fifth(labels)
    return image_sets((images[kept], labels[kept]), (images[held], labels[held]), name="digits")


def _medical_set(name: str, base: Path) -> tuple[ImageSet, ImageSet]:
    path = base / f"{name}.npz"
    if not path.is_file():
        raise DataError(
            f"{name}: no file at {path}; place the official {name}.npz (28x28, from medmnist.com) there, "
            "or set root (or CODREAM_DATA_ROOT) to the folder it lies in. It is not downloaded for you"
        )
    return read_npz(path, name=name)


def _idx_set(name: str, base: Path, *, download: bool) -> tuple[ImageSet, ImageSet]:
    folder_name, class_name, arguments, prefixes = _IDX_FILES[name]
    folder = base / folder_name / "raw"
    stems = [f"{prefix}-{kind}" for prefix in prefixes for kind in ("images-idx3-ubyte", "labels-idx1-ubyte")]
    if download and not all(find_idx(folder, stem) for stem in stems):
        _torchvision_dataset(name, class_name, base, download=True, train=True, **arguments)
    paths = [find_idx(folder, stem) for stem in stems]
    missing = [stem for stem, path in zip(stems, paths, strict=True) if path is None]
    if missing:
        raise DataError(
            f"{name}: no file at {folder / missing[0]} (nor with .gz added); place {', '.join(missing)} there, "
            "set root (or CODREAM_DATA_ROOT) to the folder that holds "
            f"{folder_name}/raw, or allow the download (download=True)"
        )
    arrays = [read_idx(path, dimensions=dims) for path, dims in zip(paths, (3, 1, 3, 1), strict=True) if path]
    if name == "emnist":  # its files hold every image mirrored along the diagonal
        arrays = [array.swapaxes(1, 2) if array.ndim == 3 else array for array in arrays]
    return image_sets((arrays[0], arrays[1]), (arrays[2], arrays[3]), name=name)


def _torchvision_set(name: str, base: Path, *, download: bool) -> DataSource:
    class_name, files = _TORCHVISION_FILES[name]
    missing = [base / file for file in files if not (base / file).exists()]
    if missing and not download:
        raise DataError(
            f"{name}: nothing at {' or '.join(map(str, missing))}; place it there, set root (or CODREAM_DATA_ROOT) "
            "to the folder that holds it, or allow the download (download=True)"
        )
    # CIFAR's files are pickles. torchvision compares the MD5 of each with the official one before it opens them.
    official = []
    for part in ("train", "test"):
        which = {"split": part} if name == "svhn" else {"train": part == "train"}
        official.append(_torchvision_dataset(name, class_name, base, download=download, **which))
    arrays = [(part.data, np.asarray(part.labels if name == "svhn" else part.targets)) for part in official]
    facts = TORCHVISION_SETS[name]
    classes = facts.classes or tuple(official[0].classes)
    train, test = image_sets(arrays[0], arrays[1], name=name)
    return _known_source(name, KnownSet(facts.description, classes, facts.mean, facts.std), train, test)


def _torchvision_dataset(name: str, class_name: str, base: Path, *, download: bool, **arguments: object) -> Any:
    """One part of a data set through torchvision, with its failures told as ours."""
    from codream_secure.compat import import_torchvision

    dataset_class = getattr(import_torchvision().datasets, class_name)
    try:
        return dataset_class(root=str(base), download=download, **arguments)
    except (RuntimeError, OSError, EOFError) as error:
        doing = "download or read" if download else "read"
        raise DataError(
            f"{name}: torchvision cannot {doing} it below {base} ({error}); "
            "remove damaged files and fetch the official ones"
        ) from error
