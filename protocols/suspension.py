"""What suspended clients have in common: a step's request as it is stored, and states that no snapshot passes for.

A snapshot is taken between two steps and holds no more than later steps need. A suspended client stops anywhere, with
its private key for the round or the shares of a step that is not opened yet; see
:meth:`protocols.machines.SumProtocol.suspend_client` for what that asks of whoever stores it.
"""

from __future__ import annotations

from collections.abc import Mapping

from protocols import wire
from protocols.keys import PairSecrets, RoundKey, Secret
from protocols.snapshots import SecretState
from protocols.steps import ClientSteps

Pairs = dict[int, tuple[bytes, bytes, bytes]]


def bound_to(terms: bytes) -> bytes:
    """What a suspended state is authenticated with beside its content, from the digest of its terms."""
    return b"codream-secure suspended v1\0" + terms


class StoredSteps(SecretState):
    """Where a client is in its steps."""

    last: int
    pending: tuple[int, str, int, bytes] | None


def stored_steps(steps: ClientSteps) -> StoredSteps:
    """What :func:`put_back` takes."""
    asked = steps.pending
    pending = None if asked is None else (asked.step, asked.stream, asked.values, asked.context)
    return StoredSteps(last=steps.last, pending=pending)


def put_back(steps: ClientSteps, stored: StoredSteps, round_id: bytes) -> None:
    """Make fresh steps what they were."""
    steps.last = stored.last
    if stored.pending is not None:
        steps.pending = wire.StepRequest(round_id, *stored.pending)


def stored_pairs(pairs: Mapping[int, PairSecrets]) -> Pairs:
    """What members share, as secret bytes."""
    return {peer: pair.private_bytes() for peer, pair in pairs.items()}


def pairs_from(stored: Pairs) -> dict[int, PairSecrets]:
    """The inverse of :func:`stored_pairs`."""
    return {peer: PairSecrets(*map(Secret, parts)) for peer, parts in stored.items()}


def stored_key(key: RoundKey | None) -> bytes | None:
    """The round's private key, where there still is one."""
    return None if key is None else key.private_bytes()


def key_from(stored: bytes | None) -> RoundKey | None:
    """The inverse of :func:`stored_key`."""
    return None if stored is None else RoundKey(stored)
