"""The checker's own primitives on the published vectors of RFC 7748, 8032, 5869, 4231, FIPS 197, SP 800-38A, GCM."""

from __future__ import annotations

import hashlib
import importlib
import random
import struct
import sys
from fractions import Fraction
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
if str(HERE) not in sys.path:
    sys.path.insert(0, str(HERE))
aes, bindings, curves, encoding, graph, messagepack, sharing = (
    importlib.import_module(f"independent.{name}")
    for name in ("aes", "bindings", "curves", "encoding", "graph", "messagepack", "sharing")
)


def raw(text: str) -> bytes:
    return bytes.fromhex(text.replace(" ", ""))


# RFC 7748


@pytest.mark.parametrize(
    ("scalar", "u", "product"),
    [
        (
            "a546e36bf0527c9d3b16154b82465edd62144c0ac1fc5a18506a2244ba449ac4",
            "e6db6867583030db3594c1a424b15f7c726624ec26b3353b10a903a6d0ab1c4c",
            "c3da55379de9c6908e94ea4df28d084f32eccf03491c71f754b4075577a28552",
        ),
        (
            "4b66e9d4d1b4673c5ad22691957d6af5c11b6421e0ea01d42ca4169e7918ba0d",
            "e5210f12786811d3f4b7959d0538ae2c31dbe7106fc03c3efc4cd549c715a493",
            "95cbde9476e8907d7aade45cb4b873f88b595a68799fa152e6f8f7647aac7957",
        ),
    ],
)
def test_x25519_gives_the_products_of_rfc_7748(scalar: str, u: str, product: str) -> None:
    assert curves.x25519(raw(scalar), raw(u)) == raw(product)


@pytest.mark.parametrize(
    ("times", "result"),
    [
        (1, "422c8e7a6227d7bca1350b3e2bb7279f7897b87bb6854b783c60e80311ae3079"),
        pytest.param(1000, "684cf59ba83309552800ef566f2f4d3c1c3887c49360e3875f2eb94d99532c51", marks=pytest.mark.slow),
    ],
)
def test_x25519_repeated_gives_the_results_of_rfc_7748(times: int, result: str) -> None:
    scalar = u = (9).to_bytes(32, "little")
    for _ in range(times):
        scalar, u = curves.x25519(scalar, u), scalar
    assert scalar == raw(result)


def test_x25519_agrees_as_in_rfc_7748() -> None:
    alice = raw("77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a")
    bob = raw("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb")
    alice_public = raw("8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a")
    bob_public = raw("de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f")
    shared = raw("4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742")
    assert (curves.x25519_public(alice), curves.x25519_public(bob)) == (alice_public, bob_public)
    assert curves.x25519(alice, bob_public) == curves.x25519(bob, alice_public) == shared


# RFC 8032


@pytest.mark.parametrize(
    ("private", "public", "message", "signature"),
    [
        (
            "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
            "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
            "",
            "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe"
            "24655141438e7a100b",
        ),
        (
            "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
            "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
            "72",
            "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302a"
            "eeb00d291612bb0c00",
        ),
        (
            "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
            "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
            "af82",
            "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc6594a7c15e9716ed2"
            "8dc027beceea1ec40a",
        ),
    ],
)
def test_ed25519_signs_and_verifies_as_in_rfc_8032(private: str, public: str, message: str, signature: str) -> None:
    assert curves.ed25519_public(raw(private)) == raw(public)
    assert curves.ed25519_sign(raw(private), raw(message)) == raw(signature)
    assert curves.ed25519_verify(raw(public), raw(signature), raw(message))


def test_ed25519_refuses_what_is_not_signed() -> None:
    private = hashlib.sha256(b"a key").digest()
    public, signature = curves.ed25519_public(private), curves.ed25519_sign(private, b"text")
    assert curves.ed25519_verify(public, signature, b"text")
    assert not curves.ed25519_verify(public, signature, b"texts")
    assert not curves.ed25519_verify(curves.ed25519_public(bytes(32)), signature, b"text")
    for position in (0, 31, 32, 63):
        changed = bytearray(signature)
        changed[position] ^= 1
        assert not curves.ed25519_verify(public, bytes(changed), b"text")
    # The same response plus the group's order would verify, were it not refused for its size.
    response = int.from_bytes(signature[32:], "little") + curves.L
    assert not curves.ed25519_verify(public, signature[:32] + response.to_bytes(32, "little"), b"text")
    assert not curves.ed25519_verify(public, signature[:-1], b"text")


# RFC 5869


def test_hkdf_gives_the_keys_of_rfc_5869() -> None:
    assert bindings.hkdf(b"\x0b" * 22, bytes(range(13)), bytes(range(0xF0, 0xFA)), 42) == raw(
        "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865"
    )
    assert bindings.hkdf(bytes(range(80)), bytes(range(0x60, 0xB0)), bytes(range(0xB0, 0x100)), 82) == raw(
        "b11e398dc80327a1c8e7f78c596a49344f012eda2d4efad8a050cc4c19afa97c59045a99cac7827271cb41c65e590e09"
        "da3275600c2f09b8367793a9aca3db71cc30c58179ec3e87c14c01d5c1f3434f1d87"
    )
    assert bindings.hkdf(b"\x0b" * 22, b"", b"", 42) == raw(
        "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8"
    )


def test_hmac_gives_the_digest_of_rfc_4231() -> None:
    assert bindings.hmac_sha256(b"Jefe", b"what do ya want ", b"for nothing?") == raw(
        "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
    )


# FIPS 197, SP 800-38A, SP 800-38D


@pytest.mark.parametrize(
    ("length", "ciphertext"),
    [(16, "69c4e0d86a7b0430d8cdb78070b4c55a"), (32, "8ea2b7ca516745bfeafc49904b496089")],
)
def test_aes_gives_the_blocks_of_fips_197(length: int, ciphertext: str) -> None:
    block = int.from_bytes(raw("00112233445566778899aabbccddeeff"), "big")
    assert aes.AES(bytes(range(length))).block(block).to_bytes(16, "big") == raw(ciphertext)


def test_counter_mode_gives_the_blocks_of_sp_800_38a() -> None:
    key = raw("603deb1015ca71be2b73aef0857d7781 1f352c073b6108d72d9810a30914dff4")
    counter = int.from_bytes(raw("f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff"), "big")
    plaintext = raw(
        "6bc1bee22e409f96e93d7e117393172a ae2d8a571e03ac9c9eb76fac45af8e51"
        "30c81c46a35ce411e5fbc1191a0a52ef f69f2445df4f9b17ad2b417be66c3710"
    )
    ciphertext = raw(
        "601ec313775789a5b7a7f504bbf3d228 f443e3ca4d62b59aca84e990cacaf5c5"
        "2b0930daa23de94ce87017ba2d84988d dfc9c58db67aada613c2dd08457941a6"
    )
    stream = aes.counter_mode(key, 64, counter=counter)
    assert bytes(a ^ b for a, b in zip(plaintext, stream, strict=True)) == ciphertext
    assert aes.counter_mode(key, 20, counter=counter, skip=2) == stream[32:52]


_GCM_KEY = "feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308"
_GCM_TEXT = (
    "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a721c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657"
    "ba637b391aafd255"
)
_GCM_CIPHERTEXT = (
    "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0a"
    "bcc9f662898015ad"
)


@pytest.mark.parametrize(
    ("key", "nonce", "plaintext", "context", "ciphertext", "tag"),
    [
        ("00" * 32, "00" * 12, "", "", "", "530f8afbc74536b9a963b4f1c4cb738b"),
        (
            "00" * 32,
            "00" * 12,
            "00" * 16,
            "",
            "cea7403d4d606b6e074ec5d3baf39d18",
            "d0d1c8a799996bf0265b98b5d48ab919",
        ),
        (_GCM_KEY, "cafebabefacedbaddecaf888", _GCM_TEXT, "", _GCM_CIPHERTEXT, "b094dac5d93471bdec1a502270e3cc6c"),
        (
            _GCM_KEY,
            "cafebabefacedbaddecaf888",
            _GCM_TEXT[:120],
            "feedfacedeadbeeffeedfacedeadbeefabaddad2",
            _GCM_CIPHERTEXT[:120],
            "76fc6ece0f4e1768cddf8853bb2d551b",
        ),
    ],
)
def test_gcm_gives_its_test_cases_13_to_16(
    key: str, nonce: str, plaintext: str, context: str, ciphertext: str, tag: str
) -> None:
    sealed = raw(ciphertext + tag)
    assert aes.gcm_encrypt(raw(key), raw(nonce), raw(plaintext), raw(context)) == sealed
    assert aes.gcm_decrypt(raw(key), raw(nonce), sealed, raw(context)) == raw(plaintext)
    for changed in (sealed[:-1] + bytes([sealed[-1] ^ 1]), bytes([sealed[0] ^ 0x80]) + sealed[1:]):
        with pytest.raises(ValueError, match="tag"):
            aes.gcm_decrypt(raw(key), raw(nonce), changed, raw(context))
    with pytest.raises(ValueError, match="tag"):
        aes.gcm_decrypt(raw(key), raw(nonce), sealed, raw(context) + b"\x00")


# Numbers and their forms


def test_any_threshold_of_shares_opens_a_secret_and_the_field_is_a_field() -> None:
    assert pow(3, sharing.PRIME - 1, sharing.PRIME) == 1
    drawn = random.Random(1)
    secret, coefficients = 12345, [drawn.randrange(sharing.PRIME) for _ in range(2)]
    shares = {point: sharing.share(secret, coefficients, point) for point in (1, 2, 5, 9)}
    for left_out in shares:
        assert sharing.open_secret({point: share for point, share in shares.items() if point != left_out}) == secret
    assert sharing.open_secret({point: shares[point] for point in (1, 2)}) != secret


def test_floats_have_one_spelling_and_it_is_read_back() -> None:
    drawn = random.Random(2)
    numbers = [struct.unpack(">d", drawn.randbytes(8))[0] for _ in range(500)]
    for number in [0.0, -0.0, 1.0, 0.3, 5e-324, 2.0**-1022, 1.7976931348623157e308, *numbers]:
        if number == number and abs(number) != float("inf"):
            assert float.fromhex(bindings.hexadecimal(number)) == number
            assert bindings.hexadecimal(number) == number.hex()


@pytest.mark.parametrize(
    ("value", "form"),
    [
        (None, "c0"),
        (127, "7f"),
        (128, "cc80"),
        (256, "cd0100"),
        (65_536, "ce00010000"),
        (2**32, "cf0000000100000000"),
        (b"ab", "c4026162"),
        ("ab", "a26162"),
        ([[1], []], "92910190"),
    ],
)
def test_messagepack_writes_the_forms_of_its_specification(value: object, form: str) -> None:
    assert messagepack.pack(value) == raw(form)
    assert messagepack.unpack(raw(form)) == value


@pytest.mark.parametrize("length", [31, 32, 255, 256, 65_535, 65_536])
def test_messagepack_reads_what_it_writes_at_every_width_of_length(length: int) -> None:
    for value in (bytes(length), "x" * length, [0] * length):
        packed = messagepack.pack(value)
        assert messagepack.unpack(packed) == value
        for damaged in (packed[:-1], packed + b"\x00"):
            with pytest.raises(messagepack.Malformed):
                messagepack.unpack(damaged)


# Rules


def test_the_scale_is_the_largest_that_cannot_wrap() -> None:
    stream = {"clip": (0.75).hex(), "clients": 3, "max_weight": None, "ring_bits": 32, "value_bits": None}
    exponent, largest = encoding.scale(stream)
    assert largest == Fraction(3, 4) * 2**exponent
    assert 3 * largest < 2**31 <= 3 * 2 * largest + 3


def test_a_sparse_graph_gives_every_member_its_neighbours_and_they_agree() -> None:
    joined = graph.neighbours(list(range(20)), 6, b"seed")
    assert all(len(set(near)) == 6 and member not in near for member, near in joined.items())
    assert all(member in joined[other] for member, near in joined.items() for other in near)
    assert joined != graph.neighbours(list(range(20)), 6, b"another seed")
