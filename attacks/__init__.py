"""Adversaries' views, the probes that look at them, and audits that say how much they saw.

``codream-secure audit`` audits a configuration. :func:`audit` audits federations of one's own, and
``docs/own_probe.md`` shows a probe of one's own.
"""

from attacks.auditing.own import audit

__all__ = ["audit"]
