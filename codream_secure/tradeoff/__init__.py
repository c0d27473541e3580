"""What privacy costs: accuracy, bytes and seconds of one configuration over budgets and protections."""

from __future__ import annotations

from codream_secure.tradeoff.grid import Cell, parse_budgets, parse_protections, plan_cells
from codream_secure.tradeoff.sweep import sweep

__all__ = ["Cell", "parse_budgets", "parse_protections", "plan_cells", "sweep"]
