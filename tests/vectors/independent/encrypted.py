"""Rounds of homomorphic sums: every message from the private inputs and what SEAL drew, and sums from messages."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import Any

from . import bindings, bodies, lattice, vouchers
from .aes import gcm_decrypt, gcm_encrypt
from .curves import ed25519_public, ed25519_sign, ed25519_verify, x25519_public
from .encoding import decode, encode, ring_bytes, ring_elements
from .frames import Message, frame, parse
from .planning import Carrier, carrier
from .rounds import Setting, Transcript, numbered

Given = Mapping[str, Any]
AUTHORITY = bindings.AUTHORITY
PROTOCOLS = frozenset({"bfv", "ckks", "bfv-authority", "ckks-authority"})


class Round:
    """What everybody knows about a round, and how its streams are encrypted."""

    def __init__(self, given: Given) -> None:
        self.setting = Setting(given)
        self.granted = given["protocol"].endswith("-authority")
        scheme = given["protocol"].removesuffix("-authority")
        streams = given["terms"]["streams"].items()
        self.carriers = {name: carrier(scheme, stream, public=self.granted) for name, stream in streams}
        self.setting.session = vouchers.session(self.setting.session, self.carriers)
        self.sets = vouchers.sets(self.carriers.values())

    def step(self, step: int) -> tuple[Carrier, int, int]:
        """How a step's vectors are encrypted, its ring elements, and the bits of each."""
        stream, values = self.setting.stream(step), self.setting.steps[step]["values"]
        elements = values + (stream["max_weight"] is not None)
        return self.carriers[self.setting.steps[step]["stream"]], elements, stream["ring_bits"]

    def encoded(self, step: int, member: int) -> list[int]:
        """A member's vector in the ring."""
        given = self.setting.steps[step]["contributions"][str(member)]
        data = bytes.fromhex(given["values"])
        return encode(struct.unpack(f"<{len(data) // 4}f", data), given["weight"], self.setting.stream(step))

    def plain_sum(self, step: int, contributors: Sequence[int]) -> bytes:
        """What a sum should be: the contributors' vectors, added in clear."""
        _, _, bits = self.step(step)
        columns = zip(*(self.encoded(step, member) for member in contributors), strict=True)
        return ring_bytes([sum(column) % 2**bits for column in columns], bits)

    def ring(self, step: int, body: bytes, root: bytes, contributors: int) -> bytes:
        """The sum that a body holds."""
        how, elements, bits = self.step(step)
        secret = vouchers.secret_key(root, how)
        found = bodies.decrypted(bodies.summed(body, how, elements), how, secret, contributors)
        sums = found[: how.integers(elements)]
        if any(not 0 <= value <= contributors * how.largest for value in sums):
            raise ValueError("a sum is beyond what was contributed: another key, or too much noise")
        return ring_bytes(how.unpack(sums, elements, contributors, bits), bits)


class Party:
    """A client or the authority, from its private inputs."""

    def __init__(self, number: int, round_: Round, private: Given) -> None:
        self.number, self.session = number, round_.setting.session
        self.identity, self.private = bytes.fromhex(private["identity"]), private
        self.round_key = bytes.fromhex(private["round_key"])
        self.public_key = x25519_public(self.round_key)
        self.root = bytes.fromhex(private.get("root", ""))
        self.tags = self.vouchers = b""
        if ed25519_public(self.identity) != round_.setting.roster[number]:
            raise ValueError(f"party {number} is not who the roster says")

    def sign(self, text: bytes) -> bytes:
        return ed25519_sign(self.identity, text)

    def pair(self, peer: int, peer_key: bytes) -> bindings.Pair:
        return bindings.pair(self.session, self.round_key, self.number, self.public_key, peer, peer_key)


class Log(Transcript):
    """Messages in order; long bodies stand in them by their names."""

    def __init__(self, given: Given) -> None:
        super().__init__(given)
        self.bodies = bodies.decoded(given["bodies"])

    def authority(self, name: str, *values: Any) -> bool:
        """Whether the server takes a message of the authority's."""
        taken = (name, self.step, "authority") not in self.missing
        self._note(name, "authority", "server", frame(name, self.setting.round_id, *values), taken)
        return taken

    def _note(self, name: str, sender: Any, to: Any, data: bytes, taken: bool) -> None:
        super()._note(name, sender, to, b"", taken)
        self.messages[-1]["frame"] = bodies.pieces(data, self.bodies)


class Play:
    """A round from the private inputs and the bodies that SEAL made."""

    def __init__(self, given: Given) -> None:
        self.given, self.round, self.log = given, Round(given), Log(given)
        self.setting = self.round.setting
        self.parties = {
            numbered(name): Party(numbered(name), self.round, private) for name, private in given["clients"].items()
        }
        self.members: list[int] = []
        self.root = b""
        self.derived: dict[str, Any] = {
            "streams": vouchers.streams(self.round.carriers),
            "session": self.setting.session.hex(),
        }
        self.new: dict[str, bytes] = {}
        """Bodies that nobody drew: those of sums."""

    def run(self) -> None:
        """Everything."""
        advertised = self._advertise()
        if self.round.granted:
            self._grant(advertised)
        else:
            self._share(advertised)
        root = self.root
        self.derived["sets"] = [
            {"text": how.text, "modulus": how.modulus, "seed": vouchers.key_seed(root, how).hex()}
            for how in self.round.sets
        ]
        self.derived["tags"] = vouchers.tag_root(root).hex()
        self.derived["steps"] = [self._step(step) for step in range(len(self.setting.steps))]

    # Set-up

    def _advertise(self) -> list[list[Any]]:
        setting, cohort = self.setting, self.setting.cohort
        to: list[Any] = ["authority", *cohort] if self.round.granted else cohort
        self.log.server("Offer", to, setting.terms_digest, cohort)
        found = []
        for number in cohort:
            party = self.parties[number]
            signature = party.sign(bindings.advertisement(setting.session, number, party.public_key))
            if self.log.member("Advertise", number, party.public_key, signature):
                found.append([number, party.public_key, signature])
        return found

    def _share(self, advertised: Sequence[Sequence[Any]]) -> None:
        """Every client seals its root for all others; the first one's counts."""
        keys = {number: public_key for number, public_key, _ in advertised}
        for number in keys:
            self.log.server("Keys", [number], [list(entry) for entry in advertised])
        sealed = {}
        for number in keys:
            party, parcels = self.parties[number], {}
            content = party.root + vouchers.key_check(party.root, self.round.sets)
            for peer in sorted(keys.keys() - {number}):
                key = party.pair(peer, keys[peer]).key(number, peer)
                place = vouchers.key_parcel(self.setting.session, number, peer)
                parcels[peer] = gcm_encrypt(key, vouchers.NONCE, content, place)
            if self.log.member("SealedKeys", number, [[peer, parcel] for peer, parcel in parcels.items()]):
                sealed[number] = parcels
        self.members = sorted(sealed)
        holder = self.members[0]
        self.root = self.parties[holder].root
        for number in self.members:
            parcels = [] if number == holder else [[holder, sealed[holder][number]]]
            self.log.server("Inbox", [number], self.members, parcels)
            self.parties[number].tags = vouchers.tag_root(self.root)
            self.parties[number].vouchers = vouchers.voucher_root(self.root)
        self.derived["key_check"] = vouchers.key_check(self.root, self.round.sets).hex()

    def _grant(self, advertised: Sequence[Sequence[Any]]) -> None:
        """The authority hands the root of tags to those who advertised, and its public keys."""
        authority, session = self.parties[AUTHORITY], self.setting.session
        self.root, self.members = authority.root, [number for number, _, _ in advertised]
        keys = [self.log.bodies[f"key {place}"] for place in range(len(self.round.sets))]
        for how, key in zip(self.round.sets, keys, strict=True):
            bodies.check_public_key(key, how, vouchers.secret_key(self.root, how))
        self.log.server("Keys", ["authority"], [list(entry) for entry in advertised])
        parcels = []
        for number, public_key, _ in advertised:
            pair, member = authority.pair(number, public_key), self.parties[number]
            if pair != member.pair(AUTHORITY, authority.public_key):
                raise ValueError("the two ends derive different keys")
            member.tags = vouchers.tag_root(self.root)
            member.vouchers = vouchers.voucher_root(pair.key(number, AUTHORITY))
            place = vouchers.grant_parcel(session, number)
            sealed = gcm_encrypt(pair.key(AUTHORITY, number), vouchers.NONCE, member.tags, place)
            parcels.append([number, sealed])
        signature = authority.sign(vouchers.grant(session, self.members, authority.public_key, keys))
        self.log.authority("Grant", authority.public_key, signature, keys, parcels)
        for number, sealed in parcels:
            self.log.server("Welcome", [number], self.members, authority.public_key, signature, keys, sealed)

    # Steps

    def _step(self, step: int) -> dict[str, Any]:
        log, setting, about = self.log, self.setting, self.setting.steps[step]
        log.step = step
        how, elements, _ = self.round.step(step)
        exactly, context = about["exactly"], bindings.sha256(bytes.fromhex(about["context"]))
        asked = self.members if exactly is None else exactly
        needed = setting.survivors if exactly is None else len(exactly)
        log.server("StepRequest", asked, step, about["stream"], about["values"], context)
        request, taken, tags = setting.asked(step), [], {}
        key = vouchers.tag_key(vouchers.tag_root(self.root), setting.session, request)
        state = vouchers.state(vouchers.tag_root(self.root), setting.session, request, bytes.fromhex(about["shared"]))
        for number in asked:
            body = log.bodies[f"{number} at {step}"]
            chunks = bodies.contributed(body, how, elements)
            self._check(step, number, chunks)
            tags[number] = lattice.tag(bodies.linear(chunks), key, how.modulus)
            content = b"".join(bindings.u64(row) for row in tags[number]) + state
            voucher = self._voucher(step, number, body, content)
            if log.member("Ciphertexts", number, step, *voucher[2:], body):
                taken.append(voucher)
        contributors = [voucher[0] for voucher in taken]
        if len(taken) < needed or not self._total(step, taken, context):
            log.server("Abort", asked, step, len(contributors), needed)
        return {
            "tag_key": key.hex(),
            "state": state.hex(),
            "linear_tags": {str(number): tag for number, tag in tags.items()},
        }

    def _voucher(self, step: int, number: int, body: bytes, content: bytes) -> list[Any]:
        session, asked, party = self.setting.session, self.setting.asked(step), self.parties[number]
        digest, nonce = bindings.sha256(body), bytes.fromhex(party.private["nonces"][step])
        sealed = vouchers.seal(party.vouchers, session, number, digest, asked, nonce=nonce, content=content)
        signature = party.sign(vouchers.contribution(session, number, digest, sealed, asked))
        return [number, digest, sealed, signature]

    def _check(self, step: int, number: int, chunks: Sequence[bodies.Chunk]) -> None:
        """Raise unless the ciphertexts hold this member's vector, and nothing beyond it."""
        how, _, bits = self.round.step(step)
        packed = how.pack(self.round.encoded(step, number), bits)
        found = bodies.decrypted(chunks, how, vouchers.secret_key(self.root, how), contributors=1)
        if found != packed + [how.centre] * (len(found) - len(packed)):
            raise ValueError(f"member {number} encrypted something else than its vector")

    def _total(self, step: int, taken: Sequence[Sequence[Any]], context: bytes) -> bool:
        """Whether somebody opens the sum for the server, or it goes to those who open it themselves."""
        how, elements, _ = self.round.step(step)
        about, contributors = self.setting.steps[step], [number for number, *_ in taken]
        parts = [bodies.contributed(self.log.bodies[f"{number} at {step}"], how, elements) for number in contributors]
        name, body = f"sum at {step}", bodies.total(parts, how)
        self.log.bodies[name] = self.new[name] = body
        to: list[Any] = ["authority"] if self.round.granted else self.members
        self.log.server("Total", to, step, about["stream"], about["values"], context, [list(v) for v in taken], body)
        if not self.round.granted:
            return True
        ring = self.round.ring(step, body, self.root, len(contributors))
        signed = vouchers.opened(self.setting.session, ring, contributors, self.setting.asked(step))
        return self.log.authority("Opened", step, self.parties[AUTHORITY].sign(signed), ring)


# As those who open sums


def opened(given: Given, messages: Sequence[Mapping[str, Any]], drawn: bodies.Bodies) -> list[dict[str, Any]]:
    """Each step's sum, by every key holder from the frames that reach it; steps that are given up are left out.

    Raises:
        ValueError: something does not verify, does not open, or is not the sum of what was contributed.
    """
    round_ = Round(given)
    heard = [(message, parse(bodies.joined(message["frame"], drawn))) for message in messages if message["taken"]]
    read = [message for _, message in heard]
    given_up = {fields["step"] for name, fields in read if name == "Abort"}
    if round_.granted:
        party = Party(AUTHORITY, round_, given["clients"]["authority"])
        holders = [Holder(round_, party, read, granted=True)]
    else:
        welcomed = [message["to"][0] for message, (name, _) in heard if name == "Inbox"]
        parties = [Party(number, round_, given["clients"][str(number)]) for number in welcomed]
        holders = [Holder(round_, party, read, granted=False) for party in parties]
    found = []
    for total in (fields for name, fields in read if name == "Total" and fields["step"] not in given_up):
        step = total["step"]
        rings = {holder.open(total) for holder in holders}
        (ring,) = rings
        if round_.granted:
            (answer,) = (f for name, f in read if name == "Opened" and f["step"] == step)
            members = [voucher[0] for voucher in total["vouchers"]]
            signed = vouchers.opened(round_.setting.session, ring, members, round_.setting.asked(step))
            if answer["ring"] != ring or not ed25519_verify(
                round_.setting.roster[AUTHORITY], answer["signature"], signed
            ):
                raise ValueError("the authority answered something else than the sum")
        numbers, weight = decode(ring_elements(ring, round_.step(step)[2]), round_.setting.stream(step))
        found.append(
            {
                "step": step,
                "contributors": [voucher[0] for voucher in total["vouchers"]],
                "ring": ring.hex(),
                "total": struct.pack(f"<{len(numbers)}d", *numbers).hex(),
                "weight": weight,
            }
        )
    return found


class Holder:
    """Somebody who holds the key: it verifies, opens parcels and vouchers, and decrypts."""

    def __init__(self, round_: Round, party: Party, read: Sequence[Message], *, granted: bool) -> None:
        self.round, self.party, self.read = round_, party, read
        session, roster = round_.setting.session, round_.setting.roster
        self.keys = {fields["member"]: fields["public_key"] for name, fields in read if name == "Advertise"}
        for fields in (fields for name, fields in read if name == "Advertise"):
            signed = bindings.advertisement(session, fields["member"], fields["public_key"])
            if not ed25519_verify(roster[fields["member"]], fields["signature"], signed):
                raise ValueError(f"member {fields['member']}'s key is not signed by it")
        self.root = party.root if granted else self._received()
        self.granted = granted
        self.tags = vouchers.tag_root(self.root)

    def _received(self) -> bytes:
        """The root that the first member's parcel holds, or this client's own if it is the first."""
        sent = {fields["member"]: dict(fields["parcels"]) for name, fields in self.read if name == "SealedKeys"}
        holder, me, session = min(sent), self.party.number, self.round.setting.session
        if holder == me:
            return self.party.root
        key = self.party.pair(holder, self.keys[holder]).key(holder, me)
        content = gcm_decrypt(key, vouchers.NONCE, sent[holder][me], vouchers.key_parcel(session, holder, me))
        if vouchers.key_check(content[:32], self.round.sets) != content[32:]:
            raise ValueError("the root gives other keys here than there")
        return content[:32]

    def _voucher_root(self, member: int) -> bytes:
        if not self.granted:
            return vouchers.voucher_root(self.root)
        return vouchers.voucher_root(self.party.pair(member, self.keys[member]).key(member, AUTHORITY))

    def open(self, total: Mapping[str, Any]) -> bytes:
        """The ring sum, if the vouchers' tags add up to that of the body, and name what was contributed."""
        setting, step, body = self.round.setting, total["step"], total["body"]
        asked, (how, elements, _) = setting.asked(step), self.round.step(step)
        sums = [0] * lattice.ROWS
        sent = {f["member"]: f for name, f in self.read if name == "Ciphertexts" and f["step"] == step}
        for number, digest, sealed, signature in total["vouchers"]:
            if digest != bindings.sha256(sent[number]["body"]):
                raise ValueError(f"member {number} vouched for something else")
            signed = vouchers.contribution(setting.session, number, digest, sealed, asked)
            if not ed25519_verify(setting.roster[number], signature, signed):
                raise ValueError(f"member {number}'s voucher is not signed by it")
            root = self._voucher_root(number)
            tag, state = vouchers.unseal(root, setting.session, number, digest, asked, sealed=sealed)
            shared = bytes.fromhex(setting.steps[step]["shared"])
            if state != vouchers.state(self.tags, setting.session, asked, shared):
                raise ValueError(f"member {number} holds another state")
            sums = [(total + row) % how.modulus for total, row in zip(sums, tag, strict=True)]
        key = vouchers.tag_key(self.tags, setting.session, asked)
        if lattice.tag(bodies.linear(bodies.summed(body, how, elements)), key, how.modulus) != sums:
            raise ValueError("the body is not the sum of what was vouched for")
        return self.round.ring(step, body, self.root, len(total["vouchers"]))
