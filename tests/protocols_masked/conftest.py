"""A cohort of real machines whose every message passes through the tester's hands, and means to look into a client."""

from __future__ import annotations

import enum
import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from protocols import (
    SERVER,
    Credentials,
    FixedPoint,
    Identity,
    Phase,
    ProtocolError,
    Roster,
    RoundLog,
    Terms,
    make_protocol,
    wire,
)
from protocols.keys import ballot, context_digest, request_context, session_digest
from protocols.masked_client import MaskedClient
from protocols.masked_server import MaskedServer
from protocols.masks import next_root, pair_mask_key, pair_seed, self_mask_key
from protocols.terms import ROUND_ID_BYTES

MEMBERS = (3, 7, 8, 20, 41)
"""Neither from zero nor without gaps, so that a place is never taken for a number."""


class Sent(NamedTuple):
    """One message that went over the network."""

    sender: int
    recipient: int
    message: bytes


class Cohort:
    """One round of real clients and a real server. Nothing moves unless a test moves it.

    Args:
        members: their numbers.
        active: passed on to the terms, whose other defaults let at most one of five vanish in active mode and two in
            passive mode; ``changes`` are other terms.
        before: a cohort of an earlier round, whose identities, roster and round logs are kept.

    Attributes:
        outbox: what the server has sent and nobody has received yet.
        transcript: everything that went over the network, in order.
    """

    def __init__(
        self,
        members: Sequence[int] = MEMBERS,
        *,
        active: bool = False,
        steps: int = 4,
        values: int = 6,
        round_id: bytes | None = None,
        before: Cohort | None = None,
        **changes: Any,
    ) -> None:
        encoding = FixedPoint(clip=1.0, clients=len(members))
        changes = {"dropout": 0.2 if active else 0.4, "corruption": 0.2} | changes
        self.members, self.values = tuple(members), values
        self.terms = Terms(streams={"g": encoding}, steps=steps, active=active, **changes)
        self.topology = self.terms.topology(len(members))
        if before is None:
            self.identities = {member: Identity.generate() for member in members}
            self.roster = Roster({member: identity.public_key for member, identity in self.identities.items()})
            self.rounds = {member: RoundLog() for member in members}
        else:
            self.identities, self.roster, self.rounds = before.identities, before.roster, before.rounds
        self.round_id = round_id or os.urandom(ROUND_ID_BYTES)
        self.protocol = make_protocol("masked")
        self.clients = {member: self.new_client(member) for member in members}
        self.server = MaskedServer(members, terms=self.terms, round_id=self.round_id, roster=self.roster)
        self.outbox: dict[int, bytes] = {}
        self.transcript: list[Sent] = []
        self.step = self._reported = -1
        generator = np.random.default_rng(len(members))
        bound = encoding.largest
        self.integers = generator.integers(-bound, bound, (steps, max(members) + 1, values), endpoint=True)

    def credentials(self, member: int) -> Credentials:
        return Credentials(identity=self.identities[member], roster=self.roster, rounds=self.rounds[member])

    def new_client(self, member: int) -> MaskedClient:
        return MaskedClient(member, terms=self.terms, credentials=self.credentials(member))

    # What is summed

    def vector(self, member: int) -> np.ndarray:
        """A member's values at the present step: float64 numbers that the encoding writes without rounding."""
        return np.ldexp(self.integers[self.step, member].astype(np.float64), -self.terms.streams["g"].exponent)

    def expected(self, contributors: Collection[int], step: int | None = None) -> list[int]:
        """The sum in the ring, in Python's own integers."""
        rows = [self.integers[self.step if step is None else step, member].tolist() for member in contributors]
        return [sum(column) % 2**32 for column in zip(*rows, strict=True)]

    # How messages move

    def answer(self, member: int) -> bytes | None:
        """Deliver the server's message to one member, and its answer to the server."""
        message = self.outbox.pop(member)
        self.transcript.append(Sent(SERVER, member, message))
        reply = self.clients[member].receive(message)
        if self.server.phase is Phase.COLLECT and reply is None:
            reply = self.clients[member].contribute(self.vector(member), stream="g")
        if reply is not None:
            self.hand_in(member, reply)
        return reply

    def hand_in(self, member: int, reply: bytes) -> None:
        self.transcript.append(Sent(member, SERVER, reply))
        self.server.receive(member, reply)

    def advance(self) -> None:
        """End the server's present phase, or begin with the round or the next step."""
        if self.server.phase is Phase.NEW:
            self.outbox = dict(self.server.open())
        elif self.server.phase is Phase.READY:
            self.outbox = dict(self.server.request("g", self.values))
            self.step += 1
        else:
            self.outbox = dict(self.server.advance())

    def go(self, phase: Phase, *, absent: Collection[int] = ()) -> dict[int, bytes]:
        """Run honestly until the server waits in ``phase``; the messages that it then sent, undelivered.

        ``absent`` receive and answer nothing on the way.
        """
        if self.server.phase is phase:
            # To the next time.
            self.settle(absent)
            self.advance()
        while self.server.phase is not phase:
            assert self.server.phase is not Phase.CLOSED, self.server.failure
            self.settle(absent)
            self.advance()
        return self.outbox

    def settle(self, absent: Collection[int]) -> None:
        """Deliver what the server has sent, to all but some, and their answers."""
        for member in list(self.outbox):
            if member in absent:
                del self.outbox[member]
            else:
                self.answer(member)

    def ready(self) -> None:
        """Finish the set-up on every side."""
        self.go(Phase.READY)
        self.settle(())

    def finish(self, *, contributors: Collection[int] | None = None) -> None:
        """Go on with the honest run to the end of the present step, or of the next one: its sum has to be exact."""
        if self.server.phase is not Phase.READY:
            self.go(Phase.READY)
        if self.step < 0 or not self._has_result():
            self.go(Phase.COLLECT)
            self.go(Phase.READY)
        result = self.server.result()
        self._reported = self.step
        assert result.contributors == tuple(sorted(contributors or self.members))
        assert result.ring.tolist() == self.expected(result.contributors)

    def _has_result(self) -> bool:
        """Whether a step has ended since :meth:`finish` last looked."""
        return self.server.failure is None and self.step > self._reported

    def refuses(self, member: int, message: bytes, error: type[ProtocolError]) -> str:
        """Hold that a client refuses a message by exactly this name, says nothing and stays what it was; the text."""
        client = self.clients[member]
        before = frozen(client)
        with pytest.raises(ProtocolError) as caught:
            client.receive(message)
        assert type(caught.value) is error, caught.value
        assert frozen(client) == before, "a refused message changed the client"
        return str(caught.value)

    # Messages of the adversary's own making

    def session(self, **other: Any) -> bytes:
        """What all signatures of this round are bound to, or something that differs in one part."""
        parts: dict[str, Any] = {
            "round_id": self.round_id,
            "roster": self.roster.digest,
            "terms": self.terms.digest("masked"),
            "cohort": self.members,
            "topology": self.topology,
        }
        return session_digest(**(parts | other))

    def offer(self, members: Sequence[int], *, terms: Terms | None = None) -> bytes:
        digest = (terms or self.terms).digest("masked")
        return wire.encode(wire.Offer(self.round_id, digest, list(members)))

    def vote(
        self,
        voter: int,
        dead: Sequence[int],
        *,
        step: int = 0,
        stream: str = "g",
        values: int | None = None,
        context: bytes = b"",
        members: Sequence[int] | None = None,
        by: int | None = None,
        **session: Any,
    ) -> tuple[int, bytes]:
        """What a member signs when it is shown these dead, or (``by``) what another one signs in its place."""
        text = ballot(
            self.session(**session),
            request_context(step, stream, self.values if values is None else values, context_digest(context)),
            members=self.members if members is None else members,
            dead=dead,
        )
        return voter, self.identities[voter if by is None else by].sign(text)

    def request(self, step: int, *, stream: str = "g", values: int | None = None, context: bytes = b"") -> bytes:
        length = self.values if values is None else values
        return wire.encode(wire.StepRequest(self.round_id, step, stream, length, context_digest(context)))

    def open_request(self, step: int, dead: Sequence[int] = ()) -> bytes:
        return wire.encode(wire.OpenRequest(self.round_id, step, list(dead)))

    def ballots(self, step: int, votes: Sequence[tuple[int, bytes]]) -> bytes:
        return wire.encode(wire.Ballots(self.round_id, step, [wire.Ballot(*vote) for vote in votes]))

    def abort(self, step: int | None) -> bytes:
        return wire.encode(wire.Abort(self.round_id, step, 1, self.topology.survivors))


def read(message: bytes, *kinds: type[wire.Message]) -> Any:
    """A message, of any length."""
    return wire.decode(message, *(kinds or (wire.Message,)), limit=len(message))


def frozen(value: Any) -> Any:
    """Everything that an object holds, copied out as nested tuples: equal before and after if nothing changed."""
    match value:
        case X25519PrivateKey() | Ed25519PrivateKey():
            return value.private_bytes_raw()
        case Ed25519PublicKey():
            return value.public_bytes_raw()
        case bytes() | bytearray() | memoryview():
            return bytes(value)
        case np.ndarray():
            return value.tobytes()
        case None | int() | str() | float() | enum.Enum() | Path() | Terms():
            return value
        case Mapping():
            return tuple((frozen(key), frozen(item)) for key, item in value.items())
        case list() | tuple():
            return tuple(frozen(item) for item in value)
        case set() | frozenset():
            return tuple(sorted(frozen(item) for item in value))
        case msgspec.Struct():
            return tuple(frozen(getattr(value, name)) for name in value.__struct_fields__)
        case _:
            slots = [name for kind in type(value).__mro__ for name in getattr(kind, "__slots__", ())]
            held = {name: getattr(value, name) for name in slots} | getattr(value, "__dict__", {})
            assert held or isinstance(value, RoundLog), f"cannot look into {type(value)}"
            return (type(value).__name__, frozen(held))


def leaves(value: Any) -> Iterator[Any]:
    """The atoms of what :func:`frozen` gives."""
    if isinstance(value, tuple):
        for item in value:
            yield from leaves(item)
    else:
        yield value


def request_of(step: int, values: int) -> bytes:
    return request_context(step, "g", values, context_digest(b""))


def secrets_of(client: MaskedClient, *, values: int) -> dict[str, bytes]:
    """Every secret that a client holds, and what it derives from them for each step to come, by a name for it."""
    found = {"identity": client._credentials.identity.private_bytes()}
    if client._round_key is not None and client._round_key._key is not None:
        found["round key"] = client._round_key._key.private_bytes_raw()
    roots = dict(client._holdings.roots)
    for peer, pair in client._pairs.items():
        roots[peer] = pair.masks
        found[f"outgoing key with {peer}"] = bytes(pair.outgoing._buffer)
        found[f"incoming key with {peer}"] = bytes(pair.incoming._buffer)
    for peer, root in roots.items():
        found[f"root with {peer}"] = bytes(root._buffer)
        for step in range(client._holdings.next_step, client._terms.steps):
            seed, root = pair_seed(root), next_root(root)
            found[f"mask seed with {peer} at step {step}"] = seed
            found[f"mask key with {peer} at step {step}"] = pair_mask_key(seed, request_of(step, values))
    for step, secret in enumerate(client._holdings.selves):
        if secret._buffer:
            found[f"self secret of step {step}"] = bytes(secret.value)
            found[f"self-mask key of step {step}"] = self_mask_key(secret, request_of(step, values))
    for owner, batch in client._holdings.batches.items():
        for place in range(0, len(batch), 32):
            kind = "pair" if place % 64 else "self"
            found[f"{kind} share of {owner} at step {place // 64}"] = bytes(batch[place : place + 32])
    # What was wiped holds no secret any more.
    return {name: secret for name, secret in found.items() if any(secret)}


def buffers_of(client: MaskedClient) -> dict[str, bytearray]:
    """The very buffers that hold a client's secrets, not copies of them, by a name."""
    found = {f"self secret {step}": secret._buffer for step, secret in enumerate(client._holdings.selves)}
    found |= {f"shares of {owner}": batch for owner, batch in client._holdings.batches.items()}
    found |= {f"root {peer}": root._buffer for peer, root in client._holdings.roots.items()}
    for peer, pair in client._pairs.items():
        found |= {f"root {peer}": pair.masks._buffer, f"outgoing {peer}": pair.outgoing._buffer}
        found |= {f"incoming {peer}": pair.incoming._buffer}
    return {name: buffer for name, buffer in found.items() if buffer}


@pytest.fixture(scope="session")
def make_cohort() -> Callable[..., Cohort]:
    return Cohort


@pytest.fixture(scope="session")
def read_message() -> Callable[..., Any]:
    return read


@pytest.fixture(scope="session")
def atoms_of() -> Callable[[Any], list[Any]]:
    return lambda value: list(leaves(frozen(value)))


@pytest.fixture(scope="session")
def list_secrets() -> Callable[..., dict[str, bytes]]:
    return secrets_of


@pytest.fixture(scope="session")
def list_buffers() -> Callable[[MaskedClient], dict[str, bytearray]]:
    return buffers_of


@pytest.fixture(scope="session")
def look_into() -> Callable[[Any], Any]:
    return frozen


@pytest.fixture(scope="session")
def sparse() -> dict[str, Any]:
    """Terms under which each member has 14 neighbours; the security they ask for is as little as can be asked for."""
    return {"members": range(36), "steps": 1, "dropout": 0.2, "corruption": 0.1, "sigma": 1, "eta": 1}
