"""The report of a directory, written into it."""

from __future__ import annotations

from pathlib import Path

from codream_secure import files
from codream_secure.report.load import Comparison, load
from codream_secure.report.page import comparison_page, run_page
from codream_secure.report.render import render


def build_report(directory: Path) -> Path:
    """Write ``report.html``: one file that needs no network and no script, about a run or a comparison.

    A run that has not finished gets a report of what there is, which says so.

    Args:
        directory: a run's directory or that of a finished comparison.

    Returns:
        The path of the report, in that directory; an earlier one is replaced.

    Raises:
        ConfigError: the directory is neither, or one of its files is damaged.
    """
    directory = Path(directory)
    record = load(directory)
    if isinstance(record, Comparison):
        template, context = "comparison.html.j2", comparison_page(record)
    else:
        template, context = "run.html.j2", run_page(record)
    path = directory / "report.html"
    files.write_text(path, render(template, context))
    return path
