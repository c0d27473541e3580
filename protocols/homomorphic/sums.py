"""Homomorphic sums as protocols: BFV or CKKS, with the key at all clients or at an authority."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor
from typing import ClassVar, Literal

from protocols import snapshots
from protocols.errors import PhaseError
from protocols.homomorphic.authority import KeyAuthority, SavedAuthority
from protocols.homomorphic.client import SavedClient
from protocols.homomorphic.granted_key import GrantedKeyClient
from protocols.homomorphic.granted_key_server import GrantedKeyServer
from protocols.homomorphic.parameters import Scheme
from protocols.homomorphic.server import HomomorphicServer, SavedServer
from protocols.homomorphic.shared_key import SharedKeyClient
from protocols.homomorphic.shared_key_server import SharedKeyServer
from protocols.homomorphic.suspension import SuspendedClient, resume, suspend
from protocols.keys import Roster
from protocols.machines import Credentials, SumAuthority, SumClient, SumProtocol, SumServer, required
from protocols.suspension import bound_to
from protocols.terms import Terms
from protocols.threat import ThreatModel

_ROUNDED = (
    "Sums leave their key holder as whole numbers with every error of the encryption rounded off: decryptions at full "
    "precision would give the key away to whoever also holds the ciphertexts (Li and Micciancio 2021, IND-CPA-D)."
)
_ASSUMES = (
    "A roster that reached every party on a way the server does not control; honest parties' operating-system "
    "randomness and private memory; decisional ring learning with errors at the sizes of "
    "protocols.homomorphic.parameters (128 bits); X25519, Ed25519, AES-256, HMAC and HKDF with SHA-256, and SEAL's "
    "BLAKE2Xb with public seeds; Microsoft SEAL as it comes with "
    "TenSEAL; a transport that tells the server truthfully who sent what. " + _ROUNDED
)
SHARED_KEY = ThreatModel(
    passive_server=(
        "Who takes part, lengths and times; no vector, no sum, and nothing that clients compute from sums (such as the "
        "dreams of a replicated optimiser)."
    ),
    active_server=(
        "The same. It chooses who is in a sum, but a sum that is not one of enough signed contributions to one request "
        "is refused by every client before it is decrypted. It can show clients different ones of a step's possible "
        "sums, so that what they hold differs; a client that says what it knows before each step (SumClient.hold) "
        "refuses the next sum in which somebody knows otherwise. After the last sum of all nothing is compared. It can "
        "withhold sums."
    ),
    clients=(
        "The sums. All of them hold the secret key: one that also sees the ciphertexts, on the network or at the "
        "server, opens every single vector. One that deviates can make a sum wrong, or have it refused by everybody "
        "without being named."
    ),
    collusion=(
        "One client that colludes with the server opens everything of everybody. Use it among clients who trust each "
        "other with their vectors and do not trust the server; otherwise the masked protocol."
    ),
    dropouts=(
        "Any may vanish before the sum; up to floor(dropout * n) in all, or the step is given up. Sums of the same "
        "vectors over different contributors differ by exactly the missing one's vector, for the clients to see."
    ),
    outsider="Whatever the server learns: who takes part, lengths and times, but no vector and no sum.",
    assumes=_ASSUMES,
)
GRANTED_KEY = ThreatModel(
    passive_server=(
        "The sum over each step's contributors, who they are, and nothing else of any vector. The authority learns the "
        "same."
    ),
    active_server=(
        "One sum a step, over at least all but floor(dropout * n) distinct members of a cohort that it chooses "
        "(without terms.active or terms.min_cohort, any cohort that the terms allow), who signed for the same request. "
        "It can have the same vectors summed in two steps or rounds over different members, if clients answer twice; "
        "the difference is single vectors. So clients must not answer the same question twice, whatever the server "
        "says became of the first (see ProtocolError.asked_to_open)."
    ),
    clients=(
        "Those that follow the protocol learn nothing of each other; the sum, if the server passes it on. One that "
        "deviates can make a sum wrong, or have it refused without being named, and a sum that it is shown can hold "
        "the secret key: nobody checks that what clients send are well-formed encryptions."
    ),
    collusion=(
        "One client that deviates, is shown one opened sum and gets hold of ciphertexts (from the server, or off the "
        "network) opens every vector of the round. Together with a server that deviates it needs no key: it "
        "contributes what others sent, with another sign or from an earlier step. n - 1 clients that only look know "
        "the last one's vector from any sum of all. Server and authority together open everything; so does the "
        "authority alone if it reads the network. Where clients may deviate, use the masked protocol."
    ),
    dropouts=(
        "Any may vanish before the sum; up to floor(dropout * n) in all, or the step is given up. If the authority "
        "vanishes the step fails and may have been opened (ProtocolError.asked_to_open). Sums of the same vectors over "
        "different contributors differ by exactly the missing one's vector, for the server to see."
    ),
    outsider=(
        "Whatever the server learns: on the way from the authority sums travel in clear, though signed. Encrypt that "
        "link if they are private."
    ),
    assumes="An authority that follows the protocol and works with nobody. " + _ASSUMES,
)


class HomomorphicSum(SumProtocol):
    """A scheme with a key that all clients hold; see :mod:`protocols.homomorphic`.

    Args:
        executor: processes that share the encryption of long vectors, such as a
            :class:`concurrent.futures.ProcessPoolExecutor`; None encrypts in the calling process. They are sent keys
            and plaintexts through pipes.
    """

    scheme: ClassVar[Scheme]
    needs_credentials: ClassVar[bool] = True
    opened_by: ClassVar[Literal["server", "clients"]] = "clients"
    threat_model: ClassVar[ThreatModel] = SHARED_KEY
    client_kind: ClassVar[type[SharedKeyClient] | type[GrantedKeyClient]] = SharedKeyClient
    server_kind: ClassVar[type[HomomorphicServer]] = SharedKeyServer

    def __init__(self, executor: Executor | None = None) -> None:
        self._executor = executor

    def client(
        self, member: int, *, terms: Terms, credentials: Credentials | None = None
    ) -> SharedKeyClient | GrantedKeyClient:
        return self.client_kind(
            member,
            self.name,
            scheme=self.scheme,
            terms=terms,
            credentials=required(credentials, "credentials"),
            executor=self._executor,
        )

    def server(
        self, cohort: Sequence[int], *, terms: Terms, round_id: bytes, roster: Roster | None = None
    ) -> HomomorphicServer:
        return self.server_kind(
            cohort, self.name, scheme=self.scheme, terms=terms, round_id=round_id, roster=required(roster, "roster")
        )

    def restore_client(
        self, snapshot: bytes, key: bytes, *, terms: Terms, credentials: Credentials | None = None
    ) -> SumClient:
        state = snapshots.unseal_state(snapshot, key, SavedClient, terms.digest(self.name))
        client = self.client(state.member, terms=terms, credentials=credentials)
        client.resume(state)
        return client

    def suspend_client(self, client: SumClient, key: bytes) -> bytes:
        if not isinstance(client, SharedKeyClient):
            raise PhaseError(f"a client of {self.name} sums cannot be suspended: keep its process alive")
        return suspend(client, key)

    def resume_client(
        self, suspended: bytes, key: bytes, *, terms: Terms, credentials: Credentials | None = None
    ) -> SumClient:
        state = snapshots.unseal_state(suspended, key, SuspendedClient, bound_to(terms.digest(self.name)))
        client = self.client(state.member, terms=terms, credentials=credentials)
        if not isinstance(client, SharedKeyClient):
            raise PhaseError(f"a client of {self.name} sums cannot be resumed")
        resume(client, state)
        return client

    def restore_server(self, snapshot: bytes, *, terms: Terms, roster: Roster | None = None) -> SumServer:
        state = snapshots.unpack(snapshot, SavedServer, terms.digest(self.name))
        server = self.server(state.cohort, terms=terms, round_id=state.round_id, roster=roster)
        server.resume(state)
        return server


class AuthoritySum(HomomorphicSum):
    """A scheme with a key that an authority holds; see :class:`HomomorphicSum`."""

    has_authority: ClassVar[bool] = True
    opened_by: ClassVar[Literal["server", "clients"]] = "server"
    threat_model: ClassVar[ThreatModel] = GRANTED_KEY
    client_kind: ClassVar[type[SharedKeyClient] | type[GrantedKeyClient]] = GrantedKeyClient
    server_kind: ClassVar[type[HomomorphicServer]] = GrantedKeyServer

    def authority(self, *, terms: Terms, credentials: Credentials | None = None) -> KeyAuthority:
        return KeyAuthority(
            self.name, scheme=self.scheme, terms=terms, credentials=required(credentials, "credentials")
        )

    def restore_authority(
        self, snapshot: bytes, key: bytes, *, terms: Terms, credentials: Credentials | None = None
    ) -> SumAuthority:
        state = snapshots.unseal_state(snapshot, key, SavedAuthority, terms.digest(self.name))
        authority = self.authority(terms=terms, credentials=credentials)
        authority.resume(state)
        return authority


class BfvSum(HomomorphicSum):
    """BFV, every client holding the key."""

    name: ClassVar[str] = "bfv"
    scheme: ClassVar[Scheme] = "bfv"


class CkksSum(HomomorphicSum):
    """CKKS, every client holding the key."""

    name: ClassVar[str] = "ckks"
    carries_noise: ClassVar[bool] = False
    scheme: ClassVar[Scheme] = "ckks"


class BfvAuthoritySum(AuthoritySum):
    """BFV, an authority holding the key."""

    name: ClassVar[str] = "bfv-authority"
    scheme: ClassVar[Scheme] = "bfv"


class CkksAuthoritySum(AuthoritySum):
    """CKKS, an authority holding the key."""

    name: ClassVar[str] = "ckks-authority"
    carries_noise: ClassVar[bool] = False
    scheme: ClassVar[Scheme] = "ckks"
