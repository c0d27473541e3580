"""A round whose every message passes through the tester's hands, and plain-integer arithmetic of ciphertexts."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import pytest

from protocols import (
    AUTHORITY,
    SERVER,
    Credentials,
    FixedPoint,
    Identity,
    Phase,
    Roster,
    RoundLog,
    SumResult,
    Terms,
    make_protocol,
    wire,
)
from protocols.homomorphic.planning import Plan
from protocols.terms import ROUND_ID_BYTES

MEMBERS = (3, 7, 8, 20)
LIMIT = 1 << 30


class Round:
    """One round of real machines. Nothing moves unless a test moves it.

    Args:
        name: of the protocol.
        members: of the cohort.
        before: an earlier round, whose identities, roster and logs are kept.
        changes: of the terms; two streams, "g" and "h", are encoded alike.

    Attributes:
        transcript: (sender, recipient, message) of everything that went over the network, in order.
    """

    def __init__(
        self, name: str, members: Sequence[int] = MEMBERS, *, before: Round | None = None, **changes: Any
    ) -> None:
        self.protocol = make_protocol(name)
        self.members = tuple(members)
        encoding = FixedPoint(clip=1.0, clients=len(members))
        defaults = {"streams": {"g": encoding, "h": encoding}, "steps": 6, "max_values": 4000}
        self.terms = Terms(**{**defaults, **changes})
        parties = [*members, *([AUTHORITY] if self.protocol.has_authority else [])]
        if before is None:
            self.identities = {party: Identity.generate() for party in parties}
            keys = {party: identity.public_key for party, identity in self.identities.items()}
            self.roster = Roster({member: keys[member] for member in members}, authority=keys.get(AUTHORITY))
            self.logs = {party: RoundLog() for party in parties}
        else:
            self.identities, self.roster, self.logs = before.identities, before.roster, before.logs
        self.round_id = os.urandom(ROUND_ID_BYTES)
        self.clients = {
            member: self.protocol.client(member, terms=self.terms, credentials=self.credentials(member))
            for member in members
        }
        self.authority: Any = (
            self.protocol.authority(terms=self.terms, credentials=self.credentials(AUTHORITY))
            if self.protocol.has_authority
            else None
        )
        self.server: Any = self.protocol.server(members, terms=self.terms, round_id=self.round_id, roster=self.roster)
        self.transcript: list[tuple[int, int, bytes]] = []

    def credentials(self, party: int) -> Credentials:
        return Credentials(identity=self.identities[party], roster=self.roster, rounds=self.logs[party])

    def party(self, number: int) -> Any:
        return self.authority if number == AUTHORITY else self.clients[number]

    @property
    def openers(self) -> dict[int, Any]:
        """Who opens sums."""
        return {AUTHORITY: self.authority} if self.authority else dict(self.clients)

    @property
    def plan(self) -> Plan:
        plan: Plan = self.server._plans["g"]
        return plan

    @property
    def session(self) -> bytes:
        session: bytes = self.server._session
        return session

    # Moving messages

    def deliver(self, outbox: dict[int, bytes], *, without: Iterable[int] = ()) -> dict[int, bytes]:
        """Hand the server's messages over; the answers."""
        answers = {}
        for number, message in outbox.items():
            if number in set(without):
                continue
            self.transcript.append((SERVER, number, message))
            answer = self.party(number).receive(message)
            if answer is not None:
                answers[number] = answer
        return answers

    def collect(self, answers: dict[int, bytes]) -> None:
        for number, answer in answers.items():
            self.transcript.append((number, SERVER, answer))
            self.server.receive(number, answer)

    def open(self) -> Round:
        """Finish the set-up."""
        outbox = self.server.open()
        while self.server.phase is not Phase.READY:
            self.collect(self.deliver(outbox))
            outbox = self.server.advance()
        self.deliver(outbox)
        return self

    def ask(self, values: int, *, stream: str = "g", context: bytes = b"") -> None:
        self.deliver(self.server.request(stream, values, context=context))

    def contributions(
        self, vectors: dict[int, np.ndarray], *, held: dict[int, bytes] | None = None, **kinds: Any
    ) -> dict[int, bytes]:
        """The members' answers, not handed over yet; all that is named holds its state first."""
        for member, state in (held or {}).items():
            self.clients[member].hold(state)
        kinds = {"stream": "g", **kinds}
        return {member: self.clients[member].contribute(vector, **kinds) for member, vector in vectors.items()}

    def totals(self, vectors: dict[int, np.ndarray], **kinds: Any) -> dict[int, bytes]:
        """A step up to the sum that the server would hand out."""
        self.ask(len(next(iter(vectors.values()))), stream=kinds.get("stream", "g"), context=kinds.get("context", b""))
        self.collect(self.contributions(vectors, **kinds))
        outbox: dict[int, bytes] = self.server.advance()
        return outbox

    def finish(self, totals: dict[int, bytes]) -> SumResult:
        """Open it: by the server, or by all clients alike."""
        self.collect(self.deliver(totals))
        if self.authority is not None:
            self.server.advance()
            found: SumResult = self.server.result()
            return found
        results = [client.result() for client in self.clients.values()]
        assert all(result.ring.tolist() == results[0].ring.tolist() for result in results)
        return results[0]

    def sum(self, vectors: dict[int, np.ndarray], **kinds: Any) -> SumResult:
        return self.finish(self.totals(vectors, **kinds))

    # Vectors and their sums

    def vectors(self, length: int = 5, *, seed: int = 0) -> dict[int, np.ndarray]:
        generator = np.random.default_rng(seed)
        return {member: generator.uniform(-1, 1, length) for member in self.members}

    def ring(self, vectors: dict[int, np.ndarray]) -> list[int]:
        """The sum in the ring, in Python's integers."""
        encoding = self.terms.streams["g"]
        rows = [
            [round(float(value) * 2**encoding.exponent) for value in vector.tolist()] for vector in vectors.values()
        ]
        return [sum(column) % 2**encoding.ring_bits for column in zip(*rows, strict=True)]


def decoded(message: bytes) -> Any:
    return wire.decode(message, wire.Message, limit=LIMIT)


def altered(message: bytes, **changes: Any) -> bytes:
    """The message with other fields."""
    return wire.encode(msgspec.structs.replace(decoded(message), **changes))


def product(one: list[int], other: list[int], modulus: int) -> list[int]:
    """The product of two polynomials mod X^N + 1 and the modulus, by one multiplication of two long integers."""
    degree = len(one)
    width = (2 * modulus.bit_length() + degree.bit_length() + 7) // 8
    left, right = (
        int.from_bytes(b"".join((c % modulus).to_bytes(width, "little") for c in poly), "little")
        for poly in (one, other)
    )
    content = (left * right).to_bytes(2 * degree * width, "little")
    found = [int.from_bytes(content[at : at + width], "little") for at in range(0, len(content), width)]
    return [(found[place] - found[place + degree]) % modulus for place in range(degree)]


def centred(values: Iterable[int], modulus: int) -> list[int]:
    """Each as its representative nearest to zero."""
    return [value - modulus if value > modulus // 2 else value for value in values]


def ternary(seal: Any, secret: Any) -> list[int]:
    """A BFV secret key's coefficients in {-1, 0, 1}: what a constant second polynomial decrypts to."""
    degree, modulus, bits = seal.parameters.degree, seal.modulus, seal.parameters.message_bits
    second = np.zeros(degree, np.uint64)
    second[0] = modulus // 4
    unit = 1 << (bits - 2)
    found = seal.decrypt(np.zeros(degree, np.uint64), second, secret).tolist()
    return [{0: 0, unit: 1, (1 << bits) - unit: -1}[value] for value in found]


@pytest.fixture(scope="session")
def make_round() -> Callable[..., Round]:
    """Build a :class:`Round`."""
    return Round


@pytest.fixture(scope="session")
def read() -> Callable[[bytes], Any]:
    """A message of any kind."""
    return decoded


@pytest.fixture(scope="session")
def change() -> Callable[..., bytes]:
    """A message with other fields."""
    return altered


@pytest.fixture(scope="session")
def arithmetic() -> SimpleNamespace:
    """Polynomials in Python's integers: ``product``, ``centred``, ``ternary``."""
    return SimpleNamespace(product=product, centred=centred, ternary=ternary)


@pytest.fixture(params=["bfv", "ckks", "bfv-authority", "ckks-authority"])
def name(request: pytest.FixtureRequest) -> str:
    """Each homomorphic protocol."""
    found: str = request.param
    return found


@pytest.fixture
def opened(name: str) -> Round:
    """A round whose set-up is finished."""
    return Round(name).open()
