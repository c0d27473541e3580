"""Methods by name."""

from __future__ import annotations

import difflib

from codream_secure.errors import ConfigError
from codream_secure.methods.base import Method
from codream_secure.methods.centralised import Centralised
from codream_secure.methods.codream import CoDream
from codream_secure.methods.fedavg import FedAvg
from codream_secure.methods.isolated import Isolated

METHODS: dict[str, type[Method]] = {method.name: method for method in (Isolated, CoDream, FedAvg, Centralised)}


def find_method(name: str) -> type[Method]:
    """The method called ``name``.

    Raises:
        ConfigError: there is none; the message suggests the nearest.
    """
    if name in METHODS:
        return METHODS[name]
    near = difflib.get_close_matches(name, METHODS, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise ConfigError(f"method {name!r} is unknown: {hint}available: {', '.join(METHODS)}")
