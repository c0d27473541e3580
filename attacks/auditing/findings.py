"""What an audit has found so far."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from attacks.rows import Check, Row


@dataclass(kw_only=True)
class Findings:
    """What an audit of one seed found, as the pieces of ``audit.json``."""

    rows: list[Row] = field(default_factory=list)
    checks: list[Check] = field(default_factory=list)
    victims: list[dict[str, Any]] = field(default_factory=list)
    rocs: list[dict[str, Any]] = field(default_factory=list)
    pictures: list[dict[str, Any]] = field(default_factory=list)
    dreams: list[dict[str, Any]] = field(default_factory=list)
    epsilons: list[dict[str, Any]] = field(default_factory=list)
    threats: dict[str, dict[str, str]] = field(default_factory=dict)
    seconds: float = 0.0
