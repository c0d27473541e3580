"""Real runs, as small as they can be, made once and copied by whoever changes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from codream_secure.config import make_config
from codream_secure.runs import run
from codream_secure.runs.compare import compare

HOSTILE = "<script>alert('1')&"


def small(**data: Any) -> dict[str, Any]:
    return {
        "data": {"clients": 2, "samples_per_client": 20, "validation_samples": 30, **data},
        "model": {"clients": ["mlp", "small_cnn"], "server": "mlp"},
        "local": {"warmup_epochs": 1, "epochs": 1},
        "dreaming": {"images": 16, "steps": 2},
        "distillation": {"epochs": 1},
        "run": {"rounds": 2},
    }


@pytest.fixture(scope="session")
def comparison(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All methods on two seeds; FedAvg cannot, for the architectures differ."""
    out = tmp_path_factory.mktemp("comparison")
    compare(make_config(small(), ["run.target_accuracy=0.01"]), seeds=2, out=out)
    return out


@pytest.fixture(scope="session")
def hostile_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on a data set whose file name is markup."""
    folder = tmp_path_factory.mktemp("hostile")
    path = folder / f"{HOSTILE}.npz"
    draw = np.random.default_rng(0)
    images = draw.integers(0, 256, (60, 8, 8), dtype=np.uint8)
    labels = np.arange(60) % 3
    np.savez(path, x_train=images, y_train=labels, x_test=images, y_test=labels)
    run(make_config(small(source=f"npz:{path}", validation_samples=0), ["run.rounds=1"]), out=folder / "run")
    return folder / "run"
