"""Folders of images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from codream_secure.data import load_source
from codream_secure.errors import DataError


def write(path: Path, value: int = 7, *, mode: str = "L", size: tuple[int, int] = (6, 4)) -> np.ndarray:
    """One image, width and height as in ``size``; returns what was drawn."""
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = (size[1], size[0]) if mode == "L" else (size[1], size[0], len(mode))
    pixels = np.random.default_rng(value).integers(0, 256, size=shape, dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return pixels


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Train and test parts of two classes, grey, 4 high and 6 wide."""
    for number, name in enumerate(("cat", "dog")):
        for copy in range(3):
            write(tmp_path / "train" / name / f"{copy}.png", 10 * number + copy)
        write(tmp_path / "test" / name / "0.png", 100 + number)
    return tmp_path


def test_train_and_test_folders(tree: Path) -> None:
    drawn = write(tree / "train" / "dog" / "1.png", 55)
    (tree / "train" / "dog" / "notes.txt").write_text("passed over")
    (tree / "train" / "dog" / ".hidden.png").write_text("passed over")
    (tree / "train" / ".cache").mkdir()
    made = load_source(f"images:{tree}")
    assert made.class_names == ("cat", "dog")
    assert made.train.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert made.test.labels.tolist() == [0, 1]
    assert made.train.images.shape == (6, 1, 4, 6)
    assert np.array_equal(made.train.images[4, 0].numpy(), drawn)
    assert (made.mean, made.std) == ((0.5,), (0.25,))


def test_colour_images(tmp_path: Path) -> None:
    drawn = [write(tmp_path / part / name / "a.png", mode="RGB") for part in ("train", "test") for name in "xy"]
    made = load_source(f"images:{tmp_path}")
    assert np.array_equal(made.test.images[1].numpy(), drawn[3].transpose(2, 0, 1))


def test_classes_alone_are_split_in_a_fixed_stratified_way(tmp_path: Path) -> None:
    for name, count in (("a", 20), ("b", 10), ("c", 2)):
        for number in range(count):
            write(tmp_path / name / f"{number:02}.png", number)
    made, again = (load_source(f"images:{tmp_path}") for _ in range(2))
    assert made.train.class_counts(3).tolist() == [16, 8, 1]
    assert made.test.class_counts(3).tolist() == [4, 2, 1]
    assert made.train.images.equal(again.train.images)


def test_a_class_may_be_absent_from_the_test_part_only(tree: Path) -> None:
    (tree / "test" / "dog" / "0.png").rename(tree / "test" / "cat" / "1.png")
    (tree / "test" / "dog").rmdir()
    assert load_source(f"images:{tree}").test.labels.tolist() == [0, 0]
    write(tree / "test" / "fox" / "0.png")
    with pytest.raises(DataError, match=r"has class 'fox', which .*train has not"):
        load_source(f"images:{tree}")


@pytest.mark.parametrize("part", ["train", "test"])
def test_the_first_image_of_another_size_is_named(tree: Path, part: str) -> None:
    write(tree / part / "cat" / "5.png", size=(6, 5))
    write(tree / part / "dog" / "5.png", size=(6, 5))
    with pytest.raises(DataError, match=rf"{part}/cat/5\.png is 5x6 grey, but .*train/cat/0\.png is 4x6 grey"):
        load_source(f"images:{tree}")


def test_mixed_and_unsupported_modes_are_refused(tree: Path) -> None:
    write(tree / "train" / "dog" / "9.png", mode="RGB")
    with pytest.raises(DataError, match=r"dog/9\.png is 4x6 RGB, but .* is 4x6 grey"):
        load_source(f"images:{tree}")
    write(tree / "train" / "dog" / "9.png", mode="RGBA")
    with pytest.raises(DataError, match=r"dog/9\.png has mode 'RGBA'"):
        load_source(f"images:{tree}")
    Image.fromarray(np.zeros((4, 6), dtype=np.uint16)).save(tree / "train" / "dog" / "9.png")
    with pytest.raises(DataError, match=r"dog/9\.png has mode 'I;16'"):
        load_source(f"images:{tree}")


@pytest.mark.parametrize("content", [b"", b"no image", None])
def test_unreadable_images_are_named(tree: Path, content: bytes | None) -> None:
    path = tree / "train" / "dog" / "1.png"
    path.write_bytes(path.read_bytes()[:-30] if content is None else content)
    with pytest.raises(DataError, match=r"cannot read .*dog/1\.png"):
        load_source(f"images:{tree}")


def test_images_too_large_to_be_meant_are_refused(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    with pytest.raises(DataError, match=r"cannot read .*cat/0\.png .*decompression bomb"):
        load_source(f"images:{tree}")


def test_unusable_trees_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no folder at .*absent"):
        load_source(f"images:{tmp_path / 'absent'}")
    with pytest.raises(DataError, match="no class folders in"):
        load_source(f"images:{tmp_path}")
    write(tmp_path / "a" / "0.png")
    (tmp_path / "b").mkdir()
    with pytest.raises(DataError, match=r"no images in .*/b; .*\.png"):
        load_source(f"images:{tmp_path}")
    write(tmp_path / "b" / "0.png")
    with pytest.raises(DataError, match="class 'a' has one image"):
        load_source(f"images:{tmp_path}")
    (tmp_path / "train").mkdir()
    with pytest.raises(DataError, match="a folder 'train' alone"):
        load_source(f"images:{tmp_path}")
