"""What key holders derive from one 32-byte secret of a round, with a label for every use.

The *root* gives the seeds of secret keys, one for every set of parameters; the root of linear tags; and, where clients
hold the key, what seals vouchers. Whoever encrypts under a public key is given the root of tags only.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping

from protocols.homomorphic.coefficients import to_bytes
from protocols.homomorphic.parameters import Parameters
from protocols.homomorphic.planning import Plan, described
from protocols.homomorphic.seal import backend
from protocols.homomorphic.vectors import Key
from protocols.keys import Secret

CHECK_BYTES = 16


def label(purpose: str) -> bytes:
    """What keeps one use of a key, a hash or a signature apart from every other; no label begins another."""
    return b"codream-secure homomorphic v1 " + purpose.encode("ascii") + b"\0"


_SESSION = label("session")
_SEED = (label("key seed, first half"), label("key seed, second half"))
_CHECK = label("key check")
_TAGS = label("tags")
_TAG = label("tag")
_STATE = label("state")
_VOUCHERS = label("vouchers")
_VOUCHER = label("voucher")


def bound_session(session: bytes, plans: Mapping[str, Plan]) -> bytes:
    """The digest of a round (:func:`protocols.keys.session_digest`) together with how its vectors are encrypted."""
    return hashlib.sha256(_SESSION + session + described(plans)).digest()


def secret_key(root: Secret, parameters: Parameters) -> Key:
    """The secret key of one set of parameters."""
    described = str(parameters).encode("ascii")
    return Key(parameters, b"".join(root.derive(half + described) for half in _SEED), secret=True)


def key_check(root: Secret, sets: Iterable[Parameters]) -> bytes:
    """16 bytes by which two parties find out whether SEAL gives both the same keys: another version might not.

    The keys are uniform ternary polynomials, so a hash of them hides them.
    """
    digest = hashlib.sha256(_CHECK)
    for parameters in sets:
        loaded = secret_key(root, parameters).load()
        digest.update(to_bytes(backend(parameters).key_coefficients(loaded), 8))
    return digest.digest()[:CHECK_BYTES]


def tag_root(root: Secret) -> Secret:
    """The root of linear tags."""
    return Secret(root.derive(_TAGS))


def tag_key(tags: Secret, session: bytes, request: bytes) -> bytes:
    """Key of the tags of one step: of what it asks for, see :func:`protocols.keys.request_context`."""
    return tags.derive(_TAG + session + request)


def state_digest(tags: Secret, session: bytes, request: bytes, shared: bytes) -> bytes:
    """16 bytes that stand for what only clients know, and say nothing of it to anybody without the secret."""
    return tags.derive(_STATE + session + request + hashlib.sha256(shared).digest())[:CHECK_BYTES]


def voucher_root(secret: Secret) -> Secret:
    """What seals vouchers, from the secret that the one who seals and the one who opens them share."""
    return Secret(secret.derive(_VOUCHERS))


def voucher_key(vouchers: Secret, session: bytes, member: int) -> bytes:
    """AES-256-GCM key of one member's vouchers."""
    return vouchers.derive(_VOUCHER + session + member.to_bytes(4, "big"))
