"""What the server gets to see opens nothing, and what holds secrets does not show them."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import pytest

from protocols import AUTHORITY, SERVER, NoiseBudgetError, PhaseError, ProtocolError, snapshots
from protocols.homomorphic.seal import _Scratch, backend
from protocols.homomorphic.secrets import secret_key
from protocols.homomorphic.vectors import Key, decrypt_sum
from protocols.homomorphic.vouchers import Notary
from protocols.keys import PairSecrets, RoundKey, Secret

Read = Callable[[bytes], Any]
PIECE = 8
"""Bytes of a secret in a row. A million places agree with any of a thousand pieces by chance but for 2^-34."""


def run(make_round: Any, name: str) -> Any:
    """A round with two steps, one of them with a dropout, whose transcript is kept."""
    rd = make_round(name).open()
    for dropout in ((), (7,)):
        vectors = {member: vector for member, vector in rd.vectors(seed=len(dropout)).items() if member not in dropout}
        rd.sum(vectors, held={} if rd.authority else dict.fromkeys(rd.members, b"what clients know"))
    return rd


def seen(rd: Any) -> list[bytes]:
    """All that the server ever received or sent, and what it saves."""
    return [message for _, _, message in rd.transcript] + [rd.server.snapshot()]


def secrets(rd: Any, arithmetic: SimpleNamespace) -> dict[str, bytes]:
    """The round's secrets in every form that a key takes."""
    holder = rd.authority or rd.clients[3]
    found = {"root": bytes(holder._root.value)}
    if rd.authority:
        found["tags"] = bytes(rd.authority._tags.value)
        found |= {f"vouchers of {m}": bytes(s.value) for m, s in rd.authority._vouchers.items()}
        assert found["tags"] == bytes(rd.clients[3]._tags.value)
    else:
        found |= {f"derived {place}": bytes(secret.value) for place, secret in enumerate(holder._derived)}
    parameters = rd.plan.parameters
    seal, key = backend(parameters), secret_key(holder._root, parameters)
    secret = key.load()
    words = seal.key_coefficients(secret)
    found["seed"] = key.material
    found["transformed, as words"] = words.tobytes()
    found["transformed, packed"] = words.view(np.uint8).reshape(-1, 8)[:, : parameters.coefficient_bytes].tobytes()
    with _Scratch() as scratch:
        found["as SEAL saves it"] = scratch.saved(secret, seal._limit(1))
    if parameters.scheme == "bfv":
        ternary = arithmetic.ternary(seal, secret)
        modulus, width = seal.modulus, parameters.coefficient_bytes
        found["ternary"] = np.array(ternary, np.int8).tobytes()
        found["ternary from zero"] = (np.array(ternary, np.int8) + 1).astype(np.uint8).tobytes()
        found["ternary words"] = np.array([value % modulus for value in ternary], np.uint64).tobytes()
        found["ternary packed"] = b"".join((value % modulus).to_bytes(width, "little") for value in ternary)
    return found


def pieces(secret: bytes) -> Iterator[bytes]:
    """Parts of a secret that are long and varied enough not to occur by chance."""
    size = PIECE if len(secret) <= 64 else 48
    for at in range(0, len(secret) - size + 1, 1 if len(secret) <= 64 else len(secret) // 40):
        part = secret[at : at + size]
        if len(set(part)) > 2:
            yield part


def test_no_byte_that_the_server_sees_is_of_a_secret(make_round: Any, name: str, arithmetic: SimpleNamespace) -> None:
    rd = run(make_round, name)
    haystack = b"\0".join(seen(rd))
    for label, secret in secrets(rd, arithmetic).items():
        found = list(pieces(secret))
        assert found, label
        for part in found:
            assert part not in haystack, label
            assert part[::-1] not in haystack, label
    # The search finds what is there.
    assert rd.round_id in haystack


def leaves(value: Any) -> Iterator[bytes]:
    """All byte strings within a message."""
    if isinstance(value, bytes | memoryview):
        yield bytes(value)
    elif isinstance(value, list | tuple):
        for part in value:
            yield from leaves(part)
    elif isinstance(value, msgspec.Struct):
        for name in value.__struct_fields__:
            yield from leaves(getattr(value, name))


@pytest.mark.parametrize("apart", [32, pytest.param(1, marks=pytest.mark.slow)])
def test_nothing_that_the_server_holds_is_a_seed_of_the_key(make_round: Any, name: str, read: Read, apart: int) -> None:
    """Every short field, and windows of the long ones, as a 64-byte seed or a 32-byte root: decryption gives noise."""
    rd = make_round(name).open()
    totals = rd.totals(rd.vectors())
    total = read(next(iter(totals.values())))
    rd.finish(totals)
    candidates: dict[bytes, None] = {}
    long: list[bytes] = []
    for message in seen(rd)[:-1]:
        for leaf in leaves(read(message)):
            if len(leaf) <= 256:
                candidates |= dict.fromkeys(leaf[at : at + 64].ljust(64, b"\0") for at in range(0, len(leaf), apart))
                candidates |= dict.fromkeys([(leaf * 64)[:64]] if leaf else [])
            elif rd.authority is None:
                long.append(leaf[-64:])  # the seed of the second polynomial
            else:
                long.append(leaf[:64])
    shape = {"elements": 5, "contributors": 4, "dtype": rd.terms.streams["g"].dtype}
    assert len(candidates) > 50
    for seed in [*dict.fromkeys(long), *candidates]:
        with pytest.raises(NoiseBudgetError):
            decrypt_sum(rd.plan, total.body, Key(rd.plan.parameters, seed, secret=True), **shape)
        with pytest.raises(NoiseBudgetError):
            decrypt_sum(rd.plan, total.body, secret_key(Secret(seed[:32]), rd.plan.parameters), **shape)
    holder = rd.authority or rd.clients[3]
    opened = decrypt_sum(rd.plan, total.body, secret_key(holder._root, rd.plan.parameters), **shape)
    assert opened.tolist() == rd.ring(rd.vectors())


def inside(value: Any, found: dict[int, Any] | None = None) -> dict[int, Any]:
    """Everything that an object reaches through attributes and containers."""
    found = {} if found is None else found
    if id(value) in found or isinstance(value, type):
        return found
    found[id(value)] = value
    parts: list[Any] = list(getattr(value, "__dict__", {}).values())
    for kind in type(value).__mro__:
        names = getattr(kind, "__slots__", ())
        parts += [getattr(value, slot, None) for slot in ([names] if isinstance(names, str) else names)]
    if isinstance(value, dict):
        parts += [*value.keys(), *value.values()]
    elif isinstance(value, list | tuple | set | frozenset):
        parts += list(value)
    elif isinstance(value, msgspec.Struct):
        parts += [getattr(value, field) for field in value.__struct_fields__]
    for part in parts:
        inside(part, found)
    return found


def test_the_server_s_objects_hold_no_secret(make_round: Any, name: str, arithmetic: SimpleNamespace) -> None:
    """In every phase: nothing of a kind that holds keys, and no bytes of one."""
    rd = make_round(name)
    forbidden = (Secret, PairSecrets, RoundKey, Key, Notary)
    states = []

    def look() -> None:
        for value in inside(rd.server).values():
            assert not isinstance(value, forbidden)
            if isinstance(value, bytes | bytearray | memoryview):
                states.append(bytes(value))

    outbox = rd.server.open()
    while rd.server.phase.name != "READY":
        look()
        rd.collect(rd.deliver(outbox))
        look()
        outbox = rd.server.advance()
    rd.deliver(outbox)
    totals = rd.totals(rd.vectors())
    look()
    rd.finish(totals)
    look()
    haystack = b"\0".join(states)
    for label, secret in secrets(rd, arithmetic).items():
        assert not any(part in haystack for part in pieces(secret)), label
    # The same walk finds what a client holds.
    assert any(isinstance(value, Secret) for value in inside(rd.clients[3]).values())


def hidden(text: str, secret: bytes) -> bool:
    """Whether a text shows no piece of a secret, in any usual spelling."""
    for part in pieces(secret):
        spellings = (part.hex(), repr(part)[2:-1], repr(bytearray(part))[12:-2], str(list(part))[1:-1])
        if any(spelling in text for spelling in spellings):
            return False
    return True


def test_no_text_shows_a_secret(make_round: Any, name: str, arithmetic: SimpleNamespace, read: Read) -> None:
    rd = run(make_round, name)
    machines = [rd.server, *rd.clients.values(), *([rd.authority] if rd.authority else [])]
    texts = [text for machine in machines for text in (repr(machine), str(machine), repr(machine.__dict__))]
    for _, recipient, message in rd.transcript:
        if recipient != SERVER:
            with pytest.raises(ProtocolError) as caught:
                rd.party(recipient).receive(message)
            texts += [str(caught.value), repr(caught.value)]
    holder = rd.authority or rd.clients[3]
    key = holder._loaded[rd.plan.parameters]
    texts += [repr(key), repr(holder._root)]
    for label, secret in secrets(rd, arithmetic).items():
        assert hidden("\n".join(texts), secret), label
    assert not hidden(secret_key(holder._root, rd.plan.parameters).material.hex(), key.material)


def test_no_text_of_a_saved_state_shows_a_secret(
    make_round: Any, name: str, arithmetic: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a traceback with local variables, or a debugger, would print it."""
    rd = run(make_round, name)
    # Member 7 was asked and did not answer: it is between two steps again once it has answered another.
    rd.sum(rd.vectors(), held={} if rd.authority else dict.fromkeys(rd.members, b"what clients know"))
    states: list[Any] = []
    sealed = snapshots.seal_state

    def spy(state: msgspec.Struct, key: bytes, terms: bytes) -> bytes:
        states.append(state)
        return sealed(state, key, terms)

    monkeypatch.setattr(snapshots, "seal_state", spy)
    for machine in [*rd.clients.values(), *([rd.authority] if rd.authority else [])]:
        machine.snapshot(bytes(32))
    assert len(states) == len(rd.clients) + bool(rd.authority)
    texts = [text for state in states for text in (repr(state), str(state), f"{state}", repr([state]))]
    found = secrets(rd, arithmetic)
    for label, secret in found.items():
        assert hidden("\n".join(texts), secret), label
    # They do hold some.
    kept = b"\0".join(msgspec.msgpack.encode(state) for state in states)
    assert found["root"] in kept


def test_machines_that_hold_secrets_are_not_pickled(make_round: Any, name: str) -> None:
    rd = run(make_round, name)
    for machine in [*rd.clients.values(), *([rd.authority] if rd.authority else [])]:
        with pytest.raises(TypeError):
            pickle.dumps(machine)


def test_secrets_are_wiped_at_the_end(make_round: Any, name: str) -> None:
    """Every buffer that a machine owns is zeros, its keys are dropped, and it can do nothing any more."""
    rd = run(make_round, name)
    machines = [*rd.clients.values(), *([rd.authority] if rd.authority else [])]
    for machine in machines:
        reached = list(inside(machine).values())
        holders = [value for value in reached if isinstance(value, Secret)]
        # Those of the pairs were wiped when they had served.
        buffers = [secret._buffer for secret in holders if secret._buffer]
        keys = [value for value in reached if isinstance(value, Key) and value._secret]
        assert buffers
        assert all(any(buffer) for buffer in buffers)
        machine.close()
        assert not any(any(buffer) for buffer in buffers)
        for secret in holders:
            with pytest.raises(ValueError, match="was wiped"):
                _ = secret.value
        assert all((key.material, key._loaded) == (b"", None) for key in keys)
        left = inside(machine).values()
        assert not any(isinstance(value, Secret) and value._buffer for value in left)
        assert not any(isinstance(value, Notary) for value in left)
        with pytest.raises(PhaseError):
            machine.receive(b"")
        with pytest.raises(PhaseError):
            machine.snapshot(bytes(32))


@pytest.mark.parametrize("scheme", ["bfv", "ckks"])
def test_members_forget_what_the_set_up_needed(make_round: Any, scheme: str) -> None:
    """The secrets that did not come to count, the pairs' keys and the X25519 key."""
    rd = make_round(scheme)
    rd.collect(rd.deliver(rd.server.open()))
    rd.collect(rd.deliver(rd.server.advance()))
    own = {member: client._root._buffer for member, client in rd.clients.items()}
    pairs = [
        secret._buffer
        for client in rd.clients.values()
        for pair in client._pairs.values()
        for secret in (pair.masks, pair.outgoing, pair.incoming)
    ]
    rd.deliver(rd.server.advance())
    assert any(own[3])
    assert not any(any(buffer) for buffer in [*pairs, *(own[member] for member in (7, 8, 20))])
    assert {bytes(client._root.value) for client in rd.clients.values()} == {bytes(own[3])}
    assert all(client._round_key._key is None for client in rd.clients.values())


@pytest.mark.parametrize("scheme", ["bfv", "ckks"])
def test_where_clients_open_sums_the_server_is_told_none(make_round: Any, scheme: str) -> None:
    """Not in a result, and not in a message: after the sum was handed out nobody answers."""
    rd = make_round(scheme).open()
    assert rd.deliver(rd.totals(rd.vectors())) == {}
    with pytest.raises(PhaseError):
        rd.server.result()
    assert rd.server.expected == frozenset()


@pytest.mark.parametrize("scheme", ["bfv-authority", "ckks-authority"])
def test_the_authority_is_shown_sums_only(make_round: Any, scheme: str, read: Read) -> None:
    """And clients' keys at the beginning; no contribution."""
    rd = run(make_round, scheme)
    kinds = [type(read(message)).__name__ for _, recipient, message in rd.transcript if recipient == AUTHORITY]
    assert kinds == ["Offer", "Keys", "Total", "Total"]
    sent = [read(message).body for _, _, message in rd.transcript if type(read(message)).__name__ == "Ciphertexts"]
    told = b"\0".join(message for _, recipient, message in rd.transcript if recipient == AUTHORITY)
    assert len(sent) == 7
    assert not any(bytes(body[:100]) in told for body in sent)
