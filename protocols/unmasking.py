"""The wiring of a cohort, and how the masks that did not cancel are taken off a sum."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from functools import lru_cache

from protocols.encoding import Ring
from protocols.errors import ShareError
from protocols.graph import Topology, neighbours
from protocols.masks import apply_masks, pair_mask_key, self_mask_key
from protocols.openings import COMMITMENT_BYTES, commit, open_backup, points_of, self_secret
from protocols.shares import SHARE_BYTES, combine, from_bytes, opening_weights
from protocols.wire import Shares


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
            secret = self._open(member, openings)
            seeds = open_backup(self._shares[member].backups[step], secret, self._session, member, step)
            for peer, seed in zip(peers, seeds, strict=True):
                if peer in survivors:
                    # A survivor added the mask it shares with a member above it, and subtracted it with one below.
                    (added if member > peer else subtracted).append(pair_mask_key(seed, request))
        apply_masks(ring, add=subtracted, subtract=added)

    def _open_self(self, member: int, step: int, openings: Mapping[int, bytes]) -> int:
        """A survivor's self secret, checked against its commitment."""
        secret = self._open(member, openings)
        start = step * COMMITMENT_BYTES
        committed = self._shares[member].commitments[start : start + COMMITMENT_BYTES]
        if commit(self._session, member, step, secret) != committed:
            raise ShareError(f"the shares of member {member}'s self-mask do not open what it committed to")
        return secret

    def _open(self, member: int, openings: Mapping[int, bytes]) -> int:
        """Whichever of a member's two secrets the holders of its shares answered with."""
        holders = self._wiring.group(member, openings)[: self._wiring.topology.threshold]
        shares = b"".join(self._share(holder, member, openings) for holder in holders)
        return combine(from_bytes(shares), _weights(tuple(self._wiring.points[holder] for holder in holders)))

    def _share(self, holder: int, member: int, openings: Mapping[int, bytes]) -> bytes:
        start = SHARE_BYTES * self._places[holder][member]
        return openings[holder][start : start + SHARE_BYTES]


@lru_cache(maxsize=256)
def _weights(points: tuple[int, ...]) -> list[int]:
    """Lagrange coefficients: survivors rarely change from one step to the next, nor from member to member."""
    return opening_weights(points)
