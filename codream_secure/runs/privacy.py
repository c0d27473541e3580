"""A run's account of its releases: kept in a file that is always ahead of them, and described when the run is over."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from codream_secure import files
from codream_secure.errors import CheckpointError
from codream_secure.releases import Releases


def keep_account(releases: Releases, path: Path, *, saved: Mapping[str, Any] | None) -> None:
    """Write every new entry of the ledger to ``path``, before the release that it describes is made.

    An account that is there is taken over first: also that of a run which was cut off before its first checkpoint.

    Args:
        releases: of the run.
        path: the account's file.
        saved: the account as a checkpoint has it, from which the run goes on; None where there is none.

    Raises:
        CheckpointError: the run goes on, but its account is gone, damaged, or older than the checkpoint; or nothing is
            claimed where something was.
        PrivacyError: the account was kept under other conditions.
    """
    if releases.ledger is None:
        if path.exists():
            raise CheckpointError(
                f"account {str(path)!r} is of a run that claims privacy, and this one claims none: "
                "choose another directory"
            )
        return
    if path.exists():
        try:
            state = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise CheckpointError(
                f"account {str(path)!r} cannot be read ({error}): what was released is not known any more; "
                "start afresh in another directory"
            ) from None
        releases.ledger.load_state_dict(state)
        if saved is not None and not releases.ledger.covers(saved):
            raise CheckpointError(
                f"account {str(path)!r} lacks releases that the checkpoint knows of: it has been replaced; "
                "start afresh in another directory"
            )
    elif saved is not None:
        raise CheckpointError(
            f"account {str(path)!r} is missing: what the run has released is not known any more; "
            "start afresh in another directory"
        )
    else:
        files.write_json(path, releases.ledger.state_dict())
    releases.journal = lambda state: files.write_json(path, state)


def describe(releases: Releases, *, delta: float, stopped: str | None) -> dict[str, Any] | None:
    """What a summary says of privacy; None where nothing is claimed.

    Returns:
        ``statement`` and ``text`` (of the :class:`~codream_secure.privacy.PrivacyStatement`), ``signal`` (``value``,
        ``verdict``, ``clients_for_one`` and ``dimension_for_one``; null without noise on dreams), ``noise_multipliers``
        (stream to z), ``budget`` (``epsilon`` and ``delta``, or null) and ``stopped`` (why the run ended early, or
        null).
    """
    ledger, signal = releases.ledger, releases.signal
    if ledger is None:
        return None
    statement = ledger.statement(delta=delta)
    return {
        "statement": statement.to_json(),
        "text": str(statement),
        "signal": None
        if signal is None
        else {
            "value": signal.value,
            "verdict": signal.verdict,
            "clients_for_one": signal.clients_for_one,
            "dimension_for_one": signal.dimension_for_one,
        },
        "noise_multipliers": releases.noise_multipliers(),
        "budget": None if ledger.budget is None else {"epsilon": ledger.budget.epsilon, "delta": ledger.budget.delta},
        "stopped": stopped,
    }
