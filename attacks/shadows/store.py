"""Trained federations on disk, by a digest of all that they depend on."""

from __future__ import annotations

import hashlib
import io
import pickle
from dataclasses import asdict
from functools import cache
from pathlib import Path

import torch

import attacks
import codream_secure
import protocols
from attacks.shadows.trial import Trained, trial_config
from codream_secure.config import Config
from codream_secure.data import DataSource
from codream_secure.files import write_bytes

FORMAT = 1
# Of codream_secure, what a trained federation depends on; a change to the command line leaves the files of use.
_SOURCES = ("*.py", "data/*.py", "dreaming/*.py", "methods/*.py", "models/*.py", "privacy/*.py")


def trial_key(
    config: Config, source: DataSource, row: torch.Tensor, *, pool_digest: str, seed: int, rounds: int, ensemble: bool
) -> str:
    """The name of a trial's file: SHA-256 over configuration, data, membership, code and torch's version.

    Federations that are trained together end with the same weights up to rounding, which grows from step to step;
    ``ensemble`` keeps them apart from those trained alone.
    """
    digest = hashlib.sha256()
    for text in (
        trial_config(config, seed=seed).to_toml(),
        pool_digest,
        f"{source.num_classes} {source.mean} {source.std} {tuple(source.test.images.shape)}",
        hashlib.sha256(source.test.images.contiguous().numpy().tobytes()).hexdigest(),
        hashlib.sha256(row.numpy().tobytes()).hexdigest(),
        f"{FORMAT} {rounds} {ensemble} {torch.__version__} {code_version()}",
    ):
        digest.update(hashlib.sha256(text.encode()).digest())
    return digest.hexdigest()


@cache
def code_version() -> str:
    """SHA-256 over the sources that decide what a trial ends with."""
    digest = hashlib.sha256()
    for package, patterns in ((codream_secure, _SOURCES), (protocols, ("**/*.py",)), (attacks, ("shadows/*.py",))):
        folder = Path(next(iter(package.__path__)))
        for path in sorted({path for pattern in patterns for path in folder.glob(pattern)}):
            digest.update(f"{package.__name__}/{path.relative_to(folder).as_posix()}".encode())
            digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def save_trained(path: Path, trained: Trained) -> None:
    """Write tensors and plain values; the file is whole or not there."""
    stream = io.BytesIO()
    torch.save({"format": FORMAT, **asdict(trained)}, stream)
    write_bytes(path, stream.getvalue())


def load_trained(path: Path) -> Trained | None:
    """Read it back, or None where there is no whole file of this format. Nothing in the file is executed."""
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError, ValueError, LookupError, TypeError):
        return None
    if not isinstance(found, dict) or found.pop("format", None) != FORMAT:
        return None
    try:
        return Trained(**found)
    except TypeError:
        return None
