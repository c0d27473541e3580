"""What Flower hands to an app as configuration, and the files that it names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from codream_secure.deployment.roster import load_roster
from codream_secure.deployment.training import TrainingTerms, load_training
from codream_secure.errors import ConfigError
from protocols import Roster


def read_training(config: Mapping[str, Any]) -> TrainingTerms:
    """The terms of training that a configuration names.

    Raises:
        ConfigError: see :func:`load_training`.
    """
    return load_training(Path(str(config["terms"])))


def read_roster(config: Mapping[str, Any]) -> Roster:
    """The roster, and only the one that was compared, if the configuration says which that was.

    Raises:
        IdentityError: see :func:`load_roster`.
    """
    digest = config.get("roster-digest")
    return load_roster(Path(str(config["roster"])), digest=None if digest is None else str(digest))


def require(config: Mapping[str, Any], keys: Iterable[str], where: str) -> None:
    """Return if a configuration has these keys.

    Raises:
        ConfigError: it lacks some, which are named.
    """
    missing = [key for key in keys if key not in config]
    if missing:
        raise ConfigError(f"{where} lacks {', '.join(missing)}")
