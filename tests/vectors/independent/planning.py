"""What ciphertexts a stream's sums take, and how ring elements stand in them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import NamedTuple

from .encoding import Stream, scale
from .lattice import prime

CANDIDATES = ((2048, 32), (2048, 40), (2048, 48), (4096, 56))
SEED_BYTES = 64
_BINOMIAL_VARIANCE, _BINOMIAL_BOUND = 10.5, 21
# A round has at most 2^28 values in each of 10^6 steps, each value in 8 integers; two sides, and 2^-40 for all of it.
_PLACES = 8 * 10**6 * 2**28
_DEVIATIONS = math.sqrt(2 * math.log(2 * _PLACES * 2**40))
_PUBLIC_SLOT_DEVIATIONS = 34


class Carrier(NamedTuple):
    """Parameters of the ciphertexts of one stream, and the packing of its elements into integers."""

    scheme: str
    degree: int
    modulus_bits: int
    message_bits: int
    scale_bits: int
    public: bool
    clients: int
    offset: int
    fields: int
    field_bits: int
    limbs: int
    limb_bits: int

    @property
    def text(self) -> str:
        """What stands for the parameters where something is derived for them."""
        names = ("degree", "modulus", "message", "scale")
        numbers = (self.degree, self.modulus_bits, self.message_bits, self.scale_bits)
        sizes = _shown(dict(zip(names, numbers, strict=True)))
        return f"{self.scheme} {sizes} {'public' if self.public else 'secret'} clients={self.clients}"

    @property
    def packing_text(self) -> str:
        """What stands for the packing in a session."""
        names = ("offset", "clients", "fields", "field", "limbs", "limb")
        numbers = (self.offset, self.clients, self.fields, self.field_bits, self.limbs, self.limb_bits)
        return _shown(dict(zip(names, numbers, strict=True)))

    @property
    def modulus(self) -> int:
        return prime(self.degree, self.modulus_bits)

    @property
    def width(self) -> int:
        """Bytes of a coefficient."""
        return self.modulus_bits // 8

    @property
    def polynomial_bytes(self) -> int:
        return self.degree * self.width

    @property
    def largest(self) -> int:
        """The largest integer that a client encrypts."""
        if self.limbs > 1:
            return 2**self.limb_bits - 1
        return sum(2 * self.offset * 2 ** (self.field_bits * place) for place in range(self.fields))

    @property
    def centre(self) -> int:
        """What CKKS takes off every integer."""
        return (self.largest + 1) // 2 if self.scheme == "ckks" else 0

    def integers(self, elements: int) -> int:
        return -(-elements // self.fields) * self.limbs

    def chunks(self, elements: int) -> int:
        return -(-self.integers(elements) // self.degree)

    def upload(self) -> Fraction:
        """Bytes an element that a client sends, in long vectors."""
        second = Fraction(self.width) if self.public else Fraction(SEED_BYTES, self.degree)
        return (self.width + second) * self.limbs / self.fields

    def pack(self, ring: Sequence[int], ring_bits: int) -> list[int]:
        """A client's elements as non-negative integers."""
        half = 2 ** (ring_bits - 1)
        shifted = [(element + half) % (2 * half) - half + self.offset for element in ring]
        if any(not 0 <= value <= 2 * self.offset for value in shifted):
            raise ValueError("an element is beyond its bound")
        if self.limbs > 1:
            cut = 2**self.limb_bits
            return [value // cut**place % cut for place in range(self.limbs) for value in shifted]
        rows = [shifted[at : at + self.fields] for at in range(0, len(shifted), self.fields)]
        return [sum(value * 2 ** (self.field_bits * place) for place, value in enumerate(row)) for row in rows]

    def unpack(self, sums: Sequence[int], elements: int, contributors: int, ring_bits: int) -> list[int]:
        """The sum in the ring."""
        if self.limbs > 1:
            parts = [sums[place * elements : (place + 1) * elements] for place in range(self.limbs)]
            totals = [
                sum(value * 2 ** (self.limb_bits * place) for place, value in enumerate(column))
                for column in zip(*parts, strict=True)
            ]
        else:
            cut = 2**self.field_bits
            totals = [value // cut**place % cut for value in sums for place in range(self.fields)][:elements]
        return [(total - contributors * self.offset) % 2**ring_bits for total in totals]


def _shown(numbers: Mapping[str, int]) -> str:
    return " ".join(f"{name}={number}" for name, number in numbers.items())


def _room(scheme: str, degree: int, bits: int, clients: int, public: bool) -> tuple[int, int]:
    """Bits of a sum that have room beside the errors, and of CKKS' scale."""
    room = bits - 0.01
    variance = clients * _BINOMIAL_VARIANCE * ((4 / 3 * degree + 1) if public else 1)
    if scheme == "bfv":
        error = clients * _BINOMIAL_BOUND * ((2 * degree + 1) if public else 1)
        if public:
            error = min(error, _DEVIATIONS * math.sqrt(variance))
        return math.floor(room - math.log2(error + clients / 2) - 1), 0
    encryption = (_PUBLIC_SLOT_DEVIATIONS if public else _DEVIATIONS) * math.sqrt(variance * degree / 2)
    encoding = clients * _DEVIATIONS * math.sqrt(degree / 2 / 12)
    scale_bits = math.ceil(math.log2((encryption + encoding) / 0.4))
    exact = math.floor(50 + math.log2(variance) / 2 - scale_bits)
    return min(math.floor(room - 0.5 - scale_bits), exact, 44), scale_bits


def _fitted(scheme: str, stream: Stream, public: bool, degree: int, bits: int, headroom: int) -> Carrier | None:
    clients = stream["clients"]
    room, scale_bits = _room(scheme, degree, bits, clients, public)
    offset = scale(stream)[1] * (stream["max_weight"] or 1) + headroom
    field_bits = (2 * offset * clients).bit_length()
    if field_bits <= room:
        fields, limbs, limb_bits = room // field_bits, 1, (2 * offset).bit_length()
    else:
        limb_bits = room - (clients - 1).bit_length()
        if limb_bits < 1:
            return None
        fields, limbs, field_bits = 1, -(-(2 * offset).bit_length() // limb_bits), room
    head = (scheme, degree, bits, fields * field_bits, scale_bits, public, clients)
    return Carrier(*head, offset, fields, field_bits, limbs, limb_bits)


def carrier(scheme: str, stream: Stream, *, public: bool, headroom: int = 0) -> Carrier:
    """The candidate with the fewest bytes; among equal ones the first."""
    fitted = [_fitted(scheme, stream, public, degree, bits, headroom) for degree, bits in CANDIDATES]
    possible = [found for found in fitted if found is not None]
    if not possible:
        raise ValueError("no candidate has room for these sums")
    return min(possible, key=Carrier.upload)
