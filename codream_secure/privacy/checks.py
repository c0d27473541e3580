"""Checks of single values, in constructors and in what is read back from JSON."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from enum import Enum
from typing import Any, TypeVar

from codream_secure.errors import PrivacyError

MAX_COUNT = 10**12
MAX_NAME = 200

Choice = TypeVar("Choice", bound=Enum)


def real(argument: str, value: Any) -> float:
    """The value as a float, if it is a finite number.

    Raises:
        PrivacyError: it is not, or it is a truth value.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise PrivacyError(f"{argument} is {value!r}: give a number")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise PrivacyError(f"{argument} is {value}: give a finite number")
    return number


def positive(argument: str, value: Any) -> float:
    """The value as a float, if it is finite and above zero.

    Raises:
        PrivacyError: it is not.
    """
    number = real(argument, value)
    if number <= 0:
        raise PrivacyError(f"{argument} is {value}: it must be above 0")
    return number


def whole(argument: str, value: Any, largest: int = MAX_COUNT) -> int:
    """The value, if it is an integer in [1, largest].

    Raises:
        PrivacyError: it is not.
    """
    if isinstance(value, bool) or not isinstance(value, int):
        raise PrivacyError(f"{argument} is {value!r}: give a whole number")
    if not 1 <= value <= largest:
        raise PrivacyError(f"{argument} is {value}: it must lie between 1 and {largest}")
    return value


def probability(argument: str, value: Any) -> float:
    """The value as a float, if it lies in (0, 1), as a delta must.

    Raises:
        PrivacyError: it does not.
    """
    number = real(argument, value)
    if not 0 < number < 1:
        raise PrivacyError(f"{argument} is {value}: it must lie strictly between 0 and 1, well below 1/n for n units")
    return number


def text(argument: str, value: Any) -> str:
    """The value, if it is a printable text of 1 to 200 characters.

    Raises:
        PrivacyError: it is not.
    """
    if not isinstance(value, str) or not value.strip() or len(value) > MAX_NAME or not value.isprintable():
        raise PrivacyError(f"{argument} is {value!r}: give a printable text of 1 to {MAX_NAME} characters")
    return value


def member(argument: str, value: Any, kind: type[Choice]) -> Choice:
    """The member of an enumeration that has this value, or that the value already is.

    Raises:
        PrivacyError: there is none.
    """
    try:
        return kind(value)
    except ValueError:
        choices = ", ".join(repr(choice.value) for choice in kind)
        raise PrivacyError(f"{argument} is {value!r}: choose one of {choices}") from None


def fields(what: str, content: Any, names: Iterable[str]) -> Mapping[str, Any]:
    """The content, if it is a mapping with exactly these keys.

    Raises:
        PrivacyError: it is no mapping, or a key is missing or unknown.
    """
    if not isinstance(content, Mapping):
        raise PrivacyError(f"{what} is {type(content).__name__}: an object with named fields is needed")
    expected = set(names)
    if missing := sorted(expected - set(content)):
        raise PrivacyError(f"{what} lacks {', '.join(missing)}")
    if unknown := sorted(map(repr, set(content) - expected)):
        raise PrivacyError(f"{what} has unknown fields: {', '.join(unknown)}")
    return content
