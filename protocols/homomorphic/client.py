"""A client of homomorphic sums, whoever holds the key: takes an offer, encrypts vectors, vouches for them."""

from __future__ import annotations

import enum
from abc import abstractmethod
from collections.abc import Sequence
from concurrent.futures import Executor

from protocols import snapshots, wire
from protocols.encoding import Values
from protocols.errors import CohortError, PhaseError, RosterError, StepError
from protocols.homomorphic.parameters import Scheme
from protocols.homomorphic.planning import plan_streams
from protocols.homomorphic.secrets import round_session
from protocols.homomorphic.vectors import Key, encrypt_vector
from protocols.homomorphic.vouchers import Notary
from protocols.keys import RoundKey, advertisement, request_context
from protocols.machines import Credentials, SumClient
from protocols.steps import ClientSteps, check_offer, check_roster, too_few
from protocols.terms import MAX_COHORT, Terms, check_cohort


class State(enum.Enum):
    """What a client waits for."""

    OFFER = enum.auto()
    KEYS = enum.auto()
    GRANT = enum.auto()
    READY = enum.auto()
    CLOSED = enum.auto()


class HomomorphicClient(SumClient):
    """What clients do alike; subclasses say how they come by keys, and what they are sent.

    Args:
        member: this client's number.
        name: of the protocol.
        scheme: BFV or CKKS.
        public: whether the vectors are encrypted with a public key.
        terms: of the round.
        credentials: of this client.
        executor: processes that share the encryption.
    """

    def __init__(
        self,
        member: int,
        name: str,
        *,
        scheme: Scheme,
        public: bool,
        terms: Terms,
        credentials: Credentials,
        executor: Executor | None = None,
    ) -> None:
        (self._member,) = check_cohort([member])
        if not credentials.roster.holds(member, credentials.identity.public_key):
            raise RosterError(f"member {member} is not on its own roster with this identity")
        self._name = name
        self._terms = terms
        self._credentials = credentials
        self._executor = executor
        self._plans = plan_streams(scheme, terms, public=public)
        self._steps = ClientSteps(terms)
        self._state = State.OFFER
        self._round_id = b""
        self._session = b""
        self._cohort: tuple[int, ...] = ()
        self._needed = 0
        self._members: frozenset[int] = frozenset()
        self._round_key: RoundKey | None = None
        self._notary: Notary | None = None
        self._held = b""
        """What this client knows, where clients open sums."""
        self._contributed = -1
        """The latest step that it contributed to."""

    @property
    def member(self) -> int:
        return self._member

    # What subclasses add

    @abstractmethod
    def _key(self, stream: str) -> Key:
        """What a stream's vectors are encrypted with."""

    @abstractmethod
    def _expected(self) -> tuple[type[wire.Message], ...]:
        """Messages that the present state can take, aborts aside."""

    @abstractmethod
    def _frame_limit(self) -> int:
        """Longest frame in the present state."""

    @abstractmethod
    def _take(self, message: wire.Message) -> bytes | None:
        """Take a message of one of those kinds."""

    @abstractmethod
    def _kept(self) -> list[bytes]:
        """What else a snapshot keeps."""

    @abstractmethod
    def _forget(self) -> None:
        """Wipe what is secret."""

    # The round

    def receive(self, message: bytes) -> bytes | None:
        if self._state is State.CLOSED:
            raise PhaseError("this round is closed")
        if self._state is State.OFFER:
            return self._take_offer(wire.decode(message, wire.Offer, limit=128 + 5 * MAX_COHORT))
        decoded = wire.decode(
            message, *self._expected(), wire.Abort, round_id=self._round_id, limit=self._frame_limit()
        )
        if isinstance(decoded, wire.Abort):
            self._take_abort(decoded)
        if isinstance(decoded, wire.StepRequest):
            self._steps.accept(decoded)
            return None
        return self._take(decoded)

    def _take_offer(self, offer: wire.Offer) -> bytes:
        cohort = check_offer(offer, self._member, self._terms, self._name)
        check_roster(cohort, self._terms, self._credentials.roster)
        self._terms.topology(len(cohort))
        self._credentials.rounds.claim(offer.round_id)
        self._join(offer.round_id, cohort)
        self._round_key = RoundKey()
        public_key = self._round_key.public_key
        signature = self._credentials.identity.sign(advertisement(self._session, self._member, public_key))
        self._state = State.KEYS
        return wire.encode(wire.Advertise(offer.round_id, self._member, public_key, signature))

    def _join(self, round_id: bytes, cohort: tuple[int, ...]) -> None:
        """Take note of the round: everything below is bound to these."""
        self._session, self._needed = round_session(
            round_id,
            cohort,
            name=self._name,
            terms=self._terms,
            roster=self._credentials.roster,
            plans=self._plans,
        )
        self._round_id, self._cohort = round_id, cohort

    def _check_members(self, members: Sequence[int]) -> frozenset[int]:
        """Who completed the set-up, if that can be."""
        found = frozenset(check_cohort(members))
        if not found <= set(self._cohort) or self._member not in found:
            raise CohortError("those who completed the set-up are not members of the cohort, or lack this client")
        if len(found) < self._needed:
            raise too_few(len(found), self._needed)
        return found

    def _begin(self, members: frozenset[int], notary: Notary) -> None:
        """The set-up is finished."""
        self._members, self._notary = members, notary
        if self._round_key is not None:
            self._round_key.forget()
        self._state = State.READY

    def contribute(self, values: Values, *, stream: str, weight: int | None = None, context: bytes = b"") -> bytes:
        if self._state is not State.READY or self._notary is None:
            raise PhaseError("the set-up of this round is not finished, or the round is closed")
        request, (ring, report) = self._steps.encode(values, stream=stream, weight=weight, context=context)
        plan = self._plans[stream]
        encrypted = encrypt_vector(plan, ring, self._key(stream), executor=self._executor)
        self._credentials.rounds.claim_step(self._round_id, request.step)
        self._steps.pending, self.report = None, report
        self._contributed = request.step
        sealed, signature = self._notary.vouch(
            plan,
            encrypted,
            member=self._member,
            request=request_context(request.step, stream, request.values, request.context),
            state=self._held,
            identity=self._credentials.identity,
        )
        message = wire.Ciphertexts(
            self._round_id, self._member, request.step, sealed, signature, memoryview(encrypted.body)
        )
        return wire.encode(message)

    def _take_abort(self, message: wire.Abort) -> None:
        if message.step is None:
            self.close()
        elif message.step != self._steps.last:
            raise StepError(f"step {message.step}, which is given up, is not the one going on")
        else:
            self._steps.pending = None
        error = too_few(message.survivors, message.needed)
        if self._may_be_open(message.step):
            error.asked_to_open = tuple(sorted(self._members))
        raise error

    def _may_be_open(self, step: int | None) -> bool:
        """Whether the server may have learnt the sum of a step that it says is given up."""
        return False

    def close(self) -> None:
        self._forget()
        if self._round_key is not None:
            self._round_key.forget()
        self._notary = None
        self._state = State.CLOSED

    def snapshot(self, key: bytes) -> bytes:
        snapshots.check_key(key)
        if self._state is not State.READY or self._steps.pending is not None:
            raise PhaseError("a snapshot is taken between two steps")
        state = SavedClient(
            member=self._member,
            round_id=self._round_id,
            session=self._session,
            cohort=list(self._cohort),
            members=sorted(self._members),
            last_step=self._steps.last,
            secrets=self._kept(),
        )
        return snapshots.seal_state(state, key, self._terms.digest(self._name))

    def _rejoin(self, state: SavedClient) -> None:
        """Be where a snapshot was taken.

        Raises:
            RosterError: it was made under another roster.
        """
        self._join(state.round_id, tuple(state.cohort))
        if self._session != state.session:
            raise RosterError("the snapshot was made under another roster")
        self._steps.last = self._contributed = state.last_step


class SavedClient(snapshots.SecretState):
    """What a client's snapshot encrypts."""

    member: int
    round_id: bytes
    session: bytes
    cohort: list[int]
    members: list[int]
    last_step: int
    secrets: list[bytes]
