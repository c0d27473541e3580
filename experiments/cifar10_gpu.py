"""CIFAR-10, 4 x 1,000 images, ResNet-18 on a GPU: accuracy against wall time, and seconds per round.

    python -m experiments.cifar10_gpu --root DATA --out runs/cifar10 [--minutes 20]

Runs rounds until the time is used up, and prints one line per round. ``DATA`` is where torchvision finds CIFAR-10, or
name another source of the same images with ``--source npz:FILE``. Without a CUDA device it says so and measures
nothing: no figure of a GPU run is committed yet.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from codream_secure.cli.app import guarded
from codream_secure.config import load_config
from codream_secure.runs import run

CONFIG = Path(__file__).parent / "configs" / "cifar10_resnet18.toml"


class OutOfTimeError(Exception):
    """The time that was given is used up; the run directory holds every whole round."""


def main(
    out: Annotated[Path, typer.Option("--out", help="Run directory; an interrupted run goes on.")],
    root: Annotated[str | None, typer.Option("--root", help="Folder of the data files.")] = None,
    source: Annotated[str, typer.Option("--source", help="Data source.")] = "cifar10",
    minutes: Annotated[float, typer.Option("--minutes", min=0.1)] = 20.0,
    rounds: Annotated[int, typer.Option("--rounds", min=1)] = 400,
) -> None:
    """Train until the time is used up."""
    if not torch.cuda.is_available():
        print("no CUDA device here: nothing was measured", file=sys.stderr)
        raise typer.Exit(1)
    overrides = [
        f"data.source={source}",
        f"run.rounds={rounds}",
        *([f"data.root={json.dumps(root, ensure_ascii=False)}"] if root else []),
    ]
    deadline = time.monotonic() + 60 * minutes
    last = time.monotonic()

    def on_round(row: dict[str, Any]) -> None:
        nonlocal last
        now = time.monotonic()
        print(
            f"round {row['round']:3d}  test {100 * row['test_accuracy']:5.1f} %  "
            f"{row['seconds']:7.1f} s in all  {now - last:6.1f} s this round",
            flush=True,
        )
        last = now
        if now > deadline:
            raise OutOfTimeError

    try:
        run(load_config(CONFIG, overrides), out=out, resume=True, on_round=on_round)
    except OutOfTimeError:
        print(f"{minutes:g} minutes are over: run again with the same --out to go on")


if __name__ == "__main__":
    guarded(lambda: typer.run(main))
