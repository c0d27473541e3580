"""Adversaries' views, the probes that look at them, and audits that say how much they saw.

``codream-secure audit`` audits a configuration. :func:`audit` audits federations of one's own, and
``docs/own_probe.md`` shows a probe of one's own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from attacks.auditing.own import audit

__all__ = ["audit"]


def __getattr__(name: str) -> object:
    # Every command of codream-secure imports this package for its command's sake; few of them audit, and what audits
    # need takes seconds to import.
    if name == "audit":
        from attacks.auditing.own import audit

        return audit
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
