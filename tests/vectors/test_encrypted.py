"""What the checker of homomorphic rounds notices, and its lattice arithmetic against plain definitions."""

from __future__ import annotations

import cmath
import copy
import hashlib
import importlib
import json
import math
import random
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).resolve().parent
if str(HERE) not in sys.path:
    sys.path.insert(0, str(HERE))
blake, bodies, encrypted, frames, lattice, planning, vouchers = (
    importlib.import_module(f"independent.{name}")
    for name in ("blake", "bodies", "encrypted", "frames", "lattice", "planning", "vouchers")
)
PAGE = (HERE.parents[1] / "docs" / "wire_format.md").read_text(encoding="utf-8")


def round_(name: str) -> dict[str, Any]:
    (case,) = json.loads((HERE / f"round_{name}.json").read_text(encoding="utf-8"))["cases"]
    return case


# BLAKE2


@pytest.mark.parametrize("length", [0, 1, 127, 128, 129, 256, 300])
def test_blake2b_is_that_of_the_standard_library(length: int) -> None:
    data = bytes(range(256))[:length] + bytes(max(0, length - 256))
    assert blake.blake2b(blake.parameter_block(64), data) == hashlib.blake2b(data).digest()


def test_blake2b_in_a_tree_is_that_of_the_standard_library() -> None:
    """But for fanout and depth of 0, which BLAKE2X has and the standard library refuses."""
    block = blake.parameter_block(64, tree=(2, 3), leaf=64, node=7, xof=4096)
    tree = {"fanout": 2, "depth": 3, "leaf_size": 64, "inner_size": 64, "node_offset": 4096 << 32 | 7}
    assert blake.blake2b(block, b"text") == hashlib.blake2b(b"text", **tree).digest()


def test_a_generator_gives_the_same_bytes_however_they_are_taken() -> None:
    seed = bytes(range(64))
    whole = blake.Generator(seed).take(9000)
    pieces = blake.Generator(seed)
    assert b"".join(pieces.take(count) for count in (1, 4095, 4, 4096, 804)) == whole
    assert whole[4096:8192] == blake.blake2xb(seed, (1).to_bytes(8, "little"), 4096)


# Polynomials


def product(left: list[int], right: list[int], modulus: int) -> list[int]:
    """Modulo X^N + 1, term by term."""
    degree, found = len(left), [0] * len(left)
    for i, a in enumerate(left):
        for j, b in enumerate(right):
            found[(i + j) % degree] += a * b if i + j < degree else -a * b
    return [value % modulus for value in found]


def test_products_and_transforms_are_what_they_are_said_to_be() -> None:
    degree, some = 16, random.Random(1)
    modulus = lattice.prime(degree, 40)
    left = [some.randrange(modulus) for _ in range(degree)]
    right = [some.randrange(-1, 2) for _ in range(degree)]
    expected = product(left, right, modulus)
    assert lattice.product(left, right, modulus) == expected
    one, other = (lattice.transformed(values, modulus) for values in (left, right))
    pointwise = [a * b % modulus for a, b in zip(one, other, strict=True)]
    assert lattice.coefficients(pointwise, modulus) == expected
    root = lattice.least_root(degree, modulus)
    for place in range(degree):
        at = pow(root, 2 * int(f"{place:04b}"[::-1], 2) + 1, modulus)
        assert one[place] == sum(value * pow(at, power, modulus) for power, value in enumerate(left)) % modulus


def test_slots_are_values_at_powers_of_three_of_a_root() -> None:
    degree, some = 16, random.Random(2)
    values = [some.randrange(-1000, 1000) for _ in range(degree)]
    for slot, found in enumerate(lattice._slots(values)):
        at = cmath.exp(1j * cmath.pi * pow(3, slot, 2 * degree) / degree)
        assert abs(found - sum(value * at**power for power, value in enumerate(values))) < 1e-8


@pytest.mark.parametrize(("degree", "bits"), planning.CANDIDATES)
def test_the_page_gives_the_primes(degree: int, bits: int) -> None:
    assert f"`{lattice.prime(degree, bits):#x}`" in PAGE


def test_the_page_gives_the_text_of_a_set_of_parameters() -> None:
    """And that of a packing."""
    (parameters,) = re.findall(r"^    (bfv degree=\d.*)$", PAGE, flags=re.MULTILINE)
    (packing,) = re.findall(r"^    (offset=\d.*)$", PAGE, flags=re.MULTILINE)
    stream = {"clip": "0x1.0p+0", "clients": 4, "max_weight": 100, "ring_bits": 64, "value_bits": None}
    found = planning.carrier("bfv", stream, public=False)
    assert (found.text, found.packing_text) == (parameters, packing)


def test_errors_exceed_their_bounds_once_in_2_to_the_40_rounds_at_most() -> None:
    """At each integer: a Gaussian one, and one whose variance is half a Gamma(2) variable's multiple of the nominal."""
    allowed = 2.0**-40 / planning._PLACES
    assert math.erfc(planning._DEVIATIONS / math.sqrt(2)) < allowed
    step, bound = 0.01, planning._PUBLIC_SLOT_DEVIATIONS
    grid = (step * at for at in range(1, 50_000))
    slot = step * sum(g * math.exp(-g) * math.erfc(bound / math.sqrt(g / 2) / math.sqrt(2)) for g in grid)
    assert allowed / 8 < slot < allowed


def test_the_page_gives_the_deviations() -> None:
    (text,) = re.findall(r"^    D += (.*)$", PAGE, flags=re.MULTILINE)
    assert text == "sqrt(2 ln 2 (41 + log2(2^28) + log2(10^6) + log2(8)))"
    stated = math.sqrt(2 * math.log(2) * (41 + math.log2(2**28) + math.log2(10**6) + math.log2(8)))
    assert stated == pytest.approx(planning._DEVIATIONS, rel=1e-14)
    (text,) = re.findall(r"^    E += D with a secret key, (\d+) with a public one$", PAGE, flags=re.MULTILINE)
    assert int(text) == planning._PUBLIC_SLOT_DEVIATIONS


@pytest.mark.parametrize("field", planning.Carrier._fields)
def test_a_session_depends_on_everything_about_how_vectors_are_encrypted(field: str) -> None:
    case = round_("bfv")
    carriers = encrypted.Round(case["given"]).carriers
    value = getattr(carriers["labels"], field)
    other = "ckks" if value == "bfv" else not value if isinstance(value, bool) else value + 1
    changed = {**carriers, "labels": carriers["labels"]._replace(**{field: other})}
    assert vouchers.session(bytes(32), changed) != vouchers.session(bytes(32), carriers)
    assert vouchers.streams(carriers) == case["expected"]["derived"]["streams"]


# What is noticed


def altered(text: str) -> str:
    return text[:-1] + f"{int(text[-1], 16) ^ 1:x}"


PRIVATE: dict[str, Callable[[dict[str, Any]], tuple[Any, Any]]] = {
    "a client's round key": lambda given: (given["clients"]["0"], "round_key"),
    "a client's identity": lambda given: (given["clients"]["128"], "identity"),
    "a nonce": lambda given: (given["clients"]["128"]["nonces"], 1),
    "the authority's root": lambda given: (given["clients"]["authority"], "root"),
    "the authority's round key": lambda given: (given["clients"]["authority"], "round_key"),
    "a context": lambda given: (given["steps"][1], "context"),
    "the round id": lambda given: (given, "round_id"),
    "values": lambda given: (given["steps"][0]["contributions"]["0"], "values"),
}


@pytest.mark.parametrize("name", PRIVATE)
def test_a_round_depends_on_every_private_input(name: str) -> None:
    case = round_("ckks_authority")
    given = copy.deepcopy(case["given"])
    holder, key = PRIVATE[name](given)
    # The last byte of values is a float's sign and exponent.
    holder[key] = holder[key][:-2] + "00" if name == "values" else altered(holder[key])
    try:
        play = encrypted.Play(given)
        play.run()
    except ValueError:
        return
    assert play.log.messages != case["expected"]["messages"]


def opened_with(name: str, message: str, change: Callable[[dict[str, Any]], None]) -> list[dict[str, Any]]:
    """The sums of a round, one of whose messages is another than was recorded."""
    case = round_(name)
    drawn = bodies.decoded(case["given"]["bodies"] | case["expected"]["bodies"])
    messages = copy.deepcopy(case["expected"]["messages"])
    changed = next(entry for entry in messages if entry["name"] == message)
    fields = frames.parse(bodies.joined(changed["frame"], drawn)).fields
    change(fields)
    changed["frame"] = frames.frame(message, *fields.values()).hex()
    found: list[dict[str, Any]] = encrypted.opened(case["given"], messages, drawn)
    return found


def flip(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def alter_voucher(field: int) -> Callable[[dict[str, Any]], None]:
    def change(fields: dict[str, Any]) -> None:
        fields["vouchers"][0][field] = flip(fields["vouchers"][0][field], 20)

    return change


@pytest.mark.parametrize(
    ("message", "change", "reason"),
    [
        ("Total", lambda fields: fields.update(body=flip(fields["body"], 8)), "not the sum of what was vouched"),
        ("Total", lambda fields: fields["vouchers"].pop(), "not the sum of what was vouched"),
        ("Total", alter_voucher(1), "vouched for something else"),
        ("Total", alter_voucher(2), "not signed"),
        ("Total", alter_voucher(3), "not signed"),
        ("Advertise", lambda fields: fields.update(signature=flip(fields["signature"], 40)), "not signed"),
        ("Opened", lambda fields: fields.update(ring=flip(fields["ring"], 0)), "something else than the sum"),
        ("Opened", lambda fields: fields.update(signature=flip(fields["signature"], 40)), "something else"),
    ],
)
def test_whoever_opens_a_sum_notices_a_changed_message(
    message: str, change: Callable[[dict[str, Any]], None], reason: str
) -> None:
    with pytest.raises(ValueError, match=reason):
        opened_with("ckks_authority", message, change)


@pytest.mark.parametrize("name", ["bfv", "ckks"])
@pytest.mark.parametrize("part", [0, 1], ids=["first", "second"])
def test_clients_notice_that_either_polynomial_of_a_sum_is_another(name: str, part: int) -> None:
    def change(fields: dict[str, Any]) -> None:
        fields["body"] = flip(fields["body"], part * len(fields["body"]) // 2)

    with pytest.raises(ValueError, match="not the sum of what was vouched"):
        opened_with(name, "Total", change)


@pytest.mark.parametrize("name", ["bfv", "ckks", "bfv_authority", "ckks_authority"])
def test_a_sum_does_not_open_with_another_key(name: str) -> None:
    case = round_(name)
    body = bodies.decoded(case["expected"]["bodies"])["sum at 0"]
    with pytest.raises(ValueError, match="another key"):
        encrypted.Round(case["given"]).ring(0, body, bytes(32), contributors=2)


def test_a_sum_that_is_larger_than_its_contributors_can_make_it_is_refused() -> None:
    """That of three, as if it were one's."""
    case = round_("bfv")
    found, root = encrypted.Round(case["given"]), bytes.fromhex(case["given"]["clients"]["200"]["root"])
    body = bodies.decoded(case["expected"]["bodies"])["sum at 0"]
    assert found.ring(0, body, root, 3).hex() == case["expected"]["sums"][0]["ring"]
    with pytest.raises(ValueError, match="beyond what was contributed"):
        found.ring(0, body, root, 1)


def test_a_client_notices_a_root_that_gives_other_keys_or_does_not_open() -> None:
    def change(fields: dict[str, Any]) -> None:
        fields["parcels"] = [[peer, flip(parcel, 40)] for peer, parcel in fields["parcels"]]

    with pytest.raises(ValueError, match="tag does not match"):
        opened_with("ckks", "SealedKeys", change)


def test_a_client_notices_that_others_hold_another_state() -> None:
    case = round_("ckks")
    case["given"]["steps"][0]["shared"] = b"something else".hex()
    drawn = bodies.decoded(case["given"]["bodies"] | case["expected"]["bodies"])
    with pytest.raises(ValueError, match="another state"):
        encrypted.opened(case["given"], case["expected"]["messages"], drawn)


@pytest.mark.parametrize("name", ["bfv", "ckks", "bfv_authority", "ckks_authority"])
def test_no_private_input_is_in_a_message_in_clear(name: str) -> None:
    case = round_(name)
    sent = json.dumps(case["expected"]["messages"])
    derived = [case["expected"]["derived"]["tags"], *(part["seed"] for part in case["expected"]["derived"]["sets"])]
    for private in case["given"]["clients"].values():
        secrets = [private["identity"], private["round_key"], *([private["root"]] if "root" in private else [])]
        assert not [secret for secret in (*secrets, *derived) if secret in sent]
