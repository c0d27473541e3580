"""Shared set-up: one thread per test process, and where real data may be found."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

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


def same(found: Any, expected: Any) -> bool:
    """Whether two states are equal, to the last bit."""
    if isinstance(expected, torch.Tensor):
        return torch.equal(found, expected)
    if isinstance(expected, dict):
        return found.keys() == expected.keys() and all(same(found[key], expected[key]) for key in expected)
    if isinstance(expected, list):
        return len(found) == len(expected) and all(map(same, found, expected))
    return bool(found == expected)


@pytest.fixture(scope="session")
def equal() -> Callable[[Any, Any], bool]:
    return same
