"""What key holders derive from one 32-byte secret of a round, with a label for every use.

The *root* gives the seeds of secret keys, one for every set of parameters; the root of linear tags; and, where clients
hold the key, what seals vouchers. Whoever encrypts under a public key is given the root of tags only.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence

from protocols.homomorphic.coefficients import to_bytes
from protocols.homomorphic.parameters import Parameters
from protocols.homomorphic.planning import Plan, described
from protocols.homomorphic.seal import backend
from protocols.homomorphic.vectors import Key
from protocols.keys import Roster, Secret, session_digest
from protocols.terms import Terms

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


def round_session(
    round_id: bytes, cohort: Sequence[int], *, name: str, terms: Terms, roster: Roster, plans: Mapping[str, Plan]
) -> tuple[bytes, int]:
    """What everything in a round is bound to, and how many members have to be left for a sum.

    The former is the digest that masked sums use (:func:`protocols.keys.session_digest`), together with how vectors are
    encrypted.

    Raises:
        TermsError: the terms cannot be met by this cohort.
    """
    topology = terms.topology(len(cohort))
    session = session_digest(round_id, roster=roster.digest, terms=terms.digest(name), cohort=cohort, topology=topology)
    return hashlib.sha256(_SESSION + session + described(plans)).digest(), topology.survivors


def secret_key(root: Secret, parameters: Parameters) -> Key:
    """The secret key of one set of parameters."""
    text = str(parameters).encode("ascii")
    return Key(parameters, b"".join(root.derive(half + text) for half in _SEED), secret=True)


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


def state_digest(tags: Secret, session: bytes, request: bytes, state: bytes) -> bytes:
    """16 bytes that stand for what only clients know, and say nothing of it to anybody without the secret."""
    return tags.derive(_STATE + session + request + hashlib.sha256(state).digest())[:CHECK_BYTES]


def voucher_root(secret: Secret) -> Secret:
    """What seals vouchers, from the secret that the one who seals and the one who opens them share."""
    return Secret(secret.derive(_VOUCHERS))


def voucher_key(vouchers: Secret, session: bytes, member: int) -> bytes:
    """AES-256-GCM key of one member's vouchers."""
    return vouchers.derive(_VOUCHER + session + member.to_bytes(4, "big"))
