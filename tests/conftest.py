"""Shared set-up: one thread per test process, and where real data may be found."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

# Oversubscribed threads cost far more than they give on images this small.
torch.set_num_threads(1)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder with real data sets; tests that need it are skipped where it is absent."""
    default = Path(__file__).resolve().parents[1] / ".." / "shared" / "data"
    folder = Path(os.environ.get("CODREAM_DATA", default)).resolve()
    if not folder.is_dir():
        pytest.skip(f"no data folder at {folder}; set CODREAM_DATA to one")
    return folder
