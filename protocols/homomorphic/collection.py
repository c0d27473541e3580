"""A step at the server of homomorphic sums: ciphertexts checked, added up, and passed on with their vouchers."""

from __future__ import annotations

import hashlib

from protocols import wire
from protocols.homomorphic.planning import Plan
from protocols.homomorphic.vectors import BodySum
from protocols.homomorphic.vouchers import statement
from protocols.keys import Roster
from protocols.steps import Collection


class CipherCollection(Collection):
    """A collection of ciphertexts, added up as they arrive."""

    body: BodySum
    plan: Plan

    def begin(self, plan: Plan) -> None:
        """Take note of how the vectors are encrypted."""
        self.plan = plan
        self.body = BodySum(plan, self.elements)
        self.vouchers: dict[int, wire.Voucher] = {}

    @property
    def elements(self) -> int:
        """Ring elements of every vector."""
        return self.encoding.length(self.values)

    def add(self, sender: int, message: wire.Ciphertexts, *, session: bytes, roster: Roster) -> None:
        """Add one member's vector.

        Raises:
            SenderError: a stranger, somebody else's name, or a second contribution.
            StepError: of another step.
            PeerKeyError: not signed by that member, for this step and these ciphertexts.
            CiphertextError: no ciphertexts under these parameters.
        """
        self.check(sender, message)
        digest = hashlib.sha256(message.body).digest()
        signed = statement(session, sender, self.request, digest, message.sealed)
        roster.verify(sender, message.signature, signed)
        self.body.check(message.body)
        self.body.add(message.body)
        self.vouchers[sender] = wire.Voucher(sender, digest, message.sealed, message.signature)
        self.contributors.add(sender)

    def total(self, round_id: bytes) -> bytes:
        """The sum as a message for key holders."""
        vouchers = [self.vouchers[member] for member in sorted(self.vouchers)]
        return wire.encode(
            wire.Total(
                round_id, self.step, self.stream, self.values, self.context, vouchers, memoryview(self.body.body())
            )
        )
