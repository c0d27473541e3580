"""Terms as the vectors write them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from unittest import mock

from protocols import FixedPoint, Noise, Terms
from protocols import terms as terms_module
from protocols.encoding import Ring

STREAM_FIELDS = ("clients", "max_weight", "ring_bits", "value_bits", "rounding", "norm", "excess")


class ExampleNoise(Noise):
    """A mechanism with a parameter of every type, for the digest's sake: it adds nothing."""

    name = "example"

    def parameters(self) -> Mapping[str, int | float | str]:
        return {"scale": 1.5, "shift": -0.0, "tails": 3, "of": "an example"}

    def headroom(self) -> int:
        return 0

    def add(self, ring: Ring) -> Ring:
        return ring


def stream_json(encoding: FixedPoint) -> dict[str, Any]:
    """A stream's fields; what follows from them is left out."""
    return {"clip": encoding.clip.hex(), **{name: getattr(encoding, name) for name in STREAM_FIELDS}}


def terms_json(terms: Terms) -> dict[str, Any]:
    """All fields of terms."""
    return {
        "streams": {name: stream_json(encoding) for name, encoding in terms.streams.items()},
        "steps": terms.steps,
        "dropout": float(terms.dropout).hex(),
        "corruption": float(terms.corruption).hex(),
        "min_cohort": terms.min_cohort,
        "active": terms.active,
        "sigma": terms.sigma,
        "eta": terms.eta,
        "max_values": terms.max_values,
        "noise": {
            "name": terms.noise.name,
            "parameters": {
                name: [type(value).__name__, _text(value)] for name, value in terms.noise.parameters().items()
            },
        },
    }


def terms_from(given: Mapping[str, Any]) -> Terms:
    """Terms without noise that :func:`terms_json` wrote."""
    streams = {
        name: FixedPoint(**{**fields, "clip": float.fromhex(fields["clip"])})
        for name, fields in given["streams"].items()
    }
    shares = {name: float.fromhex(given[name]) for name in ("dropout", "corruption")}
    rest = {name: given[name] for name in ("steps", "min_cohort", "active", "sigma", "eta", "max_values")}
    return Terms(streams=streams, **shares, **rest)


def _text(value: float | str) -> int | str:
    """Floats as texts."""
    return value.hex() if isinstance(value, float) else value


class _Recorder:
    """Stands where ``hashlib`` is, and keeps what is hashed."""

    def __init__(self, hashlib: Any) -> None:
        self._hashlib = hashlib
        self.hashed: list[bytes] = []

    def sha256(self, data: bytes) -> Any:
        self.hashed.append(data)
        return self._hashlib.sha256(data)


def terms_expected(terms: Terms, protocol: str) -> Mapping[str, Any]:
    """The digest, and the text that it is taken of."""
    recorder = _Recorder(terms_module.hashlib)
    with mock.patch.object(terms_module, "hashlib", recorder):
        digest = terms.digest(protocol)
    (hashed,) = recorder.hashed
    return {"text": hashed.removeprefix(b"codream-secure terms v1\0").decode("ascii"), "digest": digest.hex()}
