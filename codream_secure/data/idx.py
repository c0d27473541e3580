"""The IDX files of MNIST, Fashion-MNIST and EMNIST, plain or gzipped, read where they lie.

Format: yann.lecun.com/exdb/mnist: two zero bytes, a type code (8: unsigned byte), the number of
dimensions, each dimension as a big-endian 32-bit integer, then the data in C order.
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np

from codream_secure.errors import DataError


def find_idx(folder: Path, stem: str) -> Path | None:
    """FOLDER/STEM or else FOLDER/STEM.gz, whichever exists, or None."""
    return next((path for path in (folder / stem, folder / f"{stem}.gz") if path.is_file()), None)


def read_idx(path: Path, *, dimensions: int) -> np.ndarray:
    """The array in one IDX file: uint8, with that many dimensions. A name ending in .gz is gunzipped.

    Raises:
        DataError: The file cannot be read or gunzipped, its header is not that of unsigned bytes with
            ``dimensions`` dimensions, or its length is not what the header says.
    """
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"cannot read {path} ({error}); remove it and fetch it again") from error
    start = 4 + 4 * dimensions
    magic = bytes((0, 0, 8, dimensions))
    if len(content) < start or content[:4] != magic:
        raise DataError(
            f"{path} starts with bytes {content[:4].hex()}, but an IDX file of unsigned bytes with "
            f"{dimensions} dimension(s) starts with {magic.hex()} and {dimensions} sizes; is it another file?"
        )
    shape = struct.unpack(f">{dimensions}I", content[4:start])
    if len(content) - start != math.prod(shape):
        raise DataError(
            f"{path} announces shape {shape}, {math.prod(shape)} bytes, but holds {len(content) - start}; "
            "remove it and fetch it again"
        )
    return np.frombuffer(content, dtype=np.uint8, offset=start).reshape(shape).copy()
