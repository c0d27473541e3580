"""The server where clients hold the key."""

from __future__ import annotations

from typing import ClassVar

from protocols import wire
from protocols.errors import MessageError
from protocols.homomorphic.collection import CipherCollection
from protocols.homomorphic.server import HomomorphicServer
from protocols.homomorphic.shared_key import PARCEL_BYTES
from protocols.machines import Outbox, Phase
from protocols.steps import check_sender


class SharedKeyServer(HomomorphicServer):
    """It relays the key sealed, hands the sum out, and learns neither; see :class:`protocols.machines.SumServer`."""

    public: ClassVar[bool] = False
    _sealed: dict[int, wire.SealedKeys]

    def _sharing(self) -> frozenset[int]:
        return frozenset(self._keys) - self._sealed.keys()

    def _ask_for_keys(self) -> Outbox:
        self._sealed = {}
        keys = wire.encode(wire.Keys(self._round_id, self._advertised()))
        return dict.fromkeys(sorted(self._keys), keys)

    def _take_keys(self, sender: int, message: bytes) -> None:
        decoded = self._decode(wire.SealedKeys, message, (PARCEL_BYTES + 16) * len(self._keys))
        check_sender(sender, decoded.member, self.expected)
        if [parcel.peer for parcel in decoded.parcels] != sorted(self._keys.keys() - {sender}):
            raise MessageError(f"member {sender} did not seal its secret for exactly the others")
        if any(len(parcel.ciphertext) != PARCEL_BYTES for parcel in decoded.parcels):
            raise MessageError(f"member {sender} sealed a secret of another length")
        self._sealed[sender] = decoded

    def _hand_out_keys(self) -> Outbox:
        if len(self._sealed) < self._needed:
            return self._give_up_round(len(self._sealed))
        self._members = tuple(sorted(self._sealed))
        holder = self._members[0]
        parcels = {parcel.peer: parcel.ciphertext for parcel in self._sealed[holder].parcels}
        self._sealed = {}
        self.phase = Phase.READY
        return {
            member: wire.encode(
                wire.Inbox(
                    self._round_id,
                    list(self._members),
                    [] if member == holder else [wire.Parcel(holder, parcels[member])],
                )
            )
            for member in self._members
        }

    def _finish(self, collected: CipherCollection) -> Outbox:
        self._collection = None
        self.phase = Phase.READY
        return dict.fromkeys(self._members, collected.total(self._round_id))
