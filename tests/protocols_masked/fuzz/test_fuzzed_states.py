"""States, logs, shares and rosters that were damaged or come from anywhere: refused by name."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols import (
    CohortError,
    FileRoundLog,
    Identity,
    MessageError,
    Roster,
    RosterError,
    RoundReuseError,
    ShareError,
    make_protocol,
)
from protocols.masked_client import MaskedClient
from protocols.masked_server import MaskedServer
from protocols.openings import open_backup
from protocols.shares import from_bytes, unseal

Make = Callable[..., Any]
Receive = Callable[[bytes], Any]

MEMBERS = (3, 7, 8)
VICTIM = 7


def test_states_that_were_damaged_are_refused_by_name(make_cohort: Make) -> None:
    cohort, mutator, key = make_cohort(MEMBERS, values=3), random.Random(6), bytes(range(32))
    cohort.finish()
    saved = cohort.clients[VICTIM].snapshot(key), cohort.server.snapshot()
    restores: list[Receive] = [
        lambda data: MaskedClient.restore(data, key, terms=cohort.terms, credentials=cohort.credentials(VICTIM)),
        lambda data: MaskedServer.restore(data, terms=cohort.terms, roster=cohort.roster),
        lambda data: make_protocol("plain").restore_client(data, key, terms=cohort.terms),
        lambda data: make_protocol("plain").restore_server(data, terms=cohort.terms),
    ]
    for case in range(1000):
        data = bytearray(saved[case % 2])
        match case % 5:
            case 0:
                del data[mutator.randrange(len(data)) :]
            case 1:
                data += mutator.randbytes(8)
            case 2:
                data = bytearray(mutator.randbytes(len(data)))
            case _:
                data[mutator.randrange(len(data))] ^= 1 << mutator.randrange(8)
        for restore in restores:
            with pytest.raises(MessageError):
                restore(bytes(data))
    for restore in restores[2:]:
        for whole in saved:
            with pytest.raises(MessageError):
                restore(whole)


def test_a_round_log_that_was_damaged_is_refused_by_name_or_remembers_what_it_can(tmp_path: Path) -> None:
    mutator, path = random.Random(7), tmp_path / "rounds"
    log = FileRoundLog(path)
    for number in range(3):
        log.claim(bytes([number]) * 16)
        log.claim_step(bytes([number]) * 16, number)
    log.close()
    whole = path.read_bytes()
    refused = 0
    for _ in range(200):
        data = bytearray(whole)
        for _ in range(mutator.choice((1, 1, 3))):
            data[mutator.randrange(len(data))] = mutator.randrange(256)
        if mutator.random() < 0.3:
            del data[mutator.randrange(len(data)) :]
        path.write_bytes(bytes(data))
        try:
            FileRoundLog(path).close()
        except RoundReuseError:
            refused += 1
    assert refused > 50


def test_shares_parcels_and_backups_from_anywhere_are_refused_by_name() -> None:
    mutator, key = random.Random(8), bytes(32)
    for _ in range(1000):
        data = mutator.randbytes(mutator.choice((0, 1, 11, 16, 31, 32, 33, 64, 272)))
        for read in (
            lambda data: unseal(key, data, b"context"),
            lambda data: open_backup(data, 5, bytes(32), 3, 0),
        ):
            with pytest.raises(ShareError):
                read(data)
        if len(data) % 32:
            with pytest.raises(ShareError):
                from_bytes(data)
    with pytest.raises(ShareError):
        from_bytes(b"\xff" * 32)


@given(st.dictionaries(st.integers(-2, 2**33), st.binary(min_size=30, max_size=34), max_size=3), st.binary(max_size=40))
def test_rosters_and_identities_from_anywhere_are_refused_by_name(keys: dict[int, bytes], private: bytes) -> None:
    for build in (lambda: Roster(keys), lambda: Identity(private)):
        try:
            build()
        except (RosterError, CohortError):
            continue
