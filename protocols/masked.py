"""Masked secure aggregation: the server learns the sum over the survivors of a step, and no vector.

Without ``terms.active`` that holds for a server that follows the protocol, with it for any other, too.

After Bonawitz et al. (CCS 2017) and SecAgg+ (Bell et al., CCS 2020), with keys set up once for many steps in a row (as
in Flamingo, Ma et al., S&P 2023). To read it from the ground up: :mod:`~protocols.keys`, :mod:`~protocols.graph`,
:mod:`~protocols.masks`, :mod:`~protocols.shares`, :mod:`~protocols.openings`, :mod:`~protocols.holdings`, this module,
:mod:`~protocols.masked_client`, :mod:`~protocols.masked_server`, :mod:`~protocols.unmasking`.

**What a client sends at step t** is, in the ring,

    y_i = encode(x_i) + PRG(self_i,t) + sum over neighbours j > i of PRG(pair_ij,t) - sum over j < i of PRG(pair_ij,t)

Pairwise masks cancel in the sum. The self-mask is what protects a vector that arrives after its sender was given up
for dead and its pairwise masks were opened. Both depend on what the step asks for (step, stream, length and context),
so they cancel only among clients that were asked for the same.

**What opens it.** For every step each client has two fresh secrets: a *self* secret, from which its self-mask comes,
and a *pair* secret, under which all its pairwise seeds of that step lie encrypted at the server (its *backup*). Both
are Shamir-shared among its neighbours and itself at set-up, for all steps at once. A step is opened by one list: who is
*dead*. For each neighbour a client then gives exactly one share, of the pair secret of the dead and of the self secret
of everybody else, and answers once a step. Nothing that a server can say asks for both kinds.

Neighbours could instead hand over their seeds with the dead directly; but then one that vanishes between masking and
opening needs a second mechanism as its backup. Sharing the dead member's own pair secret serves both cases with one,
at 32 bytes a step and neighbour, once per round.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from protocols import masked_suspension
from protocols.errors import PhaseError
from protocols.keys import Roster
from protocols.machines import Credentials, SumClient, SumProtocol, SumServer, required
from protocols.masked_client import MaskedClient
from protocols.masked_server import MaskedServer
from protocols.terms import Terms
from protocols.threat import ThreatModel


class MaskedSum(SumProtocol):
    """Masked secure aggregation with dropouts; see the module."""

    name: ClassVar[str] = "masked"
    needs_credentials: ClassVar[bool] = True
    threat_model: ClassVar[ThreatModel] = ThreatModel(
        passive_server="The sum over each step's survivors, who they are, and nothing else of any vector.",
        active_server=(
            "With terms.active = true one sum a step, over survivors that enough clients have signed; with c colluders "
            "among them it is a sum over all but c of those. Any two such sets share an honest client (checked against "
            "terms.dropout and terms.corruption). With active = false a server that shows different clients different "
            "survivors can open a single vector: that mode is for servers that follow the protocol. In both modes it "
            "chooses what is asked for, the same for all contributors (see context in SumClient.contribute), and can "
            "make a sum wrong."
        ),
        clients="Nothing of each other; the sum, if the server passes it on. A client can make a sum wrong.",
        collusion=(
            "Colluders learn the sum over the others. Up to floor(corruption * n) of n clients may share all they know "
            "with the server; with as many as hold terms.topology(n).threshold shares they can open single vectors. "
            "n - 1 colluders know the last one's vector from any exact sum."
        ),
        dropouts=(
            "Up to floor(dropout * n) may vanish at any point and the survivors' sum is opened. If more are missing "
            "before the step is opened, it is given up and no share is sent; if they vanish while it is opened, shares "
            "are out that may still open it (see ProtocolError.asked_to_open). Sums of the same vectors over different "
            "survivors differ by exactly the missing one's vector."
        ),
        outsider="Whatever the server learns: who takes part, lengths, times and every sum, but no single vector.",
        assumes=(
            "A roster that reached every client on a way the server does not control; honest clients' operating-system "
            "randomness and private memory; X25519, Ed25519, AES-256 and SHA-256; a transport that tells the server "
            "truthfully who sent what."
        ),
    )

    def client(self, member: int, *, terms: Terms, credentials: Credentials | None = None) -> SumClient:
        return MaskedClient(member, terms=terms, credentials=required(credentials, "credentials"))

    def server(
        self, cohort: Sequence[int], *, terms: Terms, round_id: bytes, roster: Roster | None = None
    ) -> SumServer:
        return MaskedServer(cohort, terms=terms, round_id=round_id, roster=required(roster, "roster"))

    def restore_client(
        self, snapshot: bytes, key: bytes, *, terms: Terms, credentials: Credentials | None = None
    ) -> SumClient:
        return MaskedClient.restore(snapshot, key, terms=terms, credentials=required(credentials, "credentials"))

    def suspend_client(self, client: SumClient, key: bytes) -> bytes:
        if not isinstance(client, MaskedClient):
            raise PhaseError(f"client is a {type(client).__name__}: it is no client of masked sums")
        return masked_suspension.suspend(client, key)

    def resume_client(
        self, suspended: bytes, key: bytes, *, terms: Terms, credentials: Credentials | None = None
    ) -> SumClient:
        return masked_suspension.resume(suspended, key, terms=terms, credentials=required(credentials, "credentials"))

    def restore_server(self, snapshot: bytes, *, terms: Terms, roster: Roster | None = None) -> SumServer:
        return MaskedServer.restore(snapshot, terms=terms, roster=required(roster, "roster"))
