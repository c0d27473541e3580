"""The wiring of a cohort, and how the masks that did not cancel are taken off a sum."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from functools import lru_cache

from protocols.encoding import Ring
from protocols.errors import ShareError
from protocols.graph import Topology, neighbours
from protocols.masks import apply_masks, pair_mask_key, self_mask_key
from protocols.openings import COMMITMENT_BYTES, commit, open_backup, points_of, self_secret
from protocols.shares import SHARE_BYTES, combine, from_bytes, opening_weights
from protocols.wire import Shares

_SUSPECTS = "it dealt wrong shares, or more than one holder answered with wrong ones"


class Wiring:
    """Who is whose neighbour in a cohort, and who holds whose shares.

    Args:
        cohort: in ascending order.
        topology: its degree and thresholds.
        session: the digest that seeds the graph.
    """

    def __init__(self, cohort: Sequence[int], topology: Topology, session: bytes) -> None:
        self.topology = topology
        self._neighbours = neighbours(cohort, topology.degree, session)
        self.points = points_of(cohort)

    def peers(self, member: int, among: Container[int]) -> list[int]:
        """A member's neighbours among some, in ascending order."""
        return [peer for peer in self._neighbours[member] if peer in among]

    def group(self, member: int, among: Container[int]) -> list[int]:
        """The same with the member itself, if it is among them: the holders of its shares."""
        return sorted(other for other in (*self._neighbours[member], member) if other in among)

    def enough(self, left: AbstractSet[int], opened: Iterable[int], *, needed: int) -> bool:
        """Whether those who are left are as many as needed, and can open what those others shared."""
        return len(left) >= needed and all(
            len(self.group(member, left)) >= self.topology.threshold for member in opened
        )


class Unmasker:
    """What a server keeps of a finished set-up, and what it can open with it.

    Args:
        wiring: of the cohort.
        session: the round's digest.
        keyed: who advertised a key; a backup holds a seed for each of its maker's neighbours among them.
        shares: commitments and backups of those who completed the set-up.
    """

    def __init__(self, wiring: Wiring, session: bytes, keyed: Container[int], shares: Mapping[int, Shares]) -> None:
        self._wiring = wiring
        self._session = session
        self._keyed = keyed
        self._shares = shares
        self._places = {
            holder: {member: place for place, member in enumerate(wiring.group(holder, shares))} for holder in shares
        }

    def unmask(
        self,
        ring: Ring,
        *,
        step: int,
        request: bytes,
        survivors: AbstractSet[int],
        openings: Mapping[int, bytes],
    ) -> None:
        """Take all masks that did not cancel out of a sum, in place.

        Args:
            ring: the sum of the survivors' contributions.
            step: its number.
            request: what it asked for, see :func:`protocols.keys.request_context`.
            survivors: whose contributions are in it.
            openings: by holder, the shares it answered with: of the pair secrets of those who are gone, and of the
                self secrets of the survivors.

        Raises:
            ShareError: the shares do not open what was committed to or backed up.
        """
        added, subtracted = list[bytes](), list[bytes]()
        for member in sorted(survivors):
            added.append(self_mask_key(self_secret(self._open_self(member, step, openings)), request))
        for member in sorted(self._shares.keys() - survivors):
            peers = self._wiring.peers(member, self._keyed)
            for peer, seed in zip(peers, self._open_seeds(member, step, openings), strict=True):
                if peer in survivors:
                    # A survivor added the mask it shares with a member above it, and subtracted it with one below.
                    (added if member > peer else subtracted).append(pair_mask_key(seed, request))
        apply_masks(ring, add=subtracted, subtract=added)

    def _open_self(self, member: int, step: int, openings: Mapping[int, bytes]) -> int:
        """A survivor's self secret, checked against its commitment."""
        start = step * COMMITMENT_BYTES
        committed = self._shares[member].commitments[start : start + COMMITMENT_BYTES]
        for secret in self._secrets(member, openings):
            if commit(self._session, member, step, secret) == committed:
                return secret
        raise ShareError(f"what opens member {member}'s self-mask is not what it committed to: {_SUSPECTS}")

    def _open_seeds(self, member: int, step: int, openings: Mapping[int, bytes]) -> list[bytes]:
        """The pairwise seeds of a member that is gone, from its backup."""
        backup = self._shares[member].backups[step]
        for secret in self._secrets(member, openings):
            try:
                return open_backup(backup, secret, self._session, member, step)
            except ShareError:
                continue
        raise ShareError(f"what opens member {member}'s backup does not fit it: {_SUSPECTS}")

    def _secrets(self, member: int, openings: Mapping[int, bytes]) -> Iterator[int]:
        """Whichever of a member's two secrets the holders of its shares answered with, as often as it can be told.

        First from as many holders as are needed; then, for the case that one of them gave a wrong share, with each of
        them replaced in turn by one that is to spare.
        """
        threshold = self._wiring.topology.threshold
        answered = self._wiring.group(member, openings)
        first, spare = answered[:threshold], answered[threshold:]
        yield from self._combined(member, first, openings)
        if spare:
            for left_out in first:
                holders = [*(holder for holder in first if holder != left_out), spare[0]]
                yield from self._combined(member, holders, openings)

    def _combined(self, member: int, holders: Sequence[int], openings: Mapping[int, bytes]) -> Iterator[int]:
        """What these holders' shares open; nothing where one of them is no share."""
        shares = b"".join(self._share(holder, member, openings) for holder in holders)
        try:
            elements = from_bytes(shares)
        except ShareError:
            return
        yield combine(elements, _weights(tuple(self._wiring.points[holder] for holder in holders)))

    def _share(self, holder: int, member: int, openings: Mapping[int, bytes]) -> bytes:
        start = SHARE_BYTES * self._places[holder][member]
        return openings[holder][start : start + SHARE_BYTES]


@lru_cache(maxsize=256)
def _weights(points: tuple[int, ...]) -> list[int]:
    """Lagrange coefficients: survivors rarely change from one step to the next, nor from member to member."""
    return opening_weights(points)
