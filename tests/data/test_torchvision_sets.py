"""SVHN and CIFAR, read by torchvision from small files whose checksums stand in for the official ones."""

from __future__ import annotations

import hashlib
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.io import savemat

from codream_secure.compat import import_torchvision
from codream_secure.data import load_source
from codream_secure.errors import DataError


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()


def dump(path: Path, content: Any) -> list[str]:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(content))
    return [path.name, md5(path)]


def rows(count: int, *, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, size=(count, 3072), dtype=np.uint8)


@pytest.fixture
def cifar10(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cifar-10-batches-py"
    train = dump(folder / "data_batch_1", {"data": rows(20, seed=0), "labels": [*range(10)] * 2})
    test = dump(folder / "test_batch", {"data": rows(3, seed=1), "labels": [9, 8, 7]})
    meta = dump(folder / "batches.meta", {"label_names": list("abcdefghij")})
    dataset_class = import_torchvision().datasets.CIFAR10
    monkeypatch.setattr(dataset_class, "train_list", [train])
    monkeypatch.setattr(dataset_class, "test_list", [test])
    monkeypatch.setattr(dataset_class, "meta", {"filename": meta[0], "key": "label_names", "md5": meta[1]})
    return folder


def test_cifar10(cifar10: Path) -> None:
    made = load_source("cifar10", root=cifar10.parent)
    assert np.array_equal(made.train.images.numpy().reshape(20, -1), rows(20, seed=0))
    assert made.train.images.shape == (20, 3, 32, 32)
    assert made.test.labels.tolist() == [9, 8, 7]
    assert made.class_names[0] == "airplane"
    assert made.mean[0] == 0.4914


class Bomb:
    """Leaves a trace when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.trace,)


@pytest.mark.parametrize("file", ["data_batch_1", "test_batch", "batches.meta"])
def test_a_replaced_cifar_file_is_not_unpickled(cifar10: Path, file: str) -> None:
    trace = cifar10 / "trace"
    dump(cifar10 / file, Bomb(trace))
    with pytest.raises(DataError, match="cifar10: torchvision cannot read it below"):
        load_source("cifar10", root=cifar10.parent)
    assert not trace.exists()


def test_cifar100_brings_its_class_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "cifar-100-python"
    names = [f"class {label}" for label in range(100)]
    train = dump(folder / "train", {"data": rows(100, seed=0), "fine_labels": [*range(100)]})
    test = dump(folder / "test", {"data": rows(2, seed=1), "fine_labels": [99, 0]})
    meta = dump(folder / "meta", {"fine_label_names": names})
    dataset_class = import_torchvision().datasets.CIFAR100
    monkeypatch.setattr(dataset_class, "train_list", [train])
    monkeypatch.setattr(dataset_class, "test_list", [test])
    monkeypatch.setattr(dataset_class, "meta", {"filename": "meta", "key": "fine_label_names", "md5": meta[1]})
    made = load_source("cifar100", root=tmp_path)
    assert made.class_names == tuple(names)
    assert made.num_classes == 100


def test_svhn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = np.random.default_rng(0).integers(0, 256, size=(32, 32, 3, 10), dtype=np.uint8)
    labels = np.arange(1, 11)[:, None]  # the files call the digit zero 10
    files = {}
    for part in ("train", "test"):
        path = tmp_path / f"{part}_32x32.mat"
        savemat(path, {"X": images, "y": labels})
        files[part] = ["file:///nowhere", path.name, md5(path)]
    dataset_class = import_torchvision().datasets.SVHN
    with pytest.raises(DataError, match="svhn: torchvision cannot read"):  # not the official files
        load_source("svhn", root=tmp_path)
    monkeypatch.setattr(dataset_class, "split_list", files)
    made = load_source("svhn", root=tmp_path)
    assert made.train.labels.tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 9, 0]
    assert np.array_equal(made.train.images[3].numpy(), images[..., 3].transpose(2, 0, 1))
    (tmp_path / "test_32x32.mat").unlink()
    with pytest.raises(DataError, match=r"svhn: nothing at .*test_32x32\.mat"):
        load_source("svhn", root=tmp_path)
    with pytest.raises(DataError, match="svhn: torchvision cannot download"):
        load_source("svhn", root=tmp_path, download=True)


def test_missing_sets_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cifar10: nothing at .*cifar-10-batches-py; .*set root .*download=True"):
        load_source("cifar10", root=tmp_path)
