"""Data sets as folders of image files, one folder per class."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from codream_secure.data.arrays import image_sets, source_without_constants
from codream_secure.data.dataset import DataSource
from codream_secure.data.split import stratified_fifth
from codream_secure.errors import DataError

_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".pgm", ".ppm"}
_MODES = {"1": "L", "L": "L", "P": "RGB", "RGB": "RGB"}


def read_folder(folder: Path, *, name: str) -> DataSource:
    """Images from FOLDER/train/<class>/ and FOLDER/test/<class>/, or from FOLDER/<class>/ alone.

    In the second form a fifth of each class, drawn in a fixed way, becomes the test part. Classes are
    numbered in the order of their (training) folders' names. Files with other than image suffixes, and
    names that start with a dot, are passed over. Images must all have one size and one mode, 8-bit grey
    or RGB; palette images count as RGB, and 1-bit ones as grey.

    Raises:
        DataError: A class folder is empty, a test class does not occur in training, or a file is
            unreadable, of another mode, or of another size than the first; the message names it.
    """
    parts = {part: folder / part for part in ("train", "test")}
    present = [part for part, path in parts.items() if path.is_dir()]
    if len(present) == 1:
        raise DataError(
            f"{name}: {folder} has a folder {present[0]!r} alone; have both train and test, or classes only"
        )
    train_files = _class_files(parts["train"] if present else folder, name=name)
    classes = tuple(train_files)
    images, labels = _read_all(train_files, classes=classes, first=None, name=name)
    if present:
        test_files = _class_files(parts["test"], name=name)
        strangers = sorted(set(test_files) - set(classes))
        if strangers:
            raise DataError(f"{name}: {parts['test']} has class {strangers[0]!r}, which {parts['train']} has not")
        first = next(iter(train_files.values()))[0]
        test = _read_all(test_files, classes=classes, first=(first, images[0]), name=name)
        train = images, labels
    else:
        lonely = [label for label, files in train_files.items() if len(files) < 2]
        if lonely:
            raise DataError(f"{name}: class {lonely[0]!r} has one image, and a train/test split takes at least two")
        kept, held = stratified_fifth(labels)
        train, test = (images[kept], labels[kept]), (images[held], labels[held])
    return source_without_constants(name, *image_sets(train, test, name=name), class_names=classes)


def _class_files(folder: Path, *, name: str) -> dict[str, list[Path]]:
    """Image files of each class, everything in the order of names."""
    found = {}
    for entry in sorted(folder.iterdir()):
        if not entry.is_dir() or entry.name.startswith("."):
            continue
        files = [path for path in entry.iterdir() if path.suffix.lower() in _SUFFIXES and not path.name.startswith(".")]
        if not files:
            raise DataError(f"{name}: no images in {entry}; each class folder must hold some ({_suffixes()})")
        found[entry.name] = sorted(files)
    if not found:
        raise DataError(f"{name}: no class folders in {folder}; put images at {folder}/<class>/<file>.png")
    return found


def _suffixes() -> str:
    return ", ".join(sorted(_SUFFIXES))


def _read_all(
    files: dict[str, list[Path]], *, classes: tuple[str, ...], first: tuple[Path, np.ndarray] | None, name: str
) -> tuple[np.ndarray, np.ndarray]:
    """Images (N, H, W) or (N, H, W, 3) and labels (N,), all shaped like ``first`` or else like the first file."""
    images, labels = [], []
    for class_name, paths in files.items():
        for path in paths:
            pixels = _read_image(path, name=name)
            first = first or (path, pixels)
            if pixels.shape != first[1].shape:
                raise DataError(
                    f"{name}: {path} is {_describe(pixels)}, but {first[0]} is {_describe(first[1])}; "
                    "all images must have one size and one number of channels"
                )
            images.append(pixels)
            labels.append(classes.index(class_name))
    return np.stack(images), np.array(labels, dtype=np.int64)


def _read_image(path: Path, *, name: str) -> np.ndarray:
    from PIL import Image

    try:
        with Image.open(path) as image:
            if image.mode not in _MODES:
                raise DataError(
                    f"{name}: {path} has mode {image.mode!r}; convert it to 8-bit grey or RGB without alpha"
                )
            return np.asarray(image.convert(_MODES[image.mode]))
    except DataError:
        raise
    # Pillow raises SyntaxError and ValueError, beside OSError, for damaged files of some formats.
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        raise DataError(f"{name}: cannot read {path} ({error}); replace or remove it") from error


def _describe(pixels: np.ndarray) -> str:
    height, width = pixels.shape[:2]
    return f"{height}x{width} {'grey' if pixels.ndim == 2 else 'RGB'}"
