"""What is said aloud: no error, log, repr, message or stored state holds a secret in clear."""

from __future__ import annotations

import base64
import hashlib
import logging
import pickle
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from protocols import FileRoundLog, Phase, ProtocolError, wire
from protocols.keys import Secret
from protocols.masked_client import MaskedClient

Make = Callable[..., Any]
Secrets = Callable[..., dict[str, bytes]]
Atoms = Callable[[Any], list[Any]]

MEMBERS = (3, 7, 8, 20, 41)
VICTIM = 8
PEERS = (3, 7, 20, 41)
BOTH_MODES = pytest.mark.parametrize("active", [False, True], ids=["passive", "active"])


def spellings(secret: bytes) -> list[bytes]:
    """The ways in which a secret could stand in a text or a file."""
    number = int.from_bytes(secret, "big")
    return [
        secret,
        secret[::-1],
        secret.hex().encode(),
        secret.hex().upper().encode(),
        repr(secret)[2:-1].encode(),
        str(number).encode(),
        str(int.from_bytes(secret, "little")).encode(),
        hex(number)[2:].encode(),
        base64.b64encode(secret)[:42],
        base64.urlsafe_b64encode(secret)[:42],
        # Half of a secret would be too much, too.
        secret[:16],
        secret[16:],
        secret[:8].hex().encode(),
        secret[-8:].hex().encode(),
    ]


def found_in(secrets: dict[str, bytes], haystack: bytes) -> list[str]:
    return [name for name, secret in secrets.items() if any(spelling in haystack for spelling in spellings(secret))]


def test_a_secret_that_is_said_is_found() -> None:
    secret = hashlib.sha256(b"a secret").digest()
    for told in (repr(secret), secret.hex(), str(int.from_bytes(secret, "big")), f"{bytearray(secret)!r}"):
        assert found_in({"it": secret}, f"the key is {told}".encode()) == ["it"]
    assert found_in({"it": secret}, b"prefix" + secret + b"suffix") == ["it"]
    assert found_in({"it": secret}, hashlib.sha256(secret).digest()) == []


def provoke(cohort: Any, member: int, others: list[bytes], generator: random.Random) -> list[BaseException]:
    """The errors that a client in some phase answers all sorts of hostile messages with."""
    errors: list[BaseException] = []
    messages = [*(sent.message for sent in cohort.transcript), *cohort.outbox.values(), *others]
    messages += [
        cohort.open_request(step, dead) for step in (0, 1, 3) for dead in ([], [3], [VICTIM], [3, 3], [1, 2, 3])
    ]
    messages += [
        cohort.request(9),
        cohort.request(0),
        cohort.request(1, stream="x"),
        cohort.abort(2),
        cohort.ballots(0, []),
    ]
    messages += [cohort.ballots(0, [cohort.vote(peer, [], by=3) for peer in PEERS])]
    for message in list(messages):
        changed = bytearray(message[: -wire.CHECKSUM_BYTES])
        changed[generator.randrange(30 if len(changed) > 60 else 1, len(changed))] ^= 1 << generator.randrange(8)
        messages += [bytes(changed) + wire.checksum(changed[0], bytes(changed[1:]))]
        messages += [bytes(changed) + message[-wire.CHECKSUM_BYTES :]]
    client = cohort.clients[member]
    before = client._state
    for message in messages:
        # Nothing that would be accepted: the client has to stay where it is.
        if message in cohort.outbox.values():
            continue
        try:
            client.receive(message)
        except ProtocolError as error:
            errors.append(error)
        if client._state is not before:
            break
    for values in (np.zeros(3), np.full(cohort.values, np.nan), np.zeros((2, 2)), "vector"):
        try:
            client.contribute(values, stream="g")
        except ProtocolError as error:
            errors.append(error)
    return errors


@BOTH_MODES
@pytest.mark.parametrize("phase", [Phase.SHARE, Phase.READY, Phase.COLLECT, Phase.OPEN])
def test_no_error_and_no_repr_holds_a_secret(
    make_cohort: Make,
    list_secrets: Secrets,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    active: bool,
    phase: Phase,
) -> None:
    caplog.set_level(logging.DEBUG)
    cohort = make_cohort(MEMBERS, active=active, values=5)
    earlier = make_cohort(MEMBERS, active=active, values=5, before=cohort)
    earlier.finish()
    cohort.go(phase)
    client = cohort.clients[VICTIM]
    secrets = list_secrets(client, values=5)
    assert len(secrets) > (1 if phase is Phase.SHARE else 40)
    errors = provoke(cohort, VICTIM, [sent.message for sent in earlier.transcript], random.Random(1))
    assert len(errors) > 40
    assert len({type(error) for error in errors}) >= 3
    said = [text for error in errors for text in (str(error), repr(error), repr(error.args), repr(vars(error)))]
    held = [client, cohort.server, client._credentials, client._credentials.identity, client._credentials.rounds]
    held += [client._round_key, client._steps, cohort.terms, cohort.roster, client._holdings, *client._pairs.values()]
    held += [secret for pair in client._pairs.values() for secret in (pair.masks, pair.incoming, pair.outgoing)]
    held += [*client._holdings.roots.values(), *client._holdings.selves]
    said += [text for thing in held for text in (repr(thing), str(thing), f"{thing}")]
    written = capfd.readouterr()
    said += [record.getMessage() for record in caplog.records] + [written.out, written.err]
    assert found_in(secrets, "\n".join(said).encode()) == []


@BOTH_MODES
def test_nothing_is_logged_or_printed_in_a_whole_round(
    make_cohort: Make, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str], active: bool
) -> None:
    caplog.set_level(logging.DEBUG)
    cohort = make_cohort(MEMBERS, active=active)
    cohort.finish()
    cohort.clients[VICTIM].close()
    assert not caplog.records
    assert capfd.readouterr() == ("", "")


def test_no_secret_can_be_pickled_or_compared_by_accident() -> None:
    secret = Secret(bytes(range(32)))
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        with pytest.raises(TypeError):
            pickle.dumps(secret, protocol)
    assert secret != Secret(bytes(range(32)))
    assert repr(secret) == str(secret) == f"{secret}" == "Secret(...)"


@BOTH_MODES
def test_what_the_server_saw_and_holds_has_no_secret_of_a_step_that_was_not_opened(
    make_cohort: Make,
    list_secrets: Secrets,
    atoms_of: Atoms,
    active: bool,
) -> None:
    cohort = make_cohort(MEMBERS, active=active, values=5)
    cohort.finish()
    cohort.finish()
    secrets = {
        f"{name} of {member}": secret
        for member, client in cohort.clients.items()
        for name, secret in list_secrets(client, values=5).items()
        if "at step 0" not in name and "at step 1" not in name
    }
    assert len(secrets) > 100
    seen = b"\n".join(sent.message for sent in cohort.transcript)
    held = b"\n".join(atom for atom in atoms_of(cohort.server) if isinstance(atom, bytes))
    in_clear = cohort.server.snapshot()
    for haystack in (seen, held, in_clear):
        assert found_in(secrets, haystack) == []
    # The search is able to find what is there: the public keys that went the same way.
    assert found_in({"key": cohort.server._keys[VICTIM].public_key}, seen) == ["key"]
    assert found_in({"key": cohort.server._keys[VICTIM].public_key}, in_clear) == ["key"]


def test_a_clients_stored_state_and_log_hold_no_secret_in_clear(
    make_cohort: Make, list_secrets: Secrets, tmp_path: Path
) -> None:
    cohort = make_cohort(MEMBERS, values=5)
    cohort.rounds[VICTIM] = FileRoundLog(tmp_path / "rounds")
    cohort.clients[VICTIM] = cohort.new_client(VICTIM)
    cohort.finish()
    client, key = cohort.clients[VICTIM], bytes(range(32))
    saved = client.snapshot(key)
    secrets = list_secrets(client, values=5)
    assert found_in(secrets | {"key": key}, saved) == []
    assert found_in(secrets, (tmp_path / "rounds").read_bytes()) == []
    # They are in there, under the key.
    restored = MaskedClient.restore(saved, key, terms=cohort.terms, credentials=cohort.credentials(VICTIM))
    again = list_secrets(restored, values=5)
    assert again == secrets
    assert any(name.startswith("root with") for name in secrets)
    # And not twice in the same way.
    assert client.snapshot(key)[12:] != saved[12:]
