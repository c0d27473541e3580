"""One file from which a run goes on as if it had never stopped.

A checkpoint holds clients' models and dreams in clear: it is the experimenter's, not a party's of the federation.
"""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import torch

from codream_secure.errors import CheckpointError
from codream_secure.files import write_bytes

FORMAT = 1


def save_checkpoint(path: Path, state: dict[str, Any], *, mode: int | None = None) -> None:
    """Write tensors and plain values atomically; see :func:`~codream_secure.files.write_bytes` for the mode."""
    stream = io.BytesIO()
    torch.save({"format": FORMAT, **state}, stream)
    write_bytes(path, stream.getvalue(), mode=mode)


def load_checkpoint(path: Path, *, config: str) -> dict[str, Any]:
    """Read a checkpoint of a run with that resolved configuration. Nothing in the file is executed.

    Raises:
        CheckpointError: the file is damaged, of another format, or of another configuration.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError, ValueError, LookupError, TypeError) as error:
        raise CheckpointError(f"checkpoint {str(path)!r} cannot be read ({error}): delete it to start afresh") from None
    if not isinstance(state, dict) or state.get("format") != FORMAT or not isinstance(state.get("config"), str):
        raise CheckpointError(f"checkpoint {str(path)!r} is not of format {FORMAT}: delete it to start afresh")
    if state["config"] != config:
        changed = sorted(set(state["config"].splitlines()) ^ set(config.splitlines()))
        raise CheckpointError(
            f"checkpoint {str(path)!r} is of another configuration (differing lines: {'; '.join(changed)}): "
            "choose another --out, or resume with the configuration it was made with"
        )
    return state
