"""What is left in memory: secrets are wiped with the step, set-up or round that they served."""

from __future__ import annotations

import hmac
from collections.abc import Callable
from typing import Any

import pytest

from protocols import Phase, ProtocolError, StepError, TooFewSurvivorsError
from protocols.keys import Secret
from protocols.masked_client import MaskedClient

Make = Callable[..., Any]
Secrets = Callable[..., dict[str, bytes]]
Buffers = Callable[[MaskedClient], dict[str, bytearray]]
Atoms = Callable[[Any], list[Any]]

MEMBERS = (3, 7, 8, 20, 41)
VICTIM = 8
PEERS = (3, 7, 20, 41)
BOTH_MODES = pytest.mark.parametrize("active", [False, True], ids=["passive", "active"])


def test_the_keys_of_the_set_up_are_wiped_when_it_is_finished(
    make_cohort: Make, list_secrets: Secrets, atoms_of: Atoms, list_buffers: Buffers
) -> None:
    cohort = make_cohort(MEMBERS)
    cohort.go(Phase.SHARE)
    round_key = list_secrets(cohort.clients[VICTIM], values=6)["round key"]
    assert round_key in atoms_of(cohort.clients[VICTIM])
    # Member 41 advertises a key, and then vanishes.
    cohort.go(Phase.READY, absent=[41])
    client = cohort.clients[VICTIM]
    buffers, secrets = list_buffers(client), list_secrets(client, values=6)
    cohort.go(Phase.COLLECT)
    done = [name for name in buffers if name.startswith(("outgoing", "incoming")) or name == "root 41"]
    assert len(done) == 9
    assert all(not any(buffers[name]) for name in done)
    assert all(any(buffers[name]) for name in buffers if name not in done)
    atoms = atoms_of(client)
    assert round_key not in atoms
    gone = [
        secret for name, secret in secrets.items() if name.startswith(("outgoing", "incoming")) or "with 41" in name
    ]
    assert len(gone) >= 9
    assert not set(gone) & {atom for atom in atoms if isinstance(atom, bytes)}


@BOTH_MODES
def test_what_opened_a_step_is_wiped_and_what_opens_the_next_is_not(
    make_cohort: Make, list_secrets: Secrets, atoms_of: Atoms, active: bool, list_buffers: Buffers
) -> None:
    cohort = make_cohort(MEMBERS, active=active)
    cohort.ready()
    client = cohort.clients[VICTIM]
    for step in range(3):
        buffers, secrets = list_buffers(client), list_secrets(client, values=6)
        cohort.finish()
        assert not any(buffers[f"self secret {step}"])
        for member in MEMBERS:
            batch = buffers[f"shares of {member}"]
            assert batch is client._holdings.batches[member]
            assert not any(batch[: 64 * (step + 1)])
            assert all(any(batch[at : at + 32]) for at in range(64 * (step + 1), len(batch), 32))
        assert all(any(buffers[f"self secret {later}"]) for later in range(step + 1, 4))
        now = b"\n".join(atom for atom in atoms_of(client) if isinstance(atom, bytes))
        used = [
            name
            for name in secrets
            if (name.endswith(f"step {step}") and "share" in name) or name == f"self secret of step {step}"
        ]
        assert len(used) == 2 * len(MEMBERS) + 1
        assert all(secrets[name] not in now for name in used)
        # Nor is there anything left that would make its masks again; what makes the next step's is in place.
        over = [name for name in secrets if name.startswith("root with") or f"at step {step}" in name]
        assert len(over) >= 3 * len(PEERS)
        assert all(secrets[name] not in now for name in over)
        assert not any(any(buffers[f"root {peer}"]) for peer in PEERS)
        assert all(any(root) for name, root in list_buffers(client).items() if name.startswith("root"))


def test_steps_that_were_skipped_are_wiped_with_the_next_one_that_is_opened(
    make_cohort: Make, list_buffers: Buffers
) -> None:
    cohort = make_cohort(MEMBERS)
    cohort.ready()
    client = cohort.clients[VICTIM]
    buffers = list_buffers(client)
    client.receive(cohort.request(2))
    cohort.step = 2
    client.contribute(cohort.vector(VICTIM), stream="g")
    assert all(not any(buffers[f"self secret {step}"]) for step in range(3))
    assert any(buffers["self secret 3"])
    client.receive(cohort.open_request(2))
    for member in MEMBERS:
        assert not any(buffers[f"shares of {member}"][: 64 * 3])
        assert any(buffers[f"shares of {member}"][64 * 3 :])


def close(cohort: Any) -> None:
    cohort.clients[VICTIM].close()


def abort(cohort: Any) -> None:
    with pytest.raises(TooFewSurvivorsError):
        cohort.clients[VICTIM].receive(cohort.abort(None))


@pytest.mark.parametrize("end", [close, abort])
@pytest.mark.parametrize("phase", [Phase.ADVERTISE, Phase.SHARE, Phase.READY, Phase.COLLECT, Phase.OPEN])
def test_after_the_end_of_a_round_every_buffer_holds_zeros(
    make_cohort: Make,
    list_secrets: Secrets,
    atoms_of: Atoms,
    phase: Phase,
    end: Callable[[Any], None],
    list_buffers: Buffers,
) -> None:
    cohort = make_cohort(MEMBERS)
    cohort.go(phase)
    client = cohort.clients[VICTIM]
    if phase is Phase.ADVERTISE:
        client.receive(cohort.outbox[VICTIM])
    buffers, secrets = list_buffers(client), list_secrets(client, values=6)
    assert len(buffers) >= {Phase.ADVERTISE: 0, Phase.SHARE: 0}.get(phase, 9)
    end(cohort)
    assert not any(any(buffer) for buffer in buffers.values())
    left = b"\n".join(atom for atom in atoms_of(client) if isinstance(atom, bytes))
    # The identity is the caller's, and outlives the round.
    assert [name for name, secret in secrets.items() if secret in left] == ["identity"]
    with pytest.raises(ProtocolError):
        client.snapshot(bytes(32))
    client.close()


def test_a_restored_client_wipes_like_any_other(
    make_cohort: Make, atoms_of: Atoms, list_secrets: Secrets, list_buffers: Buffers
) -> None:
    cohort = make_cohort(MEMBERS)
    cohort.finish()
    saved = cohort.clients[VICTIM].snapshot(bytes(32))
    credentials = cohort.credentials(VICTIM)
    client = MaskedClient.restore(saved, bytes(32), terms=cohort.terms, credentials=credentials)
    cohort.clients[VICTIM] = client
    buffers, secrets = list_buffers(client), list_secrets(client, values=6)
    assert not any(name.endswith("step 0") and "share" in name for name in secrets)
    cohort.finish()
    assert not any(buffers["self secret 1"])
    assert not any(any(batch[: 64 * 2]) for batch in client._holdings.batches.values())
    client.close()
    assert not any(any(buffer) for buffer in buffers.values())
    left = {atom for atom in atoms_of(client) if isinstance(atom, bytes)}
    assert [name for name, secret in secrets.items() if secret in left] == ["identity"]


def test_a_secret_that_was_wiped_is_zeros_and_gives_nothing_any_more() -> None:
    secret = Secret(bytes(range(1, 33)))
    buffer = secret.value
    assert secret.derive(b"x") == hmac.digest(bytes(range(1, 33)), b"x", "sha256")
    secret.wipe()
    assert buffer == bytes(32)
    for use in (lambda: secret.value, lambda: secret.derive(b"x")):
        with pytest.raises(ValueError, match="wiped"):
            use()
    secret.wipe()


def test_a_step_whose_self_secret_is_gone_is_not_masked_without_it(make_cohort: Make) -> None:
    cohort = make_cohort(MEMBERS)
    cohort.ready()
    client = cohort.clients[VICTIM]
    client.receive(cohort.request(1))
    cohort.step = 1
    client.contribute(cohort.vector(VICTIM), stream="g")
    cohort.refuses(VICTIM, cohort.request(0), StepError)
