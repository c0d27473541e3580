"""What every protocol has to do between two steps: be saved and restored, once, and under the same terms."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from protocols import (
    AUTHORITY,
    FileRoundLog,
    FixedPoint,
    Identity,
    MessageError,
    PhaseError,
    ProtocolError,
    Roster,
    RosterError,
    RoundLog,
    SenderError,
    StepError,
    SumProtocol,
    TooFewSurvivorsError,
    available_protocols,
    make_protocol,
    snapshots,
)

ByHand = Callable[..., Any]
ExactSum = Callable[..., tuple[list[int], list[float]]]
Drawn = Callable[..., dict[int, np.ndarray]]

KEY = bytes(range(32))
ONES = np.ones(3, np.float32)


def restore(cohort: Any, member: int, snapshot: bytes, key: bytes = KEY) -> Any:
    """One client from a snapshot, under the cohort's own terms."""
    return cohort.protocol.restore_client(snapshot, key, terms=cohort.terms, credentials=cohort.credentials[member])


def restore_authority(cohort: Any, snapshot: bytes, key: bytes = KEY, **changes: Any) -> Any:
    """The key authority likewise, unless other terms or credentials are given."""
    return cohort.protocol.restore_authority(
        snapshot, key, **{"terms": cohort.terms, "credentials": cohort.credentials[AUTHORITY], **changes}
    )


def restart(cohort: Any) -> None:
    """Every machine is saved, closed and restored."""
    snapshots = {member: client.snapshot(KEY) for member, client in cohort.clients.items()}
    server = cohort.server.snapshot()
    if cohort.authority is not None:
        authority = cohort.authority.snapshot(KEY)
        cohort.authority.close()
        cohort.authority = restore_authority(cohort, authority)
    for client in cohort.clients.values():
        client.close()
    cohort.server.close()
    cohort.clients = {member: restore(cohort, member, snapshot) for member, snapshot in snapshots.items()}
    cohort.server = cohort.protocol.restore_server(server, terms=cohort.terms, roster=cohort.roster)


def test_a_round_goes_on_after_every_machine_was_saved_and_restored(
    by_hand: ByHand, exact_sum: ExactSum, drawn: Drawn
) -> None:
    """Right after the set-up, after a sum and after a step with a dropout; with dropouts afterwards too."""
    streams = {"gradients": FixedPoint(clip=1.0, clients=4, max_weight=30, ring_bits=64)}
    cohort = by_hand([2, 3, 5, 8], streams=streams)
    weights = {2: 0, 3: 7, 5: 30, 8: 1}
    for step, gone in enumerate(((), (3,), (), (8,), (2,))):
        restart(cohort)
        assert [client.member for client in cohort.clients.values()] == [2, 3, 5, 8]
        vectors = {m: vector for m, vector in drawn([2, 3, 5, 8], 5, seed=step).items() if m not in gone}
        result = cohort.step(vectors, weights=weights, absent=gone)
        assert result.ring.tolist() == exact_sum(vectors, streams["gradients"], weights=weights)[0]


def test_machines_go_on_after_a_snapshot_was_taken(by_hand: ByHand) -> None:
    cohort = by_hand([0, 1])
    for _ in range(3):
        for client in cohort.clients.values():
            client.snapshot(KEY)
        cohort.server.snapshot()
        if cohort.authority is not None:
            cohort.authority.snapshot(KEY)
        assert cohort.step({0: ONES, 1: ONES}).total.tolist() == [2.0, 2.0, 2.0]


def test_an_authority_may_be_restored_alone(by_hand: ByHand, protocol: SumProtocol) -> None:
    cohort = by_hand(range(4))
    if not protocol.has_authority:
        with pytest.raises(PhaseError, match="have no key authority"):
            protocol.authority(terms=cohort.terms)
        with pytest.raises(PhaseError, match="have no key authority"):
            protocol.restore_authority(b"", KEY, terms=cohort.terms)
        return
    cohort.step(dict.fromkeys(range(4), ONES))
    cohort.authority = restore_authority(cohort, cohort.authority.snapshot(KEY))
    assert cohort.step(dict.fromkeys(range(4), ONES)).total.tolist() == [4.0, 4.0, 4.0]


def test_a_client_may_be_restored_alone(by_hand: ByHand) -> None:
    cohort = by_hand(range(4))
    cohort.step(dict.fromkeys(range(4), ONES))
    cohort.clients[1] = restore(cohort, 1, cohort.clients[1].snapshot(KEY))
    assert cohort.step(dict.fromkeys(range(4), ONES)).total.tolist() == [4.0, 4.0, 4.0]


def test_a_given_up_step_does_not_come_back_with_a_snapshot(by_hand: ByHand) -> None:
    cohort = by_hand([0, 1])
    cohort.ask("gradients", 3)
    for member, message in cohort.server.advance().items():
        with pytest.raises(TooFewSurvivorsError):
            cohort.clients[member].receive(message)
    restart(cohort)
    assert cohort.step({0: ONES, 1: ONES}).total.tolist() == [2.0, 2.0, 2.0]


def test_there_is_no_snapshot_before_the_set_up_during_a_step_or_after_the_end(by_hand: ByHand) -> None:
    cohort = by_hand([0, 1], opened=False)
    authority = [] if cohort.authority is None else [lambda: cohort.authority.snapshot(KEY)]
    for snapshot in (lambda: cohort.clients[0].snapshot(KEY), cohort.server.snapshot, *authority):
        with pytest.raises(PhaseError):
            snapshot()
    cohort.settle(cohort.server.open())
    cohort.ask("gradients", 3)
    for snapshot in (lambda: cohort.clients[0].snapshot(KEY), cohort.server.snapshot):
        with pytest.raises(PhaseError):
            snapshot()
    assert cohort.answer({0: ONES, 1: ONES}).total.tolist() == [2.0, 2.0, 2.0]
    cohort.clients[0].close()
    cohort.server.close()
    if cohort.authority is not None:
        cohort.authority.close()
    for snapshot in (lambda: cohort.clients[0].snapshot(KEY), cohort.server.snapshot, *authority):
        with pytest.raises(PhaseError):
            snapshot()


@pytest.mark.parametrize("key", [bytes(32), KEY[:-1], KEY + b"\0", b"", KEY[::-1]])
def test_another_key_opens_no_snapshot(by_hand: ByHand, key: bytes) -> None:
    cohort = by_hand([0, 1])
    snapshot = cohort.clients[0].snapshot(KEY)
    with pytest.raises(MessageError):
        restore(cohort, 0, snapshot, key)
    if len(key) != 32:
        with pytest.raises(MessageError, match="32 are needed"):
            cohort.clients[0].snapshot(key)
    if cohort.authority is not None:
        with pytest.raises(MessageError):
            restore_authority(cohort, cohort.authority.snapshot(KEY), key)
        if len(key) != 32:
            with pytest.raises(MessageError, match="32 are needed"):
                cohort.authority.snapshot(key)


@pytest.mark.parametrize(
    "changes",
    [
        {"steps": 9},
        {"dropout": 0.2},
        {"max_values": 100},
        {"streams": {"gradients": FixedPoint(clip=2.0, clients=3)}},
        {"streams": {"labels": FixedPoint(clip=1.0, clients=3)}},
    ],
)
def test_snapshots_are_refused_under_other_terms(
    by_hand: ByHand, make_terms: Callable[..., Any], changes: dict[str, Any]
) -> None:
    cohort = by_hand(range(3))
    client, server = cohort.clients[0].snapshot(KEY), cohort.server.snapshot()
    other = make_terms(3, **changes)
    with pytest.raises(MessageError):
        cohort.protocol.restore_client(client, KEY, terms=other, credentials=cohort.credentials[0])
    with pytest.raises(MessageError, match="other terms"):
        cohort.protocol.restore_server(server, terms=other, roster=cohort.roster)
    if cohort.authority is not None:
        with pytest.raises(MessageError, match="other terms"):
            restore_authority(cohort, cohort.authority.snapshot(KEY), terms=other)


def test_snapshots_are_refused_under_another_roster(by_hand: ByHand, protocol: SumProtocol) -> None:
    """One that has one member more: everybody in the cohort is on it, under the same keys."""
    if not protocol.needs_credentials:
        pytest.skip("there is no roster")
    cohort = by_hand(range(3))
    client, server = cohort.clients[0].snapshot(KEY), cohort.server.snapshot()
    keys = {member: credentials.identity.public_key for member, credentials in cohort.credentials.items()}
    authority = keys.pop(AUTHORITY, None)
    other = Roster({**keys, 3: Identity.generate().public_key}, authority=authority)
    if cohort.authority is not None:
        credentials = replace(cohort.credentials[AUTHORITY], roster=other)
        with pytest.raises(RosterError, match="another roster"):
            restore_authority(cohort, cohort.authority.snapshot(KEY), credentials=credentials)
    with pytest.raises(RosterError, match="another roster"):
        protocol.restore_server(server, terms=cohort.terms, roster=other)
    with pytest.raises(RosterError, match="another roster"):
        protocol.restore_client(
            client, KEY, terms=cohort.terms, credentials=replace(cohort.credentials[0], roster=other)
        )


def test_the_snapshots_of_one_protocol_are_not_those_of_another(by_hand: ByHand, protocol: SumProtocol) -> None:
    """Terms are bound to the protocol's name: a masked round is not taken up again in clear."""
    cohort = by_hand(range(3))
    client, server = cohort.clients[0].snapshot(KEY), cohort.server.snapshot()
    for other in (make_protocol(name) for name in available_protocols() if name != protocol.name):
        with pytest.raises(ProtocolError):
            other.restore_client(client, KEY, terms=cohort.terms, credentials=cohort.credentials[0])
        with pytest.raises(ProtocolError):
            other.restore_server(server, terms=cohort.terms, roster=cohort.roster)
        if cohort.authority is not None:
            with pytest.raises(ProtocolError):
                other.restore_authority(
                    cohort.authority.snapshot(KEY), KEY, terms=cohort.terms, credentials=cohort.credentials[AUTHORITY]
                )


def damaged(data: bytes) -> list[bytes]:
    """The data cut off, longer, and with one bit turned at many places."""
    places = np.linspace(0, len(data) - 1, 150).astype(int).tolist()
    turned = [data[:at] + bytes([data[at] ^ 1 << at % 8]) + data[at + 1 :] for at in places]
    return [b"", data[:5], data[:20], data[:-1], data[: len(data) // 2], data + b"\0", data + data, *turned]


def test_a_damaged_client_snapshot_is_refused(by_hand: ByHand) -> None:
    cohort = by_hand(range(3))
    cohort.step(dict.fromkeys(range(3), ONES))
    for data in damaged(cohort.clients[0].snapshot(KEY)):
        with pytest.raises(MessageError, match="decrypt"):
            restore(cohort, 0, data)


def test_a_damaged_authority_snapshot_is_refused(by_hand: ByHand, protocol: SumProtocol) -> None:
    if not protocol.has_authority:
        pytest.skip("there is no key authority")
    cohort = by_hand(range(3))
    cohort.step(dict.fromkeys(range(3), ONES))
    for data in damaged(cohort.authority.snapshot(KEY)):
        with pytest.raises(MessageError, match="decrypt"):
            restore_authority(cohort, data)


def test_a_damaged_server_snapshot_is_refused(by_hand: ByHand) -> None:
    cohort = by_hand(range(3))
    cohort.step(dict.fromkeys(range(3), ONES))
    for data in damaged(cohort.server.snapshot()):
        with pytest.raises(MessageError):
            cohort.protocol.restore_server(data, terms=cohort.terms, roster=cohort.roster)


def test_a_client_snapshot_shows_nothing(by_hand: ByHand) -> None:
    """Not even which round it is of; and no two of one state are alike. False alarms: 2^-96."""
    cohort = by_hand(range(3))
    first, second = (cohort.clients[0].snapshot(KEY) for _ in range(2))
    assert cohort.round_id not in first
    assert first != second
    if cohort.authority is not None:
        first, second = (cohort.authority.snapshot(KEY) for _ in range(2))
        assert cohort.round_id not in first
        assert first != second


def test_a_snapshot_restored_twice_puts_no_two_vectors_into_one_step(by_hand: ByHand, protocol: SumProtocol) -> None:
    """Two vectors under one mask would give away their difference: where there are masks, the second is not made."""
    cohort = by_hand(range(3))
    cohort.step(dict.fromkeys(range(3), ONES))
    snapshot = cohort.clients[0].snapshot(KEY)
    first, second = (restore(cohort, 0, snapshot) for _ in range(2))
    request = cohort.server.request("gradients", 3)
    cohort.server.receive(0, _contributed(first, request[0], ONES))
    second.receive(request[0])
    if protocol.needs_credentials:
        with pytest.raises(StepError, match="step 1 has been masked"):
            second.contribute(-ONES, stream="gradients")
    else:
        with pytest.raises(SenderError):
            cohort.server.receive(0, second.contribute(-ONES, stream="gradients"))
    for member in (1, 2):
        cohort.server.receive(member, _contributed(cohort.clients[member], request[member], ONES))
    cohort.clients[0] = first
    cohort.settle(cohort.server.advance())
    assert cohort.result().total.tolist() == [3.0, 3.0, 3.0]
    # The clone may take part in the steps that nobody has masked yet.
    cohort.clients[0] = second
    assert cohort.step(dict.fromkeys(range(3), ONES)).total.tolist() == [3.0, 3.0, 3.0]


def _contributed(client: Any, request: bytes, vector: np.ndarray) -> bytes:
    client.receive(request)
    return client.contribute(vector, stream="gradients")


def test_a_restart_does_not_bring_a_masked_step_back(by_hand: ByHand, protocol: SumProtocol, tmp_path: Path) -> None:
    """The log on disk outlives the process; the snapshot is the older of the two."""
    if not protocol.needs_credentials:
        pytest.skip("nothing is masked, so no mask can be used twice")
    cohort = by_hand(range(3), log=lambda member: FileRoundLog(tmp_path / str(member)))
    snapshots = {member: client.snapshot(KEY) for member, client in cohort.clients.items()}
    server = cohort.server.snapshot()
    cohort.step(dict.fromkeys(range(3), ONES))
    for member, credentials in cohort.credentials.items():
        credentials.rounds.close()
        cohort.credentials[member] = replace(credentials, rounds=FileRoundLog(tmp_path / str(member)))
    cohort.clients = {member: restore(cohort, member, snapshot) for member, snapshot in snapshots.items()}
    cohort.server = cohort.protocol.restore_server(server, terms=cohort.terms, roster=cohort.roster)
    cohort.ask("gradients", 3)
    for client in cohort.clients.values():
        with pytest.raises(StepError, match="step 0 has been masked"):
            client.contribute(-ONES, stream="gradients")


def test_a_client_that_lost_its_log_masks_nothing(by_hand: ByHand, protocol: SumProtocol) -> None:
    if not protocol.needs_credentials:
        pytest.skip("nothing is masked, so no mask can be used twice")
    cohort = by_hand(range(3))
    snapshot = cohort.clients[0].snapshot(KEY)
    cohort.credentials[0] = replace(cohort.credentials[0], rounds=RoundLog())
    cohort.clients[0] = restore(cohort, 0, snapshot)
    cohort.ask("gradients", 3)
    with pytest.raises(StepError, match="never claimed"):
        cohort.clients[0].contribute(ONES, stream="gradients")


def test_a_server_that_goes_back_to_an_older_state_is_refused(by_hand: ByHand) -> None:
    cohort = by_hand(range(3))
    older = cohort.server.snapshot()
    cohort.step(dict.fromkeys(range(3), ONES))
    back = cohort.protocol.restore_server(older, terms=cohort.terms, roster=cohort.roster)
    for member, request in back.request("gradients", 3).items():
        with pytest.raises(StepError, match="step 0 is over"):
            cohort.clients[member].receive(request)
    assert cohort.step(dict.fromkeys(range(3), ONES)).total.tolist() == [3.0, 3.0, 3.0]


def test_what_a_snapshot_encrypts_shows_nothing_of_itself(by_hand: ByHand, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a traceback with local variables, or a debugger, would print it: its type, and no value."""
    cohort, states, sealed = by_hand(range(3)), list[msgspec.Struct](), snapshots.seal_state

    def spy(state: snapshots.SecretState, key: bytes, terms: bytes) -> bytes:
        states.append(state)
        return sealed(state, key, terms)

    monkeypatch.setattr(snapshots, "seal_state", spy)
    cohort.step(dict.fromkeys(range(3), np.ones(3)))
    for machine in (*cohort.clients.values(), *([cohort.authority] if cohort.authority else [])):
        machine.snapshot(bytes(32))
    assert len(states) == len(cohort.clients) + (cohort.authority is not None)
    for state in states:
        assert repr(state) == str(state) == f"{state}" == f"{type(state).__name__}(...)"
        assert len(msgspec.msgpack.encode(state)) > 16
