"""The report of a directory, written into it."""

from __future__ import annotations

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from codream_secure.report.load import Comparison, load
from codream_secure.report.page import comparison_page, run_page
from codream_secure.runs import files


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
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    path = directory / "report.html"
    files.write_text(path, environment.get_template(template).render(context))
    return path
