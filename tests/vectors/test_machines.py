"""The package's machines on recorded rounds: given what was drawn, they send what is recorded, and open its sums."""

from __future__ import annotations

import contextlib
import importlib
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest

from protocols import Credentials, Identity, Phase, Roster, RoundLog, SumClient, Terms, make_protocol
from protocols.errors import ProtocolError
from protocols.homomorphic.coefficients import Coefficients, from_bytes
from protocols.homomorphic.planning import SEED_BYTES
from protocols.homomorphic.seal import Seal
from protocols.homomorphic.shared_key import SharedKeyClient
from protocols.machines import SumAuthority
from protocols.parties import AUTHORITY

HERE = Path(__file__).resolve().parent
if str(HERE) not in sys.path:
    sys.path.insert(0, str(HERE))
blake, bodies, lattice = (importlib.import_module(f"independent.{name}") for name in ("blake", "bodies", "lattice"))
terms_from = importlib.import_module("generator.terms").terms_from
randomness = importlib.import_module("generator.randomness")

CASES: dict[str, dict[str, Any]] = {
    path.stem: json.loads(path.read_text(encoding="utf-8"))["cases"][0] for path in sorted(HERE.glob("round_*.json"))
}
ENCRYPTED = [name for name, case in CASES.items() if case["given"]["protocol"].startswith(("bfv", "ckks"))]


def number(party: Any) -> int:
    return AUTHORITY if party == "authority" else int(party)


class Recorded:
    """A recorded round, with its frames whole."""

    def __init__(self, name: str) -> None:
        self.given, self.expected = CASES[name]["given"], CASES[name]["expected"]
        self.bodies = bodies.decoded(self.given.get("bodies", {}) | self.expected.get("bodies", {}))
        self.protocol = make_protocol(self.given["protocol"])
        self.terms: Terms = terms_from(self.given["terms"])
        keys = {number(party): bytes.fromhex(key) for party, key in self.given.get("roster", {}).items()}
        authority = keys.pop(AUTHORITY, None)
        self.roster = Roster(keys, authority=authority) if keys else None

    def frame(self, message: Mapping[str, Any]) -> bytes:
        found: bytes = bodies.joined(message["frame"], self.bodies)
        return found

    def party(self, name: str) -> SumClient | SumAuthority:
        """A machine of its own for a client or the authority."""
        identity = Identity(bytes.fromhex(self.given["clients"][name]["identity"]))
        assert self.roster is not None
        credentials = Credentials(identity=identity, roster=self.roster, rounds=RoundLog())
        if name == "authority":
            return self.protocol.authority(terms=self.terms, credentials=credentials)
        return self.protocol.client(int(name), terms=self.terms, credentials=credentials)


# The server


def replay(recorded: Recorded) -> list[dict[str, Any]]:
    """Have a server take what was recorded, and compare what it sends; its sums, where it opens them."""
    given, messages = recorded.given, iter(recorded.expected["messages"])
    server = recorded.protocol.server(
        given["cohort"], terms=recorded.terms, round_id=bytes.fromhex(given["round_id"]), roster=recorded.roster
    )
    ahead = [next(messages)]

    def exchange(outbox: Mapping[int, bytes]) -> None:
        left = dict(outbox)
        while left:
            for party in ahead[0]["to"]:
                assert left.pop(number(party)) == recorded.frame(ahead[0]), ahead[0]["name"]
            ahead[0] = next(messages, None)
        while ahead[0] is not None and ahead[0]["from"] != "server":
            if ahead[0]["taken"]:
                server.receive(number(ahead[0]["from"]), recorded.frame(ahead[0]))
            ahead[0] = next(messages, None)

    exchange(server.open())
    sums = []
    while server.phase is not Phase.READY:
        exchange(server.advance())
    for step, about in enumerate(given["steps"]):
        context = bytes.fromhex(about["context"])
        exchange(server.request(about["stream"], about["values"], context=context, exactly=about["exactly"]))
        exchange(server.advance())
        while server.phase is not Phase.READY:
            exchange(server.advance())
        if server.failure is None and recorded.protocol.opened_by == "server":
            result = server.result()
            sums.append({"step": step, "contributors": list(result.contributors), "ring": result.ring.tobytes().hex()})
    assert ahead == [None]
    return sums


@pytest.mark.parametrize("name", CASES)
def test_the_server_takes_the_recorded_messages_and_sends_the_recorded_ones(name: str) -> None:
    recorded = Recorded(name)
    opened = replay(recorded)
    if recorded.protocol.opened_by == "server":
        assert opened == [
            {key: entry[key] for key in ("step", "contributors", "ring")} for entry in recorded.expected["sums"]
        ]


# Clients and the authority of homomorphic sums


class Script:
    """Hands out recorded draws in their order."""

    def __init__(self, *values: str | None) -> None:
        self.values = [bytes.fromhex(value) for value in values if value is not None]

    def bytes(self, count: int) -> bytes:
        value = self.values.pop(0)
        assert len(value) == count
        return value


@contextlib.contextmanager
def drawn(script: Script, body: bytes = b"", keys: Sequence[bytes] = ()) -> Iterator[None]:
    """Recorded draws, and recorded ciphertexts where SEAL would make new ones."""
    left = list(keys)

    def encrypt(seal: Seal, integers: np.ndarray[Any, Any], key: Any) -> tuple[bytes, bytes, bytes]:
        parameters, size = seal.parameters, len(integers) * seal.parameters.polynomial_bytes
        first, rest = body[:size], body[size:]
        if parameters.public:
            return first, rest, b""
        expanded = [
            blake.uniform(rest[at : at + SEED_BYTES], parameters.degree, seal.modulus)
            for at in range(0, len(rest), SEED_BYTES)
        ]
        second = b"".join(lattice.polynomial_bytes(found, parameters.coefficient_bytes) for found in expanded)
        return first, second, rest

    def public_key(seal: Seal, secret: Any) -> Coefficients:
        return from_bytes(left.pop(0), seal.parameters.coefficient_bytes, seal.modulus)

    with (
        randomness.in_place_of_the_system(script),
        mock.patch.object(Seal, "encrypt", encrypt),
        mock.patch.object(Seal, "public_key", public_key),
    ):
        yield


def sent_by(recorded: Recorded, party: Any) -> list[bytes]:
    return [recorded.frame(message) for message in recorded.expected["messages"] if message["from"] == party]


@pytest.mark.parametrize("name", [name for name in ENCRYPTED if not name.endswith("_authority")])
def test_clients_that_hold_the_key_send_what_is_recorded_and_open_the_recorded_sums(name: str) -> None:
    recorded = Recorded(name)
    opened: dict[int, list[str]] = {}
    for member in recorded.given["cohort"]:
        private = recorded.given["clients"][str(member)]
        script = Script(private["round_key"], private["root"], *private["nonces"])
        answers, results = play(recorded, member, script)
        assert answers == sent_by(recorded, member)
        if results:
            opened[member] = results
    sums = [entry["ring"] for entry in recorded.expected["sums"]]
    assert len(opened) >= 3
    assert all(results == sums for results in opened.values())


@pytest.mark.parametrize("name", [name for name in ENCRYPTED if name.endswith("_authority")])
def test_clients_of_an_authority_send_what_is_recorded(name: str) -> None:
    recorded = Recorded(name)
    for member in recorded.given["cohort"]:
        private = recorded.given["clients"][str(member)]
        answers, _ = play(recorded, member, Script(private["round_key"], *private["nonces"]))
        assert answers == sent_by(recorded, member)


def play(recorded: Recorded, member: int, script: Script) -> tuple[list[bytes], list[str]]:
    """Hand a client all that reached it; what it sends, and the sums that it opens."""
    client = recorded.party(str(member))
    assert isinstance(client, SumClient)
    answers: list[bytes | None] = []
    results = []
    for message in recorded.expected["messages"]:
        if message["from"] != "server" or member not in message["to"]:
            continue
        step, frame = message["step"], recorded.frame(message)
        if message["name"] == "Abort":
            with pytest.raises(ProtocolError):
                client.receive(frame)
            continue
        with drawn(script, recorded.bodies.get(f"{member} at {step}", b"")):
            answers.append(client.receive(frame))
            if message["name"] == "StepRequest":
                answers.append(contribute(client, recorded.given["steps"][step], member))
        if message["name"] == "Total":
            results.append(client.result().ring.tobytes().hex())
    assert not script.values
    return [answer for answer in answers if answer is not None], results


def contribute(client: SumClient, about: Mapping[str, Any], member: int) -> bytes:
    given = about["contributions"][str(member)]
    if isinstance(client, SharedKeyClient):
        client.hold(bytes.fromhex(about["shared"]))
    return client.contribute(
        np.frombuffer(bytes.fromhex(given["values"]), dtype="<f4"),
        stream=about["stream"],
        weight=given["weight"],
        context=bytes.fromhex(about["context"]),
    )


@pytest.mark.parametrize("name", [name for name in ENCRYPTED if name.endswith("_authority")])
def test_the_authority_opens_the_recorded_sums_and_signs_what_is_recorded(name: str) -> None:
    recorded = Recorded(name)
    private = recorded.given["clients"]["authority"]
    script = Script(private["root"], private["round_key"])
    keys = [body for name, body in sorted(recorded.bodies.items()) if name.startswith("key")]
    authority, answers = recorded.party("authority"), []
    with drawn(script, keys=keys):
        for message in recorded.expected["messages"]:
            if message["from"] == "server" and "authority" in message["to"]:
                answers.append(authority.receive(recorded.frame(message)))
    assert [answer for answer in answers if answer is not None] == sent_by(recorded, "authority")


def test_the_encrypted_rounds_are_of_every_protocol_scheme_and_ring() -> None:
    assert {CASES[name]["given"]["protocol"] for name in ENCRYPTED} == {
        *("bfv", "ckks", "bfv-authority", "ckks-authority")
    }
    for name in ENCRYPTED:
        given = CASES[name]["given"]
        assert 2 <= len(given["cohort"]) <= 4
        assert len(given["steps"]) >= 2
        assert given["missing"]
