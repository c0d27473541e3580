"""The channel of a program that holds one client."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import torch

from codream_secure.base_channel import BaseChannel, Tensors, flattened
from codream_secure.deployment.conversation import Conversation
from codream_secure.deployment.events import DesyncError
from codream_secure.releases import Releases
from protocols import SumProtocol, SumResult


class MemberChannel(BaseChannel):
    """What the server broadcasts comes from the stream; of sums, this client's vector is all that is known here.

    Whatever is computed from a sum (a step of the server's optimiser, a mean label) is computed here from zeros, and
    replaced by what the server shows before anything depends on it: the next use of every sum in a method is a
    broadcast, which is what makes one method serve both sides.

    Args:
        protocol: how sums are protected.
        clients: how many there are.
        member: the number of the one that lives here.
        conversation: with the stream.
        releases: how values leave this client; whoever masks its vectors accounts for them.
    """

    def __init__(
        self,
        protocol: SumProtocol,
        clients: int,
        *,
        member: int,
        conversation: Conversation,
        releases: Releases | None = None,
    ) -> None:
        super().__init__(protocol, clients, releases=releases)
        self._member = member
        self._conversation = conversation

    def begin_round(self, number: int) -> None:
        self.recorder.began(number)

    def broadcast(self, tensors: Tensors, *, phase: str) -> list[torch.Tensor]:
        """What the server shows next; the tensors handed in say its shapes, types and device.

        Raises:
            RoundLostError: the round is over.
            DesyncError: it shows something else.
        """
        shown = self._conversation.show()
        expected = [(tuple(tensor.shape), str(tensor.dtype).removeprefix("torch.")) for tensor in tensors]
        found = [(array.shape, array.dtype.name) for array in shown.tensors]
        if shown.phase != phase or found != expected:
            raise DesyncError(
                f"the server shows {shown.phase!r} of {found}, where {phase!r} of {expected} was to come: it does not "
                "follow these terms of training"
            )
        return [
            torch.from_numpy(np.array(array, dtype=array.dtype.newbyteorder("="))).to(tensor.device)
            for array, tensor in zip(shown.tensors, tensors, strict=True)
        ]

    def _sum(
        self,
        contributions: Mapping[int, Tensors],
        phase: str,
        weights: Mapping[int, int] | None,
        *,
        like: Tensors,
        held: Mapping[int, Tensors] | None = None,
        bound: float | None = None,
    ) -> SumResult:
        values, own = sum(tensor.numel() for tensor in like), self._member

        def vector() -> npt.NDArray[np.float32]:
            given = self.releases.contribution(flattened({own: contributions[own]})[own], phase, bound=bound)
            return given.astype(np.float32, copy=False)

        self._conversation.contribute(phase, values, vector)
        nothing = np.zeros(values)
        return SumResult(total=nothing, weight=None, contributors=(self._member,), ring=np.zeros(0, dtype=np.uint32))
