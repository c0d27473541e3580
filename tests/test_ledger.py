"""Counting bytes, CPU seconds and clipped values."""

from __future__ import annotations

import json

from codream_secure.ledger import Ledger
from protocols import SERVER


def filled() -> Ledger:
    ledger = Ledger()
    ledger.add_up(0, "dreams", 5)
    ledger.add_up(0, "dreams", 6)
    ledger.add_down(1, "labels", 7)
    ledger.add_cpu(0, "dreams", 0.25)
    ledger.add_cpu(SERVER, "dreams", 0.5)
    ledger.add_encoded(0, "dreams", values=8, clipped=2)
    ledger.retries = 3
    return ledger


def test_counts_add_up_by_client_and_phase() -> None:
    ledger = filled()
    assert ledger.by_phase(0) == {"dreams": (11, 0)}
    assert ledger.client_total(1) == (0, 7)
    assert ledger.cpu_by_phase(0) == {"dreams": 0.25}
    assert ledger.cpu_by_phase(SERVER) == {"dreams": 0.5}
    assert ledger.clipped_fraction() == 0.25


def test_an_empty_ledger_clipped_nothing() -> None:
    assert Ledger().clipped_fraction() == 0.0


def test_the_ledger_survives_a_checkpoint() -> None:
    other = Ledger()
    other.add_up(7, "forgotten", 1)
    other.load_state_dict(json.loads(json.dumps(filled().state_dict())))
    assert other.state_dict() == filled().state_dict()
    assert other.client_total(7) == (0, 0)
