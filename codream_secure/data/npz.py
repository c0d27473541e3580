"""Data sets in one .npz file, MedMNIST's official files among them. Nothing is ever unpickled."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path

import numpy as np

from codream_secure.data.arrays import image_sets
from codream_secure.data.dataset import ImageSet
from codream_secure.errors import DataError

# Our own and keras' names first, then those of MedMNIST's official files.
_KEYS = (("x_{part}", "y_{part}"), ("{part}_images", "{part}_labels"))


def read_npz(path: Path, *, name: str) -> tuple[ImageSet, ImageSet]:
    """Train and test part from the arrays x_train, y_train, x_test, y_test (or train_images, train_labels, ...).

    Other arrays, such as a validation part, are not read. See ``image_sets`` for shapes and ranges.

    Raises:
        DataError: The file is damaged or no .npz, lacks an array, holds Python objects, or its arrays
            are not usable.
    """
    try:
        archive = np.load(path, allow_pickle=False)
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise DataError(f"{name}: {path} holds a single array, not an .npz archive of named ones")
        with archive:
            parts = [_read_part(archive, part, name=name) for part in ("train", "test")]
    except DataError:
        raise
    # numpy raises ValueError for object arrays, bad headers and files that are no archive at all.
    except (OSError, EOFError, ValueError, zipfile.BadZipFile, zlib.error, NotImplementedError) as error:
        raise DataError(
            f"{name}: cannot read {path} ({error}); it must be an undamaged .npz file of plain numeric arrays"
        ) from error
    return image_sets(parts[0], parts[1], name=name)


def _read_part(archive: np.lib.npyio.NpzFile, part: str, *, name: str) -> tuple[np.ndarray, np.ndarray]:
    for images, labels in _KEYS:
        keys = images.format(part=part), labels.format(part=part)
        if all(key in archive for key in keys):
            return archive[keys[0]], archive[keys[1]]
    wanted = " or ".join(f"{images} and {labels}".format(part=part) for images, labels in _KEYS)
    raise DataError(f"{name}: no {wanted} in the file, only {', '.join(archive.files) or 'nothing'}")
