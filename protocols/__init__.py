"""Sums of clients' vectors, each with a stated protection.

This package stands alone: it knows numpy, cryptography and msgspec (TenSEAL too, once a homomorphic sum is made), and
nothing of models, images or sockets. A sum is an encoding (:mod:`~protocols.encoding`), noise
(:mod:`~protocols.noise`) and a protection, each chosen by itself. A protection is a pair of state machines
(:mod:`~protocols.machines`) made by the protocol that :func:`make_protocol` gives for a name; what it protects against
whom is its ``threat_model``.

>>> import numpy as np
>>> from protocols import FixedPoint, Simulation, Terms, make_protocol
>>> terms = Terms(streams={"gradients": FixedPoint(clip=1.0, clients=3)}, steps=10)
>>> cohort = Simulation(make_protocol("masked"), [0, 1, 2], terms=terms)
>>> cohort.open()
>>> vectors = {member: np.array([0.5, -0.25 * member], dtype=np.float32) for member in range(3)}
>>> cohort.sum(vectors, stream="gradients").total.tolist()
[1.5, -0.75]
>>> cohort.close()
"""

from protocols.costs import Cost, Costs
from protocols.discrete_noise import DiscreteGaussianNoise, SkellamNoise
from protocols.driver import Dropouts, Envelope, Network, Simulation
from protocols.encoding import EncodingReport, FixedPoint
from protocols.errors import (
    AlreadyAnsweredError,
    CiphertextError,
    CohortError,
    ContributionError,
    EncodingError,
    EquivocationError,
    MessageError,
    NoiseBudgetError,
    OpeningError,
    PeerKeyError,
    PhaseError,
    ProtocolError,
    ReplicaError,
    RosterError,
    RoundReuseError,
    SenderError,
    ShareError,
    StepError,
    TermsError,
    TooFewSurvivorsError,
    UnknownProtocolError,
    VoucherError,
)
from protocols.keys import Identity, Roster
from protocols.machines import Credentials, Phase, SumAuthority, SumClient, SumProtocol, SumResult, SumServer
from protocols.noise import Noise, NoNoise
from protocols.parties import AUTHORITY, SERVER
from protocols.registry import available_protocols, make_protocol
from protocols.rounds import FileRoundLog, RoundLog
from protocols.terms import Terms
from protocols.threat import ThreatModel

__all__ = [
    "AUTHORITY",
    "SERVER",
    "AlreadyAnsweredError",
    "CiphertextError",
    "CohortError",
    "ContributionError",
    "Cost",
    "Costs",
    "Credentials",
    "DiscreteGaussianNoise",
    "Dropouts",
    "EncodingError",
    "EncodingReport",
    "Envelope",
    "EquivocationError",
    "FileRoundLog",
    "FixedPoint",
    "Identity",
    "MessageError",
    "Network",
    "NoNoise",
    "Noise",
    "NoiseBudgetError",
    "OpeningError",
    "PeerKeyError",
    "Phase",
    "PhaseError",
    "ProtocolError",
    "ReplicaError",
    "Roster",
    "RosterError",
    "RoundLog",
    "RoundReuseError",
    "SenderError",
    "ShareError",
    "Simulation",
    "SkellamNoise",
    "StepError",
    "SumAuthority",
    "SumClient",
    "SumProtocol",
    "SumResult",
    "SumServer",
    "Terms",
    "TermsError",
    "ThreatModel",
    "TooFewSurvivorsError",
    "UnknownProtocolError",
    "VoucherError",
    "available_protocols",
    "make_protocol",
]
