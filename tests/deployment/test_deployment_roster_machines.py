"""Machines hold to the roster file: a node with another one takes part in no round."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import numpy as np
import pytest

from codream_secure.deployment.membership import next_roster
from codream_secure.deployment.public_half import PublicHalf
from codream_secure.deployment.roster import (
    RosterFile,
    load_roster,
    write_roster_file,
)
from protocols import (
    Credentials,
    FixedPoint,
    Identity,
    PeerKeyError,
    Phase,
    RosterError,
    RoundLog,
    SumClient,
    Terms,
    make_protocol,
    wire,
)

Introduce = Callable[..., PublicHalf]


TERMS = Terms(streams={"g": FixedPoint(clip=1.0, clients=4)}, steps=1, dropout=0.25, corruption=0.25)
NAMES_OF_FOUR = ("anna", "bert", "carl", "dora")


class Nodes:
    """Four masked clients and a server; each has a roster file of its own."""

    def __init__(self, folder: Path, files: Sequence[RosterFile], identities: Sequence[Identity]) -> None:
        protocol = make_protocol("masked")
        self.clients: list[SumClient] = []
        for member, (file, identity) in enumerate(zip(files, identities, strict=True)):
            path = folder / f"{member}.toml"
            write_roster_file(file, path)
            credentials = Credentials(identity=identity, roster=load_roster(path), rounds=RoundLog())
            self.clients.append(protocol.client(member, terms=TERMS, credentials=credentials))
        self.round_id = os.urandom(16)
        self.server = protocol.server(range(4), terms=TERMS, round_id=self.round_id, roster=files[0].roster())
        offers = self.server.open()
        self.keys = [client.receive(offers[member]) or b"" for member, client in enumerate(self.clients)]

    def all_keys(self) -> bytes:
        """Everybody's keys as a server hands them out that lets everything pass."""
        found = [wire.decode(message, wire.Advertise, limit=1000) for message in self.keys]
        entries = [wire.PublicKey(one.member, one.public_key, one.signature) for one in found]
        return wire.encode(wire.Keys(self.round_id, entries))

    def sum(self) -> np.ndarray:
        """The rest of an honest round."""
        for member, message in enumerate(self.keys):
            self.server.receive(member, message)
        while self.server.phase is not Phase.READY:
            for member, message in self.server.advance().items():
                if (answer := self.clients[member].receive(message)) is not None:
                    self.server.receive(member, answer)
        for member, message in self.server.request("g", 2).items():
            self.clients[member].receive(message)
            self.server.receive(member, self.clients[member].contribute(np.array([0.5, member / 8]), stream="g"))
        for member, message in self.server.advance().items():
            self.server.receive(member, self.clients[member].receive(message) or b"")
        self.server.advance()
        return self.server.result().total


@pytest.fixture
def identities() -> list[Identity]:
    return [Identity.generate() for _ in NAMES_OF_FOUR]


@pytest.fixture
def agreed(identities: list[Identity], introduce: Introduce) -> RosterFile:
    return next_roster(
        None, [introduce(name, identity=one) for name, one in zip(NAMES_OF_FOUR, identities, strict=True)]
    )


def test_nodes_with_one_roster_sum(tmp_path: Path, agreed: RosterFile, identities: list[Identity]) -> None:
    assert Nodes(tmp_path, [agreed] * 4, identities).sum().tolist() == [2.0, 0.75]


def another_key(agreed: RosterFile, introduce: Introduce) -> RosterFile:
    """One member's key replaced, and everything else put back, so that the key is all that differs."""
    members = list(agreed.members)
    members[1] = next_roster(agreed, replace={"bert": introduce("bert")}).members[1]
    return msgspec.structs.replace(agreed, members=tuple(members))


def another_version(agreed: RosterFile, introduce: Introduce) -> RosterFile:
    return msgspec.structs.replace(agreed, version=2)


def another_name(agreed: RosterFile, introduce: Introduce) -> RosterFile:
    members = (agreed.members[0], msgspec.structs.replace(agreed.members[1], name="bart"), *agreed.members[2:])
    return msgspec.structs.replace(agreed, members=members)


def another_revoked_key(agreed: RosterFile, introduce: Introduce) -> RosterFile:
    """The same members, but one node has seen somebody come and go."""
    return next_roster(next_roster(agreed, [introduce("emil")]), revoke=["emil"])


@pytest.mark.parametrize("differ", [another_key, another_version, another_name, another_revoked_key])
@pytest.mark.parametrize("odd", [2, 3])
def test_a_node_whose_roster_differs_takes_part_in_no_round(
    odd: int,
    differ: Callable[..., RosterFile],
    tmp_path: Path,
    agreed: RosterFile,
    identities: list[Identity],
    introduce: Introduce,
) -> None:
    files = [agreed] * 4
    files[odd] = differ(agreed, introduce)
    assert files[odd] != agreed
    nodes = Nodes(tmp_path, files, identities)
    advice = "under another roster or other terms: compare the digests"
    # An honest server refuses the odd one's key and nobody else's;
    for member in range(4):
        if member == odd:
            with pytest.raises(PeerKeyError, match=f"in member {odd}'s name .*{advice}"):
                nodes.server.receive(member, nodes.keys[member])
        else:
            nodes.server.receive(member, nodes.keys[member])
    # and if a server lets it pass, the others refuse the odd one, and the odd one refuses the others.
    for member in range(4):
        with pytest.raises(PeerKeyError, match=advice) as caught:
            nodes.clients[member].receive(nodes.all_keys())
        assert f"in member {0 if member == odd else odd}'s name" in str(caught.value)
        with pytest.raises(Exception, match="not finished"):
            nodes.clients[member].contribute(np.zeros(2), stream="g")


def test_a_node_whose_own_key_was_replaced_does_not_even_start(
    tmp_path: Path, agreed: RosterFile, identities: list[Identity], introduce: Introduce
) -> None:
    newer = next_roster(agreed, replace={"carl": introduce("carl")})
    with pytest.raises(RosterError, match="member 2 is not on its own roster with this identity"):
        Nodes(tmp_path, [newer] * 4, identities)


def test_after_a_change_everywhere_the_new_key_sums(
    tmp_path: Path, agreed: RosterFile, identities: list[Identity], introduce: Introduce
) -> None:
    identities[2] = Identity.generate()
    newer = next_roster(agreed, replace={"carl": introduce("carl", identity=identities[2])})
    assert Nodes(tmp_path, [newer] * 4, identities).sum().tolist() == [2.0, 0.75]
