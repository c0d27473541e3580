"""Metrics for TensorBoard, where the optional extra is installed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from codream_secure.errors import ConfigError


@contextmanager
def tensorboard_writer(
    out: Path | None, wanted: bool, *, purge_from: int
) -> Iterator[Callable[[dict[str, Any]], None]]:
    """A function that logs a row's numbers under its round; it does nothing unless wanted and there is a directory.

    Args:
        out: the run directory; events go to its ``tensorboard`` folder.
        wanted: ``run.tensorboard``.
        purge_from: events from this round on, left by an interrupted run, are hidden.

    Raises:
        ConfigError: TensorBoard is wanted and not installed.
    """
    if out is None or not wanted:
        yield lambda row: None
        return
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise ConfigError(
            "run.tensorboard is true but tensorboard is not installed: pip install 'codream-secure[tensorboard]'"
        ) from None
    writer = SummaryWriter(str(out / "tensorboard"), purge_step=purge_from)

    def log(row: dict[str, Any]) -> None:
        for name, value in row.items():
            if name != "round" and isinstance(value, int | float):
                writer.add_scalar(name, value, row["round"])
        writer.flush()

    try:
        yield log
    finally:
        writer.close()
