"""What a client keeps of a finished set-up, and the only two things it ever makes from it: masks and shares."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from protocols.keys import Secret
from protocols.masks import next_root, pair_mask_key, pair_seed, self_mask_key
from protocols.openings import BATCH_STEP_BYTES
from protocols.shares import SHARE_BYTES


class Holdings:
    """A member's secrets for the steps of one round.

    Args:
        member: whose they are.
        roots: by neighbour, the root of the masks shared with it, of the step that is next.
        selves: by step, the secret that its self-mask comes from.
        batches: by member of its group, itself included, the shares that it holds of that member's secrets: for each
            step 32 bytes of the self secret's and 32 of the pair secret's.
    """

    def __init__(
        self,
        member: int,
        *,
        roots: Mapping[int, Secret],
        selves: list[Secret],
        batches: Mapping[int, bytearray],
        next_step: int = 0,
    ) -> None:
        self._member = member
        self.roots = dict(roots)
        self.selves = selves
        self.batches = dict(batches)
        self._wiped = 0
        """Bytes of every batch that are overwritten already."""
        self.next_step = next_step
        """The step that the roots belong to."""

    @property
    def group(self) -> Collection[int]:
        """Whose shares are held: neighbours that completed the set-up, and the member itself."""
        return self.batches.keys()

    def mask_keys(self, step: int, request: bytes) -> tuple[list[bytes], list[bytes]]:
        """Keys of the masks to add and of those to subtract at a step.

        Afterwards nothing is left here that would make the masks of this step or of one before it.

        Args:
            step: its number, at least :attr:`next_step`.
            request: what it asks for, see :func:`protocols.keys.request_context`.
        """
        self.pass_over(step)
        added, subtracted = [self_mask_key(self.selves[step], request)], list[bytes]()
        for peer, root in self.roots.items():
            key = pair_mask_key(pair_seed(root), request)
            (added if peer > self._member else subtracted).append(key)
        self.pass_over(step + 1)
        return added, subtracted

    def pass_over(self, step: int) -> None:
        """Move the roots on to a step, and forget what made the masks of those before it: 2 us a step and neighbour."""
        for secret in self.selves[self.next_step : step]:
            secret.wipe()
        for _ in range(self.next_step, step):
            for peer, root in self.roots.items():
                self.roots[peer] = next_root(root)
                root.wipe()
        self.next_step = max(step, self.next_step)

    def shares(self, step: int, dead: Collection[int]) -> bytes:
        """One share for each member of the group, in ascending order: pair secrets of the dead, self secrets of others.

        The shares of this step and of those before it are gone afterwards, of both kinds.
        """
        answer = b"".join(self._share(member, step, dead=member in dead) for member in sorted(self.batches))
        self.wipe_through(step)
        return answer

    def _share(self, member: int, step: int, *, dead: bool) -> bytes:
        start = step * BATCH_STEP_BYTES + (SHARE_BYTES if dead else 0)
        return bytes(self.batches[member][start : start + SHARE_BYTES])

    def wipe_through(self, step: int) -> None:
        """Overwrite the shares of all steps up to and including one."""
        start, self._wiped = self._wiped, max(self._wiped, (step + 1) * BATCH_STEP_BYTES)
        for batch in self.batches.values():
            end = min(len(batch), self._wiped)
            batch[start:end] = bytes(max(end - start, 0))

    def wipe(self) -> None:
        """Overwrite everything."""
        for secret in (*self.roots.values(), *self.selves):
            secret.wipe()
        self._wiped = 0
        self.wipe_through(len(self.selves))
