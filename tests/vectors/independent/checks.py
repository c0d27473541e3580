"""What each kind of vector says: from what is given, what is expected."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from . import bindings, blake, encrypted, lattice, planning, sharing
from .curves import ed25519_public, ed25519_sign, ed25519_verify, x25519_public
from .encoding import decode, encode, ring_bytes, ring_elements, scale
from .frames import frame, parse
from .graph import circle, neighbours, topology
from .messagepack import Malformed
from .rounds import add_masks, plain_sums, sums, transcript

Given = Mapping[str, Any]
Expected = dict[str, Any]


def load(path: Path) -> list[dict[str, Any]]:
    """The cases of one file."""
    cases: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["cases"]
    return cases


def recompute(kind: str, given: Given) -> Expected:
    """What a case should expect."""
    return _KINDS[kind](given)


def _raw(text: str) -> bytes:
    return bytes.fromhex(text)


def _scale(given: Given) -> Expected:
    exponent, largest = scale(given["stream"])
    return {"exponent": exponent, "largest": largest}


def _encode(given: Given) -> Expected:
    values = [float.fromhex(value) for value in given["values"]]
    ring = encode(values, given["weight"], given["stream"])
    return {"ring": ring_bytes(ring, given["stream"]["ring_bits"]).hex()}


def _decode(given: Given) -> Expected:
    total, weight = decode(ring_elements(_raw(given["ring"]), given["stream"]["ring_bits"]), given["stream"])
    return {"total": [bindings.hexadecimal(value) for value in total], "weight": weight}


def _to_python(value: Any) -> Any:
    if isinstance(value, dict):
        return _raw(value["hex"])
    return [_to_python(item) for item in value] if isinstance(value, list) else value


def _to_json(value: Any) -> Any:
    if isinstance(value, bytes):
        return {"hex": value.hex()}
    return [_to_json(item) for item in value] if isinstance(value, list) else value


def _frame(given: Given) -> Expected:
    data = frame(given["message"], *(_to_python(value) for value in given["fields"].values()))
    read = parse(data)
    if (read.name, list(read.fields)) != (given["message"], list(given["fields"])):
        raise ValueError("the frame does not read as what was written")
    return {"frame": data.hex()}


def _other_spelling(given: Given) -> Expected:
    message = parse(_raw(given["frame"]))
    return {"message": message.name, "fields": {name: _to_json(value) for name, value in message.fields.items()}}


def _refused_frame(given: Given) -> Expected:
    try:
        parse(_raw(given["frame"]))
    except Malformed as error:
        return {"refused_for": str(error).split(":")[0]}
    return {"refused_for": None}


def _terms(given: Given) -> Expected:
    text = bindings.terms_text(given["terms"], given["protocol"])
    return {"text": text, "digest": bindings.terms_digest(given["terms"], given["protocol"]).hex()}


def _roster(given: Given) -> Expected:
    roster = {int(member): _raw(key) for member, key in given["public_keys"].items()}
    return {"digest": bindings.roster_digest(roster).hex()}


def _session(given: Given) -> Expected:
    raw = {name: _raw(given[name]) for name in ("roster", "terms", "round_id")}
    return {"digest": bindings.session_digest(**{**given, **raw}).hex()}


def _asked(given: Given) -> bytes:
    return bindings.request(given["step"], given["stream"], given["values"], _raw(given["context"]))


def _request(given: Given) -> Expected:
    return {"request": _asked(given).hex()}


def _signed(identity: bytes, text: bytes) -> Expected:
    public_key, signature = ed25519_public(identity), ed25519_sign(identity, text)
    if not ed25519_verify(public_key, signature, text):
        raise ValueError("a signature does not verify")
    return {"signed": text.hex(), "identity_public_key": public_key.hex(), "signature": signature.hex()}


def _advertisement(given: Given) -> Expected:
    text = bindings.advertisement(_raw(given["session"]), given["member"], _raw(given["public_key"]))
    return _signed(_raw(given["identity"]), text)


def _vote(given: Given) -> Expected:
    text = bindings.ballot(_raw(given["session"]), _asked(given["request"]), given["members"], given["dead"])
    return _signed(_raw(given["identity"]), text)


def _pair(given: Given) -> Expected:
    (low, low_private), (high, high_private) = ((int(m), _raw(key)) for m, key in given["private_keys"].items())
    low_public, high_public = x25519_public(low_private), x25519_public(high_private)
    session = _raw(given["session"])
    pair = bindings.pair(session, low_private, low, low_public, high, high_public)
    if pair != bindings.pair(session, high_private, high, high_public, low, low_public):
        raise ValueError("the two ends derive different keys")
    return {
        "public_keys": {str(low): low_public.hex(), str(high): high_public.hex()},
        "masks": pair.masks.hex(),
        "parcel_key": {
            f"{low} to {high}": pair.key(low, high).hex(),
            f"{high} to {low}": pair.key(high, low).hex(),
        },
    }


def _pair_mask(given: Given) -> Expected:
    root = bindings.root_at(_raw(given["root"]), given["request"]["step"])
    seed = bindings.pair_seed(root)
    key = bindings.pair_key(seed, _asked(given["request"]))
    return {"root": root.hex(), "seed": seed.hex(), "key": key.hex(), "keystream": bindings.mask(key, 48).hex()}


def _self_mask(given: Given) -> Expected:
    key = bindings.self_key(int(given["secret"], 16), _asked(given["request"]))
    return {"key": key.hex(), "keystream": bindings.mask(key, 48).hex()}


def _keystream(given: Given) -> Expected:
    return {"keystream": bindings.mask(_raw(given["key"]), 32, skip=given["first_block"]).hex()}


def _masking(given: Given) -> Expected:
    keys = [(1, _raw(key)) for key in given["add"]] + [(-1, _raw(key)) for key in given["subtract"]]
    ring = add_masks(ring_elements(_raw(given["ring"]), given["ring_bits"]), keys, given["ring_bits"])
    return {"ring": ring_bytes(ring, given["ring_bits"]).hex()}


def _topology(given: Given) -> Expected:
    shares = {name: float.fromhex(given[name]) for name in ("dropout", "corruption")}
    rest = {name: given[name] for name in ("active", "sigma", "eta")}
    return topology(given["size"], **shares, **rest)._asdict()


def _graph(given: Given) -> Expected:
    cohort, seed = given["cohort"], _raw(given["seed"])
    joined = neighbours(cohort, given["degree"], seed)
    return {"circle": circle(cohort, seed), "neighbours": {str(member): joined[member] for member in cohort}}


def _split(given: Given) -> Expected:
    secrets = [int(secret, 16) for secret in given["secrets"]]
    coefficients = [[int(drawn, 16) for drawn in row] for row in given["coefficients"]]
    threshold = len(coefficients[0]) + 1
    shares = {
        point: [sharing.share(secret, row, point) for secret, row in zip(secrets, coefficients, strict=True)]
        for point in given["points"]
    }
    for at, secret in enumerate(secrets):
        if sharing.open_secret({point: shares[point][at] for point in given["points"][-threshold:]}) != secret:
            raise ValueError("the shares do not open the secret")
    return {"shares": {str(point): [sharing.element(s).hex() for s in held] for point, held in shares.items()}}


def _commitment(given: Given) -> Expected:
    secret = int(given["secret"], 16)
    return {"commitment": sharing.commitment(_raw(given["session"]), given["member"], given["step"], secret).hex()}


def _backup(given: Given) -> Expected:
    secret, session = int(given["secret"], 16), _raw(given["session"])
    member, step, roots = given["member"], given["step"], [_raw(root) for root in given["roots"]]
    sealed = sharing.backup(session, member, step, secret, roots)
    seeds = sharing.open_backup(session, member, step, secret, sealed)
    return {
        "key": sharing.backup_key(secret).hex(),
        "context": (bindings.LABELS["backup"] + sharing.place(session, member, step)).hex(),
        "seeds": [seed.hex() for seed in seeds],
        "ciphertext": sealed.hex(),
    }


def _parcel(given: Given) -> Expected:
    context = sharing.parcel_context(_raw(given["session"]), given["sender"], given["recipient"])
    sealed = sharing.parcel(_raw(given["key"]), _raw(given["batch"]), context)
    if sharing.open_parcel(_raw(given["key"]), sealed, context).hex() != given["batch"]:
        raise ValueError("the parcel does not open")
    return {"context": context.hex(), "ciphertext": sealed.hex()}


def _parameters(given: Given) -> Expected:
    how = planning.carrier(given["scheme"], given["stream"], public=given["public"])
    packing = {name: getattr(how, name) for name in ("offset", "fields", "field_bits", "limbs", "limb_bits")}
    return {"text": how.text, "packing_text": how.packing_text, "modulus": how.modulus, "packing": packing}


def _packing(given: Given) -> Expected:
    how = planning.carrier(given["scheme"], given["stream"], public=given["public"])
    bits = given["stream"]["ring_bits"]
    rings = [ring_elements(_raw(ring), bits) for ring in given["rings"]]
    packed = [how.pack(ring, bits) for ring in rings]
    sums = [sum(column) for column in zip(*packed, strict=True)]
    ring = how.unpack(sums, len(rings[0]), len(rings), bits)
    if ring != [sum(column) % 2**bits for column in zip(*rings, strict=True)]:
        raise ValueError("what is unpacked is not the sum")
    return {"integers": packed, "centre": how.centre, "sums": sums, "ring": ring_bytes(ring, bits).hex()}


def _expansion(given: Given) -> Expected:
    modulus = lattice.prime(given["degree"], given["modulus_bits"])
    found = blake.uniform(_raw(given["seed"]), given["degree"], modulus)
    data = lattice.polynomial_bytes(found, given["modulus_bits"] // 8)
    return {"modulus": modulus, "first": list(found[:4]), "sha256": bindings.sha256(data).hex()}


def _secret_key(given: Given) -> Expected:
    modulus = lattice.prime(given["degree"], given["modulus_bits"])
    found = blake.ternary(_raw(given["seed"]), given["degree"])
    transformed = lattice.transformed(found, modulus)
    return {
        "first": list(found[:8]),
        "transformed": transformed[:4],
        "sha256": bindings.sha256(lattice.polynomial_bytes(transformed, 8)).hex(),
    }


def _tag(given: Given) -> Expected:
    data, width = _raw(given["polynomials"]), given["modulus_bits"] // 8
    modulus = lattice.prime(given["degree"], given["modulus_bits"])
    (vector,) = lattice.polynomials(data, len(data) // width, width, modulus)
    return {"linear_tag": lattice.tag(vector, _raw(given["key"]), modulus)}


def _long_tag(given: Given) -> Expected:
    modulus = lattice.prime(given["degree"], given["modulus_bits"])
    vector = given["repeated"] * blake.uniform(_raw(given["seed"]), given["degree"], modulus)
    return {"linear_tag": lattice.tag(vector, _raw(given["key"]), modulus)}


def _encrypted_round(given: Given) -> Expected:
    play = encrypted.Play(given)
    play.run()
    opened = encrypted.opened(given, play.log.messages, play.log.bodies)
    for entry in opened:
        if entry["ring"] != play.round.plain_sum(entry["step"], entry["contributors"]).hex():
            raise ValueError("what was opened is not the contributors' sum")
    new = {name: base64.b64encode(body).decode("ascii") for name, body in play.new.items()}
    return {"messages": play.log.messages, "bodies": new, "sums": opened, "derived": play.derived}


def _round(given: Given) -> Expected:
    if given["protocol"] in encrypted.PROTOCOLS:
        return _encrypted_round(given)
    messages = transcript(given)
    opened = sums(given, messages)
    contributors = {entry["step"]: entry["contributors"] for entry in opened}
    if {entry["step"]: entry["ring"] for entry in opened} != plain_sums(given, contributors):
        raise ValueError("what was opened is not the contributors' sum")
    return {"messages": messages, "sums": opened}


_KINDS: dict[str, Callable[[Given], Expected]] = {
    "scale": _scale,
    "encode": _encode,
    "decode": _decode,
    "frame": _frame,
    "other spelling": _other_spelling,
    "refused frame": _refused_frame,
    "terms": _terms,
    "roster": _roster,
    "session": _session,
    "request": _request,
    "advertisement": _advertisement,
    "vote": _vote,
    "pair": _pair,
    "pair mask": _pair_mask,
    "self mask": _self_mask,
    "keystream": _keystream,
    "masking": _masking,
    "topology": _topology,
    "graph": _graph,
    "split": _split,
    "commitment": _commitment,
    "backup": _backup,
    "parcel": _parcel,
    "parameters": _parameters,
    "packing": _packing,
    "expansion": _expansion,
    "secret key": _secret_key,
    "tag": _tag,
    "long tag": _long_tag,
    "round": _round,
}
KINDS = frozenset(_KINDS)
