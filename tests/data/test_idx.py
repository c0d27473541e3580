"""The MNIST family: IDX files, plain and gzipped, strictly read."""

from __future__ import annotations

import gzip
import shutil
import struct
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from codream_secure.compat import import_torchvision
from codream_secure.data import load_source
from codream_secure.data.idx import read_idx
from codream_secure.errors import DataError

FOLDERS = {"mnist": "MNIST", "fashion_mnist": "FashionMNIST", "emnist": "EMNIST"}
CLASSES = {"mnist": 10, "fashion_mnist": 10, "emnist": 47}


def idx(array: np.ndarray) -> bytes:
    return bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def write(root: Path, name: str = "mnist", *, gzipped: bool = False) -> dict[str, np.ndarray]:
    """All four files of a small set, each class once in every part; the arrays by their files' stems."""
    folder = root / FOLDERS[name] / "raw"
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    arrays = {}
    for part in ("emnist-balanced-train", "emnist-balanced-test") if name == "emnist" else ("train", "t10k"):
        arrays[f"{part}-images-idx3-ubyte"] = rng.integers(0, 256, size=(CLASSES[name], 28, 28), dtype=np.uint8)
        arrays[f"{part}-labels-idx1-ubyte"] = rng.permutation(CLASSES[name]).astype(np.uint8)
    for stem, array in arrays.items():
        path = folder / (f"{stem}.gz" if gzipped else stem)
        path.write_bytes(gzip.compress(idx(array)) if gzipped else idx(array))
    return arrays


@pytest.mark.parametrize("gzipped", [False, True])
@pytest.mark.parametrize("name", FOLDERS)
def test_read_where_they_lie(tmp_path: Path, name: str, gzipped: bool) -> None:
    arrays = list(write(tmp_path, name, gzipped=gzipped).values())
    before = sorted(tmp_path.rglob("*"))
    made = load_source(name, root=tmp_path)
    for part, images, labels in zip((made.train, made.test), arrays[::2], arrays[1::2], strict=True):
        upright = images.transpose(0, 2, 1) if name == "emnist" else images
        assert np.array_equal(part.images[:, 0].numpy(), upright)
        assert np.array_equal(part.labels.numpy(), labels)
    assert made.num_classes == len(made.class_names) == CLASSES[name]
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("name", "arguments"), [("mnist", {}), ("fashion_mnist", {}), ("emnist", {"split": "balanced"})]
)
def test_agrees_with_torchvision(tmp_path: Path, name: str, arguments: dict[str, str]) -> None:
    write(tmp_path, name)
    if name == "emnist":  # torchvision looks for one more file before it reads
        (tmp_path / "EMNIST" / "raw" / "gzip.zip").touch()
    made = load_source(name, root=tmp_path)
    dataset_class = getattr(import_torchvision().datasets, FOLDERS[name])
    for part, train in ((made.train, True), (made.test, False)):
        official = dataset_class(str(tmp_path), train=train, **arguments)
        stored = official.data.transpose(1, 2) if name == "emnist" else official.data
        assert np.array_equal(part.images[:, 0].numpy(), stored.numpy())
        assert np.array_equal(part.labels.numpy(), official.targets.numpy())
    if name == "emnist":
        assert list(made.class_names) == official.classes


def test_download_is_not_tried_when_the_files_are_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(import_torchvision().datasets.MNIST, "mirrors", ["file:///nowhere/"])
    write(tmp_path, gzipped=True)
    assert len(load_source("mnist", root=tmp_path, download=True).train) == 10


class QuietHandler(SimpleHTTPRequestHandler):
    """Serves files without a line on standard error for each."""

    def log_message(self, format: str, *args: object) -> None:
        pass


def test_download_goes_through_torchvision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mirror, root = tmp_path / "mirror", tmp_path / "root"
    arrays = write(mirror, gzipped=True)
    handler = partial(QuietHandler, directory=str(mirror / "MNIST" / "raw"))
    dataset_class = import_torchvision().datasets.MNIST
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setattr(dataset_class, "mirrors", [f"http://127.0.0.1:{server.server_port}/"])
        with pytest.raises(DataError, match="mnist: torchvision cannot download"):  # MD5 sums are not the official ones
            load_source("mnist", root=root, download=True)
        monkeypatch.setattr(dataset_class, "resources", [(f"{stem}.gz", None) for stem in arrays])
        made = load_source("mnist", root=root, download=True)
        server.shutdown()
    assert np.array_equal(made.train.images[:, 0].numpy(), arrays["train-images-idx3-ubyte"])


def test_missing_files_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match=r"MNIST/raw/train-images-idx3-ubyte \(nor with \.gz added\).*download=True"):
        load_source("mnist", root=tmp_path)
    write(tmp_path)
    (tmp_path / "MNIST" / "raw" / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(DataError, match="place t10k-labels-idx1-ubyte there"):
        load_source("mnist", root=tmp_path)
    monkeypatch.setenv("CODREAM_DATA_ROOT", str(tmp_path / "elsewhere"))
    with pytest.raises(DataError, match=r"elsewhere/FashionMNIST/raw"):
        load_source("fashion_mnist")


GOOD = idx(np.zeros((2, 3, 4), dtype=np.uint8))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "starts with bytes , but"),
        (GOOD[:10], "starts with bytes 00000803, but"),
        (b"\x00\x00\x0d\x03" + GOOD[4:], "starts with bytes 00000d03"),
        (b"\x00\x00\x08\x01" + GOOD[4:], "00000801, but .* 3 dimension"),
        (GOOD[:-1], r"announces shape \(2, 3, 4\), 24 bytes, but holds 23"),
        (GOOD + b"\x00", "but holds 25"),
    ],
)
@pytest.mark.parametrize("gzipped", [False, True])
def test_headers_are_strict(tmp_path: Path, content: bytes, message: str, gzipped: bool) -> None:
    path = tmp_path / ("file.gz" if gzipped else "file")
    path.write_bytes(gzip.compress(content) if gzipped else content)
    with pytest.raises(DataError, match=message):
        read_idx(path, dimensions=3)


@pytest.mark.parametrize("damage", ["cut", "flip", "plain"])
def test_damaged_gzip_is_refused(tmp_path: Path, damage: str) -> None:
    good = gzip.compress(idx(np.random.default_rng(0).integers(0, 9, size=(20, 5, 5), dtype=np.uint8)))
    flipped = bytearray(good)
    flipped[60] ^= 0xFF
    path = tmp_path / "file.gz"
    path.write_bytes({"cut": good[:-20], "flip": bytes(flipped), "plain": GOOD}[damage])
    with pytest.raises(DataError, match=r"cannot read .*file\.gz"):
        read_idx(path, dimensions=3)


def test_damage_is_reported_through_load_source(tmp_path: Path) -> None:
    write(tmp_path)
    raw = tmp_path / "MNIST" / "raw"
    shutil.copy(raw / "train-labels-idx1-ubyte", raw / "train-images-idx3-ubyte")
    with pytest.raises(DataError, match="is it another file"):
        load_source("mnist", root=tmp_path)
