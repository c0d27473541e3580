"""The server where an authority holds the key."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

import numpy as np

from protocols import wire
from protocols.errors import MessageError, OpeningError, StepError
from protocols.homomorphic.authority import opened
from protocols.homomorphic.collection import CipherCollection
from protocols.homomorphic.granted_key import PARCEL_BYTES, grant, keys_bytes
from protocols.homomorphic.planning import sets_of
from protocols.homomorphic.server import HomomorphicServer
from protocols.machines import Outbox, Phase
from protocols.parties import AUTHORITY
from protocols.steps import check_sender, finished


class GrantedKeyServer(HomomorphicServer):
    """It has sums opened by the authority, and learns them; see :class:`protocols.machines.SumServer`."""

    public: ClassVar[bool] = True
    _grant: wire.Grant | None = None
    _answer: wire.Opened | None = None

    def _addressees(self) -> Iterable[int]:
        return (AUTHORITY, *self._cohort)

    @property
    def expected(self) -> frozenset[int]:
        if self.phase is Phase.OPEN:
            return frozenset() if self._answer else frozenset([AUTHORITY])
        return super().expected

    def _sharing(self) -> frozenset[int]:
        return frozenset() if self._grant else frozenset([AUTHORITY])

    def _ask_for_keys(self) -> Outbox:
        return {AUTHORITY: wire.encode(wire.Keys(self._round_id, self._advertised()))}

    def receive(self, sender: int, message: bytes) -> None:
        if self.phase is Phase.OPEN:
            self._take_opened(sender, message)
        else:
            super().receive(sender, message)

    def _take_keys(self, sender: int, message: bytes) -> None:
        sets = sets_of(self._plans.values())
        extra = keys_bytes(sets) + (PARCEL_BYTES + 16) * len(self._keys)
        decoded = self._decode(wire.Grant, message, extra)
        check_sender(sender, AUTHORITY, self.expected)
        members = sorted(self._keys)
        if [parcel.peer for parcel in decoded.parcels] != members:
            raise MessageError("the authority did not grant keys to exactly those who advertised theirs")
        signed = grant(self._session, members, decoded.public_key, decoded.encryption_keys)
        self._roster.verify(AUTHORITY, decoded.signature, signed)
        self._grant = decoded

    def _hand_out_keys(self) -> Outbox:
        granted, self._grant = self._grant, None
        if granted is None:
            outbox = self._give_up_round(len(self._keys))
            self.failure = OpeningError("the key authority granted no keys")
            return outbox
        self._members = tuple(sorted(self._keys))
        self.phase = Phase.READY
        return {
            parcel.peer: wire.encode(
                wire.Welcome(
                    self._round_id,
                    list(self._members),
                    granted.public_key,
                    granted.signature,
                    granted.encryption_keys,
                    parcel.ciphertext,
                )
            )
            for parcel in granted.parcels
        }

    def _finish(self, collected: CipherCollection) -> Outbox:
        self._answer = None
        self.phase = Phase.OPEN
        return {AUTHORITY: collected.total(self._round_id)}

    def _take_opened(self, sender: int, message: bytes) -> None:
        collected = self._step
        size = collected.elements * collected.encoding.dtype.itemsize
        decoded = self._decode(wire.Opened, message, size)
        check_sender(sender, AUTHORITY, self.expected)
        if decoded.step != collected.step:
            raise StepError(f"the authority opened step {decoded.step}, this is step {collected.step}")
        if len(decoded.ring) != size:
            raise MessageError(f"the authority opened {len(decoded.ring)} bytes, where {size} are expected")
        contributors = tuple(sorted(collected.contributors))
        self._roster.verify(
            AUTHORITY, decoded.signature, opened(self._session, collected.request, contributors, decoded.ring)
        )
        self._answer = decoded

    def advance(self) -> Outbox:
        if self.phase is not Phase.OPEN:
            return super().advance()
        collected, answer = self._step, self._answer
        if answer is None:
            failure = OpeningError(f"the key authority did not open the sum of step {collected.step}")
            failure.asked_to_open = tuple(sorted(collected.contributors))
            return self._give_up_step(failure, len(collected.contributors))
        ring = np.frombuffer(answer.ring, dtype=collected.encoding.dtype)
        self._result = finished(collected, ring)
        self._collection = self._answer = None
        self.phase = Phase.READY
        return {}
