"""Rounds of homomorphic sums, run by the protocol's machines, and the small vectors of ciphertexts."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from protocols import FixedPoint
from protocols.homomorphic import secrets
from protocols.homomorphic.coefficients import to_bytes
from protocols.homomorphic.parameters import Parameters, Scheme
from protocols.homomorphic.planning import Plan as CiphertextPlan
from protocols.homomorphic.planning import described, plan_streams, plan_sums, sets_of
from protocols.homomorphic.seal import backend
from protocols.homomorphic.tags import tag
from protocols.homomorphic.vectors import BodySum
from protocols.keys import Secret, context_digest, request_context
from protocols.machines import SumResult
from protocols.parties import AUTHORITY
from protocols.wire import Ciphertexts, Grant, Message, Total, decode

from .randomness import SEAL_SEED_BYTES, Seeded, in_place_of_the_system
from .rounds import Plan, Recording, Step
from .terms import stream_json

Case = dict[str, Any]
_NONCE_BYTES = 12


class EncryptedRecording(Recording):
    """Keeps long bodies apart from the frames that they stand in, each once."""

    def __init__(self, plan: Plan) -> None:
        super().__init__(plan)
        self.drawn: dict[str, bytes] = {}
        """Bodies of contributions and public keys: what SEAL's randomness is in."""
        self.sums: dict[str, bytes] = {}
        self.nonces: dict[int, dict[int | None, bytes]] = {member: {} for member in plan.cohort}
        self.tags: dict[int, dict[str, list[int]]] = {step: {} for step in range(len(plan.steps))}
        self.plans = plan_streams(self._scheme, plan.terms, public=self.protocol.has_authority)

    @property
    def _scheme(self) -> Scheme:
        return "bfv" if self.plan.protocol.startswith("bfv") else "ckks"

    def _contribute(self, member: int, about: Step) -> bytes:
        assert self.step is not None
        values, weight = self.values[self.step][member]
        stream = self.randomness[member]
        before = len(stream.given)
        if self.protocol.opened_by == "clients":
            self.clients[member].hold(about.shared)
        with in_place_of_the_system(stream):
            message = self.clients[member].contribute(values, stream=about.stream, weight=weight, context=about.context)
        (self.nonces[member][self.step],) = (drawn for drawn in stream.given[before:] if len(drawn) == _NONCE_BYTES)
        return message

    def _result(self) -> SumResult:
        if self.protocol.opened_by == "server":
            return super()._result()
        members = [member for member in self.plan.cohort if ("SealedKeys", None, member) not in self.plan.missing]
        first, *others = (self.clients[member].result() for member in members)
        if any(not np.array_equal(first.ring, other.ring) for other in others):
            raise ValueError("clients opened different sums")
        return first

    def _numbers(self, values: np.ndarray[Any, Any]) -> str:
        return np.ascontiguousarray(values, dtype=values.dtype.newbyteorder("<")).tobytes().hex()

    def _note(self, sender: object, to: object, message: bytes, *, taken: bool) -> None:
        name = {AUTHORITY: "authority"}
        group = [name.get(member, member) for member in to] if isinstance(to, list) else to
        super()._note(name.get(sender, sender), group, message, taken=taken)
        decoded = decode(message, Message, limit=len(message))
        match decoded:
            case Ciphertexts():
                self.drawn[f"{decoded.member} at {decoded.step}"] = bytes(decoded.body)
                self._tag(decoded)
            case Grant():
                self.drawn |= {f"key {place}": key for place, key in enumerate(decoded.encryption_keys)}
            case Total():
                self.sums[f"sum at {decoded.step}"] = bytes(decoded.body)
        self.messages[-1]["frame"] = _pieces(message, self.drawn | self.sums)

    # What follows from the root

    @property
    def _root(self) -> Secret:
        """The root that counts: the authority's, or that of the first who completed the set-up."""
        if self.authority is not None:
            return Secret(self.randomness[AUTHORITY].given[0])
        missing = {member for name, step, member in self.plan.missing if step is None}
        return Secret(self.randomness[min(set(self.plan.cohort) - missing)].given[1])

    def _request(self, step: int) -> bytes:
        about = self.plan.steps[step]
        return request_context(step, about.stream, about.values, context_digest(about.context))

    def _tag_key(self, step: int) -> bytes:
        return secrets.tag_key(secrets.tag_root(self._root), self._session, self._request(step))

    @property
    def _session(self) -> bytes:
        return self.server._session

    def _tag(self, message: Ciphertexts) -> None:
        about = self.plan.steps[message.step]
        plan, elements = self.plans[about.stream], self.plan.terms.streams[about.stream].length(about.values)
        # The sum of one contribution alone: its polynomials, the second ones expanded.
        alone = BodySum(plan, elements)
        alone.add(memoryview(message.body))
        self.tags[message.step][str(message.member)] = list(
            tag(
                alone.body(),
                key=self._tag_key(message.step),
                width=plan.parameters.coefficient_bytes,
                modulus=backend(plan.parameters).modulus,
            )
        )

    def _derived(self) -> dict[str, Any]:
        """What implementations may want to look at on their way from a root to a sum."""
        root, tags, sets = self._root, secrets.tag_root(self._root), sets_of(self.plans.values())
        derived: dict[str, Any] = {"streams": described(self.plans).decode("ascii"), "session": self._session.hex()}
        if self.authority is None:
            derived["key_check"] = secrets.key_check(root, sets).hex()
        derived["sets"] = [
            {
                "text": str(parameters),
                "modulus": backend(parameters).modulus,
                "seed": secrets.secret_key(root, parameters).material.hex(),
            }
            for parameters in sets
        ]
        derived["tags"] = bytes(tags.value).hex()
        derived["steps"] = [
            {
                "tag_key": self._tag_key(step).hex(),
                "state": secrets.state_digest(tags, self._session, self._request(step), about.shared).hex(),
                "linear_tags": self.tags[step],
            }
            for step, about in enumerate(self.plan.steps)
        ]
        return derived

    # The case

    def _given(self) -> dict[str, Any]:
        given = super()._given()
        given["roster"] = {_party(party): key.public_key.hex() for party, key in self.identities.items()}
        given["clients"] = {_party(party): self._private(party) for party in self.randomness}
        given["missing"] = [
            {"message": name, "step": step, "member": "authority" if member == AUTHORITY else member}
            for name, step, member in self.plan.missing
        ]
        given["bodies"] = _base64(self.drawn)
        return given

    def _step(self, step: int) -> dict[str, Any]:
        written = {**super()._step(step), "shared": self.plan.steps[step].shared.hex()}
        asked = [str(member) for member, nonces in self.nonces.items() if step in nonces]
        written["contributions"] = {member: written["contributions"][member] for member in asked}
        return written

    def _private(self, member: int) -> Mapping[str, Any]:
        """What somebody drew: a client its key and a root if clients hold the key, then nonces; the authority both."""
        drawn = [value.hex() for value in self.randomness[member].given if len(value) == 32]
        private: dict[str, Any] = {"identity": self.identities[member].private_bytes().hex()}
        if member == AUTHORITY:
            private["root"], private["round_key"] = drawn
            return private
        private["round_key"], *root = drawn
        if root:
            (private["root"],) = root
        steps = range(len(self.plan.steps))
        nonces = self.nonces[member]
        private["nonces"] = [nonces[step].hex() if step in nonces else None for step in steps]
        return private

    def _expected(self, sums: list[dict[str, Any]]) -> dict[str, Any]:
        return {**super()._expected(sums), "bodies": _base64(self.sums), "derived": self._derived()}


def _party(number: int) -> str:
    return "authority" if number == AUTHORITY else str(number)


def _base64(bodies: Mapping[str, bytes]) -> dict[str, str]:
    return {name: base64.b64encode(body).decode("ascii") for name, body in bodies.items()}


def _pieces(frame: bytes, bodies: Mapping[str, bytes]) -> str | list[str | dict[str, str]]:
    """A frame in hexadecimal, with names in the place of bodies."""
    pieces: list[str | dict[str, str]] = []
    at = 0
    for start, name in sorted((frame.index(body), name) for name, body in bodies.items() if body in frame):
        pieces += [frame[at:start].hex(), {"body": name}]
        at = start + len(bodies[name])
    return [*pieces, frame[at:].hex()] if pieces else frame.hex()


# The small vectors

_STREAMS = {
    "32 bits": FixedPoint(clip=1.0, clients=4),
    "32 bits, 8 bits a value": FixedPoint(clip=1.0, clients=4, value_bits=8),
    "32 bits, 12 bits a value": FixedPoint(clip=1.0, clients=4, value_bits=12),
    "32 bits, 18 bits a value": FixedPoint(clip=1.0, clients=4, value_bits=18),
    "32 bits, weights": FixedPoint(clip=2.5, clients=10, max_weight=1000),
    "64 bits": FixedPoint(clip=2.5, clients=4, ring_bits=64),
    "64 bits, weights": FixedPoint(clip=1.0, clients=1000, ring_bits=64, max_weight=100),
    "64 bits, a million clients": FixedPoint(clip=1.0, clients=10**6, ring_bits=64),
}
_HOLDERS = {False: "a secret key", True: "a public key"}


def ciphertexts() -> list[Case]:
    """All cases."""
    cases, some = [], Seeded("ciphertexts")
    for scheme in ("bfv", "ckks"):
        for public, holder in _HOLDERS.items():
            for name, encoding in _STREAMS.items():
                if scheme == "ckks" and public and encoding.clients > 1000:
                    continue
                cases.append(_parameters(f"{scheme}, {holder}, {name}", scheme, encoding, public))
    for scheme, public, name in (
        *(("bfv", False, "32 bits, 8 bits a value"), ("bfv", True, "32 bits, 12 bits a value")),
        *(("ckks", False, "32 bits, 8 bits a value"), ("bfv", False, "32 bits, weights")),
        *(("bfv", False, "64 bits"), ("ckks", True, "64 bits, weights")),
    ):
        cases.append(_packing(f"{scheme}, {_HOLDERS[public]}, {name}", scheme, _STREAMS[name], public, some))
    for degree, bits in ((2048, 32), (2048, 40), (2048, 48), (4096, 56)):
        cases += [_expansion(degree, bits, some), _secret_key(degree, bits, some), _tag(degree, bits, some)]
    return [*cases, _long_tag(some)]


def _plan_json(scheme: Scheme, encoding: FixedPoint, public: bool) -> tuple[CiphertextPlan, dict[str, Any]]:
    given = {"scheme": scheme, "public": public, "stream": stream_json(encoding)}
    return plan_sums(scheme, encoding, public=public), given


def _parameters(name: str, scheme: Scheme, encoding: FixedPoint, public: bool) -> Case:
    plan, given = _plan_json(scheme, encoding, public)
    packing = {field: getattr(plan.packing, field) for field in _PACKING}
    modulus = backend(plan.parameters).modulus
    texts = {"text": str(plan.parameters), "packing_text": str(plan.packing)}
    expected = {**texts, "modulus": modulus, "packing": packing}
    return {"kind": "parameters", "name": name, "given": given, "expected": expected}


_PACKING = ("offset", "fields", "field_bits", "limbs", "limb_bits")


def _packing(name: str, scheme: Scheme, encoding: FixedPoint, public: bool, some: Seeded) -> Case:
    """The largest element, the smallest, zero, and whatever; in two vectors of seven."""
    plan, given = _plan_json(scheme, encoding, public)
    largest = plan.packing.offset
    elements = [
        [largest, -largest, 0, *(int.from_bytes(some.bytes(8), "big") % (2 * largest + 1) - largest for _ in range(4))]
        for _ in range(2)
    ]
    rings = [np.array(row, dtype=np.int64).astype(encoding.dtype) for row in elements]
    packed = [plan.packing.pack(ring) for ring in rings]
    sums = packed[0] + packed[1]
    ring = plan.packing.unpack(sums, elements=7, contributors=2, dtype=encoding.dtype)
    given["rings"] = [ring.tobytes().hex() for ring in rings]
    expected = {
        "integers": [row.tolist() for row in packed],
        "centre": (plan.packing.largest + 1) // 2 if scheme == "ckks" else 0,
        "sums": sums.tolist(),
        "ring": ring.tobytes().hex(),
    }
    return {"kind": "packing", "name": name, "given": given, "expected": expected}


def _bare(degree: int, bits: int) -> Parameters:
    return Parameters(
        scheme="bfv", degree=degree, modulus_bits=bits, message_bits=4, scale_bits=0, public=False, clients=2
    )


def _expansion(degree: int, bits: int, some: Seeded) -> Case:
    seal, seed = backend(_bare(degree, bits)), some.bytes(SEAL_SEED_BYTES)
    _, second = seal.polynomials(seal.add(None, np.zeros(degree, dtype=np.uint64), seed))
    given = {"degree": degree, "modulus_bits": bits, "seed": seed.hex()}
    digest = hashlib.sha256(to_bytes(second, bits // 8)).hexdigest()
    expected = {"modulus": seal.modulus, "first": second[:4].tolist(), "sha256": digest}
    return {"kind": "expansion", "name": f"{degree} of {bits} bits", "given": given, "expected": expected}


def _secret_key(degree: int, bits: int, some: Seeded) -> Case:
    """As SEAL keeps it, transformed; and its coefficients, read off a ciphertext that holds nothing else."""
    seal, seed = backend(_bare(degree, bits)), some.bytes(SEAL_SEED_BYTES)
    key = seal.secret_key(seed)
    transformed = seal.key_coefficients(key)
    given = {"degree": degree, "modulus_bits": bits, "seed": seed.hex()}
    expected = {
        "first": _phase(seal, key)[:8],
        "transformed": transformed[:4].tolist(),
        "sha256": hashlib.sha256(to_bytes(transformed, 8)).hexdigest(),
    }
    return {"kind": "secret key", "name": f"{degree} of {bits} bits", "given": given, "expected": expected}


def _phase(seal: Any, key: Any) -> list[int]:
    """Coefficients of a key: (0, q / 16) decrypts to them, modulo 16."""
    parameters = seal.parameters
    first, second = np.zeros(parameters.degree, dtype=np.uint64), np.zeros(parameters.degree, dtype=np.uint64)
    second[0] = seal.modulus >> parameters.message_bits
    found = seal.decrypt(first, second, key).astype(np.int64)
    return [int(value) - (16 if value > 8 else 0) for value in found]


def _tag(degree: int, bits: int, some: Seeded) -> Case:
    """Of twelve coefficients; a vector of ciphertexts has thousands."""
    seal, width, key = backend(_bare(degree, bits)), bits // 8, some.bytes(32)
    vector = b"".join(
        (int.from_bytes(some.bytes(8), "big") % seal.modulus).to_bytes(width, "little") for _ in range(12)
    )
    given = {"degree": degree, "modulus_bits": bits, "key": key.hex(), "polynomials": vector.hex()}
    expected = {"linear_tag": list(tag(vector, key=key, width=width, modulus=seal.modulus))}
    return {"kind": "tag", "name": f"of {bits} bits", "given": given, "expected": expected}


def _long_tag(some: Seeded) -> Case:
    """Of one polynomial again and again, until a second block of rows begins."""
    degree, bits, repeated = 2048, 32, 33
    seal, seed, key = backend(_bare(degree, bits)), some.bytes(SEAL_SEED_BYTES), some.bytes(32)
    _, second = seal.polynomials(seal.add(None, np.zeros(degree, dtype=np.uint64), seed))
    given = {"degree": degree, "modulus_bits": bits, "key": key.hex(), "seed": seed.hex(), "repeated": repeated}
    vector = repeated * to_bytes(second, bits // 8)
    expected = {"linear_tag": list(tag(vector, key=key, width=bits // 8, modulus=seal.modulus))}
    name = f"of {repeated * degree} coefficients"
    return {"kind": "long tag", "name": name, "given": given, "expected": expected}
