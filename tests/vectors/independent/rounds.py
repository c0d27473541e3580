"""Whole rounds: every message from the private inputs, and the sums from the messages."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from . import bindings, sharing
from .curves import ed25519_public, ed25519_sign, ed25519_verify, x25519_public
from .encoding import decode, encode, ring_bytes, ring_elements
from .frames import frame, parse
from .graph import neighbours, survivors_needed, topology

Given = Mapping[str, Any]


def numbered(party: str) -> int:
    """A member's number, or what stands for the key authority."""
    return bindings.AUTHORITY if party == "authority" else int(party)


class Setting:
    """What everybody knows about a round."""

    def __init__(self, given: Given) -> None:
        self.terms: Mapping[str, Any] = given["terms"]
        self.cohort: list[int] = given["cohort"]
        self.round_id = bytes.fromhex(given["round_id"])
        self.steps: list[Given] = given["steps"]
        self.protocol: str = given["protocol"]
        self.masked = self.protocol == "masked"
        self.active: bool = self.terms["active"]
        self.survivors = survivors_needed(len(self.cohort), float.fromhex(self.terms["dropout"]))
        self.points = {member: at for at, member in enumerate(self.cohort, start=1)}
        self.roster = {numbered(party): bytes.fromhex(key) for party, key in given.get("roster", {}).items()}
        self.terms_digest = bindings.terms_digest(self.terms, given["protocol"])
        if len(self.cohort) < (self.terms["min_cohort"] or 0):
            raise ValueError("the cohort is too small")
        if self.protocol != "plain":
            self._bind()

    def _bind(self) -> None:
        """What follows from the terms, the roster and the cohort where vectors are protected."""
        everybody = self.roster.keys() - {bindings.AUTHORITY}
        if self.active and self.terms["min_cohort"] is None and len(self.cohort) < len(everybody):
            raise ValueError("a client that faces an active server refuses a part of its roster")
        shares = {name: float.fromhex(self.terms[name]) for name in ("dropout", "corruption")}
        security = {name: self.terms[name] for name in ("active", "sigma", "eta")}
        self.wiring = topology(len(self.cohort), **shares, **security)
        bounds = (self.wiring.degree, self.wiring.threshold, self.wiring.survivors)
        self.session = bindings.session_digest(
            bindings.roster_digest(self.roster), self.terms_digest, *bounds, self.cohort, self.round_id
        )
        self.neighbours = neighbours(self.cohort, self.wiring.degree, self.session)

    def group(self, member: int, among: Collection[int]) -> list[int]:
        """A member and its neighbours, as far as they are among others."""
        return sorted(other for other in {*self.neighbours[member], member} if other in among)

    def peers(self, member: int, among: Collection[int]) -> list[int]:
        return [other for other in self.neighbours[member] if other in among]

    def enough(self, left: Collection[int], opened: Collection[int], needed: int = 0) -> bool:
        """Whether those who are left may go on: as many as needed, and enough to open what those others shared."""
        held = all(len(self.group(member, left)) >= self.wiring.threshold for member in opened)
        return held and len(left) >= max(needed, self.survivors)

    def asked(self, step: int) -> bytes:
        """What a step asks for."""
        about = self.steps[step]
        return bindings.request(step, about["stream"], about["values"], bytes.fromhex(about["context"]))

    def stream(self, step: int) -> Given:
        found: Given = self.terms["streams"][self.steps[step]["stream"]]
        return found


class Member:
    """One client, from its private inputs."""

    def __init__(self, number: int, setting: Setting, private: Given) -> None:
        self.number, self.setting = number, setting
        self.identity = bytes.fromhex(private["identity"])
        self.round_key = bytes.fromhex(private["round_key"])
        self.public_key = x25519_public(self.round_key)
        if ed25519_public(self.identity) != setting.roster[number]:
            raise ValueError(f"member {number} is not who the roster says")
        for name in ("self_secrets", "pair_secrets"):
            setattr(self, name, [int(text, 16) for text in private[name]])
        self.coefficients = [[int(text, 16) for text in drawn] for drawn in private["coefficients"]]
        self.pairs: dict[int, bindings.Pair] = {}
        self.held: dict[int, bytes] = {}

    self_secrets: list[int]
    pair_secrets: list[int]

    def entry(self) -> list[Any]:
        """Its number, round key and signature."""
        signed = bindings.advertisement(self.setting.session, self.number, self.public_key)
        return [self.number, self.public_key, ed25519_sign(self.identity, signed)]

    def shares(self, keys: Mapping[int, bytes]) -> list[Any]:
        """The fields of its Shares, after it has been shown its group's keys."""
        setting, me = self.setting, self.number
        peers = [peer for peer in sorted(keys) if peer != me]
        self.pairs = {
            peer: bindings.pair(setting.session, self.round_key, me, self.public_key, peer, keys[peer])
            for peer in peers
        }
        self.held = {me: self._batch(me)}
        parcels = []
        for peer in peers:
            context = sharing.parcel_context(setting.session, me, peer)
            parcels.append([peer, sharing.parcel(self.pairs[peer].key(me, peer), self._batch(peer), context)])
        commitments = b"".join(
            sharing.commitment(setting.session, me, step, secret) for step, secret in enumerate(self.self_secrets)
        )
        roots = [self.pairs[peer].masks for peer in peers]
        backups = [
            sharing.backup(setting.session, me, step, secret, roots) for step, secret in enumerate(self.pair_secrets)
        ]
        return [me, parcels, commitments, backups]

    def _batch(self, holder: int) -> bytes:
        """The holder's shares: step by step of the self secret and of the pair secret."""
        secrets = [secret for both in zip(self.self_secrets, self.pair_secrets, strict=True) for secret in both]
        point = self.setting.points[holder]
        return b"".join(
            sharing.element(sharing.share(secret, drawn, point))
            for secret, drawn in zip(secrets, self.coefficients, strict=True)
        )

    def take_parcels(self, parcels: Sequence[Sequence[Any]]) -> None:
        """The set-up ends: whoever sent no parcel is no partner."""
        senders = {sender for sender, _ in parcels}
        for sender, sealed in parcels:
            context = sharing.parcel_context(self.setting.session, sender, self.number)
            self.held[sender] = sharing.open_parcel(self.pairs[sender].key(sender, self.number), sealed, context)
        self.pairs = {peer: pair for peer, pair in self.pairs.items() if peer in senders}

    def masked(self, step: int, ring: Sequence[int], bits: int) -> list[int]:
        """A vector under the self-mask and all pairwise masks."""
        asked = self.setting.asked(step)
        keys = [(1, bindings.self_key(self.self_secrets[step], asked))]
        for peer, pair in self.pairs.items():
            seed = bindings.pair_seed(bindings.root_at(pair.masks, step))
            keys.append((1 if peer > self.number else -1, bindings.pair_key(seed, asked)))
        return add_masks(ring, keys, bits)

    def openings(self, step: int, dead: Collection[int]) -> bytes:
        """One share of each member of its group: of the pair secret of the dead, of the self secret of others."""
        starts = {member: 64 * step + (32 if member in dead else 0) for member in sorted(self.held)}
        return b"".join(self.held[member][start : start + 32] for member, start in starts.items())


def add_masks(ring: Sequence[int], keys: Sequence[tuple[int, bytes]], bits: int) -> list[int]:
    """Masks by their signs, added in the ring."""
    total = list(ring)
    for sign, key in keys:
        mask = ring_elements(bindings.mask(key, len(total) * bits // 8), bits)
        total = [(value + sign * masking) % 2**bits for value, masking in zip(total, mask, strict=True)]
    return total


def encoded(setting: Setting, step: int, member: int) -> list[int]:
    """A member's vector at a step, in the ring."""
    given = setting.steps[step]["contributions"][str(member)]
    values = [float.fromhex(value) for value in given["values"]]
    return encode(values, given["weight"], setting.stream(step))


class Transcript:
    """Messages in order, as the vectors write them."""

    def __init__(self, given: Given) -> None:
        self.setting = Setting(given)
        self.missing = {(event["message"], event["step"], event["member"]) for event in given["missing"]}
        self.messages: list[dict[str, Any]] = []
        self.step: int | None = None

    def server(self, name: str, to: Sequence[int], *values: Any) -> None:
        data = frame(name, self.setting.round_id, *values)
        self._note(name, "server", list(to), data, True)

    def member(self, name: str, member: int, *values: Any) -> bool:
        """Whether the server takes the message in time."""
        taken = (name, self.step, member) not in self.missing
        self._note(name, member, "server", frame(name, self.setting.round_id, member, *values), taken)
        return taken

    def _note(self, name: str, sender: Any, to: Any, data: bytes, taken: bool) -> None:
        self.messages.append(
            {"step": self.step, "name": name, "from": sender, "to": to, "taken": taken, "frame": data.hex()}
        )


def transcript(given: Given) -> list[dict[str, Any]]:
    """Every message of a round."""
    log = Transcript(given)
    setting = log.setting
    log.server("Offer", setting.cohort, setting.terms_digest, setting.cohort)
    if setting.masked:
        members = {number: Member(number, setting, given["clients"][str(number)]) for number in setting.cohort}
        completed = _set_up(log, members)
    else:
        members, completed = {}, setting.cohort
    for step in range(len(setting.steps)):
        log.step = step
        exactly = setting.steps[step]["exactly"]
        asked = completed if exactly is None else exactly
        needed = setting.survivors if exactly is None else len(exactly)
        survivors = _collect(log, step, asked, members)
        if setting.masked:
            if setting.enough(survivors, completed, needed):
                left, needed = _open(log, step, survivors, completed, members), setting.survivors
            else:
                left = survivors
            given_up = not setting.enough(left, completed, needed)
        else:
            left, given_up = survivors, len(survivors) < needed
        if given_up:
            log.server("Abort", asked, step, len(left), needed)
    return log.messages


def _set_up(log: Transcript, members: Mapping[int, Member]) -> list[int]:
    setting = log.setting
    entries = {number: member.entry() for number, member in members.items()}
    advertised = [number for number in members if log.member("Advertise", *entries[number])]
    keys = {number: [entries[other] for other in setting.group(number, advertised)] for number in advertised}
    for number in advertised:
        log.server("Keys", [number], keys[number])
    sent: dict[int, dict[int, bytes]] = {}
    for number in advertised:
        fields = members[number].shares({other: public_key for other, public_key, _ in keys[number]})
        if log.member("Shares", *fields):
            sent[number] = dict(fields[1])
    for number in sent:
        parcels = [[sender, sent[sender][number]] for sender in setting.peers(number, sent)]
        log.server("Inbox", [number], list(sent), parcels)
        members[number].take_parcels(parcels)
    return list(sent)


def _collect(log: Transcript, step: int, asked: Sequence[int], members: Mapping[int, Member]) -> list[int]:
    setting = log.setting
    about, bits = setting.steps[step], setting.stream(step)["ring_bits"]
    context = bindings.sha256(bytes.fromhex(about["context"]))
    log.server("StepRequest", asked, step, about["stream"], about["values"], context)
    survivors = []
    for number in asked:
        ring = encoded(setting, step, number)
        if setting.masked:
            ring = members[number].masked(step, ring, bits)
        if log.member("Contribution", number, step, ring_bytes(ring, bits)):
            survivors.append(number)
    return survivors


def _open(
    log: Transcript, step: int, survivors: Sequence[int], completed: Sequence[int], members: Mapping[int, Member]
) -> list[int]:
    """Who answered in the last of the phases that were begun."""
    setting = log.setting
    dead = [member for member in completed if member not in survivors]
    log.server("OpenRequest", survivors, step, list(dead))
    openers = list(survivors)
    if setting.active:
        signed = bindings.ballot(setting.session, setting.asked(step), completed, dead)
        votes = {number: ed25519_sign(members[number].identity, signed) for number in survivors}
        openers = [number for number in survivors if log.member("Vote", number, step, votes[number])]
        if not setting.enough(openers, completed):
            return openers
        log.server("Ballots", openers, step, [[number, votes[number]] for number in openers])
    return [number for number in openers if log.member("Openings", number, step, members[number].openings(step, dead))]


# As the server


def sums(given: Given, messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Each step's sum, opened from the frames alone; steps that were given up are left out."""
    setting = Setting(given)
    heard = [parse(bytes.fromhex(message["frame"])) for message in messages if message["taken"]]
    keys = {fields["member"]: fields for name, fields in heard if name == "Advertise"}
    for number, fields in keys.items():
        signed = bindings.advertisement(setting.session, number, fields["public_key"])
        if not ed25519_verify(setting.roster[number], fields["signature"], signed):
            raise ValueError(f"member {number}'s key is not signed by it")
    shares = {fields["member"]: fields for name, fields in heard if name == "Shares"}
    found = []
    for step in range(len(setting.steps)):
        now = [(name, fields) for name, fields in heard if fields.get("step") == step]
        if any(name == "Abort" for name, _ in now):
            continue
        bits = setting.stream(step)["ring_bits"]
        rings = {f["member"]: ring_elements(bytes(f["ring"]), bits) for name, f in now if name == "Contribution"}
        ring = [sum(column) % 2**bits for column in zip(*rings.values(), strict=True)]
        if setting.masked:
            ring = add_masks(ring, list(_left_over(setting, step, now, rings, keys, shares)), bits)
        total, weight = decode(ring, setting.stream(step))
        found.append(
            {
                "step": step,
                "contributors": sorted(rings),
                "ring": ring_bytes(ring, bits).hex(),
                "total": [bindings.hexadecimal(value) for value in total],
                "weight": weight,
            }
        )
    return found


def _left_over(
    setting: Setting,
    step: int,
    now: Sequence[tuple[str, Mapping[str, Any]]],
    survivors: Collection[int],
    keys: Collection[int],
    shares: Mapping[int, Mapping[str, Any]],
) -> Iterator[tuple[int, bytes]]:
    """The masks that did not cancel, with the sign that takes them away."""
    dead = [member for member in shares if member not in survivors]
    asked = setting.asked(step)
    for fields in (fields for name, fields in now if name == "Vote"):
        signed = bindings.ballot(setting.session, asked, sorted(shares), dead)
        if not ed25519_verify(setting.roster[fields["member"]], fields["signature"], signed):
            raise ValueError(f"member {fields['member']} signed other survivors")
    answers: dict[int, dict[int, int]] = {}
    for fields in (fields for name, fields in now if name == "Openings"):
        group = setting.group(fields["member"], shares)
        answers[fields["member"]] = dict(zip(group, sharing.elements(fields["shares"]), strict=True))
    for member in shares:
        holders = setting.group(member, answers)[: setting.wiring.threshold]
        secret = sharing.open_secret({setting.points[holder]: answers[holder][member] for holder in holders})
        if member in survivors:
            committed = shares[member]["commitments"][32 * step : 32 * (step + 1)]
            if sharing.commitment(setting.session, member, step, secret) != committed:
                raise ValueError(f"member {member} committed to another self secret")
            yield -1, bindings.self_key(secret, asked)
            continue
        sealed = shares[member]["backups"][step]
        seeds = sharing.open_backup(setting.session, member, step, secret, sealed)
        for peer, seed in zip(setting.peers(member, keys), seeds, strict=True):
            if peer in survivors:
                # The survivor added the mask if it is below the dead member, and subtracted it if above.
                yield (-1 if peer < member else 1), bindings.pair_key(seed, asked)


def plain_sums(given: Given, contributors: Mapping[int, Sequence[int]]) -> dict[int, str]:
    """What the sums should be: the contributors' encoded vectors, added in clear."""
    setting = Setting(given)
    found = {}
    for step, members in contributors.items():
        bits = setting.stream(step)["ring_bits"]
        columns = zip(*(encoded(setting, step, member) for member in members), strict=True)
        found[step] = ring_bytes([sum(column) % 2**bits for column in columns], bits).hex()
    return found
