"""Who is at the other end: a member proves that it holds the key that the roster has for it.

TLS has shown by then that both machines hold certificates of the deployment. It does not say which *member* speaks, and
a certificate may be shared or copied; the roster's Ed25519 key does. The member signs fresh randomness of both sides,
so that neither recorded bytes nor a proof made for another roster, round or session lets anybody in.
"""

from __future__ import annotations

import hmac
import os

from codream_secure.deployment.streams.errors import RefusedError
from codream_secure.deployment.streams.frames import NONCE_BYTES, VERSION, Challenge, Hello, Proof
from protocols import Identity, ProtocolError, Roster

_PROOF = b"codream-secure stream v1 proof\0"


def greet(
    member: int, identity: Identity, *, roster: Roster, round_id: bytes, session_id: bytes, received: int
) -> Hello:
    """The first frame of a connection, with fresh randomness."""
    return Hello(
        version=VERSION,
        member=member,
        public_key=identity.public_key,
        roster=roster.digest,
        round_id=round_id,
        session_id=session_id,
        received=received,
        nonce=os.urandom(NONCE_BYTES),
    )


def challenge() -> Challenge:
    """Fresh randomness to sign."""
    return Challenge(os.urandom(NONCE_BYTES))


def signed_bytes(hello: Hello, asked: Challenge) -> bytes:
    """What a proof signs: all that was said, and both nonces; unambiguous, and nothing else that this key signs."""
    return b"".join(
        (
            _PROOF,
            bytes([hello.version]),
            hello.member.to_bytes(4, "big"),
            hello.public_key,
            hello.roster,
            bytes([len(hello.round_id)]),
            hello.round_id,
            bytes([len(hello.session_id)]),
            hello.session_id,
            hello.received.to_bytes(8, "big"),
            hello.nonce,
            asked.nonce,
        )
    )


def prove(identity: Identity, hello: Hello, asked: Challenge) -> Proof:
    """The member's answer to a challenge."""
    return Proof(identity.sign(signed_bytes(hello, asked)))


def check_hello(hello: Hello, roster: Roster, *, round_id: bytes) -> None:
    """Return if somebody with such a greeting may be challenged.

    Args:
        hello: untrusted.
        roster: of the deployment.
        round_id: of the round that goes on; empty if none does.

    Raises:
        RefusedError: another version, roster, key or round, or a stranger.
    """
    if hello.version != VERSION:
        raise RefusedError(f"the client speaks version {hello.version} of the stream, the server version {VERSION}")
    if not hmac.compare_digest(hello.roster, roster.digest):
        raise RefusedError("the client goes by another roster than the server")
    if hello.member not in roster:
        raise RefusedError(f"member {hello.member} is not on the roster")
    if not roster.holds(hello.member, hello.public_key):
        raise RefusedError(f"the key is not that of member {hello.member} on the roster")
    if hello.round_id and hello.round_id != round_id:
        raise RefusedError(f"round {hello.round_id.hex()} is not going on here", retry=True)


def check_proof(hello: Hello, asked: Challenge, proof: Proof, roster: Roster) -> None:
    """Return if the member has signed this very challenge.

    Raises:
        RefusedError: it has not.
    """
    try:
        roster.verify(hello.member, proof.signature, signed_bytes(hello, asked))
    except ProtocolError:
        raise RefusedError(f"the proof is not signed with member {hello.member}'s key for this connection") from None
