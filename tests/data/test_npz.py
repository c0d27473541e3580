"""Own .npz files: layouts, ranges, and every way in which a file can be wrong."""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from codream_secure.data import load_source
from codream_secure.errors import DataError

LABELS = np.array([0, 1, 2, 0, 1, 2])


def pixels(count: int = 6, *, shape: tuple[int, ...] = (8, 5, 3)) -> np.ndarray:
    return np.random.default_rng(count).integers(0, 256, size=(count, *shape), dtype=np.uint8)


def save(path: Path, **changes: Any) -> str:
    arrays = {"x_train": pixels(), "y_train": LABELS, "x_test": pixels(3), "y_test": LABELS[:3], **changes}
    np.savez(path, **{key: value for key, value in arrays.items() if value is not None})
    return f"npz:{path}"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "own.npz"


def test_colour_images_in_both_layouts(file: Path) -> None:
    last = load_source(save(file))
    first = load_source(save(file, x_train=pixels().transpose(0, 3, 1, 2), x_test=pixels(3).transpose(0, 3, 1, 2)))
    assert last.train.images.shape == (6, 3, 8, 5)
    assert torch.equal(last.train.images, first.train.images)
    assert torch.equal(last.test.images[2, 1], torch.from_numpy(pixels(3)[2, :, :, 1]))
    assert last.train.labels.tolist() == LABELS.tolist()
    assert (last.num_classes, last.channels, last.image_size) == (3, 3, (8, 5))
    assert (last.mean, last.std) == ((0.5,) * 3, (0.25,) * 3)
    assert last.class_names == ()


@pytest.mark.parametrize("shape", [(8, 5), (8, 5, 1), (1, 8, 5)])
def test_grey_images_in_three_layouts(file: Path, shape: tuple[int, ...]) -> None:
    made = load_source(save(file, x_train=pixels(shape=shape), x_test=pixels(3, shape=shape)))
    assert made.train.images.shape == (6, 1, 8, 5)
    assert np.array_equal(made.train.images.numpy().ravel(), pixels(shape=shape).ravel())


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, ">f4"])
def test_floats_in_either_range_become_the_same(file: Path, dtype: Any) -> None:
    bytes_train, bytes_test = pixels(), pixels(3)
    wide = load_source(save(file, x_train=bytes_train.astype(dtype), x_test=bytes_test.astype(dtype)))
    unit = load_source(save(file, x_train=(bytes_train / 255).astype(dtype), x_test=(bytes_test / 255).astype(dtype)))
    for made in (wide, unit):
        assert made.train.images.dtype == torch.float32
        expected = bytes_train.transpose(0, 3, 1, 2) / 255
        np.testing.assert_allclose(made.train.images.numpy(), expected, atol=1e-3 if dtype is np.float16 else 1e-6)


def test_the_range_is_decided_for_both_parts_together(file: Path) -> None:
    dark = np.ones((3, 8, 5, 3), dtype=np.float32)  # alone it would pass for white pictures in [0, 1]
    made = load_source(save(file, x_train=pixels().astype(np.float32), x_test=dark))
    assert made.test.images.max() == pytest.approx(1 / 255)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int64, np.uint64, ">i4"])
@pytest.mark.parametrize("column", [False, True])
def test_any_integer_labels(file: Path, dtype: Any, column: bool) -> None:
    labels = LABELS.astype(dtype)
    made = load_source(save(file, y_train=labels[:, None] if column else labels))
    assert made.train.labels.dtype == torch.int64
    assert made.train.labels.tolist() == LABELS.tolist()


def test_medmnist_keys_and_unread_extra_arrays(file: Path) -> None:
    objects = np.array([{"never": "read"}], dtype=object)
    np.savez(
        file,
        train_images=pixels(),
        train_labels=LABELS[:, None],
        val_images=objects,
        test_images=pixels(3),
        test_labels=LABELS[:3, None],
    )
    assert len(load_source(f"npz:{file}").train) == 6


def with_value(value: float, *, at: int = 4) -> np.ndarray:
    images = pixels().astype(np.float64)
    images[at:, 0, 0, 0] = value
    return images


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"x_test": None},
            "no x_test and y_test or test_images and test_labels in the file, only x_train, y_train, y_test",
        ),
        ({"x_train": pixels(5)}, "train part: there are 5 images but 6 labels"),
        ({"x_train": pixels(shape=(8, 6, 3))}, r"\(3, 8, 6\).*\(3, 8, 5\)"),
        ({"x_train": pixels(shape=(8, 5, 4))}, r"1 or 3 channels, got shape \(6, 8, 5, 4\)"),
        ({"x_train": pixels(shape=(3, 8, 3))}, "read as NCHW and as NHWC"),
        ({"x_train": pixels(shape=(8,))}, r"got shape \(6, 8\)"),
        ({"x_train": pixels().astype(np.int32)}, "uint8 or float, got int32"),
        ({"x_train": np.zeros((0, 8, 5, 3), np.uint8), "y_train": LABELS[:0]}, "train part is empty"),
        ({"x_test": np.zeros((0, 8, 5, 3), np.uint8), "y_test": LABELS[:0]}, "test part is empty"),
        ({"x_train": np.zeros((6, 0, 5, 3), np.float32)}, "train part is empty"),
        ({"x_train": np.float32(3)}, r"got shape \(\)"),
        ({"x_test": pixels(3).astype(np.float32)}, r"uint8.*float32"),
        ({"x_train": with_value(np.nan)}, "train part: image 4 holds NaN or infinity"),
        ({"x_train": with_value(-np.inf, at=2)}, "train part: image 2 holds NaN or infinity"),
        ({"x_train": with_value(256)}, r"span \[0, 1\] or \[0, 255\], but theirs span \[0, 256\]"),
        ({"x_train": with_value(-1)}, r"theirs span \[-1, 255\]"),
        ({"x_train": np.full((6, 8, 5, 3), 1.01)}, r"theirs span \[1.01, 1.01\]"),
        ({"y_train": LABELS.astype(np.float64)}, "train part: labels must be integers, got float64"),
        ({"y_train": LABELS > 0}, "integers, got bool"),
        ({"y_train": LABELS - 1}, r"labels\[0\] is -1"),
        ({"y_train": LABELS * 2}, "no training image has label 1, 3"),
        ({"y_train": LABELS + 1}, "no training image has label 0"),
        ({"y_test": LABELS[:3] + 1}, "no training image has label 3"),
        ({"y_train": np.zeros(6, int), "y_test": np.zeros(3, int)}, "at least 2 classes"),
        ({"y_train": np.stack([LABELS, LABELS], axis=1)}, r"one class per image, got \(6, 2\)"),
        ({"y_train": np.full(6, 2**64 - 1, np.uint64)}, "beyond int64"),
        ({"x_train": np.array([[1], None] * 3, dtype=object)}, "cannot read .*allow_pickle=False"),
    ],
)
def test_unusable_arrays_are_refused(file: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        load_source(save(file, **changes))
    assert str(caught.value).startswith(f"npz:{file}")


class Bomb:
    """Leaves a trace when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.trace,)


def test_nothing_is_unpickled(file: Path, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    bomb = np.empty(6, dtype=object)
    bomb[:] = [Bomb(trace) for _ in range(6)]
    with pytest.raises(DataError, match="cannot read"):
        load_source(save(file, x_train=bomb))
    file.write_bytes(pickle.dumps(Bomb(trace)))
    with pytest.raises(DataError, match="cannot read"):
        load_source(f"npz:{file}")
    assert not trace.exists()
    pickle.loads(file.read_bytes())  # noqa: S301, RUF100
    assert trace.exists()  # so the bomb works, and its absence above means something


@pytest.mark.parametrize("kept", [0.0, 0.1, 0.5, 0.99])
def test_truncated_files_are_refused(file: Path, kept: float) -> None:
    spec = save(file)
    content = file.read_bytes()
    file.write_bytes(content[: int(len(content) * kept)])
    with pytest.raises(DataError, match="cannot read"):
        load_source(spec)


@pytest.mark.parametrize("compressed", [False, True])
def test_flipped_bytes_are_noticed(file: Path, compressed: bool) -> None:
    arrays: dict[str, Any] = {"x_train": pixels(), "y_train": LABELS, "x_test": pixels(3), "y_test": LABELS[:3]}
    (np.savez_compressed if compressed else np.savez)(file, **arrays)
    content = bytearray(file.read_bytes())
    content[400] ^= 0xFF
    file.write_bytes(content)
    with pytest.raises(DataError, match="cannot read"):
        load_source(f"npz:{file}")


def test_other_files_are_refused(file: Path) -> None:
    with file.open("wb") as stream:
        np.save(stream, pixels())
    with pytest.raises(DataError, match="single array"):
        load_source(f"npz:{file}")
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("readme.txt", "no arrays")
    with pytest.raises(DataError, match=r"only readme\.txt"):
        load_source(f"npz:{file}")


def test_relative_files_are_looked_for_here_then_in_the_root(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(file)
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    assert len(load_source("npz:own.npz", root=tmp_path).train) == 6
    monkeypatch.setenv("CODREAM_DATA_ROOT", str(tmp_path))
    assert len(load_source("npz:own.npz").train) == 6
    save(here / "own.npz", x_train=pixels(3), y_train=LABELS[:3])
    assert len(load_source("npz:own.npz").train) == 3
    with pytest.raises(DataError, match=r"no file at other\.npz or .*/other\.npz; .*set root"):
        load_source("npz:other.npz")
    with pytest.raises(DataError, match="no file"):
        load_source("npz:")


def test_pneumoniamnist_with_its_official_keys(tmp_path: Path) -> None:
    labels = np.array([[0], [1]])
    images = pixels(2, shape=(28, 28))
    np.savez(
        tmp_path / "pneumoniamnist.npz",
        train_images=images,
        train_labels=labels,
        test_images=images,
        test_labels=labels,
    )
    made = load_source("pneumoniamnist", root=tmp_path)
    assert made.class_names == ("normal", "pneumonia")
    assert (made.mean, made.std) == ((0.5,), (0.5,))
    with pytest.raises(DataError, match=r"breastmnist: no file at .*breastmnist\.npz; place the official"):
        load_source("breastmnist", root=tmp_path)
