"""Running methods: the loop, the run directory, checkpoints, and comparisons over methods and seeds."""

from codream_secure.runs.loop import RunResult, run

__all__ = ["RunResult", "run"]
