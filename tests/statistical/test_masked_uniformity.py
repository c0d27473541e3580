"""Masked contributions against uniform ring elements, whatever is in them.

The randomness is the operating system's, so nothing here can be seeded. Each single statistic has a false-alarm rate of
1e-13 (chi-square and normal tails are good to a small factor at these counts), and no test computes more than 500 of
them: a test fails by chance less than once in 1e10 runs.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from scipy import stats

from protocols import SERVER, FixedPoint, Network, Phase, Simulation, Terms, make_protocol, wire
from protocols.driver import Envelope
from protocols.holdings import Holdings
from protocols.keys import RoundKey, Secret, context_digest, request_context
from protocols.masks import apply_masks, next_root, pair_mask_key, pair_seed, self_mask_key
from protocols.shares import random_element, to_bytes

FALSE_ALARM = 1e-13
MEMBERS = (2, 5, 11)
VALUES = 1 << 17

Ring = np.ndarray[Any, np.dtype[Any]]


class Wiretap(Network):
    """Keeps every contribution as it goes by: what the server, or anybody on the network, sees of a vector."""

    def __init__(self, dtype: str) -> None:
        self.dtype = dtype
        self.rings: dict[tuple[int, int], Ring] = {}

    def carry(self, envelopes: list[Envelope], *, phase: Phase) -> list[Envelope]:
        if phase is Phase.COLLECT:
            for envelope in envelopes:
                if envelope.recipient == SERVER:
                    message = wire.decode(envelope.message, wire.Contribution, limit=len(envelope.message))
                    self.rings[envelope.sender, message.step] = np.frombuffer(message.ring, dtype=self.dtype)
        return envelopes


def contributions(vectors: list[dict[int, np.ndarray]], ring_bits: int) -> dict[tuple[int, int], Ring]:
    """What members send at steps with these vectors, by member and step."""
    encoding = FixedPoint(clip=1.0, clients=len(MEMBERS), ring_bits=ring_bits)
    network = Wiretap(f"<u{ring_bits // 8}")
    terms = Terms(streams={"g": encoding}, steps=len(vectors))
    cohort = Simulation(make_protocol("masked"), MEMBERS, terms=terms, network=network)
    cohort.open()
    for step in vectors:
        result = cohort.sum(step, stream="g")
        np.testing.assert_array_equal(result.total, sum(step.values()))
    cohort.close()
    assert len(network.rings) == len(MEMBERS) * len(vectors)
    return network.rings


INPUTS = {"zeros": 0.0, "the upper bound": 1.0, "the lower bound": -1.0}


@pytest.fixture(
    scope="module",
    params=[(name, bits) for bits in (32, 64) for name in INPUTS],
    ids=lambda case: f"{case[0]}-{case[1]}",
)
def sent(request: pytest.FixtureRequest) -> tuple[dict[tuple[int, int], Ring], int]:
    """Two steps at which every member's vector is the same constant, and the ring's bits."""
    name, bits = request.param
    vector = np.full(VALUES, INPUTS[name], dtype=np.float32)
    return contributions([dict.fromkeys(MEMBERS, vector)] * 2, bits), bits


# Statistics: each gives the probability of something at least as far out


def evenness(cells: np.ndarray, count: int) -> float:
    """Chi-square of how often each of ``count`` cells was hit, on both sides: too uneven, and too even."""
    hits = np.bincount(cells, minlength=count)
    expected = len(cells) / count
    statistic = float(((hits - expected) ** 2).sum() / expected)
    return 2 * min(stats.chi2.sf(statistic, count - 1), stats.chi2.cdf(statistic, count - 1))


def evenness_of(ring: Ring) -> dict[str, float]:
    """Over bytes, over bytes by their place in an element, and over 16-bit pieces."""
    as_bytes = np.ascontiguousarray(ring).view(np.uint8).reshape(len(ring), -1)
    found = {"bytes": evenness(as_bytes.ravel(), 256), "halves": evenness(ring.view(np.uint16), 65536)}
    for place in range(as_bytes.shape[1]):
        found[f"byte {place}"] = evenness(as_bytes[:, place], 256)
    return found


def serial_pairs(ring: Ring) -> dict[str, float]:
    """Chi-square over pairs of neighbours (no element is in two pairs), by their top and by their lowest 6 bits."""
    top = (ring >> np.asarray(8 * ring.itemsize - 6, ring.dtype)).astype(np.int64)
    low = (ring & np.asarray(0x3F, ring.dtype)).astype(np.int64)
    return {name: evenness(column[0::2] * 64 + column[1::2], 4096) for name, column in (("top", top), ("lowest", low))}


def correlation(left: Ring, right: Ring) -> float:
    """Two-sided normal tail of the correlation of two sequences of uniform numbers, whose moments are known."""
    scale = float(1 << (8 * left.itemsize))
    unit = (left / scale - 0.5) * (right / scale - 0.5)
    z = float(unit.sum()) / (np.sqrt(len(unit)) / 12)
    return 2 * float(stats.norm.sf(abs(z)))


def ends(ring: Ring, bits: int = 10) -> dict[str, float]:
    """Binomial tails of how many elements lie in the top and in the bottom 2^-bits of the range."""
    cut = 1 << (8 * ring.itemsize - bits)
    size = 1 << (8 * ring.itemsize)
    found = {}
    for name, count in (("bottom", (ring < cut).sum()), ("top", (ring >= size - cut).sum())):
        law = stats.binom(len(ring), 2.0**-bits)
        found[name] = 2 * min(law.cdf(count), law.sf(count - 1))
    return found


def unrelated(left: Ring, right: Ring) -> dict[str, float]:
    """What two independent uniform sequences pass: correlation, and their XOR, difference and sum being uniform."""
    found = {"correlation": correlation(left, right)}
    for name, mixed in (("xor", left ^ right), ("difference", left - right), ("sum", left + right)):
        found |= {f"{name}, {part}": chance for part, chance in evenness_of(mixed).items()}
    return found


def alarms(found: dict[str, float]) -> dict[str, float]:
    return {name: chance for name, chance in found.items() if not chance > FALSE_ALARM}


def test_the_statistics_raise_an_alarm_where_there_is_something_to_find() -> None:
    """Fixed seeds: good numbers raise none, and each flaw raises the alarm that is meant for it."""
    generator = np.random.default_rng(1)
    good = generator.integers(0, 2**32, VALUES, dtype=np.uint32)
    other = generator.integers(0, 2**32, VALUES, dtype=np.uint32)
    assert not alarms(evenness_of(good) | serial_pairs(good) | ends(good) | unrelated(good, other))
    assert not alarms({"serial": correlation(good[:-1], good[1:])})
    constant = np.zeros(VALUES, dtype=np.uint32)
    assert {"bytes", "halves"} <= alarms(evenness_of(constant)).keys()
    # A reduction mod a prime instead of mod 2^32: one part in 2^10 of the range is missing.
    short = good % np.uint32(2**32 - 2**22)
    assert "top" in alarms(ends(short))
    # The same mask twice, under different vectors.
    assert alarms(unrelated(good, good + np.uint32(5))).keys() >= {"correlation", "difference, bytes", "xor, bytes"}
    # Every mask used for two neighbouring elements.
    assert alarms(serial_pairs(np.repeat(good[::2], 2))).keys() == {"top", "lowest"}
    # One bit of every element in clear.
    assert "byte 0" in alarms(evenness_of(good | np.uint32(1)))
    # Too even to be random: every 16-bit half equally often.
    even = np.tile(np.arange(65536, dtype=np.uint16), 4).view(np.uint32)
    assert "halves" in alarms(evenness_of(even))


def test_messages_are_uniform_whatever_they_hold(sent: tuple[dict[tuple[int, int], Ring], int]) -> None:
    """Chi-square over bytes, over bytes by place, and over 16-bit pieces: false-alarm rate below 1e-11."""
    for (member, step), ring in sent[0].items():
        assert not alarms(evenness_of(ring)), f"member {member} at step {step}"


def test_neighbouring_elements_are_unrelated(sent: tuple[dict[tuple[int, int], Ring], int]) -> None:
    """Serial pairs, and correlations at lags 1 to 16 and one mask block: false-alarm rate below 2e-11."""
    for (member, step), ring in sent[0].items():
        found = serial_pairs(ring)
        for lag in (*range(1, 17), 128 * 1024 // ring.itemsize):
            found[f"lag {lag}"] = correlation(ring[:-lag], ring[lag:])
        assert not alarms(found), f"member {member} at step {step}"


def test_both_ends_of_the_ring_occur_as_often_as_they_should(sent: tuple[dict[tuple[int, int], Ring], int]) -> None:
    """Binomial counts of the top and bottom 2^-4, 2^-7 and 2^-10 of the range: false-alarm rate below 1e-11.

    Of 131,072 elements 128 are expected at the narrowest end; that there are none has a chance of e^-128.
    """
    for (member, step), ring in sent[0].items():
        for bits in (4, 7, 10):
            assert not alarms(ends(ring, bits)), f"member {member} at step {step}"


def test_the_same_vector_twice_gives_unrelated_messages(sent: tuple[dict[tuple[int, int], Ring], int]) -> None:
    """The same member at two steps: correlation, XOR, difference and sum: false-alarm rate below 1e-11.

    With zeros for a vector the messages are the masks: two steps' masks are unrelated.
    """
    for member in MEMBERS:
        first, second = sent[0][member, 0], sent[0][member, 1]
        assert (first == second).sum() < 20
        assert not alarms(unrelated(first, second)), f"member {member}"


def test_the_same_vector_from_two_members_gives_unrelated_messages(
    sent: tuple[dict[tuple[int, int], Ring], int],
) -> None:
    """Every two members at the same step and at different ones: false-alarm rate below 5e-11.

    All three at one step are related, and so they have to be: their sum is what the server opens.
    """
    messages = list(sent[0].items())
    for place, ((left, at), first) in enumerate(messages):
        for (right, then), second in messages[:place]:
            if left != right:
                assert not alarms(unrelated(first, second)), f"{left} at {at} and {right} at {then}"


def test_two_rounds_of_the_same_vectors_are_unrelated() -> None:
    """Fresh keys every round: false-alarm rate below 1e-11."""
    vectors = [dict.fromkeys(MEMBERS, np.zeros(VALUES, dtype=np.float32))]
    first, second = contributions(vectors, 32), contributions(vectors, 32)
    for member in MEMBERS:
        assert not alarms(unrelated(first[member, 0], second[member, 0])), f"member {member}"


# The parts of a mask by themselves


def reference(key: bytes, values: int, dtype: str = "<u4") -> Ring:
    """AES-256 in counter mode over zeros from block 2 on, in one go."""
    encryptor = Cipher(algorithms.AES(key), modes.CTR(bytes(15) + b"\2")).encryptor()
    return np.frombuffer(encryptor.update(bytes(values * np.dtype(dtype).itemsize)), dtype=dtype)


def pair_mask(root: Secret, step: int, *, values: int = VALUES, stream: str = "g", context: bytes = b"") -> Ring:
    """The mask that two members with this root at step 0 share at a step."""
    for _ in range(step):
        root = next_root(root)
    ring = np.zeros(values, dtype="<u4")
    apply_masks(
        ring, add=[pair_mask_key(pair_seed(root), request_context(step, stream, values, context_digest(context)))]
    )
    return ring


def test_pairwise_masks_of_different_steps_requests_and_pairs_are_unrelated() -> None:
    """21 pairs of masks: false-alarm rate below 5e-11."""
    root, other = (Secret(to_bytes([random_element()])) for _ in range(2))
    masks = {
        "a step": pair_mask(root, 4),
        "the next step": pair_mask(root, 5),
        "a far step": pair_mask(root, 260),
        "one value more": pair_mask(root, 4, values=VALUES + 1)[:VALUES],
        "another stream": pair_mask(root, 4, stream="h"),
        "another context": pair_mask(root, 4, context=b"x"),
        "another pair": pair_mask(other, 4),
    }
    names = list(masks)
    for place, left in enumerate(names):
        assert not alarms(evenness_of(masks[left])), left
        for right in names[:place]:
            assert not alarms(unrelated(masks[left], masks[right])), f"{left} and {right}"


@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize("values", [0, 1, 3, 4097, 40_000])
def test_neighbours_masks_cancel_exactly_and_leave_the_self_masks(bits: int, values: int) -> None:
    dtype, session, request = f"<u{bits // 8}", bytes(range(32)), request_context(2, "g", values, context_digest(b""))
    keys = {member: RoundKey() for member in MEMBERS}
    total = np.zeros(values, dtype=dtype)
    selves = np.zeros(values, dtype=dtype)
    for member in MEMBERS:
        peers = [peer for peer in MEMBERS if peer != member]
        agreed = {peer: keys[member].agree(session, member, peer, keys[peer].public_key) for peer in peers}
        secrets = [Secret(to_bytes([random_element()])) for _ in range(3)]
        selves += reference(self_mask_key(secrets[2], request), values, dtype)
        roots = {peer: pair.masks for peer, pair in agreed.items()}
        add, subtract = Holdings(member, roots=roots, selves=secrets, batches={}).mask_keys(2, request)
        assert len(add) + len(subtract) == len(MEMBERS)
        ring = np.zeros(values, dtype=dtype)
        apply_masks(ring, add=add, subtract=subtract)
        if values > 2:
            assert ring.any()
        total += ring
    np.testing.assert_array_equal(total, selves)


def test_a_mask_and_its_negative_leave_a_vector_as_it_was() -> None:
    generator = np.random.default_rng(2)
    for dtype, top in (("<u4", 2**32), ("<u8", 2**64)):
        vector = generator.integers(0, top, 70_001, dtype=np.dtype(dtype).newbyteorder("="), endpoint=False).astype(
            dtype
        )
        masked, key = vector.copy(), bytes(range(32))
        apply_masks(masked, add=[key])
        np.testing.assert_array_equal(masked - vector, reference(key, len(vector), dtype))
        apply_masks(masked, subtract=[key])
        np.testing.assert_array_equal(masked, vector)
