"""What comes with a contribution so that a key holder, who never sees it, can tell whether it is in a sum.

A contributor seals the linear tag of its ciphertexts for the key holders, and signs what the step asks for, a digest of
the ciphertexts and the sealed tag. The server checks the signature and the digest, adds the ciphertexts up and passes
the vouchers on. A key holder opens the tags, adds them up, and compares with the tag of the sum: a sum that leaves out
a voucher's contribution, counts it twice or holds anything else has another tag, but for a probability of 2^-64 for
every sum that is presented.

Tags are sealed because they are linear: whoever saw more of them than they have rows could choose other combinations of
contributions that have the same tag.
"""

from __future__ import annotations

import hashlib
import itertools
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from protocols import wire
from protocols.errors import CohortError, ReplicaError, VoucherError
from protocols.homomorphic.planning import Plan
from protocols.homomorphic.seal import backend
from protocols.homomorphic.secrets import CHECK_BYTES, label, state_digest, tag_key, voucher_key
from protocols.homomorphic.tags import ROWS, TAG_BYTES, Tag, add_tags, from_tag_bytes, tag, to_tag_bytes
from protocols.homomorphic.vectors import Encrypted
from protocols.keys import Identity, Roster, Secret
from protocols.steps import too_few

_CONTRIBUTION = label("contribution")
_SEALED = label("sealed tag")
_NONCE_BYTES = 12


@dataclass(frozen=True, kw_only=True)
class Notary:
    """Makes and examines the vouchers of one round. Holds secrets of it.

    Attributes:
        session: of the round.
        tags: root of linear tags.
        vouchers: by member, what its vouchers are sealed with.
    """

    session: bytes
    tags: Secret
    vouchers: Callable[[int], Secret]

    def vouch(
        self,
        plan: Plan,
        encrypted: Encrypted,
        *,
        member: int,
        request: bytes,
        state: bytes,
        identity: Identity,
    ) -> tuple[bytes, bytes]:
        """The sealed tag of a contribution, and the signature under it.

        Args:
            plan: of the stream.
            encrypted: the vector.
            member: who contributes.
            request: what the step asks for.
            state: what only clients know of what it answers.
            identity: the member's.
        """
        digest = hashlib.sha256(encrypted.body).digest()
        content = to_tag_bytes(self._tag(plan, memoryview(encrypted.polynomials), request))
        content += state_digest(self.tags, self.session, request, state)
        nonce = os.urandom(_NONCE_BYTES)
        sealed = nonce + self._cipher(member).encrypt(nonce, content, self._place(member, request, digest))
        return sealed, identity.sign(statement(self.session, member, request, digest, sealed))

    def examine(
        self,
        plan: Plan,
        body: memoryview,
        vouchers: Sequence[wire.Voucher],
        *,
        request: bytes,
        members: Iterable[int],
        needed: int,
        roster: Roster,
        state: bytes | None,
    ) -> tuple[int, ...]:
        """Return the contributors if the body is the sum of what enough of them vouch for.

        Args:
            plan: of the stream.
            body: of the sum.
            vouchers: in ascending order of their members.
            request: what the step asks for.
            members: who may contribute.
            needed: how many distinct ones must have.
            roster: their public keys.
            state: what this party, if it is a client, knows of what the step answers; None does not compare.

        Raises:
            CohortError: a voucher of a stranger, or two of one member.
            TooFewSurvivorsError: too few vouchers.
            PeerKeyError: a signature is not its member's.
            VoucherError: a voucher answers another request, or the sum is another.
            ReplicaError: another client knows something else than this one.
            CiphertextError: the sum is none under these parameters.
        """
        contributors = tuple(voucher.member for voucher in vouchers)
        if any(left >= right for left, right in itertools.pairwise(contributors)):
            raise CohortError("vouchers are repeated or not in ascending order")
        if not set(contributors) <= set(members):
            raise CohortError("somebody vouched who did not complete the set-up")
        if len(contributors) < needed:
            raise too_few(len(contributors), needed)
        modulus = backend(plan.parameters).modulus
        total: Tag = (0,) * ROWS
        expected = None if state is None else state_digest(self.tags, self.session, request, state)
        for voucher in vouchers:
            signed = statement(self.session, voucher.member, request, voucher.digest, voucher.sealed)
            roster.verify(voucher.member, voucher.signature, signed)
            vouched, theirs = self._open(voucher, request)
            if expected is not None and theirs != expected:
                raise ReplicaError(f"member {voucher.member} holds another state than this client: their sums differ")
            total = add_tags(total, vouched, modulus=modulus)
        if self._tag(plan, body, request) != total:
            raise VoucherError("the sum is not the sum of the contributions that were vouched for: it is not opened")
        return contributors

    def _open(self, voucher: wire.Voucher, request: bytes) -> tuple[Tag, bytes]:
        nonce, sealed = voucher.sealed[:_NONCE_BYTES], voucher.sealed[_NONCE_BYTES:]
        place = self._place(voucher.member, request, voucher.digest)
        try:
            content = self._cipher(voucher.member).decrypt(nonce, sealed, place)
        except InvalidTag:
            raise VoucherError(
                f"the voucher of member {voucher.member} does not open: of another request, round or key"
            ) from None
        return from_tag_bytes(content[:TAG_BYTES]), content[TAG_BYTES : TAG_BYTES + CHECK_BYTES]

    def _tag(self, plan: Plan, polynomials: memoryview, request: bytes) -> Tag:
        parameters = plan.parameters
        return tag(
            polynomials,
            key=tag_key(self.tags, self.session, request),
            width=parameters.coefficient_bytes,
            modulus=backend(parameters).modulus,
        )

    def _cipher(self, member: int) -> AESGCM:
        return AESGCM(voucher_key(self.vouchers(member), self.session, member))

    def _place(self, member: int, request: bytes, digest: bytes) -> bytes:
        return _SEALED + self.session + member.to_bytes(4, "big") + digest + request


def statement(session: bytes, member: int, request: bytes, digest: bytes, sealed: bytes) -> bytes:
    """What a contributor signs."""
    return _CONTRIBUTION + session + member.to_bytes(4, "big") + digest + sealed + request
