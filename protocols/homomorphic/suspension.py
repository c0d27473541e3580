"""A client that holds the shared key, between any two messages, sealed; see :mod:`protocols.suspension`.

It reads and sets what is the machine's own, so it is to be changed together with the two modules of its classes.
"""

from __future__ import annotations

from protocols import snapshots
from protocols.errors import MessageError, PhaseError, RosterError
from protocols.homomorphic.client import State
from protocols.homomorphic.shared_key import SharedKeyClient
from protocols.keys import Secret
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


class SuspendedClient(snapshots.SecretState):
    """What :func:`suspend` encrypts. The latest sum is not in it: it is read when it arrives."""

    member: int
    state: str
    round_id: bytes
    session: bytes
    cohort: list[int]
    members: list[int]
    steps: StoredSteps
    contributed: int
    opened: int
    held: bytes
    round_key: bytes | None
    pairs: Pairs
    root: bytes


def suspend(client: SharedKeyClient, key: bytes) -> bytes:
    """The client's state, sealed; the machine is closed.

    Raises:
        PhaseError: it has taken no offer, or the round is over.
        MessageError: the key has not 32 bytes.
    """
    snapshots.check_key(key)
    if client._state in (State.OFFER, State.CLOSED):
        raise PhaseError("a client is suspended within a round: it has taken no offer, or the round is over")
    state = SuspendedClient(
        member=client._member,
        state=client._state.name,
        round_id=client._round_id,
        session=client._session,
        cohort=list(client._cohort),
        members=sorted(client._members),
        steps=stored_steps(client._steps),
        contributed=client._contributed,
        opened=client._opened,
        held=client._held,
        round_key=stored_key(client._round_key),
        pairs=stored_pairs(client._pairs),
        root=b"" if client._state is State.KEYS else bytes(client._root.value),
    )
    sealed = snapshots.seal_state(state, key, bound_to(client._terms.digest(client._name)))
    client.close()
    return sealed


def resume(client: SharedKeyClient, state: SuspendedClient) -> None:
    """Make a fresh machine what the suspended one was.

    Raises:
        RosterError: another roster.
        MessageError: another version of this package suspended it.
    """
    client._join(state.round_id, tuple(state.cohort))
    if client._session != state.session:
        raise RosterError("the client was suspended under another roster")
    if state.state not in State.__members__:
        raise MessageError("the client was suspended by another version of this package")
    put_back(client._steps, state.steps, state.round_id)
    client._contributed, client._opened, client._held = state.contributed, state.opened, state.held
    client._round_key, client._pairs = key_from(state.round_key), pairs_from(state.pairs)
    client._root = Secret(state.root)
    client._state = State[state.state]
    if client._state is State.READY:
        client._enter(frozenset(state.members))
