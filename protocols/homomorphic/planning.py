"""The planner: from what is summed to the smallest ciphertexts that carry it, and why.

Every modulus that keeps 128 bits of security is considered; the one with the fewest bytes a value wins. Larger moduli
are dearer by the byte but leave more room beside the errors, so that more fields may fit side by side.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from protocols.encoding import FixedPoint
from protocols.errors import EncodingError, TermsError
from protocols.homomorphic.packing import Packing
from protocols.homomorphic.parameters import LARGEST_MODULUS, Parameters, Scheme, capacity
from protocols.noise import NoNoise
from protocols.terms import Terms
from protocols.wire import MAX_KEYS

SEED_BYTES = 64
"""Of the generator that expands a fresh symmetric ciphertext's second polynomial; it travels in its place."""
_CANDIDATES = ((2048, 32), (2048, 40), (2048, 48), (4096, 56))


@dataclass(frozen=True, kw_only=True)
class Considered:
    """One modulus that the planner looked at.

    Attributes:
        degree: of the polynomials.
        modulus_bits: of q.
        security_limit: the most bits that keep 128 bits of security at this degree.
        message_bits: of the sum, beside errors; 0 if none.
        fields: values in one integer; 0 if no value fits.
        limbs: integers for one value.
        upload: bytes a value from a client, without a message's frame; None if no value fits.
        download: of the sum.
        verdict: why it was taken or not.
    """

    degree: int
    modulus_bits: int
    security_limit: int
    message_bits: int
    fields: int
    limbs: int
    upload: float | None
    download: float | None
    verdict: str


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What was chosen for one stream.

    Attributes:
        parameters: of the ciphertexts.
        packing: of elements into integers.
        upload: bytes a value that a client sends.
        download: bytes a value of the sum.
        considered: all that were looked at, the chosen one among them.
    """

    parameters: Parameters
    packing: Packing
    upload: float
    download: float
    considered: tuple[Considered, ...]

    def chunks(self, elements: int) -> int:
        """Ciphertexts for that many ring elements."""
        return -(-self.packing.integers(elements) // self.parameters.degree)

    def upload_bytes(self, elements: int) -> int:
        """Bytes of a client's ciphertexts: one polynomial and a seed each, or two polynomials under a public key."""
        size = self.parameters.polynomial_bytes
        return self.chunks(elements) * (2 * size if self.parameters.public else size + SEED_BYTES)

    def sum_bytes(self, elements: int) -> int:
        """Bytes of a sum: two polynomials a ciphertext."""
        return self.chunks(elements) * 2 * self.parameters.polynomial_bytes


def plan_sums(scheme: Scheme, encoding: FixedPoint, *, public: bool, headroom: int = 0) -> Plan:
    """The cheapest parameters that carry sums of this encoding.

    Args:
        scheme: BFV or CKKS.
        encoding: bounds values and clients.
        public: whether clients encrypt with a public key; otherwise they hold the secret one.
        headroom: of the noise that each client adds, in ring units.

    Raises:
        TermsError: nothing carries it; the message says what could be met.
    """
    found: dict[tuple[int, int], tuple[float, Packing]] = {}
    rooms = {
        candidate: capacity(scheme, *candidate, clients=encoding.clients, public=public) for candidate in _CANDIDATES
    }
    for candidate, room in rooms.items():
        try:
            packing = Packing.fit(encoding, headroom=headroom, message_bits=max(room.message_bits, 0))
        except TermsError:
            continue
        found[candidate] = (_upload(candidate, packing, public=public), packing)
    if not found:
        key = "a public" if public else "a secret"
        raise TermsError(
            f"{scheme} sums of {encoding.clients} clients have no room beside the errors at 128 bits of security: "
            f"with {key} key at most {_most_clients(scheme, public=public)} clients can be summed"
        )
    best = min(found, key=lambda candidate: (found[candidate][0], candidate))
    upload, packing = found[best]
    parameters = Parameters(
        scheme=scheme,
        degree=best[0],
        modulus_bits=best[1],
        message_bits=packing.message_bits,
        scale_bits=rooms[best].scale_bits,
        public=public,
        clients=encoding.clients,
    )
    considered = []
    for candidate, room in rooms.items():
        carried = found.get(candidate)
        if carried is None:
            verdict = "no room beside the errors"
        elif candidate == best:
            verdict = "chosen: fewest bytes a value"
        else:
            verdict = f"{carried[0] / upload - 1:+.0%} bytes" if carried[0] > upload else "as small, but slower"
        considered.append(
            Considered(
                degree=candidate[0],
                modulus_bits=candidate[1],
                security_limit=LARGEST_MODULUS[candidate[0]],
                message_bits=max(room.message_bits, 0),
                fields=carried[1].fields if carried else 0,
                limbs=carried[1].limbs if carried else 0,
                upload=carried[0] if carried else None,
                download=_download(candidate, carried[1]) if carried else None,
                verdict=verdict,
            )
        )
    return Plan(
        parameters=parameters,
        packing=packing,
        upload=upload,
        download=_download(best, packing),
        considered=tuple(considered),
    )


def plan_streams(scheme: Scheme, terms: Terms, *, public: bool) -> dict[str, Plan]:
    """A plan for every stream of the terms.

    Raises:
        TermsError: a stream cannot be carried, or integer noise is to be carried by an approximate scheme.
    """
    if scheme == "ckks" and not isinstance(terms.noise, NoNoise):
        raise TermsError(
            f"ckks with {terms.noise.name} noise: integer noise is accounted for to the last unit, and CKKS is only "
            "approximate; use bfv or masked"
        )
    plans = {}
    for name, encoding in terms.streams.items():
        try:
            plans[name] = plan_sums(scheme, encoding, public=public, headroom=terms.noise.headroom())
        except TermsError as error:
            raise TermsError(f"stream {name!r}: {error}") from None
    if len(sets_of(plans.values())) > MAX_KEYS:
        raise TermsError(f"the streams need {len(sets_of(plans.values()))} different keys: at most {MAX_KEYS}")
    return plans


def described(plans: Mapping[str, Plan]) -> bytes:
    """Every stream's parameters and packing as text.

    They follow from the terms by floating-point arithmetic; with their text in the session's digest, two machines that
    got different ones share no round.
    """
    lines = (f"{name}: {plan.parameters}; {plan.packing}\n" for name, plan in sorted(plans.items()))
    return "".join(lines).encode("ascii")


def sets_of(plans: Iterable[Plan]) -> list[Parameters]:
    """All parameters that plans use, each once, in an order that every party finds."""
    return sorted({plan.parameters for plan in plans}, key=str)


def encoding_for(precision: float, *, clients: int, clip: float = 1.0, max_weight: int | None = None) -> FixedPoint:
    """The encoding with the fewest bits whose rounding moves no value by more than ``precision``.

    Args:
        precision: largest error of a value, and so of a mean, in the values' own unit; above 0.
        clients: at most so many are added.
        clip: bound on a value's magnitude.
        max_weight: as for :class:`~protocols.encoding.FixedPoint`.

    Raises:
        EncodingError: no ring has that precision; the message says which precision can be had.
    """
    if not (math.isfinite(precision) and precision > 0):
        raise EncodingError(f"precision is {precision}: it must be a positive number, such as 1e-4")
    exponent = math.ceil(-math.log2(2 * precision))
    for ring_bits in (32, 64):
        try:
            finest = FixedPoint(clip=clip, clients=clients, max_weight=max_weight, ring_bits=ring_bits)
        except EncodingError:
            if ring_bits == 64:
                raise
            continue
        if finest.exponent >= exponent:
            # At least two bits: a sign, and one level on each side.
            value_bits = max(2, math.ceil(math.ldexp(finest.clip, exponent)).bit_length() + 1)
            return FixedPoint(
                clip=clip,
                clients=clients,
                max_weight=max_weight,
                ring_bits=finest.ring_bits,
                value_bits=min(value_bits, ring_bits),
            )
    raise EncodingError(
        f"precision is {precision:g}: sums over {clients} clients of values up to {clip:g} can be rounded to "
        f"{finest.resolution / 2:.2g} at best; ask for that or more, or for fewer clients or a smaller clip"
    )


def _upload(candidate: tuple[int, int], packing: Packing, *, public: bool) -> float:
    degree, modulus_bits = candidate
    coefficient = modulus_bits / 8 * 2 if public else modulus_bits / 8 + SEED_BYTES / degree
    return coefficient * packing.limbs / packing.fields


def _download(candidate: tuple[int, int], packing: Packing) -> float:
    return candidate[1] / 8 * 2 * packing.limbs / packing.fields


def _most_clients(scheme: Scheme, *, public: bool) -> int:
    """The largest cohort in which at least one bit of a value has room beside carries."""

    def fits(clients: int) -> bool:
        return any(
            capacity(scheme, *candidate, clients=clients, public=public).message_bits > (clients - 1).bit_length()
            for candidate in _CANDIDATES
        )

    low, high = 1, 1 << 60
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low
