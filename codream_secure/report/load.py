"""What the directories of runs and comparisons hold, as plain values."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from codream_secure.config import Config, load_config, make_config
from codream_secure.errors import ConfigError
from codream_secure.methods.registry import METHODS

Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """One run's directory.

    Attributes:
        config: what was run.
        rows: one per evaluated round; see :mod:`codream_secure.runs.loop`.
        summary: see :func:`codream_secure.runs.summary.summarise`; None until the run is over.
        environment: versions, commit and hardware, or None where the file is missing.
        partition: sample counts, clients by classes, or None where the file is missing.
        grids: (round, PNG file) of the dreams, by round.
    """

    config: Config
    rows: tuple[Row, ...]
    summary: Row | None
    environment: Row | None
    partition: list[list[int]] | None
    grids: tuple[tuple[int, Path], ...]

    @property
    def figures(self) -> Row | None:
        """The summary or, until there is one, the last row; None before the first evaluation."""
        return self.summary or (self.rows[-1] if self.rows else None)


@dataclass(frozen=True, kw_only=True)
class MethodRecord:
    """One method of a comparison.

    Attributes:
        name, shares: the method, and in a few words what its clients give away.
        obstacle: why it was not run; None where it was.
        entry: its figures over seeds as ``comparison.json`` has them; empty where it was not run.
        runs: the run directories that are there, by seed.
    """

    name: str
    shares: str
    obstacle: str | None
    entry: Mapping[str, Any]
    runs: tuple[RunRecord, ...]


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A comparison's directory: what its runs have in common, and the methods.

    Attributes:
        target: the validation accuracy, 0..1, that costs are measured up to; None without one.
    """

    config: Config
    seeds: tuple[int, ...]
    target: float | None
    methods: tuple[MethodRecord, ...]


def load(directory: Path) -> RunRecord | Comparison:
    """Read a run's directory, finished or not, or that of a finished comparison.

    Raises:
        ConfigError: it is neither, or one of its files is damaged.
    """
    if (directory / "comparison.json").exists():
        return _load_comparison(directory)
    if (directory / "config.toml").exists():
        return load_run(directory)
    raise ConfigError(
        f"directory {str(directory)!r} holds nothing to report: expected comparison.json, which a finished comparison "
        "writes, or a run's config.toml and metrics.jsonl"
    )


def load_run(directory: Path) -> RunRecord:
    """Read one run's directory; whatever is not there yet is None or empty.

    Raises:
        ConfigError: a file is damaged.
    """
    metrics = directory / "metrics.jsonl"
    lines = metrics.read_text(encoding="utf-8").splitlines() if metrics.exists() else []
    grids = {path.stem.removeprefix("round_"): path for path in (directory / "dreams").glob("round_*.png")}
    return RunRecord(
        config=load_config(directory / "config.toml"),
        rows=tuple(_parse(line, metrics) for line in lines),
        summary=_read(directory / "summary.json"),
        environment=_read(directory / "environment.json"),
        partition=_read(directory / "partition.json"),
        grids=tuple(sorted((int(number), path) for number, path in grids.items() if number.isdecimal())),
    )


def _load_comparison(directory: Path) -> Comparison:
    path = directory / "comparison.json"
    content = _read(path)
    try:
        seeds = tuple(content["seeds"])
        return Comparison(
            config=make_config(tomllib.loads(content["config"])),
            seeds=seeds,
            target=content["target"],
            methods=tuple(_method(directory, entry, seeds) for entry in content["methods"]),
        )
    except (KeyError, TypeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{str(path)!r} is no comparison ({error!r}): run the comparison again") from None


def _method(directory: Path, entry: Row, seeds: tuple[int, ...]) -> MethodRecord:
    places = [directory / entry["method"] / f"seed_{seed}" for seed in seeds]
    ran = entry["obstacle"] is None
    return MethodRecord(
        name=entry["method"],
        shares=entry["summary"],
        obstacle=entry["obstacle"],
        entry=entry if ran else {},
        # Directories may have been moved away since.
        runs=tuple(load_run(place) for place in places if ran and (place / "config.toml").exists()),
    )


def shares(method: str) -> str | None:
    """What a method's clients give away, in a few words; None for a method that is not installed here."""
    return METHODS[method].summary if method in METHODS else None


def _read(path: Path) -> Any:
    return _parse(path.read_text(encoding="utf-8"), path) if path.exists() else None


def _parse(text: str, path: Path) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise ConfigError(f"{str(path)!r} is damaged ({error}): resume the run, which writes it anew") from None
