"""An audit for people: tables in the terminal, sentences, and one self-contained HTML page."""

from __future__ import annotations

from attacks.report.page import write_report
from attacks.report.schema import check_audit, load_audit
from attacks.report.summary import summarise
from attacks.report.table import audit_tables, print_audit

__all__ = ["audit_tables", "check_audit", "load_audit", "print_audit", "summarise", "write_report"]
