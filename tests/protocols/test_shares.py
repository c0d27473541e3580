"""Shamir's secret sharing, against Lagrange's formula in fractions and a primality test of its own."""

from __future__ import annotations

import itertools
import os
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocols import ShareError
from protocols.keys import Secret
from protocols.shares import (
    PRIME,
    SHARE_BYTES,
    TAG_BYTES,
    combine,
    from_bytes,
    opening_weights,
    random_element,
    seal,
    split,
    to_bytes,
    unseal,
)

ELEMENTS = st.integers(0, PRIME - 1) | st.sampled_from([0, 1, PRIME - 1])
RELAXED = settings(deadline=None)


def is_prime(number: int, bases: list[int]) -> bool:
    """Miller and Rabin: a composite number passes with probability 4^-len(bases) over the choice of the bases."""
    if number % 2 == 0:
        return number == 2
    odd, twos = number - 1, 0
    while odd % 2 == 0:
        odd, twos = odd // 2, twos + 1
    for base in bases:
        power = pow(base, odd, number)
        if power in (1, number - 1):
            continue
        for _ in range(twos - 1):
            power = power * power % number
            if power == number - 1:
                break
        else:
            return False
    return True


def test_the_field_is_that_of_the_largest_prime_below_2_to_the_256() -> None:
    """64 random bases: a composite would pass with probability 2^-128; the first primes show up every composite."""
    assert PRIME < 2**256
    assert is_prime(PRIME, [int.from_bytes(os.urandom(31), "big") + 2 for _ in range(64)])
    assert not any(is_prime(number, [2, 3, 5, 7]) for number in range(PRIME + 1, 2**256))
    assert SHARE_BYTES * 8 == 256


def interpolate(points: dict[int, int], at: int) -> int:
    """The polynomial of least degree through these points, evaluated mod PRIME by Lagrange's formula.

    The basis polynomials are evaluated as fractions of integers, and only their end result is taken into the field.
    """
    total = 0
    for here, value in points.items():
        basis = Fraction(1)
        for other in points:
            if other != here:
                basis *= Fraction(at - other, here - other)
        total += value * basis.numerator * pow(basis.denominator, -1, PRIME)
    return total % PRIME


@st.composite
def sharings(draw: st.DrawFn) -> tuple[list[int], list[int], int]:
    """Secrets, points and a threshold."""
    points = draw(st.lists(st.integers(1, 300), min_size=1, max_size=9, unique=True))
    return draw(st.lists(ELEMENTS, max_size=4)), points, draw(st.integers(1, len(points)))


@RELAXED
@given(sharings(), st.randoms())
def test_any_threshold_of_the_holders_opens_a_secret(sharing: tuple[list[int], list[int], int], random: Any) -> None:
    secrets, points, threshold = sharing
    shares = split(secrets, points, threshold)
    assert [len(held) for held in shares] == [len(secrets)] * len(points)
    chosen = random.sample(range(len(points)), threshold)
    weights = opening_weights([points[place] for place in chosen])
    for index, secret in enumerate(secrets):
        held = {points[place]: shares[place][index] for place in chosen}
        assert combine(list(held.values()), weights) == interpolate(held, 0) == secret
        # Every other share lies on the same polynomial.
        for place, point in enumerate(points):
            assert interpolate(held, point) == shares[place][index]


@RELAXED
@given(sharings())
def test_fewer_shares_are_consistent_with_every_secret(sharing: tuple[list[int], list[int], int]) -> None:
    """For any secret there is one polynomial through it and the t - 1 shares that has the right degree."""
    secrets, points, threshold = sharing
    shares = split(secrets, points, threshold)
    for index in range(len(secrets)):
        held = {points[place]: shares[place][index] for place in range(threshold - 1)}
        for guess in (0, 1, PRIME - 1, secrets[index] ^ 1 if secrets[index] ^ 1 < PRIME else 5):
            through = {0: guess, **held}
            assert interpolate(through, 0) == guess
            assert all(interpolate(through, point) == share for point, share in held.items())


def test_fewer_shares_are_as_uniform_as_the_coefficients() -> None:
    """The shares of 2000 zeros at one point, threshold 2: each of the 256 bits is set as often as not.

    A share is a uniform element, whose 256 bits are uniform up to 2^-248. A count of 2000 bits is more than seven
    deviations off with probability 3e-12, one of 512 counts with 2e-9.
    """
    for point in (1, 250):
        shares = split([0] * 2000, [point, 3], 2)[0]
        for bit in range(256):
            count = sum(share >> bit & 1 for share in shares)
            assert abs(count - 1000) <= 7 * 22.4, bit


def test_a_threshold_of_one_hands_the_secret_to_everybody() -> None:
    assert split([7, PRIME - 1], [1, 2, 9], 1) == [[7, PRIME - 1]] * 3


def test_more_shares_than_needed_open_the_secret_too() -> None:
    shares = split([123], range(1, 8), 3)
    for count in range(3, 8):
        for places in itertools.combinations(range(7), count):
            assert combine([shares[at][0] for at in places], opening_weights([at + 1 for at in places])) == 123


def test_fewer_shares_open_something_else() -> None:
    """By chance they would open it with probability 2^-256."""
    shares = split([123], range(1, 8), 4)
    for count in range(1, 4):
        for places in itertools.combinations(range(7), count):
            assert combine([shares[at][0] for at in places], opening_weights([at + 1 for at in places])) != 123


def test_a_share_that_was_tampered_with_opens_something_else() -> None:
    (first,), (second,), _ = split([123], [1, 2, 3], 2)
    weights = opening_weights([1, 2])
    assert combine([first, second], weights) == 123
    assert combine([first + 1, second], weights) != 123
    assert combine([second, first], weights) != 123


@pytest.mark.parametrize(
    ("points", "threshold", "message"),
    [
        ([1, 2, 3], 0, "threshold is 0"),
        ([1, 2, 3], 4, "threshold is 4: between 1 and the number of holders"),
        ([], 1, "number of holders"),
        ([1, 1], 2, "distinct"),
        ([0, 1], 2, "at least 1"),
        ([-1, 1], 2, "at least 1"),
        ([PRIME, 1], 2, "at least 1"),
    ],
)
def test_a_sharing_that_cannot_be_is_refused(points: list[int], threshold: int, message: str) -> None:
    """A share at zero would be the secret itself, as would one at a multiple of the prime."""
    with pytest.raises(ValueError, match=message):
        split([5], points, threshold)


def test_opening_takes_as_many_shares_as_weights() -> None:
    with pytest.raises(ValueError, match="zip"):
        combine([1, 2], opening_weights([1, 2, 3]))


def test_random_elements_are_in_the_field_and_differ() -> None:
    """Two of 1000 are equal with probability below 2^-236."""
    elements = [random_element() for _ in range(1000)]
    assert all(0 <= element < PRIME for element in elements)
    assert len(set(elements)) == 1000


def test_elements_beyond_the_prime_are_drawn_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """They come once in 2^248 draws; here the first two do."""
    draws = iter([(2**256 - 1).to_bytes(32, "big"), PRIME.to_bytes(32, "big"), (PRIME - 1).to_bytes(32, "big")])
    monkeypatch.setattr("protocols.shares.os.urandom", lambda count: next(draws))
    assert random_element() == PRIME - 1


@RELAXED
@given(st.lists(ELEMENTS, max_size=5))
def test_elements_survive_the_way_through_bytes(elements: list[int]) -> None:
    data = to_bytes(elements)
    assert len(data) == SHARE_BYTES * len(elements)
    assert from_bytes(data) == elements


def test_bytes_that_are_no_elements_are_refused() -> None:
    assert to_bytes([1]) == bytes(31) + b"\1"
    for count in (1, 31, 33, 63):
        with pytest.raises(ShareError, match=f"{count} bytes are no whole number of shares"):
            from_bytes(bytes(count))
    for number in (PRIME, 2**256 - 1):
        with pytest.raises(ShareError, match="not an element of the field"):
            from_bytes(bytes(32) + number.to_bytes(32, "big"))


@pytest.mark.parametrize("kind", [bytes, Secret])
@pytest.mark.parametrize("length", [0, 1, 64, 100_000])
def test_what_was_sealed_is_unsealed(kind: Any, length: int) -> None:
    key, text = os.urandom(32), os.urandom(length)
    sealed = seal(kind(key), text, b"context")
    assert len(sealed) == length + TAG_BYTES
    assert unseal(kind(key), sealed, b"context") == text


def test_what_was_sealed_opens_only_as_it_was_and_where_it_belongs() -> None:
    key = os.urandom(32)
    sealed = seal(key, b"sixteen shares...", b"from 1 to 2")
    turned = [sealed[:at] + bytes([sealed[at] ^ 1 << at % 8]) + sealed[at + 1 :] for at in range(len(sealed))]
    cut = [sealed[:at] for at in range(len(sealed))]
    for bad in (*turned, *cut, sealed + b"\0"):
        with pytest.raises(ShareError, match="does not decrypt"):
            unseal(key, bad, b"from 1 to 2")
    with pytest.raises(ShareError):
        unseal(key, sealed, b"from 2 to 1")
    with pytest.raises(ShareError):
        unseal(key[::-1], sealed, b"from 1 to 2")
    assert unseal(key, sealed, b"from 1 to 2") == b"sixteen shares..."
