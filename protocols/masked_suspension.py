"""A masked client between any two messages, as a state that is sealed; see :mod:`protocols.suspension`.

It reads and sets what is the machine's own, so it is to be changed together with :mod:`protocols.masked_client`.
"""

from __future__ import annotations

from protocols import snapshots
from protocols.errors import MessageError, PhaseError, RosterError
from protocols.holdings import Holdings
from protocols.keys import Secret
from protocols.machines import Credentials
from protocols.masked_client import MaskedClient, _State
from protocols.suspension import (
    Pairs,
    StoredSteps,
    bound_to,
    key_from,
    pairs_from,
    put_back,
    stored_key,
    stored_pairs,
    stored_steps,
)
from protocols.terms import Terms


class _Suspended(snapshots.SecretState):
    """What :func:`suspend` encrypts."""

    member: int
    state: str
    round_id: bytes
    session: bytes
    cohort: list[int]
    members: list[int]
    steps: StoredSteps
    masked: int
    answered: int
    asked: bytes
    agreed: list[int] | None
    round_key: bytes | None
    pairs: Pairs
    next_step: int
    roots: dict[int, bytes]
    selves: list[bytes]
    batches: dict[int, bytes]


def suspend(client: MaskedClient, key: bytes) -> bytes:
    """The client's state, sealed; the machine is closed.

    Raises:
        PhaseError: it has taken no offer, or the round is over.
        MessageError: the key has not 32 bytes.
    """
    snapshots.check_key(key)
    if client._state in (_State.OFFER, _State.CLOSED):
        raise PhaseError("a client is suspended within a round: it has taken no offer, or the round is over")
    holdings = client._holdings
    state = _Suspended(
        member=client._member,
        state=client._state.name,
        round_id=client._round_id,
        session=client._session,
        cohort=list(client._cohort),
        members=sorted(client._members),
        steps=stored_steps(client._steps),
        masked=client._masked,
        answered=client._answered,
        asked=client._asked,
        agreed=None if client._agreed is None else list(client._agreed),
        round_key=stored_key(client._round_key),
        pairs=stored_pairs(client._pairs),
        next_step=holdings.next_step,
        roots={peer: bytes(root.value) for peer, root in holdings.roots.items()},
        # Those of earlier steps have been wiped.
        selves=[bytes(secret.value) for secret in holdings.selves[holdings.next_step :]],
        batches={member: bytes(batch) for member, batch in holdings.batches.items()},
    )
    sealed = snapshots.seal_state(state, key, bound_to(client._terms.digest(client.protocol)))
    client.close()
    return sealed


def resume(suspended: bytes, key: bytes, *, terms: Terms, credentials: Credentials) -> MaskedClient:
    """The client that :func:`suspend` took apart.

    Raises:
        MessageError: another key, other terms, or damage.
        RosterError: another roster, or the identity is not the member's.
    """
    bound = bound_to(terms.digest(MaskedClient.protocol))
    state = snapshots.unseal_state(suspended, key, _Suspended, bound)
    client = MaskedClient(state.member, terms=terms, credentials=credentials)
    client._enter(state.round_id, tuple(state.cohort), terms.topology(len(state.cohort)))
    if client._session != state.session:
        raise RosterError("the client was suspended under another roster")
    if state.state not in _State.__members__:
        raise MessageError("the client was suspended by another version of this package")
    client._state = _State[state.state]
    client._members = frozenset(state.members)
    put_back(client._steps, state.steps, state.round_id)
    client._masked, client._answered, client._asked = state.masked, state.answered, state.asked
    client._agreed = None if state.agreed is None else tuple(state.agreed)
    client._round_key, client._pairs = key_from(state.round_key), pairs_from(state.pairs)
    client._holdings = Holdings(
        state.member,
        roots={peer: Secret(root) for peer, root in state.roots.items()},
        selves=[Secret(b"")] * state.next_step + [Secret(secret) for secret in state.selves],
        batches={member: bytearray(batch) for member, batch in state.batches.items()},
        next_step=state.next_step,
    )
    return client
