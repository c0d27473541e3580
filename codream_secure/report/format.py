"""Numbers as people read them: true minus signs, decimal byte units, and no more digits than mean something."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

NOTHING = "\N{EN DASH}"
_SPACE = "\N{NO-BREAK SPACE}"
_UNITS = ("B", "kB", "MB", "GB", "TB", "PB")


def percent(share: float | None, *, decimals: int = 1) -> str:
    """A share of 1 in per cent, without the sign.

    >>> percent(0.93456), percent(0.6138, decimals=0)
    ('93.5', '61')
    """
    return NOTHING if share is None else _fixed(100 * share, decimals)


def percent_spread(spread: Mapping[str, Any]) -> str:
    """Mean ± standard deviation in per cent, with one decimal.

    >>> percent_spread({"mean": 0.7559, "std": 0.0398})
    '75.6\\xa0±\\xa04.0'
    """
    return _plus_minus(percent(spread["mean"]), None if spread["std"] is None else percent(spread["std"]))


def size(count: float | None) -> str:
    """Bytes in decimal units, with three significant digits.

    >>> size(24), size(675864), size(999_950), size(1_234_567)
    ('24\\xa0B', '676\\xa0kB', '1.00\\xa0MB', '1.23\\xa0MB')
    """
    return size_spread({"mean": count, "std": None})


def size_spread(spread: Mapping[str, Any]) -> str:
    """Mean ± standard deviation of bytes; the deviation is left out where all values are equal.

    >>> size_spread({"mean": 93480.0, "std": 44066.9}), size_spread({"mean": 24.0, "std": 0.0})
    ('93.5\\xa0±\\xa044.1\\xa0kB', '24\\xa0B')
    """
    mean, std = spread["mean"], spread["std"]
    if mean is None:
        return NOTHING
    power = 0
    while power + 1 < len(_UNITS) and mean / 1000**power >= 999.5:
        power += 1
    scale = 1000**power
    decimals = _decimals(mean / scale) if power else 0
    deviation = _fixed(std / scale, decimals) if std else None
    return _plus_minus(_fixed(mean / scale, decimals), deviation) + _SPACE + _UNITS[power]


def number(value: float | None) -> str:
    """A number of some unit, such as seconds, with about three significant digits.

    >>> number(3.46475), number(42.04), number(12345.6), number(0.0)
    ('3.46', '42.0', '12,346', '0.00')
    """
    return number_spread({"mean": value, "std": None})


def number_spread(spread: Mapping[str, Any]) -> str:
    """Mean ± standard deviation, both with the decimals of :func:`number`.

    >>> number_spread({"mean": 3.46475, "std": 0.1176})
    '3.46\\xa0±\\xa00.12'
    """
    mean, std = spread["mean"], spread["std"]
    if mean is None:
        return NOTHING
    decimals = _decimals(mean)
    return _plus_minus(_fixed(mean, decimals), None if std is None else _fixed(std, decimals))


def plural(count: int, noun: str) -> str:
    """A count and what is counted.

    >>> plural(1, "client"), plural(4, "client")
    ('1 client', '4 clients')
    """
    return f"{count} {noun}" + ("" if count == 1 else "s")


def listing(values: tuple[object, ...] | list[object]) -> str:
    """Values by commas, with equal ones counted rather than repeated."""
    counts = {value: values.count(value) for value in values}
    return ", ".join(
        str(value) if count == 1 else f"{count} \N{MULTIPLICATION SIGN} {value}" for value, count in counts.items()
    )


def _decimals(value: float) -> int:
    return 0 if abs(value) >= 99.95 else 1 if abs(value) >= 9.995 else 2


def _fixed(value: float, decimals: int) -> str:
    text = f"{value:,.{decimals}f}"
    # A negative number that rounds to zero is zero.
    return text.replace("-", "\N{MINUS SIGN}") if float(text.replace(",", "")) else text.removeprefix("-")


def _plus_minus(mean: str, deviation: str | None) -> str:
    return mean if deviation is None else f"{mean}{_SPACE}±{_SPACE}{deviation}"
