"""Fixtures of the harness, where Flower is installed; without it every test module here skips itself."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

if importlib.util.find_spec("flwr"):
    sys.path.insert(0, str(Path(__file__).resolve().parent))
    from flower_harness import make_grid, members, plain_grid, server_identity

    __all__ = ["make_grid", "members", "plain_grid", "server_identity"]
