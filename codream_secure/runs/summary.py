"""From the rows of a run to the figures that are reported."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from codream_secure.config import Config
from codream_secure.ledger import Ledger
from protocols import AUTHORITY, SERVER

Row = dict[str, Any]


def summarise(
    config: Config, rows: Sequence[Row], ledger: Ledger, *, weights: str, privacy: dict[str, Any] | None = None
) -> dict[str, Any]:
    """The reported figures of a run.

    The test accuracy is that of the final round, or, with ``run.select = "validation"``, of the round with the best
    validation accuracy (the earliest of equals). It is never chosen by the test set.

    Returns:
        ``method``, ``seed``, ``selected_by``, ``round``, ``test_accuracy``, ``validation_accuracy``,
        ``client_test_accuracy``, ``server_test_accuracy`` (where there is a student), ``dreamer_test_accuracy``
        (mean, where models other than the clients' own dream), ``bytes_up`` and ``bytes_down`` (mean per client, whole
        run), ``bytes_by_phase`` (phase to [up, down], mean per client), ``seconds``,
        ``protocol_cpu`` (CPU seconds that the sums took: ``client``, mean, ``server``, and ``authority``, 0 where there
        is none), ``protocol_cpu_by_phase`` (phase to [client, server, authority]), ``clipped_fraction`` (of all encoded
        values), ``retries`` (sums asked for again for want of clients), ``to_target`` (see :func:`to_target`; null
        without a target), ``privacy`` (see :func:`codream_secure.runs.privacy.describe`; null where nothing is claimed)
        and ``weights_sha256``.
    """
    chosen = select_row(rows, config.run.select)
    last = rows[-1]
    clients = range(config.data.clients)
    phases: dict[str, list[float]] = {}
    for client in clients:
        for phase, (up, down) in ledger.by_phase(client).items():
            total = phases.setdefault(phase, [0.0, 0.0])
            total[0] += up / len(clients)
            total[1] += down / len(clients)
    cpu = _cpu_by_phase(ledger, len(clients))
    target = config.run.target_accuracy
    return {
        "method": config.method,
        "seed": config.run.seed,
        "selected_by": config.run.select,
        "round": chosen["round"],
        "test_accuracy": chosen["test_accuracy"],
        "validation_accuracy": chosen["validation_accuracy"],
        "client_test_accuracy": chosen["client_test_accuracy"],
        "server_test_accuracy": chosen.get("server_test_accuracy"),
        "dreamer_test_accuracy": chosen.get("dreamer_test_accuracy"),
        "bytes_up": last["bytes_up"],
        "bytes_down": last["bytes_down"],
        "bytes_by_phase": phases,
        "seconds": last["seconds"],
        "protocol_cpu": {
            party: sum(seconds[place] for seconds in cpu.values())
            for place, party in enumerate(("client", "server", "authority"))
        },
        "protocol_cpu_by_phase": {phase: list(seconds) for phase, seconds in cpu.items()},
        "clipped_fraction": ledger.clipped_fraction(),
        "retries": ledger.retries,
        "to_target": to_target(rows, target) if target is not None else None,
        "privacy": privacy,
        "weights_sha256": weights,
    }


def _cpu_by_phase(ledger: Ledger, clients: int) -> dict[str, tuple[float, float, float]]:
    """Phase to CPU seconds of the protection: the mean client's, the server's and the key authority's."""
    tables = [ledger.cpu_by_phase(client) for client in range(clients)]
    others = [ledger.cpu_by_phase(party) for party in (SERVER, AUTHORITY)]
    phases = sorted({phase for table in (*others, *tables) for phase in table})
    return {
        phase: (
            sum(table.get(phase, 0.0) for table in tables) / clients,
            others[0].get(phase, 0.0),
            others[1].get(phase, 0.0),
        )
        for phase in phases
    }


def select_row(rows: Sequence[Row], select: str) -> Row:
    """The row whose test accuracy is reported."""
    if select == "validation":
        known = [row for row in rows if row["validation_accuracy"] is not None]
        return max(known, key=lambda row: row["validation_accuracy"]) if known else rows[-1]
    return rows[-1]


def to_target(rows: Sequence[Row], target: float) -> dict[str, Any]:
    """What it took to reach a validation accuracy for the first time.

    Returns:
        ``target`` and ``round``, ``bytes_up``, ``bytes_down`` and ``seconds`` at that round; these four are null where
        the target was never reached.
    """
    for row in rows:
        if row["validation_accuracy"] is not None and row["validation_accuracy"] >= target:
            return {"target": target, **{key: row[key] for key in ("round", "bytes_up", "bytes_down", "seconds")}}
    return {"target": target, "round": None, "bytes_up": None, "bytes_down": None, "seconds": None}
