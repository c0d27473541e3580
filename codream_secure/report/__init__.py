"""One self-contained HTML page about a run or a comparison."""

from __future__ import annotations

from codream_secure.report.build import build_report

__all__ = ["build_report"]
