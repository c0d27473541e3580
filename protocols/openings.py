"""What opens a step: each client's two secrets a step, their shares, and the backup of its pairwise seeds.

For every step a client draws a *self* secret, from which its self-mask comes, and a *pair* secret, under which all its
pairwise seeds of that step are encrypted for the server (its backup). Both are shared among its group: its neighbours
and itself. A *batch* holds, step by step, 32 bytes of a share of the self secret and 32 of the pair secret.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable, Mapping, Sequence

from protocols.keys import Secret, label
from protocols.masks import next_root, pair_seed
from protocols.shares import SHARE_BYTES, TAG_BYTES, random_element, seal, split, to_bytes, unseal

_PARCEL = label("parcel")
_BACKUP = label("backup")
_BACKUP_KEY = label("backup key")
_COMMITMENT = label("commitment")

SEED_BYTES = 32
COMMITMENT_BYTES = 32
BATCH_STEP_BYTES = 2 * SHARE_BYTES


class StepSecrets:
    """One client's secrets for all steps of a round, as drawn from the operating system at set-up."""

    def __init__(self, steps: int) -> None:
        self.selves = [random_element() for _ in range(steps)]
        self.pairs = [random_element() for _ in range(steps)]

    def batches(self, points: Mapping[int, int], threshold: int) -> dict[int, bytes]:
        """Each holder's batch of shares.

        Args:
            points: holder to its evaluation point.
            threshold: how many holders open a secret.
        """
        interleaved = [secret for step in zip(self.selves, self.pairs, strict=True) for secret in step]
        shares = split(interleaved, list(points.values()), threshold)
        return {holder: to_bytes(held) for holder, held in zip(points, shares, strict=True)}

    def commitments(self, session: bytes, member: int) -> bytes:
        """One hash per step, by which the server knows whether it opened the right self secret."""
        return b"".join(commit(session, member, step, secret) for step, secret in enumerate(self.selves))

    def backups(self, session: bytes, member: int, roots: Iterable[Secret]) -> list[bytes]:
        """Per step the seeds of the masks shared with each neighbour, encrypted under the step's pair secret.

        Args:
            session: of the round.
            member: whose seeds they are.
            roots: of step 0, by neighbour in ascending order; unchanged.
        """
        present, sealed = list(roots), []
        for step, secret in enumerate(self.pairs):
            seeds = b"".join(pair_seed(root) for root in present)
            sealed.append(seal(_backup_key(secret), seeds, _BACKUP + place(session, member, step)))
            present = [next_root(root) for root in present]
        return sealed


def commit(session: bytes, member: int, step: int, secret: int) -> bytes:
    """SHA-256 of a self secret in its place. The secret is uniform over 256 bits, so its hash hides it."""
    return hashlib.sha256(_COMMITMENT + place(session, member, step) + to_bytes([secret])).digest()


def self_secret(secret: int) -> Secret:
    """A self secret in the form that :func:`protocols.masks.self_mask_key` takes."""
    return Secret(to_bytes([secret]))


def open_backup(ciphertext: bytes, secret: int, session: bytes, member: int, step: int) -> list[bytes]:
    """The seeds that a pair secret opens, in the order of the neighbours.

    Raises:
        ShareError: the secret or the backup is not what it should be.
    """
    seeds = unseal(_backup_key(secret), ciphertext, _BACKUP + place(session, member, step))
    return [seeds[at : at + SEED_BYTES] for at in range(0, len(seeds), SEED_BYTES)]


def _backup_key(secret: int) -> bytes:
    return hmac.digest(to_bytes([secret]), _BACKUP_KEY, "sha256")


def backup_bytes(neighbours: int) -> int:
    """Length of one step's backup."""
    return neighbours * SEED_BYTES + TAG_BYTES


def parcel_bytes(steps: int) -> int:
    """Length of an encrypted batch."""
    return steps * BATCH_STEP_BYTES + TAG_BYTES


def parcel_context(session: bytes, sender: int, recipient: int) -> bytes:
    """What a parcel is bound to."""
    return _PARCEL + session + sender.to_bytes(4, "big") + recipient.to_bytes(4, "big")


def place(session: bytes, member: int, step: int) -> bytes:
    """One member's step of one round."""
    return session + member.to_bytes(4, "big") + step.to_bytes(8, "big")


def points_of(cohort: Sequence[int]) -> dict[int, int]:
    """Each member's evaluation point: its place in the cohort, from 1."""
    return {member: place for place, member in enumerate(cohort, start=1)}
