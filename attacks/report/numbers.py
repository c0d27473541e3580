"""Measured values as people read them: a figure by its metric, never without what belongs to it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_MINUS = "\N{MINUS SIGN}"


def figure(metric: str, value: float) -> str:
    """A value with the digits that its metric deserves; rates in per cent.

    >>> figure("AUC", 0.61749), figure("TPR@1%FPR", 0.1383), figure("PSNR, dB", 24.61)
    ('0.617', '13.8 %', '24.6')
    >>> figure("relative error", 0.00123)
    '0.0012'
    """
    if is_rate(metric):
        # One in a thousand and more: one decimal.
        return _minus(f"{100 * value:.1f} %" if abs(value) >= 0.001 or value == 0 else f"{100 * value:.2f} %")
    if metric.startswith("PSNR"):
        return _minus(f"{value:.1f}")
    if re.match(r"AUC|advantage|total variation", metric):
        return _minus(f"{value:.3f}")
    return _minus(f"{value:.2g}" if abs(value) < 1000 else f"{value:,.0f}")


def measured(metric: str, shown: str) -> str:
    """A metric and its figure in a sentence, the unit behind.

    >>> measured("AUC", "0.617"), measured("PSNR, dB", "24.6"), measured("rank 1 of 100", "94.0 %")
    ('AUC 0.617', 'PSNR 24.6 dB', 'rank 1 of 100 in 94.0 %')
    """
    name, _, unit = metric.partition(", ")
    return f"{name}{' in' if metric.startswith('rank') else ''} {shown}{f' {unit}' if unit else ''}"


def guess(metric: str, value: float) -> str:
    """What a guess or the control reaches, with no more digits than it has.

    >>> guess("AUC", 0.5), guess("TPR@1%FPR", 0.01), guess("PSNR, dB", 11.52)
    ('chance 0.5', 'chance 1 %', 'control 11.5')
    """
    if metric == "AUC":
        return f"chance {value:g}"
    return f"chance {100 * value:g} %" if is_rate(metric) else f"control {figure(metric, value)}"


def interval(row: Mapping[str, Any]) -> str:
    """The interval of a row without its unit, or nothing where it has none.

    >>> interval({"metric": "TPR@1%FPR", "low": 0.1, "high": 0.152})
    '10.0 to 15.2'
    """
    if row["low"] is None or row["high"] is None:
        return ""
    low, high = (figure(row["metric"], row[end]).removesuffix(" %") for end in ("low", "high"))
    return f"{low} to {high}"


def is_rate(metric: str) -> bool:
    """Whether a metric is a share that is read in per cent."""
    return bool(re.match(r"(TPR|TNR|FPR|FNR)@|rank 1 of ", metric))


def who(part: Mapping[str, Any]) -> str:
    """A method and its protection.

    >>> who({"method": "codream", "protection": "masked"})
    'codream, masked'
    """
    return f"{part['method']}, {part['protection']}"


def adversary(part: Mapping[str, Any]) -> str:
    """An adversary and what it does; the public can only look.

    >>> adversary({"adversary": "server", "active": True}), adversary({"adversary": "public", "active": False})
    ('active server', 'public')
    """
    name, active = part["adversary"], part["active"]
    return str(name) if name == "public" and not active else f"{'active' if active else 'passive'} {name}"


def duration(seconds: float) -> str:
    """Seconds up to two minutes, then minutes, then hours.

    >>> duration(42.3), duration(754), duration(9000)
    ('42 s', '13 min', '2.5 h')
    """
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _minus(text: str) -> str:
    return text.replace("-", _MINUS) if "e" not in text else text
