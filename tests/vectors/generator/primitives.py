"""The small vectors: encoding, bindings, masks, graphs, sharing."""

from __future__ import annotations

from typing import Any
from unittest import mock

import numpy as np

from protocols import FixedPoint, Identity, Roster, Terms, keys, openings, shares
from protocols import graph as graph_module
from protocols import masks as masks_module
from protocols.keys import RoundKey, Secret

from .randomness import Seeded, in_place_of_the_system
from .terms import ExampleNoise, stream_json, terms_expected, terms_json

Case = dict[str, Any]


def _case(kind: str, name: str, given: dict[str, Any], expected: Any) -> Case:
    return {"kind": kind, "name": name, "given": given, "expected": dict(expected)}


def _hex(numbers: list[int]) -> list[str]:
    return [number.to_bytes(32, "big").hex() for number in numbers]


# Encoding

_STREAMS = {
    "32 bits": FixedPoint(clip=1.0, clients=4),
    "32 bits, an odd bound": FixedPoint(clip=0.3, clients=10),
    "32 bits, weights": FixedPoint(clip=2.5, clients=10, max_weight=1000),
    "32 bits, 8 bits a value": FixedPoint(clip=1.0, clients=100, value_bits=8),
    "32 bits, a large bound": FixedPoint(clip=3.0e12, clients=3),
    "32 bits, toward zero": FixedPoint(clip=1.0, clients=4, rounding="toward_zero"),
    "32 bits, toward zero, norm": FixedPoint(clip=5.0, clients=4, value_bits=6, rounding="toward_zero", norm="l2"),
    "32 bits, a norm between integers": FixedPoint(
        clip=5.5, clients=4, value_bits=4, rounding="toward_zero", norm="l2"
    ),
    "32 bits, a norm that floats miss": FixedPoint(clip=1.0, clients=1, rounding="toward_zero", norm="l2"),
    "64 bits, a norm that scaling misses": FixedPoint(clip=0.1, clients=1, ring_bits=64, norm="l2"),
    "32 bits, refusing": FixedPoint(clip=1.0, clients=4, excess="refuse"),
    "64 bits": FixedPoint(clip=1.0, clients=4, ring_bits=64),
    "64 bits, weights": FixedPoint(clip=0.1, clients=1000, ring_bits=64, max_weight=10**6),
    "64 bits, toward zero": FixedPoint(clip=7.0, clients=3, ring_bits=64, rounding="toward_zero"),
    "64 bits, a small bound": FixedPoint(clip=1e-30, clients=2, ring_bits=64),
}


_VECTORS = {
    "32 bits, toward zero, norm": [6.0, -8.0],  # of norm 10, in floating point too
    "32 bits, a norm between integers": [5.0, 2.0],  # its square, 29, is above 5 squared and below 5.5 squared
    "32 bits, a norm that floats miss": [1.0, 2.0**-30],  # of norm 1 in floating point; shortened in integers
    "64 bits, a norm that scaling misses": [3.125],  # 3.125 * (clip / 3.125) is above clip in floating point
}
"""Where the norm of the whole vector is bounded; everything about these is the same in every correct arithmetic."""


def encodings() -> list[Case]:
    cases = []
    for name, encoding in _STREAMS.items():
        expected = {"exponent": encoding.exponent, "largest": encoding.largest}
        cases.append(_case("scale", name, {"stream": stream_json(encoding)}, expected))
        for dtype in (np.float32, np.float64):
            values, rings = _values(name, encoding).astype(dtype), []
            for weight in [None] if encoding.max_weight is None else [1, encoding.max_weight, 0]:
                rings.append(encoding.encode(values, weight=weight).ring)
                given = {
                    "stream": stream_json(encoding),
                    "dtype": values.dtype.name,
                    "values": [float(value).hex() for value in values],
                    "weight": weight,
                }
                expected = {"ring": rings[-1].tobytes().hex()}
                cases.append(_case("encode", f"{name}, {values.dtype.name}, weight {weight}", given, expected))
        total = sum(rings[1:], rings[0] * 1)
        for what, ring in (("one", rings[0]), ("a sum", total)):
            decoded = encoding.decode(ring)
            given = {"stream": stream_json(encoding), "ring": ring.tobytes().hex()}
            expected = {"total": [float(value).hex() for value in decoded.total], "weight": decoded.weight}
            cases.append(_case("decode", f"{name}, {what}", given, expected))
    return cases


def _values(name: str, encoding: FixedPoint) -> np.ndarray[Any, Any]:
    """Ties, zeros of both signs, the bound, values around it and beyond, tiny ones."""
    clip, unit = encoding.clip, encoding.resolution
    if name in _VECTORS:
        return np.array(_VECTORS[name])
    edges = [0.0, -0.0, clip, -clip, 0.5 * unit, 1.5 * unit, -0.5 * unit, -2.5 * unit, 2.0**-140, 0.75 * unit]
    beyond = [] if encoding.excess == "refuse" else [1.5 * clip, -(2.0**100)]
    drawn = np.frombuffer(Seeded(f"values, {name}").bytes(24), dtype="<i4") / 2.0**31 * clip
    return np.array([*edges, *beyond, *drawn])


# Bindings

_TERMS = {
    "defaults": Terms(streams={"gradients": FixedPoint(clip=1.0, clients=10)}, steps=100),
    "active": Terms(streams={"gradients": FixedPoint(clip=1.0, clients=10)}, steps=100, active=True),
    "everything set": Terms(
        streams={
            "zeta": FixedPoint(
                clip=0.1, clients=7, max_weight=31, ring_bits=64, value_bits=20, rounding="toward_zero", norm="l2"
            ),
            'a "quoted" \\ name': FixedPoint(clip=1e30, clients=7, rounding="stochastic", excess="refuse"),
            "Alpha": FixedPoint(clip=2.0**-100, clients=7),
        },
        steps=1_000_000,
        dropout=0.0,
        corruption=0.1,
        min_cohort=7,
        sigma=128,
        eta=1,
        max_values=1,
        noise=ExampleNoise(),
    ),
    "numbers of other types": Terms(
        streams={"gradients": FixedPoint(clip=1, clients=np.int64(10))},
        steps=np.int64(100),
        dropout=-0.0,
        corruption=np.float32(0.25),
        min_cohort=np.int16(10),
        active=np.True_,
    ),
}

_REQUESTS: dict[str, dict[str, Any]] = {
    "without context": {"step": 0, "stream": "gradients", "values": 5, "context": b""},
    "with context": {"step": 1, "stream": "g", "values": 2**28, "context": b"what was shown"},
    "a long context": {"step": 258, "stream": "s" * 64, "values": 0, "context": bytes(range(256))},
}
"""What a step may ask for."""


def _request(about: dict[str, Any]) -> bytes:
    context = keys.context_digest(about["context"])
    return keys.request_context(about["step"], about["stream"], about["values"], context)


def _request_json(about: dict[str, Any]) -> dict[str, Any]:
    return {**about, "context": about["context"].hex()}


def bindings() -> list[Case]:
    some = Seeded("bindings")
    cases = [
        _case(
            "terms",
            f"{name}, {protocol}",
            {"protocol": protocol, "terms": terms_json(terms)},
            terms_expected(terms, protocol),
        )
        for name, terms in _TERMS.items()
        for protocol in ("masked", "plain")
    ]
    identities = {member: Identity(some.bytes(32)) for member in (3, 200, 70_000, 2**32 - 1)}
    roster = Roster({member: identity.public_key for member, identity in identities.items()})
    public_keys = {str(member): identity.public_key.hex() for member, identity in identities.items()}
    cases.append(_case("roster", "four members", {"public_keys": public_keys}, {"digest": roster.digest.hex()}))
    terms, round_id, cohort = some.bytes(32), some.bytes(16), sorted(identities)[1:]
    topology = graph_module.Topology(size=3, degree=2, threshold=258, survivors=3, corrupt=0)
    session = keys.session_digest(round_id, roster=roster.digest, terms=terms, cohort=cohort, topology=topology)
    given = {
        "roster": roster.digest.hex(),
        "terms": terms.hex(),
        **{name: getattr(topology, name) for name in ("degree", "threshold", "survivors")},
        "cohort": cohort,
        "round_id": round_id.hex(),
    }
    cases.append(_case("session", "three members", given, {"digest": session.hex()}))
    for member, identity in identities.items():
        key = some.bytes(32)
        given = {"session": session.hex(), "member": member, "public_key": key.hex()}
        cases.append(
            _signed("advertisement", f"member {member}", given, identity, keys.advertisement(session, member, key))
        )
    for name, about in _REQUESTS.items():
        expected = {"request": _request(about).hex()}
        cases.append(_case("request", name, _request_json(about), expected))
    everybody = sorted(identities)
    for (name, about), dead in zip(_REQUESTS.items(), ([], everybody[1:2], everybody[1:]), strict=True):
        given = {"session": session.hex(), "request": _request_json(about), "members": everybody, "dead": dead}
        signed = keys.ballot(session, _request(about), members=everybody, dead=dead)
        cases.append(_signed("vote", name, given, identities[3], signed))
    return cases + [_pair(low, high, session, some) for low, high in ((0, 1), (200, 70_000), (3, 2**32 - 1))]


def _signed(kind: str, name: str, given: dict[str, Any], identity: Identity, text: bytes) -> Case:
    expected = {
        "signed": text.hex(),
        "identity_public_key": identity.public_key.hex(),
        "signature": identity.sign(text).hex(),
    }
    return _case(kind, name, {**given, "identity": identity.private_bytes().hex()}, expected)


def _pair(low: int, high: int, session: bytes, some: Seeded) -> Case:
    with in_place_of_the_system(some):
        ends = {member: RoundKey() for member in (low, high)}
    private_keys = {str(member): key.hex() for member, key in zip(ends, some.given[-2:], strict=True)}
    pair = ends[low].agree(session, low, high, ends[high].public_key)
    expected = {
        "public_keys": {str(member): key.public_key.hex() for member, key in ends.items()},
        "masks": pair.masks.value.hex(),
        "parcel_key": {f"{low} to {high}": pair.outgoing.value.hex(), f"{high} to {low}": pair.incoming.value.hex()},
    }
    return _case("pair", f"{low} and {high}", {"session": session.hex(), "private_keys": private_keys}, expected)


# Masks


def masks() -> list[Case]:
    some = Seeded("masks")
    cases = []
    first, secret = some.bytes(32), some.element()
    for name, about in _REQUESTS.items():
        root = Secret(first)
        for _ in range(about["step"]):
            root = masks_module.next_root(root)
        seed = masks_module.pair_seed(root)
        key = masks_module.pair_mask_key(seed, _request(about))
        given = {"root": first.hex(), "request": _request_json(about)}
        expected = {
            "root": root.value.hex(),
            "seed": seed.hex(),
            "key": key.hex(),
            "keystream": _stream(key)[:96],
        }
        cases.append(_case("pair mask", f"step {about['step']}, {name}", given, expected))
    for (name, value), about in zip(
        (("drawn", secret), ("a small number", 1), ("the largest", shares.PRIME - 1)), _REQUESTS.values(), strict=True
    ):
        key = masks_module.self_mask_key(openings.self_secret(value), _request(about))
        given = {"secret": _hex([value])[0], "request": _request_json(about)}
        cases.append(_case("self mask", name, given, {"key": key.hex(), "keystream": _stream(key)[:96]}))
    key = some.bytes(32)
    for block in (0, 255, 8191, 8192, 16_384):
        expected = {"keystream": _stream(key, blocks=block + 2)[32 * block :]}
        cases.append(_case("keystream", f"block {block}", {"key": key.hex(), "first_block": block}, expected))
    for bits, dtype in ((32, "<u4"), (64, "<u8")):
        ring = np.frombuffer(some.bytes(7 * bits // 8), dtype=dtype).copy()
        given = {"ring_bits": bits, "ring": ring.tobytes().hex(), "add": [], "subtract": []}
        for name in ("add", "add", "subtract"):
            given[name].append(some.bytes(32).hex())
        added, subtracted = ([bytes.fromhex(key) for key in given[name]] for name in ("add", "subtract"))
        masks_module.apply_masks(ring, add=added, subtract=subtracted)
        cases.append(_case("masking", f"{bits} bits", given, {"ring": ring.tobytes().hex()}))
    return cases


def _stream(key: bytes, blocks: int = 3) -> str:
    """A mask as it is added to zeros, whichever way a machine finds faster to make it."""
    made = set()
    for mode in masks_module.MODES:
        ring = np.zeros(4 * blocks, dtype="<u4")
        with mock.patch.object(masks_module, "_fastest_mode", lambda mode=mode: mode):
            masks_module.apply_masks(ring, add=[key])
        made.add(ring.tobytes().hex())
    (mask,) = made
    return mask


# Graphs


def graphs() -> list[Case]:
    cases = []
    for size, dropout, corruption, active, sigma, eta in (
        (2, 0.0, 0.0, False, 40, 30),
        (10, 0.3, 1 / 3, False, 40, 30),
        (10, 0.3, 0.2, True, 40, 30),
        (30, 0.1, 0.1, True, 40, 30),
        (9, 0.0, 0.0, False, 40, 30),
        (12, 0.1, 0.1, False, 40, 30),
        (13, 0.1, 0.1, False, 40, 30),
        (24, 0.1, 0.1, False, 1, 1),
        (100, 0.05, 0.05, False, 40, 30),
        (100, 0.2, 0.1, False, 10, 5),
        (100, 0.3, 1 / 3, False, 40, 30),
        (300, 0.1, 0.2, False, 40, 20),
    ):
        wiring = graph_module.plan(size, dropout=dropout, corruption=corruption, active=active, sigma=sigma, eta=eta)
        given = {
            "size": size, "dropout": dropout.hex(), "corruption": corruption.hex(),
            "active": active, "sigma": sigma, "eta": eta,
        }  # fmt: skip
        expected = {name: getattr(wiring, name) for name in ("degree", "threshold", "survivors", "corrupt")}
        cases.append(_case("topology", f"{size} members, {dropout:.2f}, {corruption:.2f}, {active}", given, expected))
    for cohort, degree in (
        ([5, 6, 7, 100, 2**32 - 1], 2),
        (list(range(12)), 4),
        (list(range(1000, 1060)), 10),
    ):
        seed = Seeded(f"graph of {len(cohort)}").bytes(32)
        expected = {
            "circle": graph_module._shuffled(cohort, seed),
            "neighbours": {
                str(member): list(near)
                for member, near in sorted(graph_module.neighbours(cohort, degree, seed).items())
            },
        }
        given = {"cohort": cohort, "degree": degree, "seed": seed.hex()}
        cases.append(_case("graph", f"{len(cohort)} members, {degree} neighbours", given, expected))
    return cases


# Sharing


def sharing() -> list[Case]:
    some = Seeded("sharing")
    session, member, step = some.bytes(32), 70_000, 258
    secrets = [some.element(), 0, 1, shares.PRIME - 1]
    cases = [
        _split(secrets, points, threshold, some) for points, threshold in (([1, 2, 3], 2), ([2, 3, 5, 100_000], 4))
    ]
    for secret in (secrets[0], 0):
        given = {"session": session.hex(), "member": member, "step": step, "secret": _hex([secret])[0]}
        expected = {"commitment": openings.commit(session, member, step, secret).hex()}
        cases.append(_case("commitment", "zero" if not secret else "drawn", given, expected))
    return [*cases, _backup(session, member, some), _parcel(session, 3, 200, some), _parcel(session, 200, 3, some)]


def _split(secrets: list[int], points: list[int], threshold: int, some: Seeded) -> Case:
    before = len(some.given)
    with in_place_of_the_system(some):
        held = shares.split(secrets, points, threshold)
    drawn = [value.hex() for value in some.given[before:]]
    each = threshold - 1
    given = {
        "secrets": _hex(secrets),
        "coefficients": [drawn[at : at + each] for at in range(0, len(drawn), each)],
        "points": points,
    }
    expected = {"shares": {str(point): _hex(share) for point, share in zip(points, held, strict=True)}}
    return _case("split", f"{threshold} of {len(points)}", given, expected)


def _backup(session: bytes, member: int, some: Seeded) -> Case:
    """A step's backup as it is made among those of all steps."""
    before = len(some.given)
    with in_place_of_the_system(some):
        secrets = openings.StepSecrets(2)
    drawn = [value.hex() for value in some.given[before:]]
    roots = [some.bytes(32) for _ in range(3)]
    sealed = secrets.backups(session, member, [Secret(root) for root in roots])
    with mock.patch.object(openings, "seal", lambda key, plaintext, context: (key, plaintext, context)):
        (_, (key, seeds, context)) = secrets.backups(session, member, [Secret(root) for root in roots])
    given = {
        "session": session.hex(),
        "member": member,
        "step": 1,
        "secret": drawn[3],
        "roots": [root.hex() for root in roots],
    }
    expected = {
        "key": key.hex(),
        "context": context.hex(),
        "seeds": [seeds[at : at + 32].hex() for at in range(0, len(seeds), 32)],
        "ciphertext": sealed[1].hex(),
    }
    return _case("backup", "three neighbours", given, expected)


def _parcel(session: bytes, sender: int, recipient: int, some: Seeded) -> Case:
    key, batch = some.bytes(32), some.bytes(128)
    context = openings.parcel_context(session, sender, recipient)
    given = {
        "session": session.hex(),
        "sender": sender,
        "recipient": recipient,
        "key": key.hex(),
        "batch": batch.hex(),
    }
    expected = {"context": context.hex(), "ciphertext": shares.seal(key, batch, context).hex()}
    return _case("parcel", f"{sender} to {recipient}", given, expected)
