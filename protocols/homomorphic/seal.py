"""Microsoft SEAL, through the bindings that come with TenSEAL: keys, encryption, addition and decryption of chunks.

TenSEAL's own vectors always carry two polynomials and a second prime for products. SEAL underneath can do what sums
need: a single prime, and symmetric ciphertexts whose second polynomial is a 64-byte seed, which halves what is sent.
Its bindings read and write files only, so everything goes through an anonymous file in memory (``memfd_create``,
Linux): nothing is written to a file system, and the memory is given back when the file is closed.

Nothing here is handed bytes from outside: :mod:`protocols.homomorphic.coefficients` checks those first. Randomness of
encryption and keys is SEAL's own, seeded from ``/dev/urandom``, but for keys that several clients have to make alike:
those come out of SEAL's generator (BLAKE2Xb) under a 64-byte seed of the caller's.
"""

from __future__ import annotations

import os
import struct
from functools import lru_cache
from types import TracebackType
from typing import Any

import numpy as np
import zstandard

from protocols.errors import CiphertextError, NoiseBudgetError, ProtocolError
from protocols.homomorphic.coefficients import Coefficients, to_bytes
from protocols.homomorphic.packing import Integers
from protocols.homomorphic.parameters import Parameters
from protocols.homomorphic.planning import SEED_BYTES

# SEAL 4.0, serialization.h: magic, size of this header, version, compression, reserved, bytes in all.
_HEADER = struct.Struct("<HBBBBHQ")
_MAGIC = 0xA15E
_PLAIN, _ZSTD = 0, 2
# ciphertext.cpp: identifier of the parameters, transformed or not, polynomials, degree, primes, scale, correction.
_CIPHERTEXT = struct.Struct("<32sBQQQdQ")
# plaintext.cpp: identifier, coefficients, scale.
_PLAINTEXT = struct.Struct("<32sQd")
_SEEDED_GENERATOR = 1
_WORD = 8
EXHAUSTED = "the sum does not decrypt: too many ciphertexts, or another key's"


class _Scratch:
    """A file in memory that SEAL can open by its name."""

    def __init__(self) -> None:
        if not hasattr(os, "memfd_create"):
            raise ProtocolError("homomorphic sums need memfd_create, which this system lacks: run them on Linux")
        self._file = os.memfd_create("codream-secure", os.MFD_CLOEXEC)
        self.path = f"/proc/self/fd/{self._file}"
        self._expander = zstandard.ZstdDecompressor()

    def __enter__(self) -> _Scratch:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._file)

    def put(self, content: bytes) -> str:
        """Make this the whole content; the path, for SEAL to load."""
        os.ftruncate(self._file, 0)
        os.pwrite(self._file, content, 0)
        return self.path

    def saved(self, thing: Any, limit: int) -> bytes:
        """What SEAL saves of an object, without its header; at most ``limit`` bytes."""
        thing.save(self.path)
        content = os.pread(self._file, os.fstat(self._file).st_size, 0)
        magic, size, _, _, compression, _, length = _HEADER.unpack_from(content)
        if (magic, size, length) != (_MAGIC, _HEADER.size, len(content)) or compression not in (_PLAIN, _ZSTD):
            raise CiphertextError("SEAL saves objects in another form than TenSEAL 0.3's: install that version")
        body = content[_HEADER.size :]
        return self._expander.decompress(body, max_output_size=limit) if compression == _ZSTD else body


class Seal:
    """One set of parameters, with all that SEAL does under it. Holds no key."""

    def __init__(self, parameters: Parameters) -> None:
        import _sealapi_cpp
        from tenseal import sealapi

        self._api, self._core = sealapi, _sealapi_cpp
        self.parameters = parameters
        settings = self._settings()
        self._context = self._checked(settings)
        (prime,) = settings.coeff_modulus()
        self.modulus = int(prime.value())
        self._evaluator = sealapi.Evaluator(self._context)
        self._transformed = parameters.scheme == "ckks"
        self._scale = 2.0**parameters.scale_bits
        self._encoder: Any = sealapi.CKKSEncoder(self._context) if self._transformed else None
        self._identifier = struct.pack("<4Q", *self._context.first_parms_id())
        with _Scratch() as scratch:
            sealapi.Plaintext("1").save(scratch.path)
            with open(scratch.path, "rb") as file:
                self._version: tuple[int, int] = _HEADER.unpack(file.read(_HEADER.size))[2:4]

    def _settings(self) -> Any:
        api, parameters = self._api, self.parameters
        settings = api.EncryptionParameters(api.SCHEME_TYPE.BFV if parameters.scheme == "bfv" else api.SCHEME_TYPE.CKKS)
        settings.set_poly_modulus_degree(parameters.degree)
        settings.set_coeff_modulus(api.CoeffModulus.Create(parameters.degree, [parameters.modulus_bits]))
        if parameters.scheme == "bfv":
            settings.set_plain_modulus(1 << parameters.message_bits)
        return settings

    def _checked(self, settings: Any) -> Any:
        context = self._api.SEALContext(settings, True, self._api.SEC_LEVEL_TYPE.TC128)
        if not context.parameters_set():
            raise CiphertextError(f"SEAL refuses {self.parameters}: {context.parameters_error_message()}")
        return context

    # Keys

    def secret_key(self, seed: bytes) -> Any:
        """The secret key that comes out of 64 bytes."""
        settings = self._settings()
        settings.set_random_generator(self._api.Blake2xbPRNGFactory(list(struct.unpack("<8Q", seed))))
        return self._api.KeyGenerator(self._checked(settings)).secret_key()

    def key_coefficients(self, secret: Any) -> Coefficients:
        """The secret key as SEAL keeps it: transformed, ``(degree,)`` uint64. Secret."""
        with _Scratch() as scratch:
            return self._words(scratch.saved(secret, self._limit(1)), 1)

    def public_key(self, secret: Any) -> Coefficients:
        """A fresh public key as SEAL keeps it: transformed, ``(2 degree,)`` uint64."""
        public = self._api.PublicKey()
        self._api.KeyGenerator(self._context, secret).create_public_key(public)
        with _Scratch() as scratch:
            return self._words(scratch.saved(public, self._limit(2)), 2)

    def load_public_key(self, coefficients: Coefficients) -> Any:
        """SEAL's object for what :meth:`public_key` gave."""
        public = self._api.PublicKey()
        with _Scratch() as scratch:
            # A public key is always transformed and has no scale.
            public.load(self._context, scratch.put(self._full(coefficients, transformed=True, scale=1.0)))
        return public

    # Encryption

    def encrypt(self, integers: Integers, key: Any) -> tuple[bytes, bytes, bytes]:
        """Encrypt one client's integers.

        Args:
            integers: ``(chunks, degree)`` uint64; for CKKS two's complement.
            key: a secret key, or a public one where the parameters say so.

        Returns:
            The first polynomials, the second ones (as :mod:`~protocols.homomorphic.coefficients` writes both), and the
            64-byte seeds from which the second ones come; none under a public key.
        """
        encryptor, width = self._core.Encryptor(self._context, key), self.parameters.coefficient_bytes
        first, second, seeds = [], [], []
        ciphertext = self._api.Ciphertext(self._context)
        with _Scratch() as scratch:
            for chunk in integers:
                plaintext = self._plaintext(chunk, scratch)
                if self.parameters.public:
                    encryptor.encrypt(plaintext, ciphertext)
                else:
                    seeds.append(scratch.saved(encryptor.encrypt_symmetric(plaintext), self._limit(2))[-SEED_BYTES:])
                    ciphertext.load(self._context, scratch.path)
                both = to_bytes(self._words(scratch.saved(ciphertext, self._limit(2)), 2), width)
                first.append(both[: len(both) // 2])
                second.append(both[len(both) // 2 :])
        return b"".join(first), b"".join(second), b"".join(seeds)

    def _plaintext(self, chunk: Integers, scratch: _Scratch) -> Any:
        plaintext = self._api.Plaintext()
        if self.parameters.scheme == "ckks":
            half = self.parameters.degree // 2
            numbers = chunk.view(np.int64).astype(np.float64)
            self._encoder.encode((numbers[:half] + 1j * numbers[half:]).tolist(), self._scale, plaintext)
            return plaintext
        words = chunk.astype("<u8", copy=False).tobytes()
        body = _PLAINTEXT.pack(bytes(32), len(chunk), 1.0) + self._array(words)
        plaintext.load(self._context, scratch.put(self._header(len(body)) + body))
        return plaintext

    # Sums

    def add(self, total: Any, first: Coefficients, seed: bytes) -> Any:
        """Add a chunk whose second polynomial comes from a seed to a sum of others, None at first; the sum."""
        with _Scratch() as scratch:
            ciphertext = self._load_seeded(first, seed, scratch)
        if total is None:
            return ciphertext
        self._evaluator.add_inplace(total, ciphertext)
        return total

    def polynomials(self, total: Any) -> tuple[Coefficients, Coefficients]:
        """Both polynomials of a chunk."""
        with _Scratch() as scratch:
            words = self._words(scratch.saved(total, self._limit(2)), 2)
        return words[: self.parameters.degree], words[self.parameters.degree :]

    def decrypt(self, first: Coefficients, second: Coefficients, secret: Any) -> Integers:
        """The integers of a chunk of a sum.

        Args:
            first: ``(degree,)`` uint64, below the modulus.
            second: likewise.
            secret: the key.

        Returns:
            ``(degree,)`` uint64; for CKKS two's complement.

        Raises:
            NoiseBudgetError: CKKS' errors are too large to round them off, or the key is another. BFV does not show it
                here; :func:`protocols.homomorphic.vectors.decrypt_sum` looks at what comes out.
        """
        decryptor, plaintext = self._core.Decryptor(self._context, secret), self._api.Plaintext()
        with _Scratch() as scratch:
            ciphertext = self._load(np.concatenate([first, second]), scratch)
            decryptor.decrypt(ciphertext, plaintext)
            if self.parameters.scheme == "ckks":
                return self._rounded(plaintext)
            return self._plain_words(scratch.saved(plaintext, self._limit(1)))

    def _rounded(self, plaintext: Any) -> Integers:
        slots = np.asarray(self._encoder.decode_complex(plaintext), dtype=np.complex128)
        numbers = np.concatenate([slots.real, slots.imag])
        whole = np.rint(numbers)
        if np.abs(numbers - whole).max() > 0.45:
            raise NoiseBudgetError(EXHAUSTED)
        integers: Integers = whole.astype(np.int64).view(np.uint64)
        return integers

    def _load(self, polynomials: Coefficients, scratch: _Scratch) -> Any:
        ciphertext = self._api.Ciphertext()
        content = self._full(polynomials, transformed=self._transformed, scale=self._scale)
        ciphertext.load(self._context, scratch.put(content))
        return ciphertext

    def _load_seeded(self, polynomial: Coefficients, seed: bytes, scratch: _Scratch) -> Any:
        """A ciphertext whose second polynomial SEAL expands from its seed."""
        generator = bytes([_SEEDED_GENERATOR]) + seed
        body = (
            self._fields(2, transformed=self._transformed, scale=self._scale)
            + self._array(polynomial.astype("<u8", copy=False).tobytes())
            + self._header(len(generator))
            + generator
        )
        ciphertext = self._api.Ciphertext()
        ciphertext.load(self._context, scratch.put(self._header(len(body)) + body))
        return ciphertext

    # SEAL's files

    def _header(self, body: int) -> bytes:
        return _HEADER.pack(_MAGIC, _HEADER.size, *self._version, _PLAIN, 0, _HEADER.size + body)

    def _array(self, words: bytes) -> bytes:
        content = struct.pack("<Q", len(words) // _WORD) + words
        return self._header(len(content)) + content

    def _fields(self, polynomials: int, *, transformed: bool, scale: float) -> bytes:
        return _CIPHERTEXT.pack(self._identifier, transformed, polynomials, self.parameters.degree, 1, scale, 1)

    def _full(self, polynomials: Coefficients, *, transformed: bool, scale: float) -> bytes:
        body = self._fields(2, transformed=transformed, scale=scale)
        body += self._array(polynomials.astype("<u8", copy=False).tobytes())
        return self._header(len(body)) + body

    def _limit(self, polynomials: int) -> int:
        return 256 + polynomials * self.parameters.degree * _WORD

    def _words(self, body: bytes, polynomials: int) -> Coefficients:
        """The coefficients at the end of what SEAL saved."""
        count = polynomials * self.parameters.degree
        return np.frombuffer(body, dtype="<u8", offset=len(body) - count * _WORD).astype(np.uint64, copy=False)

    def _plain_words(self, body: bytes) -> Integers:
        (count,) = struct.unpack_from("<Q", body, _PLAINTEXT.size + _HEADER.size)
        # Zeros at the end are left out.
        integers = np.zeros(self.parameters.degree, dtype=np.uint64)
        integers[:count] = np.frombuffer(body, dtype="<u8", count=count, offset=len(body) - count * _WORD)
        return integers


@lru_cache(maxsize=16)
def backend(parameters: Parameters) -> Seal:
    """SEAL under these parameters; made once a process."""
    return Seal(parameters)
